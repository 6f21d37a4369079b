"""``python -m inside.fork_server``: the process from which the processes of releases are forked; it imports torch once, and no release.

Standard input is a socket. Each datagram on it is one request: a JSON record (folder of the release, folder of dependencies, environment
variables), and the descriptor of a socket on which the fork answers.
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
    for name in COMMON:  # packages of the suite that releases import
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended forks are removed by the system
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
    """Serve one release in a forked process, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # lets a release wait for its own subprocesses
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # drops the output of the release
        os.dup2(null, standard)
    code = 1
    try:
        with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
            serve(stream, request["folder"], request["dependencies"])
        code = 0
    finally:
        os._exit(code)  # skips the exit handlers of the fork server


if __name__ == "__main__":
    main()
