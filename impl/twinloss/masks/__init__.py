"""Masks of instances: the pixels of a box, how a grid is read there, and what the true masks say (segmentation spec sections 1 and 4)."""
