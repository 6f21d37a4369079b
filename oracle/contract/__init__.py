"""What an implementation under test must offer, how it is called, and which verdicts there are.

Start at :class:`~oracle.contract.contender.Contender`. :mod:`~oracle.contract.verdict` holds the verdicts; :mod:`~oracle.contract.run`
calls a criterion in a setting.
"""
