"""The definition in float64, written to be read beside the specification. Start at :mod:`~oracle.definition.criterion`."""
