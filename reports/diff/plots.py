"""The drawings of a differential run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import tasks
from reports.diff import decisions, tables
from reports.diff.schema import DTYPES, STAGES, ordered
from reports.document import Figure
from reports.plots import BAD, SERIES, drawing

FLOOR = 1e-4  # ratios and shares below it, zeros among them, are drawn here: the scale is logarithmic
CEILING = 1e6


def distances(rows: pd.DataFrame) -> Iterator[Figure]:
    """Error ÷ allowance of every compared value, by stage and dtype: a figure for each task."""
    for task, mine in tasks.each(rows):
        yield _distances(mine, task)


def _distances(rows: pd.DataFrame, task: str) -> Figure:
    frame = rows.assign(row=ordered(rows["stage"], STAGES), dtype=ordered(rows["dtype"], DTYPES), ratio=tables.ratios(rows))
    groups = frame.groupby(["row", "dtype"], observed=True)["ratio"]
    spread = groups.quantile(np.array([0.05, 0.5, 0.95, 1.0])).dropna().unstack().clip(FLOOR, CEILING).reset_index()
    names = [name for name in frame["row"].cat.categories if (spread["row"] == name).any()]
    with drawing(f"distances-{task}" if task else "distances", height=1.2 + 0.5 * len(names)) as drawn:
        axes = drawn.axes
        for colour, places, group in _lanes(spread, names):
            axes.hlines(places, group[0.05], group[0.95], color=colour, linewidth=4, alpha=0.45)
            axes.plot(group[0.5], places, "|", color=colour, markersize=8, markeredgewidth=1.5)
            axes.plot(group[1.0], places, "o", color=colour, markersize=5, label=group["dtype"].iloc[0])
        axes.axvline(1, color=BAD, linewidth=1.5)
        axes.set_xlabel(f"error ÷ allowance, the line at 1 is the allowance (logarithmic; below {FLOOR:g} drawn at {FLOOR:g})")
        _dress(axes, names)
    worst = tables.RATIO.text(frame["ratio"].max())
    description = f"Error divided by allowance for each stage and dtype. The largest of all is {worst}."
    title = "How far from float64: bar, the middle 90 % of values; tick, the median; dot, the largest"
    return Figure(f"{title} ({task})" if task else title, drawn.svg, description)


def open_shares(rows: pd.DataFrame) -> Figure:
    """Open and ambiguous decisions as shares of all, by workload and dtype."""
    keys = [*tasks.keys(rows), "workload"]
    shares = decisions.by_workload(rows).frame.groupby([*keys, "dtype"], observed=True)[["open", "ambiguous"]].max()
    shares = shares.clip(FLOOR, 1).reset_index()
    shares["row"] = shares[keys].astype(str).agg(": ".join, axis=1)
    names = list(dict.fromkeys(shares["row"]))
    with drawing("shares", height=1.2 + 0.5 * len(names)) as drawn:
        axes = drawn.axes
        for colour, places, group in _lanes(shares, names):
            axes.hlines(places, group["ambiguous"], group["open"], color=colour, linewidth=1.5, alpha=0.45)
            axes.plot(group["open"], places, "o", color=colour, markersize=6, markerfacecolor="none")
            axes.plot(group["ambiguous"], places, "o", color=colour, markersize=6, label=group["dtype"].iloc[0])
        axes.set_xlabel(f"share of decisions (logarithmic; below {FLOOR:g} drawn at {FLOOR:g})")
        _dress(axes, names)
    description = "Shares of the decisions that were open, and ambiguous, for each workload and dtype; the table above has the numbers."
    return Figure("Decisions: ring, open; dot, ambiguous; the worst contender of each", drawn.svg, description)


def _lanes(frame: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, list[float], pd.DataFrame]]:
    """For each dtype its colour, the heights of its marks, a lane within each row, and its part of the frame."""
    dtypes = [dtype for dtype in frame["dtype"].cat.categories if (frame["dtype"] == dtype).any()]
    for at, dtype in enumerate(dtypes):
        group = frame[frame["dtype"] == dtype]
        lane = 0.8 * ((at + 0.5) / len(dtypes) - 0.5)
        yield SERIES[at % len(SERIES)], [names.index(name) + lane for name in group["row"]], group


def _dress(axes: Axes, names: list[str]) -> None:
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
