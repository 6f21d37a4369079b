"""Training runs of the reference's own trainer, with its criterion and with the twin."""
