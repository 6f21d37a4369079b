"""The loss on a CPU, forward and backward in one pass over the logits each, in C++ that the machine's own compiler builds at the first use.

``source/`` holds the arithmetic, one header for each part of the definition. :mod:`~twinloss.backends.native.build` compiles it with the
compiler of :mod:`~twinloss.backends.native.compiler` into a folder of :mod:`~twinloss.backends.native.cache_folders`;
:mod:`~twinloss.backends.native.library` loads it, :mod:`~twinloss.backends.native.arguments` fills its arguments, and
:mod:`~twinloss.backends.native.loss` makes its functions differentiable. Nothing is built on import or on installation; without a compiler
the torch backend computes the loss.
"""
