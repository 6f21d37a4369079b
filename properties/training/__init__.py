"""``nox -s train``: trainings with the reference's trainer, once with its own criterion and once with the twin."""
