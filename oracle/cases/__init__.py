"""Batches as small frozen records: :class:`~oracle.cases.case.Case` holds one, :mod:`~oracle.cases.logits` makes its predictions.

:mod:`~oracle.cases.workloads` reads real ground truth. Nothing here knows the loss.
"""
