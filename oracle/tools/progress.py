"""Progress of a run of minutes, with the time left and the differences so far: a live bar on a terminal, lines of text elsewhere.

A run in one process calls :class:`Progress`. In a run of several processes each appends to a file of its own in one folder
(:class:`ProgressFile`), and the process that owns the terminal reads the folder (:meth:`Progress.follow`). No process waits for another,
and the file of a killed process remains.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

LINE_EVERY_S, LINE_EVERY_SHARE = 30.0, 0.1
"""A line of text is printed after this time, or after this share of the work."""

POLL_S = 0.5
"""Interval between two reads of the other processes' files."""

MOST_NAMED = 3
"""Largest number of differing contenders that a line names; the others are counted."""

_STARTING = "starting"  # in place of a count that nothing is planned for, such as a replay


class TimeEstimate:
    """Estimates the remaining time from the mean duration of each kind of work and the number of pieces done at once.

    Args:
        planned: number of pieces of each kind.
        clock: returns the time in seconds.
    """

    def __init__(self, planned: Mapping[str, int] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.began = clock, clock()
        self.made, self.spent = Counter[str](), defaultdict[str, float](float)
        self.plan(planned or {})

    def plan(self, planned: Mapping[str, int]) -> None:
        """Sets the number of pieces of each kind; the work starts now."""
        self.planned = Counter(planned)
        self.started = self.last = self.clock()

    def add(self, kind: str, count: int) -> None:
        """Adds to the number of planned pieces; ``count`` may be negative."""
        self.planned[kind] += count

    def done(self, kind: str, count: int = 1, seconds: float | None = None) -> None:
        """Records finished pieces; ``seconds`` is their duration, by default the time since the last call."""
        now = self.clock()
        self.made[kind] += count
        self.spent[kind] += now - self.last if seconds is None else seconds
        self.last = now

    @property
    def total(self) -> int:
        """Number of pieces: those planned, and those done in excess of the plan."""
        return sum(max(count, self.made[kind]) for kind, count in self.planned.items())

    @property
    def share(self) -> float:
        """Share of the pieces that are done."""
        return min(self.made.total() / max(self.total, 1), 1.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.began

    @property
    def left_s(self) -> float:
        """Estimated seconds until the last piece is done; not-a-number before the first one is."""
        spent = sum(self.spent.values())
        if not spent:
            return math.nan
        typical = spent / self.made.total()
        each = {kind: self.spent[kind] / count for kind, count in self.made.items() if count}
        missing = {kind: count - self.made[kind] for kind, count in self.planned.items() if count > self.made[kind]}
        work = sum(count * each.get(kind, typical) for kind, count in missing.items())
        left = work / (spent / max(self.last - self.started, 1e-9))
        # A piece that takes longer than others of its kind leaves the time for those after it as it is.
        return left - min(self.clock() - self.last, left / max(sum(missing.values()), 1))


@dataclass
class ProgressFile:
    """File in which one process of several records its progress for the process that shows it.

    Attributes:
        path: the file, ``*.jsonl`` in the followed folder.
        since: time at which the current piece began, in seconds.
    """

    path: Path
    since: float = field(default_factory=time.monotonic)

    def plan(self, planned: Mapping[str, int]) -> None:
        """Records the plan of the whole run; of several records the first counts."""
        self._append(planned=dict(planned))

    def begin(self) -> None:
        """Marks the beginning of a piece."""
        self.since = time.monotonic()

    def done(self, kind: str, differing: Iterable[tuple[str, str]] = ()) -> None:
        """Records a finished piece; ``differing`` holds pairs of a contender and the stage at which it differs."""
        self._append(kind=kind, seconds=time.monotonic() - self.since, differing=list(differing))
        self.begin()

    def drop(self, kind: str, count: int) -> None:
        """Records pieces that will not be done."""
        self._append(dropped=kind, count=count)

    def _append(self, **note: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


class Progress:
    """Shows the progress of a run while the context is open.

    Args:
        noun: the counted thing, such as ``"batches compared"``.
        found: text after the number of differences, and text while there are none; ``None`` if the run looks for no differences.
        file: output (default: standard output).
        quiet: show only the texts passed to :meth:`print_line`.
        live: whether a terminal shows a live bar.
        at_most: whether the run may end before the plan is done.
        limit_s: time after which the run ends, in seconds.
        clock: returns the time in seconds.

    Attributes:
        doing: text at the end of the line, to be set by the caller.
    """

    def __init__(
        self,
        noun: str,
        *,
        found: tuple[str, str] | None = None,
        file: TextIO | None = None,
        quiet: bool = False,
        live: bool = True,
        at_most: bool = False,
        limit_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.noun, self.found, self.at_most, self.limit_s = noun, found, at_most, limit_s
        self.file = sys.stdout if file is None else file
        self.estimate, self.doing = TimeEstimate(clock=clock), ""
        self.differing = defaultdict[str, Counter[str]](Counter)
        self.console = Console(file=self.file, highlight=False, soft_wrap=True)
        self.shown = "" if quiet else "bar" if live and self.file.isatty() and not self.console.is_dumb_terminal else "lines"
        self._lock, self._over = threading.RLock(), threading.Event()
        self._folder: Path | None = None
        self._times, self._read = 1, Counter[Path]()
        self._bar: Bar | None = None
        self._printed_at, self._printed_share = self.estimate.began, 0.0

    def follow(self, folder: Path, times: int = 1) -> None:
        """Reads the progress files of other processes in a folder; their plan is carried out ``times`` times."""
        self._folder, self._times = folder, times

    def plan(self, planned: Mapping[str, int]) -> None:
        """Sets the number of pieces of each kind."""
        with self._lock:
            self.estimate.plan(planned)

    def add(self, kind: str, count: int = 1) -> None:
        """Adds to the number of planned pieces; ``count`` may be negative."""
        with self._lock:
            self.estimate.add(kind, count)

    def done(self, kind: str, count: int = 1, seconds: float | None = None) -> None:
        """Records finished pieces; ``seconds`` is their duration, by default the time since the last call."""
        with self._lock:
            self.estimate.done(kind, count, seconds)

    def differs(self, contender: str, stage: str) -> None:
        """Counts a contender that differs at a stage."""
        with self._lock:
            self.differing[contender][stage] += 1

    def print_line(self, text: str) -> None:
        """Prints a permanent line."""
        self.console.print(text, markup=False)
        self.file.flush()

    @property
    def share(self) -> float:
        """Share of the work that is done."""
        with self._lock:
            return self.estimate.share if self.limit_s is None else min(self.estimate.elapsed_s / self.limit_s, 1.0)

    @property
    def text(self) -> str:
        """Counts, times, differences and :attr:`doing`, without the share."""
        with self._lock:
            left_s = self.estimate.left_s if self.limit_s is None else max(self.limit_s - self.estimate.elapsed_s, 0.0)
            left = "time left not known yet" if math.isnan(left_s) else f"{'at most' if self.at_most else 'about'} {duration(left_s)} left"
            parts = [f"{self._counted}, {duration(self.estimate.elapsed_s)} so far, {left}", self._differing, self.doing]
            return "; ".join(filter(None, parts))

    @property
    def _counted(self) -> str:
        if not self.estimate.total and self.limit_s is None:
            return _STARTING
        total = f" of {'at most ' if self.at_most else ''}{self.estimate.total:,}" if self.limit_s is None else ""
        return f"{self.estimate.made.total():,}{total} {self.noun}"

    @property
    def _differing(self) -> str:
        if self.found is None or not self.differing:
            return self.found[1] if self.found else ""
        names = sorted(self.differing.items(), key=lambda item: -item[1].total())
        named = [
            f"{name} ({', '.join(f'{stage} {count}' for stage, count in stages.most_common())})" for name, stages in names[:MOST_NAMED]
        ]
        more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
        return f"{sum(stages.total() for stages in self.differing.values()):,} {self.found[0]}: {', '.join(named + more)}"

    def __enter__(self) -> Progress:  # noqa: PYI034 - Self is not in Python 3.10, and this has no subclasses
        if self.shown == "bar":
            columns = (BarColumn(30), TextColumn("{task.percentage:3.0f} %"), _StatusColumn(self))
            self._bar = Bar(*columns, console=self.console, transient=True, refresh_per_second=2)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Prints the final line."""
        self._over.set()
        self._looking.join()
        self._collect()
        if self._bar is not None:
            self._bar.stop()
        if self.shown and (self.estimate.planned or self.estimate.made) and self._counted != _STARTING:
            self.print_line("; ".join(filter(None, [f"{self._counted} in {duration(self.estimate.elapsed_s)}", self._differing])))

    def _look(self) -> None:
        while not self._over.wait(POLL_S):
            self._collect()
            if self._bar is not None:
                self._bar.update(self._task, completed=self.share)
            elif self.shown and self._due():
                self._printed_at, self._printed_share = self.estimate.clock(), self.share
                self.print_line(f"[{self.share:4.0%}] {self.text}")

    def _due(self) -> bool:
        return self.share >= self._printed_share + LINE_EVERY_SHARE or self.estimate.clock() >= self._printed_at + LINE_EVERY_S

    def _collect(self) -> None:
        """Reads the new lines of the other processes' files; an incomplete line is left for the next read."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder else ():
            with path.open("rb") as file:
                file.seek(self._read[path])
                for line in file:
                    if line.endswith(b"\n"):
                        self._read[path] += len(line)
                        self._take(json.loads(line))

    def _take(self, note: Mapping[str, Any]) -> None:
        if "planned" in note and not self.estimate.planned:
            self.plan({kind: count * self._times for kind, count in note["planned"].items()})
        elif "dropped" in note:
            self.add(note["dropped"], -note["count"])
        elif "kind" in note:
            self.done(note["kind"], seconds=note["seconds"])
        for contender, stage in note.get("differing", ()):
            self.differs(contender, stage)


class _StatusColumn(ProgressColumn):
    """The text beside the bar, computed each time the bar is drawn, so that the elapsed time is current."""

    max_refresh = None

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.text, no_wrap=True, overflow="ellipsis")


def duration(seconds: float) -> str:
    """Returns a duration as text, such as ``2 min 05 s``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
