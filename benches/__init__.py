"""What the loss costs: time, memory and launches, of every contender on the same batches."""
