"""The drop-in inside a release: ``python -m oracle.ladder.hook_trial``, with a task in JSON on standard input, and its outcome to a file.

Trains for an epoch with the release's own trainer, or, where that is not asked or cannot run, calls the model on one batch. Needs a path on
which the release's folder comes first. It reports an exception as its type and first line.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import torch

import twinloss
from oracle.ladder.inside.serve import first_line, stay_offline
from twinloss.hook import Hook
from twinloss.trainer.criterion_swap import check_age, find_model

TRAINER = {"device": "cpu", "workers": 0, "plots": False, "verbose": False, "amp": False, "exist_ok": True, "epochs": 1}
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "epochs": 1}


def main() -> None:
    """Perform the task: ``model`` and ``data`` (none for one batch by the model), ``imgsz``, ``batch``, folders and files."""
    task = json.load(sys.stdin)
    sys.path.append(task["dependencies"])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    stay_offline()
    Path(task["out"]).write_text(json.dumps(outcome(task)), encoding="utf-8")


def outcome(task: dict[str, Any]) -> dict[str, Any]:
    """What came of it."""
    try:
        from ultralytics import YOLO
    except ModuleNotFoundError as error:
        return {"verdict": "lacks", "message": error.name or ""}
    lend_fonts(Path(task["scratch"]))
    outcome: dict[str, Any] = {"how": "", "note": ""}
    try:
        if task["data"]:
            hook, outcome["how"] = Hook(), "training"
            try:
                return outcome | trained(YOLO(task["model"]), hook, task)
            except Exception as error:
                if hook.verifications == 0 and not _of_the_trainer(error):
                    raise
                outcome["note"] = f"its trainer: {first_line(error, task['scratch'])}"
        outcome["how"] = "model"
        return outcome | called(YOLO(task["model"]), task)
    except Exception as error:  # whatever is raised is the outcome
        refused = isinstance(error, TypeError) and "that the twin could stand for" in str(error)
        return outcome | {"verdict": "refused" if refused else "failed", "message": first_line(error, task["scratch"])}


def _of_the_trainer(error: Exception) -> bool:
    """Whether an exception comes from elsewhere than the drop-in."""
    trace, files = error.__traceback__, []
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any(Path(file).is_relative_to(Path(twinloss.__file__).parent) for file in files)


def lend_fonts(scratch: Path) -> None:
    """A font under the names that releases would download, in the folders where they look."""
    fonts = Path(mpl.get_data_path(), "fonts", "ttf")
    for folder in (scratch, scratch / "Ultralytics"):
        folder.mkdir(exist_ok=True)
        for name in ("Arial.ttf", "Arial.Unicode.ttf"):
            shutil.copy(fonts / "DejaVuSans.ttf", folder / name)


def trained(yolo: Any, hook: Hook, task: dict[str, Any]) -> dict[str, Any]:
    """An epoch with the release's trainer."""
    criteria: list[Any] = []
    if find_model(yolo) is None:
        check_age(yolo)
    yolo.add_callback("on_pretrain_routine_end", hook)
    yolo.add_callback("on_train_batch_end", lambda trainer: criteria.append(find_model(trainer.model).criterion))
    where = {"data": task["data"], "imgsz": task["imgsz"], "batch": task["batch"], "project": task["scratch"], "name": "run"}
    yolo.train(**TRAINER | where)
    hook.check()
    return described(hook, criteria[-1])


def called(yolo: Any, task: dict[str, Any]) -> dict[str, Any]:
    """One batch by the model: its loss and a step back."""
    model = yolo.model.train()
    model.args = SimpleNamespace(**GAINS)
    generator = torch.Generator().manual_seed(0)
    side, images = task["imgsz"], task["batch"]
    centres, sizes = torch.rand(3 * images, 2, generator=generator), torch.rand(3 * images, 2, generator=generator)
    batch = {
        "img": torch.rand(images, 3, side, side, generator=generator),
        "batch_idx": torch.arange(images).repeat_interleave(3).float(),
        "cls": torch.arange(3 * images).remainder(3).float()[:, None],
        "bboxes": torch.cat([0.3 + 0.4 * centres, 0.1 + 0.4 * sizes], 1),
    }
    hook = twinloss.hook.install(model)
    loss, _ = model.loss(batch)
    loss.sum().backward()
    return described(hook, model.criterion)


def described(hook: Hook, criterion: Any) -> dict[str, Any]:
    """Definition, format of the result, and what verification found."""
    own = criterion.own
    switches = ", ".join(f"{name}={value!r}" for name, value in own.release.definition(own.kind.spec.task).items())
    verified = hook.verifications > 0 and not criterion.pending
    return {
        "definition": switches or "newest",
        "returns": str(criterion.returns),
        "criterion": type(criterion.own.criterion).__name__,
        "training_calls": hook.training_calls,
        "validation_calls": hook.validation_calls,
        "verifications": hook.verifications,
        "difference": hook.largest_difference,
        "verdict": "verified" if verified else "not verified",
        "message": "",
    }


if __name__ == "__main__":
    main()
