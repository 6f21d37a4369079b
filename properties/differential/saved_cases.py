"""Failing batches as self-contained JSON files, named by their content and replayed by one command."""

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
from oracle.tools.parsing import parse_json, read_text, strict_type

FOLDER = Path(__file__).parents[1] / "cases"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ReplayCommand:
    """The shell command that repeats the comparison of a saved batch.

    Attributes:
        options: options of the run, such as ``("--cases", "mine")``.
        path: folders for ``PYTHONPATH`` in which Python finds the candidates.
        noxfile: path of the noxfile if the run was not started in the checkout; otherwise empty.
    """

    options: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    noxfile: str = ""

    def line(self, name: str, candidate: str = "") -> str:
        """Returns the command; ``candidate`` is a dotted path, or empty for the contender that the file names."""
        asked = ("--replay", name, *(("--candidate", candidate) if candidate else ()), *self.options)
        command = shlex.join(["nox", *(("-f", self.noxfile) if self.noxfile else ()), "-s", "diff", "--", *asked])
        return f"PYTHONPATH={shlex.quote(os.pathsep.join(self.path))} {command}" if self.path else command

    @classmethod
    def here(cls, *options: str) -> ReplayCommand:
        """Returns the command with these options for the folder and ``PYTHONPATH`` of this process."""
        given = [str(Path(folder).resolve()) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
        path = tuple(folder for folder in dict.fromkeys(given) if Path(folder) not in (ROOT, ROOT / "impl"))
        started = Path(os.environ.get("TWINLOSS_STARTED_IN", ROOT))
        return cls(options, path, str(ROOT / "noxfile.py") if started.resolve() != ROOT else "")


@dataclass(frozen=True)
class SavedCase:
    """A batch that failed.

    Attributes:
        case: the batch.
        setting: dtype, autocast and device of the failure.
        contender: name of the contender that failed; of a candidate, the value for ``--candidate``.
        found: the report that the run printed.
        versions: versions of the contender and the reference, by name.
    """

    case: Case
    setting: Setting
    contender: str
    found: str
    versions: dict[str, str]

    def write(self, folder: Path = FOLDER) -> Path:
        """Writes the file and returns its path: the digest, with the setting if the file of another setting has that name."""
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
        """Writes the batch to a path."""
        record = {
            "case": json.loads(self.case.to_json()),
            "setting": asdict(self.setting),
            "contender": self.contender,
            "found": self.found.splitlines(),
            "versions": self.versions,
        }
        write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", path)


def load(digest: str, folder: Path = FOLDER) -> SavedCase:
    """Returns the batch with this digest, beginning of a digest, or file name in the folder.

    Raises:
        ValueError: no or several files match, the name leads out of the folder, or the file is not of this version of the suite.
    """
    wanted = digest.removesuffix(".json")
    if not wanted or Path(wanted).name != wanted or "\\" in wanted:
        inside = _name_inside(digest, folder)
        if inside is None:
            raise ValueError(
                f"{digest!r} names no file in {folder}; give a digest or file name of that folder, or another folder with --cases FOLDER"
            )
        wanted = inside
    saved = sorted(path for path in folder.glob("*.json") if path.is_file())
    found = [path for path in saved if path.stem == wanted] or [path for path in saved if path.name.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(path.stem for path in saved) or "none"
        problem = f"{len(found)} saved cases begin with {digest!r}" if found else f"there is no saved case {digest!r}"
        raise ValueError(f"{problem} in {folder}; saved are: {known}")
    if found[0].resolve().parent != folder.resolve():
        raise ValueError(f"{found[0]} is a link that leads out of the folder; give its folder with --cases {found[0].resolve().parent}")
    return read(found[0])


def _name_inside(path: str, folder: Path) -> str | None:
    """Returns the name of the file that a path leads to if it lies in the folder, else ``None``."""
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a zero byte
        return None
    return target.stem if path and target.parent == folder.resolve() and target.suffix == ".json" else None


def read(path: Path) -> SavedCase:
    """Reads the batch in a file.

    Raises:
        ValueError: the file cannot be read, or is not of this version of the suite; the message names file, field and remedy.
    """
    text = read_text(path)
    try:
        parse_json(text, _schema())
        record = json.loads(text)
        case = Case.from_json(json.dumps(record["case"]))
        torch.device(record["setting"].get("device", "cpu"))
        return SavedCase(case, Setting(**record["setting"]), record["contender"], "\n".join(record["found"]), record["versions"])
    except (RecursionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is not a saved case of this version of the suite: {reason}; remove it, or repeat the run that wrote it"
        ) from error


@functools.cache
def _schema() -> type:
    """Returns the type of the JSON that :meth:`SavedCase.write_to` writes; :meth:`Case.from_json` checks the fields of the case."""
    return strict_type(SavedCase, case=dict[str, Any], setting=strict_type(Setting), found=list[str])


def all_saved(folder: Path = FOLDER) -> Iterator[SavedCase]:
    """Yields the saved batches of a folder, in the order of their names."""
    for path in sorted(folder.glob("*.json")):
        yield read(path)
