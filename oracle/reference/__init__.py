"""Ultralytics' criteria behind the contract of a contender. Only the modules here and ``oracle.ladder.inside`` import Ultralytics.

:class:`~oracle.reference.criterion.ReferenceCriterion` is the plain criterion, :mod:`~oracle.reference.end_to_end` that of end-to-end
heads, :mod:`~oracle.reference.training` its trainer.
"""
