"""Reports of the Triton kernels: a run on a GPU, the compiled kernels, and their memory traffic."""
