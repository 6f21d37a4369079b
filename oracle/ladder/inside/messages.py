"""Messages between the suite and the process of a release: one JSON record and named arrays, each sent with its length.

Both sides import this module, which needs numpy only.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
FIELDS = "__fields__"
LENGTH = struct.Struct("<Q")


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Returns ``size`` bytes, or fewer at the end of the stream."""


class Writable(Protocol):
    """A sink of bytes."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes."""

    def flush(self) -> object:
        """Send buffered bytes."""


class Stream(Readable, Writable, Protocol):
    """A stream in both directions."""


class Message(NamedTuple):
    """One question or answer: fields that JSON can represent, and arrays by name."""

    fields: dict[str, Any]
    arrays: Arrays


def pack(message: Message, *, compress: bool = False) -> bytes:
    """Returns the message as the bytes of an npz archive without pickles."""
    buffer = io.BytesIO()
    fields = np.frombuffer(json.dumps(message.fields).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {FIELDS: fields, **message.arrays}
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> Message:
    """Inverse of :func:`pack`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Message(json.loads(arrays.pop(FIELDS).tobytes()), arrays)


def send(stream: Writable, message: Message) -> None:
    """Write one message."""
    data = pack(message)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: Readable) -> Message | None:
    """Read one message; returns ``None`` when the other side has closed the stream, even within a message."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = stream.read(length)
    return unpack(data) if len(data) == length else None
