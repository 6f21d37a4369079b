"""Starts the process of a candidate: its arguments are the descriptors of the socket and of the shared memory, and a number of threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1


def main(descriptor: int, memory: int, threads: int) -> None:
    """Serve, then end the process without waiting for threads of the candidate."""
    with contextlib.suppress(OSError, AttributeError):  # on Linux this process ends with the judge's
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    import torch

    from .arena import Arena
    from .calls import install_clock
    from .serve import serve

    torch.set_num_threads(threads)
    install_clock()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        serve(stream, Arena(memory))
    os._exit(0)


def run() -> None:
    """Read the arguments of the command line."""
    main(*map(int, sys.argv[1:4]))
