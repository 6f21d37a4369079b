"""Messages between the judge and the process of a candidate: one JSON record each, sent with its length; tensors are in the arena."""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

Record = dict[str, Any]
LENGTH = struct.Struct("<Q")
LONGEST = 1 << 26
"""Largest number of bytes of a message; a longer one counts as the end of the stream."""


class Stream(Protocol):
    """A stream of bytes in both directions."""

    def read(self, size: int, /) -> bytes:
        """Returns ``size`` bytes, or fewer at the end of the stream."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes."""

    def flush(self) -> object:
        """Send buffered bytes."""


def send(stream: Stream, record: Record) -> None:
    """Write one message."""
    data = json.dumps(record).encode()
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: Stream) -> Record | None:
    """Read one message; returns ``None`` when the other side has closed the stream, even within a message, or sends no record."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size or LENGTH.unpack(head)[0] > LONGEST:
        return None
    (length,) = LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        return None
    try:
        record = json.loads(data)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
