"""The matrix: which features of the definition third-party implementations compute, and what they compute instead.

An example: the column ``kyolo 0.1.5``.

1. :mod:`~properties.matrix.packages` installs the package at its pinned version into a folder of its own. Its adapter makes a candidate of
   it, which runs in a process of its own (:mod:`oracle.isolated`).
2. :mod:`~properties.matrix.features` has directed batches for each feature of the definition. The candidate answers them all.
3. :mod:`oracle.comparison.explanations` finds the wrong definitions that together give its answers, here "sides never lengthened [5.1]".
4. :mod:`~properties.matrix.cells` makes a cell of each feature: the same, or what differs, with its counter-proof: on how many of the
   feature's batches the definition with all that differs gives the package's answers, and on how many without this difference.
"""
