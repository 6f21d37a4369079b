"""Tolerances: how far rounding may move each number, and which decisions it may tip.

:mod:`~oracle.tolerance.margins` bounds the error of overlaps and metrics, :mod:`~oracle.tolerance.allowed_assignments` derives the
assignments of correct programs, :mod:`~oracle.tolerance.loss_and_gradients` bounds the errors of terms and gradients.
"""
