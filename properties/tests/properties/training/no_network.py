"""Blocks the network: a connection that leaves this machine raises an error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

LOCAL = ("127.0.0.1", "::1", "localhost")


@contextmanager
def offline() -> Iterator[None]:
    """Within it an attempt to leave this machine raises ``AssertionError`` with the address."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOCAL:
            raise AssertionError(f"a connection to {address}")
        connect(self, address)

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a look-up of {arguments[0]}")

    with mock.patch.object(socket.socket, "connect", connect_here), mock.patch.object(socket, "create_connection", refuse):
        yield
