"""Infers the assignment of an implementation that does not show it, from its gradients.

Start at :mod:`~oracle.inference.assignment`; :mod:`~oracle.inference.evidence` computes how likely each pair of anchor and box is.
"""
