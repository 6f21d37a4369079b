"""The process that runs inside a release: questions in, answers out.

It is forked with the suite's interpreter and torch, and a path on which the release's folder comes first and the folder of small
dependencies last. It imports nothing of the suite but its own neighbours, reaches no network, and reports an exception as its type and
first line, never with a traceback.
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
    """What every connection meets: some releases look for updates, or report themselves, when imported."""
    raise OSError("the ladder runs releases without a network")


def stay_offline() -> None:
    """Close the ways out that a release could take on its own."""
    socket.socket.connect = refuse_connection  # type: ignore[method-assign]
    socket.create_connection = refuse_connection
    socket.getaddrinfo = refuse_connection


def first_line(error: BaseException, folder: str) -> str:
    """Type and first line of an exception, without this machine's paths."""
    text = str(error).strip().split("\n")[0].replace(folder, "").replace(str(Path.home()), "~")
    return f"{type(error).__name__}: {text}"[:200]


def load(folder: str, dependencies: str) -> tuple[Message, Any]:
    """Import the release; a message that says who answers, and its era."""
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
    except Exception as error:  # whatever an import raises is the release's answer
        return Message({"outcome": "raised", "message": first_line(error, folder)}, {}), None
    return Message({"outcome": "answered", "version": ultralytics.__version__, "era": era.name}, {}), era


def reply(era: Any, question: Message, folder: str) -> Message:
    """The release's answer to one question, or how it failed to give one."""
    import numpy as np
    import torch

    from .entry_points import answer
    from .eras import NotOfferedError

    try:
        fields, tensors = answer(era, question.fields, {name: torch.from_numpy(array) for name, array in question.arrays.items()})
    except NotOfferedError as error:
        return Message({"outcome": "not offered", "message": str(error)}, {})
    except Exception as error:  # whatever a release raises is its answer
        return Message({"outcome": "raised", "message": first_line(error, folder)}, {})
    arrays = {name: np.ascontiguousarray(widened(tensor)) for name, tensor in tensors.items()}
    return Message({"outcome": "answered", "interface": fields}, arrays)


def widened(tensor: Any) -> Any:
    """A tensor as numpy knows it; bfloat16, which numpy lacks, exactly as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def serve(stream: Stream, folder: str, dependencies: str) -> None:
    """Say who this is, then who answers, then answer until the questions end."""
    send(stream, Message({"pid": os.getpid()}, {}))
    warnings.simplefilter("ignore")
    stay_offline()
    greeting, era = load(folder, dependencies)
    send(stream, greeting)
    while era is not None and (question := receive(stream)) is not None:
        send(stream, reply(era, question, folder))
