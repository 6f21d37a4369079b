"""Hypothesis' example database as a Ray actor, so that all workers share their examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase


class DatabaseActor:
    """Owns the database's folder on the driver's machine; to be made a Ray actor with ``ray.remote``."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.kept = DirectoryBasedExampleDatabase(folder)

    def save(self, key: bytes, value: bytes) -> None:
        """Saves a value under a key."""
        self.kept.save(key, value)

    def fetch(self, key: bytes) -> list[bytes]:
        """Returns all values under a key."""
        return list(self.kept.fetch(key))

    def delete(self, key: bytes, value: bytes) -> None:
        """Deletes a value."""
        self.kept.delete(key, value)


class SharedDatabase(ExampleDatabase):
    """The database in a worker's process, which calls the actor.

    Args:
        keeper: handle of the actor.
    """

    def __init__(self, keeper: Any) -> None:
        super().__init__()
        self.keeper = keeper

    def save(self, key: bytes, value: bytes) -> None:
        """Sends a value to the actor, and does not wait."""
        self.keeper.save.remote(key, value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Returns all values under a key."""
        import ray  # an optional group of dependencies

        found: list[bytes] = ray.get(self.keeper.fetch.remote(key))
        return found

    def delete(self, key: bytes, value: bytes) -> None:
        """Sends a deletion to the actor, and does not wait."""
        self.keeper.delete.remote(key, value)
