"""How far a run of minutes is, how long it will still take, and what it has found: a live bar on a terminal, lines of text elsewhere.

Whatever does the work in one process calls :class:`Progress`. Where other processes do it, each appends to a file of its own in a folder
(:class:`Notes`), and the process that owns the terminal reads them (:meth:`Progress.follow`): nobody waits for anybody, and a process that
is killed leaves what it noted.
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

EVERY_S, STEP = 30.0, 0.1
"""A line of text after so many seconds, and after each such share of the work."""

LOOK_S = 0.5
"""Between two looks at what other processes noted."""

NAMED = 3
"""Contenders that a line names; the others are counted."""


class Pace:
    """Learns how long a piece of work of each kind takes, and how many are done at once.

    Args:
        planned: how many pieces of each kind there are to do.
        clock: seconds.
    """

    def __init__(self, planned: Mapping[str, int] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.began = clock, clock()
        self.made, self.spent = Counter[str](), defaultdict[str, float](float)
        self.plan(planned or {})

    def plan(self, planned: Mapping[str, int]) -> None:
        """Say what there is to do; the work begins now."""
        self.planned = Counter(planned)
        self.started = self.last = self.clock()

    def add(self, kind: str, count: int) -> None:
        """Plan so many pieces more, or fewer."""
        self.planned[kind] += count

    def done(self, kind: str, count: int = 1, seconds: float | None = None) -> None:
        """Say that pieces have just been done; ``seconds`` is what they took, without it the time since the last call."""
        now = self.clock()
        self.made[kind] += count
        self.spent[kind] += now - self.last if seconds is None else seconds
        self.last = now

    @property
    def total(self) -> int:
        """Pieces that are planned, or done beyond that."""
        return sum(max(count, self.made[kind]) for kind, count in self.planned.items())

    @property
    def share(self) -> float:
        """Of the pieces, those that are done."""
        return min(self.made.total() / max(self.total, 1), 1.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.began

    @property
    def left_s(self) -> float:
        """Seconds until the last piece is done; not a number before the first is."""
        spent = sum(self.spent.values())
        if not spent:
            return math.nan
        typical = spent / self.made.total()
        each = {kind: self.spent[kind] / count for kind, count in self.made.items() if count}
        work = sum((count - self.made[kind]) * each.get(kind, typical) for kind, count in self.planned.items() if count > self.made[kind])
        at_once = spent / max(self.last - self.started, 1e-9)
        return max(work / at_once - (self.clock() - self.last), 0.0)


@dataclass
class Notes:
    """What one process of several notes for the one that shows the progress.

    Attributes:
        path: its file, ``*.jsonl`` in the folder that is followed.
        since: when it began with what it is doing.
    """

    path: Path
    since: float = field(default_factory=time.monotonic)

    def plan(self, planned: Mapping[str, int]) -> None:
        """What there is to do for all; of several such notes the first holds."""
        self._append(planned=dict(planned))

    def begin(self) -> None:
        """A piece begins now."""
        self.since = time.monotonic()

    def done(self, kind: str, differing: Iterable[tuple[str, str]] = ()) -> None:
        """A piece is done; ``differing`` are contenders, and the stage at which each differs."""
        self._append(kind=kind, seconds=time.monotonic() - self.since, differing=list(differing))
        self.begin()

    def drop(self, kind: str, count: int) -> None:
        """So many pieces will not be done."""
        self._append(dropped=kind, count=count)

    def _append(self, **note: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


class Progress:
    """Shows how far a run is, from entering to leaving the context.

    Args:
        noun: what is counted, such as ``"batches compared"``.
        found: what is said of those that :meth:`differs` counts, and what while there are none; ``None`` where nothing is looked for.
        file: where to show it (default: standard output).
        quiet: show nothing, but for what :meth:`say` is given.
        live: whether a terminal gets a live bar.
        at_most: the run may end before everything that is planned is done.
        limit_s: the run ends after so many seconds, however much is done by then.
        clock: seconds.

    Attributes:
        doing: what is being done, to be set; the line ends with it.
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
        self.pace, self.doing = Pace(clock=clock), ""
        self.differing = defaultdict[str, Counter[str]](Counter)
        self.console = Console(file=self.file, highlight=False, soft_wrap=True)
        self.shown = "" if quiet else "bar" if live and self.file.isatty() and not self.console.is_dumb_terminal else "lines"
        self._lock, self._over = threading.RLock(), threading.Event()
        self._folder: Path | None = None
        self._times, self._read = 1, Counter[Path]()
        self._bar: Bar | None = None
        self._told_at, self._told_share = self.pace.began, 0.0

    def follow(self, folder: Path, times: int = 1) -> None:
        """Count what other processes note in a folder; the plan that they note is to be done ``times`` times."""
        self._folder, self._times = folder, times

    def plan(self, planned: Mapping[str, int]) -> None:
        """Say how many pieces of each kind there are to do."""
        with self._lock:
            self.pace.plan(planned)

    def add(self, kind: str, count: int = 1) -> None:
        """Plan so many pieces more, or fewer."""
        with self._lock:
            self.pace.add(kind, count)

    def done(self, kind: str, count: int = 1, seconds: float | None = None) -> None:
        """Say that pieces have been done, in so many seconds or in the time since the last."""
        with self._lock:
            self.pace.done(kind, count, seconds)

    def differs(self, who: str, stage: str) -> None:
        """Count a contender that differs at a stage."""
        with self._lock:
            self.differing[who][stage] += 1

    def say(self, text: str) -> None:
        """Print a line that stays, at once."""
        self.console.print(text, markup=False)
        self.file.flush()

    @property
    def share(self) -> float:
        """Of the work, what is done."""
        with self._lock:
            return self.pace.share if self.limit_s is None else min(self.pace.elapsed_s / self.limit_s, 1.0)

    @property
    def words(self) -> str:
        """Everything but the share."""
        with self._lock:
            left_s = self.pace.left_s if self.limit_s is None else max(self.limit_s - self.pace.elapsed_s, 0.0)
            left = "time left not known yet" if math.isnan(left_s) else f"{'at most' if self.at_most else 'about'} {duration(left_s)} left"
            parts = [f"{self._counted}, {duration(self.pace.elapsed_s)} so far, {left}", self._differing, self.doing]
            return "; ".join(filter(None, parts))

    @property
    def _counted(self) -> str:
        if not self.pace.total and self.limit_s is None:
            return "starting"
        total = f" of {'at most ' if self.at_most else ''}{self.pace.total:,}" if self.limit_s is None else ""
        return f"{self.pace.made.total():,}{total} {self.noun}"

    @property
    def _differing(self) -> str:
        if self.found is None or not self.differing:
            return self.found[1] if self.found else ""
        who = sorted(self.differing.items(), key=lambda item: -item[1].total())
        named = [f"{name} ({', '.join(f'{stage} {count}' for stage, count in stages.most_common())})" for name, stages in who[:NAMED]]
        more = [f"{len(who) - NAMED} more"] if len(who) > NAMED else []
        return f"{sum(stages.total() for stages in self.differing.values()):,} {self.found[0]}: {', '.join(named + more)}"

    def __enter__(self) -> Progress:  # noqa: PYI034 - Self is not in Python 3.10, and nobody derives from a progress
        if self.shown == "bar":
            columns = (BarColumn(30), TextColumn("{task.percentage:3.0f} %"), _Words(self))
            self._bar = Bar(*columns, console=self.console, transient=True, refresh_per_second=2)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End with a line that stays."""
        self._over.set()
        self._looking.join()
        self._collect()
        if self._bar is not None:
            self._bar.stop()
        if self.shown and (self.pace.planned or self.pace.made):
            self.say("; ".join(filter(None, [f"{self._counted} in {duration(self.pace.elapsed_s)}", self._differing])))

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            self._collect()
            if self._bar is not None:
                self._bar.update(self._task, completed=self.share)
            elif self.shown and self._due():
                self._told_at, self._told_share = self.pace.clock(), self.share
                self.say(f"[{self.share:4.0%}] {self.words}")

    def _due(self) -> bool:
        return self.share >= self._told_share + STEP or self.pace.clock() >= self._told_at + EVERY_S

    def _collect(self) -> None:
        """Read what other processes noted since the last look; a line that is not whole yet waits for the next."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder else ():
            with path.open("rb") as file:
                file.seek(self._read[path])
                for line in file:
                    if line.endswith(b"\n"):
                        self._read[path] += len(line)
                        self._take(json.loads(line))

    def _take(self, note: Mapping[str, Any]) -> None:
        if "planned" in note and not self.pace.planned:
            self.plan({kind: count * self._times for kind, count in note["planned"].items()})
        elif "dropped" in note:
            self.add(note["dropped"], -note["count"])
        elif "kind" in note:
            self.done(note["kind"], seconds=note["seconds"])
        for who, stage in note.get("differing", ()):
            self.differs(who, stage)


class _Words(ProgressColumn):
    """The words beside the bar, made anew each time that it is drawn, so that the time goes on while nothing is done."""

    max_refresh = None

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.words, no_wrap=True, overflow="ellipsis")


def duration(seconds: float) -> str:
    """For a person."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
