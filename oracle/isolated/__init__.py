"""Candidates in a process of their own, which has neither the judge nor the reference nor the answers in it.

An example: what happens to ``mine:make`` on a batch?

1. :func:`oracle.comparison.registry.load_candidate` starts a :class:`~oracle.isolated.candidate_process.CandidateProcess`: a fresh Python
   that loads :mod:`oracle.inside` from its folder and has no path to the suite. It imports ``mine`` and sends the attributes of ``make``.
2. A trial asks the contender's factory for a criterion. It gets an :class:`~oracle.isolated.criterion.IsolatedCriterion`, which looks like
   one that runs here: ``make(spec)`` ran in the candidate's process.
3. A call copies the inputs into the shared memory (:class:`oracle.inside.arena.Arena`). The candidate gets tensors in that memory, and its
   process puts loss, items and gradients behind them.
4. Here the answer is copied and checked; the memory of the inputs is compared with the inputs, and then filled with NaN.
5. A watchdog ends the process when the call takes too long. A process that ended is started again at the next call.

Verdicts, statistics and reports are computed here. What the candidate's process says of itself, without means for the judge to check it, is
whether a call changed the state of that process, and the warnings.
"""
