"""The control of a run: sends units to workers, estimates ratios, writes rows."""
