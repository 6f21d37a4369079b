"""Failing batches as files: self-contained, readable, named by their content, replayed by one command."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from oracle.cases.case import Case, Setting
from oracle.tools.atomic_files import write_text

FOLDER = Path(__file__).parent / "cases"
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
    """The batch with this digest, or beginning of a digest.

    Raises:
        ValueError: there is none, or several, or the file is not one of this version of the suite; the message lists what there is.
    """
    exact = folder / f"{digest}.json"
    found = [exact] if exact.exists() else sorted(folder.glob(f"{digest}*.json"))
    if len(found) != 1:
        known = ", ".join(path.stem for path in sorted(folder.glob("*.json"))) or "none"
        problem = f"{len(found)} saved cases begin with {digest!r}" if found else f"there is no saved case {digest!r}"
        raise ValueError(f"{problem} in {folder}; saved are: {known}")
    return read(found[0])


def read(path: Path) -> Saved:
    """The batch in a file.

    Raises:
        ValueError: the file is not one of this version of the suite.
    """
    try:
        record = json.loads(path.read_text())
        case = Case.from_json(json.dumps(record["case"]))
        return Saved(case, Setting(**record["setting"]), record["contender"], "\n".join(record["found"]), record["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved case of this version of the suite: {error}") from error


def all_saved(folder: Path = FOLDER) -> Iterator[Saved]:
    """Every saved batch, by digest."""
    for path in sorted(folder.glob("*.json")):
        yield read(path)
