"""What the answer should be, and whether an implementation's answer agrees with it.

The way in is :func:`oracle.comparison.compare.compare`: it takes a :class:`~oracle.cases.case.Case` (a batch as a small record), a
:class:`~oracle.cases.case.Setting` (dtype, device, autocast) and :class:`~oracle.contract.contender.Contender` records, and returns a
:class:`~oracle.contract.verdict.Verdict` for every stage of every contender.

The packages are layers: each imports only those to its left::

    cases < -contract < -definition, reference < -tolerance < -judge < -inference < -comparison

``ladder`` compares releases of the reference; ``ptx`` runs the Triton kernels' compiled code without a GPU.
"""
