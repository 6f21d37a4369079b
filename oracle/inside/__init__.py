"""Code that runs in the process of an isolated candidate: imports numpy, torch, twinloss's records, and the modules of this package only.

The suite imports it as ``oracle.inside``; the candidate's process loads it by its folder under the name ``inside``, so that the judge, the
definition and the reference are on no path there (:mod:`oracle.isolated`).
"""
