"""Serves one release: imports it, then answers questions.

The release's folder comes first on the path, and the folder of small dependencies last. The process imports nothing of the suite besides
this package, cannot reach a network, and reports an exception as its type and first line, without a traceback.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from .messages import Message, Stream, receive, send


def refuse_connection(*_: Any, **__: Any) -> NoReturn:
    """Replaces every network call: some releases look for updates, or send reports, when imported."""
    raise OSError("the ladder runs releases without a network")


def stay_offline() -> None:
    """Make all network connections of a release fail."""
    socket.socket.connect = refuse_connection  # type: ignore[method-assign]
    socket.create_connection = refuse_connection
    socket.getaddrinfo = refuse_connection


def first_line(error: BaseException, folder: str) -> str:
    """Returns type and first line of an exception, without paths of this machine."""
    text = str(error).strip().split("\n")[0].replace(folder, "").replace(str(Path.home()), "~")
    return f"{type(error).__name__}: {text}"[:200]


def load(folder: str, dependencies: str) -> tuple[Message, Any]:
    """Import the release; returns the greeting, and the era (``None`` after a failure)."""
    sys.path[:] = [*([folder] if folder else []), *sys.path, *([dependencies] if dependencies else [])]
    try:
        import ultralytics

        from .eras import find_era

        place = str(Path(ultralytics.__file__).resolve())
        if folder and not place.startswith(str(Path(folder).resolve())):
            return Message({"outcome": "raised", "message": "the release's folder holds no ultralytics package"}, {}), None
        era = find_era()
    except ModuleNotFoundError as error:
        return Message({"outcome": "lacks", "module": error.name or "", "message": first_line(error, folder)}, {}), None
    except Exception as error:  # any exception of the import is the release's answer
        return Message({"outcome": "raised", "message": first_line(error, folder)}, {}), None
    return Message({"outcome": "answered", "version": ultralytics.__version__, "era": era.name}, {}), era


def reply(era: Any, question: Message, folder: str) -> Message:
    """Returns the release's answer to one question, or its failure."""
    import numpy as np
    import torch

    from .entry_points import answer
    from .eras import NotOfferedError

    try:
        fields, tensors = answer(era, question.fields, {name: torch.from_numpy(array) for name, array in question.arrays.items()})
    except NotOfferedError as error:
        return Message({"outcome": "not offered", "message": str(error)}, {})
    except Exception as error:  # any exception of the release is its answer
        return Message({"outcome": "raised", "message": first_line(error, folder)}, {})
    arrays = {name: np.ascontiguousarray(widened(tensor)) for name, tensor in tensors.items()}
    return Message({"outcome": "answered", "interface": fields}, arrays)


def widened(tensor: Any) -> Any:
    """Returns a tensor as a numpy array; bfloat16, which numpy lacks, becomes float32, which is exact."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def serve(stream: Stream, folder: str, dependencies: str) -> None:
    """Send the process id, then the greeting, then answer questions until the stream ends."""
    send(stream, Message({"pid": os.getpid()}, {}))
    warnings.simplefilter("ignore")
    stay_offline()
    greeting, era = load(folder, dependencies)
    send(stream, greeting)
    while era is not None and (question := receive(stream)) is not None:
        send(stream, reply(era, question, folder))
