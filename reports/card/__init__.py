"""The conformance card: of one contender, on one page, whether it is the loss, and where and when it is not."""
