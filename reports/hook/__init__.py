"""The drop-in inside releases of the reference: how it was tried in each, and the outcome."""
