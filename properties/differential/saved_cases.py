"""Failing batches as files: self-contained, readable, named by their content, replayed by one command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from oracle.cases.case import Case, Setting

FOLDER = Path(__file__).parents[1] / "cases"


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
        """Write the file, named by its digest, and say where it is."""
        path = folder / f"{self.case.digest}.json"
        self.write_to(path)
        return path

    def write_to(self, path: Path) -> None:
        """Write this file."""
        record = {
            "case": json.loads(self.case.to_json()),
            "setting": asdict(self.setting),
            "contender": self.contender,
            "found": self.found.splitlines(),
            "versions": self.versions,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def load(digest: str, folder: Path = FOLDER) -> Saved:
    """The batch with this digest, or beginning of a digest.

    Raises:
        ValueError: there is none, or several, or the file is not one of this version of the suite; the message lists what there is.
    """
    found = sorted(folder.glob(f"{digest}*.json"))
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
