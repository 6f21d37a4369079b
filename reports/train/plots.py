"""Drawings of training runs."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from reports.document import Figure
from reports.plots import BAD, SERIES, drawing
from reports.train.schema import CURVES, curve, runs

FLOOR = 1e-8  # smaller values, including zeros, are drawn here, since the scale is logarithmic
REFERENCE, TWIN, DOUBLE, _, _, ROUNDING = SERIES
SEEN = {"twin": (TWIN, "twin"), "nudged": (ROUNDING, "logits nudged"), "double": (DOUBLE, "double precision")}


def curves(rows: pd.DataFrame) -> Iterator[Figure]:
    """Draws loss and gradient norm of twin and reference at every step, and their relative deviation."""
    reference, twin = runs(rows, "reference")[0], [*runs(rows, "tied"), *runs(rows, "twin")][0]
    for quantity in CURVES:
        with drawing(f"curve-{quantity.replace(' ', '-')}", height=3.2) as drawn:
            expected = curve(rows, reference, quantity)
            drawn.axes.plot(expected["step"], expected["value"], color=REFERENCE, linewidth=2.5, alpha=0.6, label=reference)
            found = curve(rows, twin, quantity)
            drawn.axes.plot(found["step"], found["value"], color=TWIN, linewidth=1, label=twin)
            drawn.axes.set_yscale("log")
            _label_axes(drawn.axes, "step", f"{quantity} (logarithmic)")
        yield Figure(f"{quantity.capitalize()} at every step", drawn.svg, f"The {quantity} of {twin} drawn over that of {reference}.")
        with drawing(f"apart-{quantity.replace(' ', '-')}", height=3.2) as drawn:
            for label, name in [("reference, logits nudged", run) for run in runs(rows, "nudged")]:
                _apart(drawn.axes, rows, (name, reference), quantity, color=ROUNDING, label=label)
            _apart(drawn.axes, rows, (twin, reference), quantity, color=TWIN, label=twin)
            limit = curve(rows, "tolerance", quantity)
            drawn.axes.plot(limit["step"], limit["value"], color=BAD, linewidth=1.5, label="tolerance")
            drawn.axes.set_yscale("log")
            _label_axes(drawn.axes, "step", "relative deviation")
        what = f"How far the {quantity} of each step is from {reference}: of the twin, and of the reference on logits nudged"
        yield Figure(f"{quantity.capitalize()}: how far from the reference, and how far rounding alone leads", drawn.svg, what)


def beside(rows: pd.DataFrame) -> Iterator[Figure]:
    """Draws the distance of the gradient from the reference's on the same predictions, at every step."""
    for run in runs(rows, "shadow"):
        mine = rows[rows["run"] == run]
        names = sorted(name for name in mine["quantity"].unique() if name.startswith("beside/") and name.endswith("/gradient"))
        with drawing(f"beside-{len(names)}", height=3.2) as drawn:
            for name in names:
                found = curve(mine, run, name)
                whose = name.split("/")[1:-1]
                colour, label = SEEN[whose[-1]]
                style = "--" if whose[0] == "one2one" else "-"
                label = " ".join([*whose[:-1], label])
                drawn.axes.plot(found["step"], found["value"].clip(FLOOR), style, color=colour, linewidth=1, label=label)
            drawn.axes.set_yscale("log")
            _label_axes(drawn.axes, "step", "relative distance")
        title = f"{run.capitalize()}: gradient of the logits, on the same predictions"
        what = "How far from the reference at every step: the twin, the reference on nudged logits, and in double precision."
        yield Figure(title, drawn.svg, what)


def scores(rows: pd.DataFrame) -> Figure:
    """Draws mAP50-95 after every epoch, for every whole training."""
    scored = rows[rows["quantity"] == "mAP50-95"]
    with drawing("scores", height=3.2) as drawn:
        for role, colour in (("nudged", ROUNDING), ("reference", REFERENCE), ("twin", TWIN)):
            for _, found in scored[scored["role"] == role].groupby("run"):
                drawn.axes.plot(found["epoch"] + 1, found["value"], "-o", color=colour, markersize=3, linewidth=1, label=role)
        _label_axes(drawn.axes, "epoch", "mAP50-95")
    return Figure("mAP50-95 after every epoch", drawn.svg, "The score of every whole training, coloured by whose loss it used.")


def _apart(axes: Axes, rows: pd.DataFrame, pair: tuple[str, str], quantity: str, *, color: str, label: str) -> None:
    """Draw the relative deviation of one run from another."""
    found, expected = (curve(rows, run, quantity).set_index("step")["value"] for run in pair)
    relative = ((found - expected).abs() / expected.abs()).dropna().clip(FLOOR)
    axes.plot(relative.index, relative, color=color, linewidth=1, alpha=0.8, label=label)


def _label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(linewidth=0.6)
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # lines with the same label get one entry
    axes.legend(shown.values(), shown.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
