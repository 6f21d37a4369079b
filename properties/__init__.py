"""The properties of the loss: the differential run, generated batches, known differences, trainings, and the tests."""
