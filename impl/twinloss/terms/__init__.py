"""Terms of the loss, each a function of predictions and an assignment (spec section 7).

How a task plugs in:

1. its definition: a :class:`~twinloss.LossSpec` with further numbers (:mod:`twinloss.task_specs`), which names terms, geometry and overlap;
2. its inputs: a function in :data:`twinloss.inputs.tasks.FURTHER_INPUTS` that checks further predictions and targets and hands them on as
   ``call.extras``;
3. its geometry and its assigner's overlap, where they are its own: :mod:`twinloss.geometry.base`, :mod:`twinloss.assignment.registry`;
4. its terms: functions of :class:`~twinloss.terms.held.HeldAnchors` in :data:`twinloss.terms.registry.TERMS`, which return the sum or mean
   that the definition states, without gain and number of images;
5. its loss, a class of two lines in :mod:`twinloss.loss`.

Assignment, classification, distribution and distance are shared. A backend that fuses some terms leaves the others to torch
(:mod:`twinloss.backends.call`).
"""
