"""How the suite and a release's process talk: frames of one JSON record and named arrays, over pipes.

Both sides import this, so it needs numpy alone.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
FIELDS = "__facts__"
LENGTH = struct.Struct("<Q")


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """As many bytes, or fewer at the end."""


class Writable(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of the bytes."""

    def flush(self) -> object:
        """Let them go."""


class Stream(Readable, Writable, Protocol):
    """Both ways."""


class Message(NamedTuple):
    """One question or one answer: facts that JSON can say, and arrays by name."""

    fields: dict[str, Any]
    arrays: Arrays


def pack(message: Message, *, compress: bool = False) -> bytes:
    """The message as the bytes of an npz archive, without pickles."""
    buffer = io.BytesIO()
    fields = np.frombuffer(json.dumps(message.fields).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {FIELDS: fields, **message.arrays}
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> Message:
    """What :func:`pack` packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Message(json.loads(arrays.pop(FIELDS).tobytes()), arrays)


def send(stream: Writable, message: Message) -> None:
    """Write one frame."""
    data = pack(message)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: Readable) -> Message | None:
    """Read one frame; ``None`` when the other side has closed the pipe, at a frame's end or within it."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = stream.read(length)
    return unpack(data) if len(data) == length else None
