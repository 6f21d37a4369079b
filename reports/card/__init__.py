"""The conformance card: one page on whether a contender computes the loss, and on which stages and batches it differs."""
