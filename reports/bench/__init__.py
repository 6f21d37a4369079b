"""The report of a bench run: time and memory of every contender on the same batches."""
