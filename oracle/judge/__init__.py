"""Compares answers with the definition and gives verdicts: AGREE, AMBIGUOUS or DIFFER, stage by stage.

:class:`~oracle.judge.truth.Definition` holds the expected answers for one case; one module judges each kind of answer.
"""
