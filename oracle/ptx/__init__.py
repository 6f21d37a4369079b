"""An interpreter of PTX: runs compiled Triton kernels on the host, with the checks of a sanitizer. See ``README.md`` in this folder.

:func:`oracle.ptx.triton_device.running_on` runs every Triton launch of a block; ``pytest -p oracle.ptx.plugin`` those of a test run.
"""
