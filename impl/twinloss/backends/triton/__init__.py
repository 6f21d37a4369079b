"""The loss as fused Triton kernels, one a file; the same answers as the torch backend.

Nothing here is imported unless the Triton backend is asked for, so that the package needs torch alone. The way of the data, one kernel
launch a line:

1. :mod:`~twinloss.backends.triton.decode`: every anchor's predicted box, in pixels; the scratch per anchor is cleared on the way. 2.
:mod:`~twinloss.backends.triton.candidates_and_softplus`: programs per ground-truth box walk its windows, keep its K best anchors and publish its overlaps; the
programs after those sum softplus over the class logits, which keeps the memory busy while a few large boxes finish. 3.
:mod:`~twinloss.backends.triton.merge`: the K best of the parts of each walk, where walks were parted. 4.
:mod:`~twinloss.backends.triton.resolve`: every anchor goes to one box; each box's largest metric and overlap. 5.
:mod:`~twinloss.backends.triton.second_topk`: the second cut, where the definition has one. 6. :mod:`~twinloss.backends.triton.held`: soft targets
and the terms over the held anchors. 7. :mod:`~twinloss.backends.triton.reduce_terms`: partial sums, in a fixed order, to the loss. 8.
:mod:`~twinloss.backends.triton.dense_gradient`: backward: the gradient of every class logit, and zeros for the box logits. 9.
:mod:`~twinloss.backends.triton.held_terms_gradient`: backward: what the held anchors change in both.

What may be held sits in N·K slots (N ground-truth rows, K picks each), so that every size follows from tensor shapes and the host never
waits for the device. Concurrent writes are integer maxima alone, and sums are taken in a fixed order: the same bits on every run.
"""
