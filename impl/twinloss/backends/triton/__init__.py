"""The loss as fused Triton kernels, one a file, with the answers of the torch backend.

:mod:`~twinloss.backends.triton.pipeline` lists the kernels in the order of their launches, with what each reads and writes, and
:mod:`~twinloss.backends.triton.segmentation` those that masks add. A file ``X.py`` that holds a kernel defines the kernel ``X_kernel`` and
the host function ``X`` that launches it; the other files hold functions that the kernels share. Nothing here is imported unless the Triton
backend is chosen, so that the package needs torch alone.

The anchors that may be held lie in N·K slots (N ground-truth rows, K picks each). Every size thus follows from tensor shapes, and the host
never waits for the device. Concurrent writes are maxima of integers, and sums are taken in a fixed order: every run gives the same bits.
"""
