"""The report of the planted faults: the stage that detected each, and after how many batches."""
