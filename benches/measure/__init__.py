"""What runs in a worker process: times, peak memory, counts. :mod:`~benches.measure.worker` answers requests."""
