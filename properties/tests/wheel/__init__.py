"""What an installed wheel with kernels must do; ``nox -s wheel`` and the workflow that builds wheels run it on the wheel."""
