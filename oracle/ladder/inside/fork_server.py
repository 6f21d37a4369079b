"""The process that releases' processes are forked from: ``python -m inside.fork_server``, with torch imported once and no release.

It takes one request a datagram from the socket that it is given as standard input: a JSON record (folders of the release and of its
dependencies, environment), and with it the descriptor of a socket on which the fork answers. It never imports a release itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
from typing import Any

import torch

from .serve import serve

LONGEST_REQUEST = 1 << 16
COMMON = ("numpy", "torchvision", "cv2", "PIL.Image", "yaml", "matplotlib.pyplot", "pandas", "psutil", "requests")


def main() -> None:
    """Fork for every request, until the socket closes."""
    torch.set_num_threads(1)
    for name in COMMON:  # what releases import, and the suite has: once for all of them
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks; the system takes them away
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 1)
            if not data:
                return
            if os.fork() == 0:
                requests.close()
                serve_fork(json.loads(data), descriptors[0])
            os.close(descriptors[0])


def serve_fork(request: dict[str, Any], descriptor: int) -> None:
    """What a fork does for the rest of its life."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or a release's own subprocesses could not be waited for
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whatever a release prints goes nowhere
        os.dup2(null, standard)
    code = 1
    try:
        with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
            serve(stream, request["folder"], request["dependencies"])
        code = 0
    finally:
        os._exit(code)  # the nursery's own exit handlers are not the fork's


if __name__ == "__main__":
    main()
