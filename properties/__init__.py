"""What must hold: strategies, differential and metamorphic properties, bad input, and the tests of the suite itself."""
