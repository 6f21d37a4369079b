"""What a run measures: workloads, contenders, settings and how often. Nothing here measures."""
