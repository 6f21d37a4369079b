"""The Triton kernels: what a run on a GPU found, and what the compiler makes of them where there is none."""
