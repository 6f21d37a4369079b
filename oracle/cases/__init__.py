"""Batches as small frozen records: :class:`~oracle.cases.case.Case` describes one, :mod:`~oracle.cases.logits` computes its predictions.

:mod:`~oracle.cases.workloads` reads real ground truth. Nothing here depends on the loss.
"""
