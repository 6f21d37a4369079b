"""The differential run, ``nox -s diff``: every contender against the definition and the reference, on generated and on real batches."""
