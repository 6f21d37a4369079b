"""What must hold in every variant of torch's vectorised functions: run in a process of its own, for the variant is chosen at its start."""
