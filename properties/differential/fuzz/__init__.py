"""The differential search for as long as it is given, ``nox -s fuzz``: spread with Ray, every worker starting from what all found."""
