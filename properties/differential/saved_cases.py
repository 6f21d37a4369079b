"""Failing batches as files: self-contained, readable, named by their content, replayed by one command."""

from __future__ import annotations

import functools
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oracle.cases.case import Case, Setting
from oracle.tools.atomic_files import write_text
from oracle.tools.parsing import json_of, strict, text_of

FOLDER = Path(__file__).parents[1] / "cases"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Replay:
    """What has to be given again, beside its name, for a saved batch to get the same verdict from a shell.

    Attributes:
        options: of the run, as they are typed, such as ``("--cases", "mine")``.
        path: folders in which Python finds the candidates, beyond those that the session puts there itself.
        noxfile: to be named where the run was not started in the checkout; otherwise empty.
    """

    options: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    noxfile: str = ""

    def line(self, name: str, candidate: str = "") -> str:
        """The command; ``candidate`` is the dotted path of whom to ask, empty for the contender of ours that the file names."""
        asked = ("--replay", name, *(("--candidate", candidate) if candidate else ()), *self.options)
        command = shlex.join(["nox", *(("-f", self.noxfile) if self.noxfile else ()), "-s", "diff", "--", *asked])
        return f"PYTHONPATH={shlex.quote(os.pathsep.join(self.path))} {command}" if self.path else command

    @classmethod
    def here(cls, *options: str) -> Replay:
        """With these options, from where this process was started, with what is on its path."""
        given = [str(Path(folder).resolve()) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
        path = tuple(folder for folder in dict.fromkeys(given) if Path(folder) not in (ROOT, ROOT / "impl"))
        started = Path(os.environ.get("TWINLOSS_STARTED_IN", ROOT))
        return cls(options, path, str(ROOT / "noxfile.py") if started.resolve() != ROOT else "")


@dataclass(frozen=True)
class Saved:
    """A batch that once failed.

    Attributes:
        case: the batch.
        setting: dtype, autocast and device that it failed in.
        contender: who failed, by the name to give to ``--candidate``, or of one of ours.
        found: what was found, as the run printed it.
        versions: of everything that took part, by name.
    """

    case: Case
    setting: Setting
    contender: str
    found: str
    versions: dict[str, str]

    def write(self, folder: Path = FOLDER) -> Path:
        """Write the file, and say where it is: it is named by its digest, and by its setting too where that of another has the name."""
        path = folder / f"{self.case.digest}.json"
        if path.exists() and not self._replaces(path):
            where = "".join(c if c.isalnum() else "-" for c in f"{self.setting.name}-{self.setting.device}").strip("-")
            path = folder / f"{self.case.digest}-{where}.json"
        self.write_to(path)
        return path

    def _replaces(self, path: Path) -> bool:
        try:
            return read(path).setting == self.setting
        except ValueError:
            return True

    def write_to(self, path: Path) -> None:
        """Write this file."""
        record = {
            "case": json.loads(self.case.to_json()),
            "setting": asdict(self.setting),
            "contender": self.contender,
            "found": self.found.splitlines(),
            "versions": self.versions,
        }
        write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", path)


def load(digest: str, folder: Path = FOLDER) -> Saved:
    """The batch with this digest, beginning of a digest, or file name in the folder.

    Raises:
        ValueError: there is none, or several, or the name leads out of the folder, or the file is not one of this version of the suite; the
            message says which, and lists what there is.
    """
    wanted = digest.removesuffix(".json")
    if not wanted or Path(wanted).name != wanted or "\\" in wanted:
        inside = _name_inside(digest, folder)
        if inside is None:
            raise ValueError(
                f"{digest!r} names no file in {folder}; give a digest or a file name of that folder, or another by --cases FOLDER"
            )
        wanted = inside
    saved = sorted(path for path in folder.glob("*.json") if path.is_file())
    found = [path for path in saved if path.stem == wanted] or [path for path in saved if path.name.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(path.stem for path in saved) or "none"
        problem = f"{len(found)} saved cases begin with {digest!r}" if found else f"there is no saved case {digest!r}"
        raise ValueError(f"{problem} in {folder}; saved are: {known}")
    if found[0].resolve().parent != folder.resolve():
        raise ValueError(f"{found[0]} is a link that leads out of the folder; give that folder by --cases {found[0].resolve().parent}")
    return read(found[0])


def _name_inside(path: str, folder: Path) -> str | None:
    """The name of the file that a path leads to, if that is in the folder."""
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a zero byte
        return None
    return target.stem if path and target.parent == folder.resolve() and target.suffix == ".json" else None


def read(path: Path) -> Saved:
    """The batch in a file.

    Raises:
        ValueError: the file cannot be read, or is not one of this version of the suite; the message names file, field and remedy.
    """
    text = text_of(path)
    try:
        json_of(text, _schema())
        record = json.loads(text)
        case = Case.from_json(json.dumps(record["case"]))
        torch.device(record["setting"].get("device", "cpu"))
        return Saved(case, Setting(**record["setting"]), record["contender"], "\n".join(record["found"]), record["versions"])
    except (RecursionError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is not a saved case of this version of the suite: {said}; remove it, or run what made it again"
        ) from error


@functools.cache
def _schema() -> type:
    """What :meth:`Saved.write_to` writes, as a type; the case's own fields are left to :meth:`Case.from_json`."""
    return strict(Saved, case=dict[str, Any], setting=strict(Setting), found=list[str])


def all_saved(folder: Path = FOLDER) -> Iterator[Saved]:
    """Every saved batch, by digest."""
    for path in sorted(folder.glob("*.json")):
        yield read(path)
