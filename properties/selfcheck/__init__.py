"""The suite's checks of itself: planted faults, mutants, false alarms, sanitizers, sample candidates."""
