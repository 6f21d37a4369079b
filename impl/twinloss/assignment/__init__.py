"""Which anchor learns from which box (spec section 5): :mod:`~twinloss.assignment.assign` is the entrance.

Ground truth (:mod:`~twinloss.assignment.ground_truth`) and predictions make the :mod:`~twinloss.assignment.scene`; its candidate pairs
(:mod:`~twinloss.assignment.candidates`) get their overlap from the policy that the definition names
(:mod:`~twinloss.assignment.overlaps`, :mod:`~twinloss.assignment.registry`).
"""
