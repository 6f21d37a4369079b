"""The line that says what is being measured, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benches.run.pace import Pace


@contextmanager
def told(console: Console | None = None) -> Iterator[Callable[[str, Pace], None]]:
    """A function to call with what comes next: a live line on a terminal, a line of text each time elsewhere."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, pace: console.print(f"[{pace.share:4.0%}] {pace.text()}: {what}", markup=False, highlight=False)
        return
    columns = (BarColumn(30), TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.fields[left]}"), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=1.0, left="")
        yield lambda what, pace: progress.update(task, completed=pace.share, description=what, left=pace.text())
