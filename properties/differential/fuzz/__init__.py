"""The differential search for a given time, ``nox -s fuzz``: on the workers of Ray, with an example database shared by all."""
