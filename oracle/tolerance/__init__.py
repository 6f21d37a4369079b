"""How far rounding may move each number, and which decisions it may tip.

:mod:`~oracle.tolerance.margins` bounds the error of overlaps and metrics, :mod:`~oracle.tolerance.allowed_assignments` derives the
assignments that a correct program may give, :mod:`~oracle.tolerance.loss_and_gradients` bounds terms and gradients.
"""
