"""How far a differential run is: every process that compares notes what it does, and the one with the terminal shows it, not pytest's dots.

pytest counts tests, of which one may compare 125 batches for minutes. With ``-v`` pytest's lines stay, and lines of text come between them;
with ``-q`` there is no progress.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

import pytest

from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from oracle.tools.progress import Notes, Progress
from properties.differential.plan import GeneratedShare, RealShare


def shown_or_noted(config: pytest.Config, folder: str | None) -> Noted:
    """Have this process note what it compares, and show what all of them noted unless somebody else does: who gave the folder."""
    folder = getattr(config, "workerinput", {}).get("notes", folder)
    if folder is None:
        config.pluginmanager.register(shown := Shown(config), "differential-progress")
        folder = shown.folder.name
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    noted = Noted(Notes(Path(folder, f"{worker}-{os.getpid()}.jsonl")))
    config.pluginmanager.register(noted, "differential-notes")
    return noted


class Noted:
    """Notes what a process that runs the tests compares.

    Args:
        notes: where.
    """

    def __init__(self, notes: Notes) -> None:
        self.notes, self.kind, self.left = notes, "", 0

    def compared(self, comparison: Comparison) -> None:
        """Note a batch, and who differs on it."""
        self.notes.done(self.kind, [(s.contender.name, s.findings[0].stage) for s in comparison.said if s.verdict is Verdict.DIFFER])
        self.left -= 1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what there is to compare."""
        planned = Counter[str]()
        for item in session.items:
            kind, count = batches(item)
            planned[kind] += count
        self.notes.plan(planned)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Note what a test leaves out."""
        self.kind, self.left = batches(item)
        self.notes.begin()
        answer = yield
        if self.left > 0:  # A failure ends its share.
            self.notes.drop(self.kind, self.left)
        return answer


class Shown:
    """Shows what all processes noted, while the tests run.

    Args:
        config: of the process that owns the terminal.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="progress-")
        self.file, self.verbosity, self.running = _terminal(), config.get_verbosity(), False
        found = ("differ", "none differs")
        self.progress = Progress("batches compared", found=found, file=self.file, quiet=self.verbosity < 0, live=self.verbosity == 0)
        self.progress.follow(Path(self.folder.name))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where to leave its notes."""
        node.workerinput["notes"] = self.folder.name

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Show the progress while the tests run."""
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self.verbosity == 0:
            reporter.ensure_newline()
            reporter.flush()
            reporter.showfspath = False
        with self.progress:
            self.running = self.verbosity == 0
            try:
                return (yield)
            finally:
                self.running = False

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Meanwhile no letter of a test is printed; afterwards the summary has the words."""
        category, letter, word = yield
        return (category, "", "") if self.running else (category, letter, word)

    def pytest_unconfigure(self) -> None:
        """Remove the notes."""
        self.folder.cleanup()
        if self.file is not sys.stdout:
            self.file.close()


def batches(item: pytest.Item) -> tuple[str, int]:
    """Which kind of batches a test compares, and how many: batches of a kind take about as long as each other."""
    given = getattr(item, "callspec", None)
    match list(given.params.values()) if given else []:
        case [GeneratedShare() as share]:
            return f"{share.setting.name} {share.setting.device} {share.profile}", share.examples
        case [RealShare() as share]:
            return share.name.rpartition("-")[0], share.count * len(share.settings)
        case _:
            return "kept", 1


def _terminal() -> TextIO:
    """Standard output as it is before pytest captures it."""
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding)
    except (io.UnsupportedOperation, AttributeError):
        return sys.stdout
