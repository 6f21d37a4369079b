"""Builds revisions into wheels, as users get them, and unpacks the wheels."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class RevisionError(ValueError):
    """A revision does not exist or cannot be built; the message names it, and holds the message of git or of the builder."""


def commit_of(revision: str, root: Path = ROOT) -> str:
    """Returns the full name of a revision's commit.

    Raises:
        RevisionError: there is no such revision.
    """
    commit, error = f"{revision}^{{commit}}", f"there is no revision {revision!r}"
    return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", commit, error=error).decode().strip()


def text_at(commit: str, path: str, root: Path = ROOT) -> str:
    """Returns the text of a file of a commit; empty where the commit has no such file."""
    try:
        return _git(root, "show", f"{commit}:{path}", error="").decode()
    except RevisionError:
        return ""


def tree_at(commit: str, folder: Path, root: Path = ROOT) -> Path:
    """Extract a commit's files into a folder; returns the folder."""
    archive = _git(root, "archive", "--format=tar", commit, error=f"git cannot archive {commit}")
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def unpacked(tree: Path, folder: Path) -> Path:
    """Build the wheel of a tree and unpack it; returns the folder from which ``twinloss`` is imported.

    Raises:
        RevisionError: the tree cannot be built, or the wheel contains no ``twinloss``.
    """
    made = folder / "wheel"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(made)]
    built = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    wheels = sorted(made.glob("*.whl"))
    if built.returncode or not wheels:
        raise RevisionError(f"no wheel can be built in {tree}: {(built.stderr or built.stdout).strip()[-1000:]}")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(folder / "site")
    if not (folder / "site" / "twinloss" / "__init__.py").exists():
        raise RevisionError(f"{wheels[-1].name} contains no twinloss")
    return folder / "site"


def _git(root: Path, *arguments: str, error: str) -> bytes:
    ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    if ran.returncode:
        raise RevisionError(f"{error}: {ran.stderr.decode('utf-8', 'replace').strip()}".rstrip(": "))
    return ran.stdout
