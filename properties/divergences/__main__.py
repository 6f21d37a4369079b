"""Write the register's table into the README: ``python -m properties.divergences``."""

from __future__ import annotations

from properties.divergences.table import README, inserted, markdown

README.write_text(inserted(README.read_text("utf-8"), markdown()), "utf-8")
