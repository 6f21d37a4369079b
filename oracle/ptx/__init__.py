"""The compiled kernels without a GPU: their PTX, run on the host with the checks of a sanitizer."""
