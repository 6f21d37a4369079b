"""Runs contenders on a case and collects their verdicts: :func:`oracle.comparison.compare.compare` is the entrance of the whole oracle."""
