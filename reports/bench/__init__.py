"""The bench run: what the loss costs, of every contender on the same batches."""
