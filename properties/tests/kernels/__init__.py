"""The Triton kernels against the torch backend, the float64 definition and themselves.

These files run in a process of their own: on the host under Triton's interpreter, which has to be on before Triton is imported
(:mod:`properties.tests.impl.backends.test_triton` starts them so), or on a GPU (``nox -s gpu`` does). Pytest does not collect them by
itself.
"""
