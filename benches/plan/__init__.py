"""The plan of a run: workloads, contenders, settings and numbers of samples. Nothing in this package measures."""
