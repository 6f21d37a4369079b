"""The loss as operators that torch knows, so that ``torch.compile(fullgraph=True)`` and ``torch.export`` see it as one node.

A backend decides by values what it does next, and answers with as many anchors as are held. A tracer can follow neither. While one traces,
a loss therefore calls one operator, which is opaque to it and serves every task and every backend; outside of a trace nothing changes::

    loss(preds, batch)
    ├─ eager      admit → choose_backend → evaluate                             (twinloss.loss, twinloss.backends)
    └─ tracing    twinloss::step(predictions, targets, numbers, grids, …)       (traced.py collects the arguments, step.py is the operator)
                  └─ the same admit → choose_backend → evaluate, without a gradient; the assignment comes back in S = N·K slots
       backward   twinloss::step_gradients(to_loss, …, predictions, targets, the slots)
                  └─ admit → evaluate on the slots' assignment, with a gradient

Both run what runs in eager mode, on the same tensors, so that loss and gradients have the same bits. One thing is not inside: the flow of
pose's likelihood term, which is the user's code. It is traced with the rest, on S·n points of which those that do not count are zeros, so
that its matrix products and sums may round otherwise.

Example: a batch has N = 2 boxes and K = 10, so S = 20 slots, whatever the logits are. Boxes 0 and 1 hold 3 and 1 anchors: ``anchor`` is
[4, 7, 9, 5, −1, …], ``box`` [0, 0, 0, 1, −1, …], ``weight`` [0.8, 0.3, 0.7, 0.6, 0, …] and ``count`` [4]. With another batch of N = 5 boxes
the same graph gives S = 50. (On Triton the slots are those of the kernels, with −1 anywhere.)

Why the gradients are not an output of ``step``: whether they must be scaled by what comes in, or computed again, is decided by values, and
an operator may not return what it was given, so that even a factor of 1 would copy tensors of the logits' size; and they would be held
between the passes. So the backward pass computes terms and gradients on the slots, in one pass over the logits, and the forward pass the
assignment and the terms alone.

Design:

- **One operator a step, not one a stage**: stages pass ragged lists to each other, whose lengths are data.
- **The definition is an argument.** What decides shapes and choices is a constant string (:mod:`~twinloss.operators.definition`): another
  one is another graph. Its real numbers (gains, exponents, class weights) are part of it, or a tensor where they may change from call to
  call, as they do in the hook.
- **Checks of values happen inside**, when the operator runs, and raise what they raise in eager mode.
- **Targets are saved, not copied**: changing them between the passes is an error, as it is for logits.
- The operators carry torch's tag ``cudagraph_unsafe``: which backend serves, whether values are read and whether the host waits are
  decided on the host, which a captured graph would not repeat.

Outside of a trace the operator is not used: its dispatch, and the second admission of the same inputs, would be felt on a small batch.

Shape suffixes: B images, A anchors, N rows of the batch, K picks per row, S = N·K slots, n keypoints, T terms.
"""
