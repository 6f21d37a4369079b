"""The report of the matrix: which features of the definition implementations in the field compute, and its committed texts."""
