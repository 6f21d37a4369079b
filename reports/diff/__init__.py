"""The report of the differential run: verdicts and errors of every contender, by stage."""
