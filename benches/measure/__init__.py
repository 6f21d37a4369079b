"""Measurements in a worker process: times, peak memory, counts. :mod:`~benches.measure.worker` answers requests for them."""
