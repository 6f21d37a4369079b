"""Hypothesis' example database behind a Ray actor: what one worker finds worth keeping, all of them start from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase


class Keeper:
    """Holds the database's folder on the driver's machine; a Ray actor when decorated as one."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.kept = DirectoryBasedExampleDatabase(folder)

    def save(self, key: bytes, value: bytes) -> None:
        """Keep a value under a key."""
        self.kept.save(key, value)

    def fetch(self, key: bytes) -> list[bytes]:
        """Everything that is kept under a key."""
        return list(self.kept.fetch(key))

    def delete(self, key: bytes, value: bytes) -> None:
        """Forget a value."""
        self.kept.delete(key, value)


class SharedDatabase(ExampleDatabase):
    """The database as a worker sees it.

    Args:
        keeper: handle of the actor.
    """

    def __init__(self, keeper: Any) -> None:
        super().__init__()
        self.keeper = keeper

    def save(self, key: bytes, value: bytes) -> None:
        """Send a value on, without waiting for it to arrive."""
        self.keeper.save.remote(key, value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Ask for everything that is kept under a key."""
        import ray  # an optional group of dependencies

        found: list[bytes] = ray.get(self.keeper.fetch.remote(key))
        return found

    def delete(self, key: bytes, value: bytes) -> None:
        """Have a value forgotten."""
        self.keeper.delete.remote(key, value)
