"""The contract of an implementation under test, the calls of its code, and the verdicts.

Start at :class:`~oracle.contract.contender.Contender`. :mod:`~oracle.contract.verdict` holds the verdicts; :mod:`~oracle.contract.run`
calls a criterion in a setting.
"""
