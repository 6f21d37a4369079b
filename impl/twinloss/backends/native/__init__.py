"""The loss on a CPU, forward and backward in one pass over the logits each, in C++ that is compiled for several instruction sets.

``source/`` holds the arithmetic, one header for each part of the definition; :mod:`~twinloss.backends.native.instruction_sets` lists what
it is compiled for. A wheel of a platform holds the libraries; :mod:`~twinloss.backends.native.dispatch` finds the one for this machine.
:mod:`~twinloss.backends.native.library` loads it on the threads of torch (:mod:`~twinloss.backends.native.openmp`),
:mod:`~twinloss.backends.native.arguments` fills its arguments, and :mod:`~twinloss.backends.native.loss` makes its functions
differentiable.

Where no libraries were installed, the torch backend computes the loss, unless TWINLOSS_BUILD=1 asks for their compilation at the first use:
:mod:`~twinloss.backends.native.build` does it with the compiler of :mod:`~twinloss.backends.native.compiler` into a folder of
:mod:`~twinloss.backends.native.cache_folders`.
"""
