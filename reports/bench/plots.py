"""Drawings of a bench run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from reports.bench.schema import others, steps
from reports.document import Figure
from reports.plots import BAD, FAINT, SERIES, drawing

LANES = 0.8  # Share of a row's height that its marks occupy.


def ratios(rows: pd.DataFrame) -> Figure:
    """Draws the ratio to the reference with its interval: one row for each workload, one mark for each contender and heap."""
    frame = others(pd.concat([steps(rows), steps(rows, "default")])).dropna(subset=["ratio_to_reference"])
    frame = frame.assign(row=frame["workload"], lane=frame["label"] + ", " + frame["heap"] + " heap")
    described = "; ".join(f"{name} {ratio:.3g}" for name, ratio in _worst_first(frame))
    return _dumbbells("ratios", frame, "Times faster than the reference, a step in float32", f"By workload: {described}.")


def by_dtype(rows: pd.DataFrame) -> Figure:
    """Draws the ratio to the reference with its interval, by dtype."""
    frame = others(steps(rows, dtype=None)).dropna(subset=["ratio_to_reference"])
    frame = frame[frame.groupby("workload")["dtype"].transform("nunique") > 1]
    frame = frame.assign(row=frame["workload"] + ", " + frame["dtype"], lane=frame["label"])
    described = "; ".join(f"{name} {ratio:.3g}" for name, ratio in _worst_first(frame))
    return _dumbbells(
        "dtypes", frame, "Times faster than the reference in half and single precision", f"By workload and dtype: {described}."
    )


def _worst_first(frame: pd.DataFrame) -> Iterator[tuple[str, float]]:
    ordered = frame.groupby("row")["ratio_to_reference"].min().sort_values()
    return ((str(name), float(ratio)) for name, ratio in ordered.items())


def _dumbbells(name: str, frame: pd.DataFrame, title: str, description: str) -> Figure:
    names, lanes = list(dict.fromkeys(frame["row"])), list(dict.fromkeys(frame["lane"]))
    of_row = {row: [lane for lane in lanes if lane in set(own)] for row, own in frame.groupby("row")["lane"]}
    most = max(map(len, of_row.values()), default=0)
    with drawing(name, height=1.2 + 0.26 * len(names) * max(most, 1.4)) as drawn:
        axes = drawn.axes
        for at, lane in enumerate(lanes):
            group = frame[frame["lane"] == lane]
            places = [names.index(row) + LANES * ((of_row[row].index(lane) + 0.5) / len(of_row[row]) - 0.5) for row in group["row"]]
            colour = SERIES[at % len(SERIES)]
            axes.hlines(places, group["ratio_lo95"].clip(lower=1e-2), group["ratio_hi95"], color=colour, linewidth=3, alpha=0.45)
            axes.plot(group["ratio_to_reference"], places, "o", color=colour, markersize=5, label=lane)
        axes.axvline(1, color=BAD, linewidth=1.5)
        _logarithmic(axes, "x", _times)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("reference's time ÷ contender's; the line at 1 is the reference; bar, 95 % interval")
        _finish(axes)
    return Figure(title, drawn.svg, description)


def memory(rows: pd.DataFrame) -> Figure:
    """Draws the peak memory of a step for each contender, and the size of the gradients."""
    frame = steps(rows).dropna(subset=["peak_bytes"])
    names = list(dict.fromkeys(frame["workload"]))
    with drawing("memory", height=1.2 + 0.32 * len(names)) as drawn:
        axes = drawn.axes
        for at, (label, group) in enumerate(frame.groupby("label", sort=False)):
            places = [names.index(n) for n in group["workload"]]
            axes.plot(group["peak_bytes"] / 2**20, places, "o", color=SERIES[at % len(SERIES)], label=label)
        floor = frame.drop_duplicates("workload")
        places = [names.index(n) for n in floor["workload"]]
        axes.plot(floor["gradient_bytes"] / 2**20, places, "|", color=BAD, markersize=12, label="gradients alone")
        _logarithmic(axes, "x", lambda value: f"{value:,.0f}")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("MiB above the inputs")
        _finish(axes)
    return Figure(
        "Peak memory of a step",
        drawn.svg,
        "Peak memory above the inputs by workload, for each contender, beside the size of the gradients.",
    )


def scaling(rows: pd.DataFrame) -> Iterator[Figure]:
    """Draws the time of a step along each sweep, with the fitted exponents."""
    frame = steps(rows, swept=True)
    for sweep, along in frame.groupby("sweep", sort=False):
        fits = rows[(rows["phase"] == "growth of step") & (rows["sweep"] == sweep)].set_index("label")["exponent"]
        with drawing(f"scaling-{str(sweep).split()[0]}", height=3.4) as drawn:
            axes = drawn.axes
            for at, (label, group) in enumerate(along.groupby("label", sort=False)):
                ordered = group.sort_values("size")
                exponent = f", exponent {fits[label]:.2f}" if label in fits else ""
                colour = SERIES[at % len(SERIES)]
                axes.plot(ordered["size"], ordered["ms_median"], "o-", color=colour, markersize=4, label=f"{label}{exponent}")
                axes.fill_between(ordered["size"], ordered["ms_q1"], ordered["ms_q3"], color=colour, alpha=0.15, linewidth=0)
            _logarithmic(axes, "x", lambda value: f"{value:,.0f}")
            _logarithmic(axes, "y", lambda value: f"{value:g}")
            axes.set_xlabel(str(sweep))
            axes.set_ylabel("ms a step")
            _finish(axes)
        fitted = ", ".join(f"{label} {exponent:.2f}" for label, exponent in fits.items())
        yield Figure(f"Step against {sweep}", drawn.svg, f"Time of a step against {sweep}. Fitted exponents: {fitted or 'none'}.")


def _logarithmic(axes: Axes, which: str, text: Callable[[float], str]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    # Over less than two decades the minor ticks are labelled as well.
    axis.set_minor_formatter(
        FuncFormatter(lambda value, _: text(value) if f"{value:e}"[0] in "25" else "") if high < 150 * low else NullFormatter()
    )


def _times(value: float) -> str:
    return f"{value:g}×"


def _finish(axes: Axes) -> None:
    axes.grid(linewidth=0.6, color=FAINT, which="major")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
