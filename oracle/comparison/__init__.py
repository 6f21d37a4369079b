"""Runs contenders on a case and collects their verdicts: :func:`oracle.comparison.compare.compare` is the oracle's entry point."""
