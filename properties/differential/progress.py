"""Progress of a differential run: every process records its comparisons, and the one with the terminal shows them instead of pytest's dots.

pytest counts tests, and one test may compare 125 batches for minutes. With ``-v`` pytest's lines stay, with lines of progress between
them; with ``-q`` no progress is shown.
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
from oracle.tools.progress import Progress, ProgressFile
from properties.differential.plan import GeneratedShare, RealShare


def register_progress(config: pytest.Config, folder: str | None) -> ProgressWriter:
    """Registers the recording of this process and, unless another program gave the folder and shows it, the display of all."""
    folder = getattr(config, "workerinput", {}).get("notes", folder)
    if folder is None:
        config.pluginmanager.register(shown := ProgressDisplay(config), "differential-progress")
        folder = shown.folder.name
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    noted = ProgressWriter(ProgressFile(Path(folder, f"{worker}-{os.getpid()}.jsonl")))
    config.pluginmanager.register(noted, "differential-notes")
    return noted


class ProgressWriter:
    """Records the comparisons of a process that runs the tests.

    Args:
        notes: file of the process.
    """

    def __init__(self, notes: ProgressFile) -> None:
        self.notes, self.kind, self.left = notes, "", 0

    def compared(self, comparison: Comparison) -> None:
        """Records a batch, and the contenders that differ on it."""
        self.notes.done(self.kind, [(s.contender.name, s.findings[0].stage) for s in comparison.results if s.verdict is Verdict.DIFFER])
        self.left -= 1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Records the plan."""
        planned = Counter[str]()
        for item in session.items:
            kind, count = batches_of(item)
            planned[kind] += count
        self.notes.plan(planned)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Records the batches that a test leaves out."""
        self.kind, self.left = batches_of(item)
        self.notes.begin()
        answer = yield
        if self.left > 0:  # A failure ends its share.
            self.notes.drop(self.kind, self.left)
        return answer


class ProgressDisplay:
    """Shows the progress of all processes while the tests run.

    Args:
        config: configuration of the process that owns the terminal.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="progress-")
        self.file, self.verbosity, self.running = _terminal(), config.get_verbosity(), False
        found = ("differ", "none differs")
        self.progress = Progress("batches compared", found=found, file=self.file, quiet=self.verbosity < 0, live=self.verbosity == 0)
        self.progress.follow(Path(self.folder.name))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Passes the folder to a worker of pytest-xdist."""
        node.workerinput["notes"] = self.folder.name

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Shows the progress while the tests run."""
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
        """Suppresses the letters of tests while progress is shown; the summary keeps the words."""
        category, letter, word = yield
        return (category, "", "") if self.running else (category, letter, word)

    def pytest_unconfigure(self) -> None:
        """Removes the folder."""
        self.folder.cleanup()
        if self.file is not sys.stdout:
            self.file.close()


def batches_of(item: pytest.Item) -> tuple[str, int]:
    """Returns the kind and number of a test's batches; batches of a kind take about the same time."""
    given = getattr(item, "callspec", None)
    match list(given.params.values()) if given else []:
        case [GeneratedShare() as share]:
            return f"{share.task} {share.setting.name} {share.setting.device} {share.profile}", share.examples
        case [RealShare() as share]:
            return share.name.rpartition("-")[0], share.count * len(share.settings)
        case _:
            return "kept", 1


def _terminal() -> TextIO:
    """Returns standard output as it is before pytest captures it."""
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding)
    except (io.UnsupportedOperation, AttributeError):
        return sys.stdout
