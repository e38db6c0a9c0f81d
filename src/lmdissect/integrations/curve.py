"""The tables of a curve: the shifts, gains and fact-token shifts of every measured step, one below the other, and a figure of them.

    curve               columns of `shifts` (see `lmdissect.formats.shift_tables`), after step, num_trained_documents, num_trained_tokens, train_loss_nats,
                        and then original_loss_nats, variant_loss_nats (pooled losses of these texts under the model of the step, nats per token)
    curve_gains         the same first four columns, and those of `gains`
    curve_fact_tokens   the same first four columns, and those of `fact_tokens`

num_trained_documents and num_trained_tokens are null where they are not known. train_loss_nats is the mean training loss that was logged first at or after
the step; null at step 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lmdissect.factors import ORIGINAL
from lmdissect.formats.shift_tables import SCHEMAS
from lmdissect.report.palette import LINES, light
from lmdissect.report.rendering import drawing_style, render_figure
from lmdissect.report.text import short_label
from lmdissect.store import read_table, write_bytes, write_table
from lmdissect.wording import format_signed

__all__ = ["CURVE_SCHEMAS", "MeasuredStep", "draw_curve", "read_curve", "write_curve", "write_curve_figure"]

_STEP_COLUMNS = [("step", pa.int64()), ("num_trained_documents", pa.int64()), ("num_trained_tokens", pa.int64()), ("train_loss_nats", pa.float64())]
_LOSS_COLUMNS = [("original_loss_nats", pa.float64()), ("variant_loss_nats", pa.float64())]
_SOURCES = {"curve": "shifts", "curve_gains": "gains", "curve_fact_tokens": "fact_tokens"}
_MAX_TICKS = 14
_ASIDE = 0.05  # doublings between lines that share a step
_MARKERS = ("o", "s", "^", "D", "v", "P")
_TOKEN = "token"  # noqa: S105 - a normalization

CURVE_SCHEMAS: Mapping[str, pa.Schema] = {
    name: pa.schema([*_STEP_COLUMNS, *(_LOSS_COLUMNS if name == "curve" else []), *SCHEMAS[source]]) for name, source in _SOURCES.items()
}
"""Columns of every curve table."""


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One point of the curve.

    Attributes:
        step: Optimiser steps done.
        num_trained_documents: Documents trained on so far, where known.
        num_trained_tokens: Tokens trained on so far, where known.
        tables: The step's shift tables, as lists of rows.
    """

    step: int
    num_trained_documents: int | None
    num_trained_tokens: int | None
    tables: Mapping[str, Sequence[Mapping[str, Any]]]

    def headline(self) -> dict[str, float]:
        """What a tracker shows, in nats per token: ``shift/VARIANT``, ``net_shift/VARIANT`` (against the control), ``fact_tokens/VARIANT``, ``gain``,
        each with ``_low`` and ``_high``, and ``probe_loss/VARIANT``, the pooled loss.
        """  # noqa: D205 - one sentence
        found: dict[str, float] = {}
        for row in self.tables["shifts"]:
            if row["normalization"] == _TOKEN:
                found.update(_with_interval(f"{'shift' if row['reference'] == ORIGINAL else 'net_shift'}/{row['variant']}", row))
        for row in self.tables["fact_tokens"]:
            if row["selection"] == "changed" and row["statistic"] == "mean":
                found.update(_with_interval(f"fact_tokens/{row['variant']}", row))
        for row in self.tables["gains"]:
            if row["normalization"] == _TOKEN and row["variant"] == ORIGINAL:
                found.update(_with_interval("gain", row))
        found.update({f"probe_loss/{row['variant']}": row["tuned_loss_nats"] for row in self.tables["losses"] if row["tuned_loss_nats"] is not None})
        return found

    def rows(self, table: str, train_loss_nats: float | None) -> list[dict[str, Any]]:
        """Rows of one curve table."""
        first = {
            "step": self.step,
            "num_trained_documents": self.num_trained_documents,
            "num_trained_tokens": self.num_trained_tokens,
            "train_loss_nats": train_loss_nats,
        }
        losses = {row["variant"]: row["tuned_loss_nats"] for row in self.tables["losses"]}
        found = [{**first, **row} for row in self.tables[_SOURCES[table]]]
        if table == "curve":
            found = [{**row, "original_loss_nats": losses.get(ORIGINAL), "variant_loss_nats": losses.get(row["variant"])} for row in found]
        return found


def _with_interval(name: str, row: Mapping[str, Any]) -> dict[str, float]:
    return {name: row["estimate"], f"{name}_low": row["ci_low"], f"{name}_high": row["ci_high"]}


def write_curve(folder: Path, steps: Sequence[MeasuredStep], log_history: Iterable[Mapping[str, Any]]) -> None:
    """Write the curve tables as Parquet and CSV.

    Args:
        folder: Where.
        steps: All measured steps, in order.
        log_history: What the trainer logged, in order.
    """
    logged = [row for row in log_history if "loss" in row]
    losses = {point.step: next((float(row["loss"]) for row in logged if row["step"] >= point.step), None) if point.step else None for point in steps}
    for name, schema in CURVE_SCHEMAS.items():
        rows = [row for point in steps for row in point.rows(name, losses[point.step])]
        table = pa.Table.from_pylist(rows, schema=schema)
        write_table(folder / f"{name}.parquet", table)
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(table, sink)
        write_bytes(folder / f"{name}.csv", sink.getvalue().to_pybytes())


def read_curve(folder: Path, table: str = "curve") -> list[dict[str, Any]]:
    """Rows of one curve table.

    Raises:
        DamagedArtifactError: It is missing or cannot be read.
    """
    rows: list[dict[str, Any]] = read_table(folder / f"{table}.parquet").to_pylist()
    return rows


def write_curve_figure(folder: Path) -> None:
    """Draw the curve tables in ``folder`` as curve.png and curve.svg beside them."""
    rows, gains = read_curve(folder), read_curve(folder, "curve_gains")
    with drawing_style():
        figure = draw_curve(rows, gains)
        for kind in ("png", "svg"):
            write_bytes(folder / f"curve.{kind}", render_figure(figure, kind))


def draw_curve(rows: Sequence[Mapping[str, Any]], gains: Sequence[Mapping[str, Any]]) -> Figure:
    """Gain on the originals above, shifts against the original below, per token; steps on a logarithmic axis, with step 0 at its left end."""
    gain = [row for row in gains if row["normalization"] == _TOKEN and row["variant"] == ORIGINAL]
    shifts = [row for row in rows if row["normalization"] == _TOKEN and row["reference"] == ORIGINAL]
    variants = list(dict.fromkeys(row["variant"] for row in shifts))
    figure = Figure(figsize=(6.4, 5.0))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    figure.subplots_adjust(left=0.13, right=0.98, top=0.95, bottom=0.1, hspace=0.2)
    steps = sorted({row["step"] for row in rows})
    first = next((step for step in steps if step), 1)
    for axes in (above, below):
        _style_axes(axes, steps, first)
    _draw_line(above, gain, first, _LineStyle("original", "o", 0.0, "gain on the originals"))
    for number, variant in enumerate(variants):
        line = [row for row in shifts if row["variant"] == variant]
        style = _LineStyle(
            role=LINES[number % len(LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
            aside=_ASIDE * (number - (len(variants) - 1) / 2),
            label=f"{short_label(variant, 24)} ({line[0]['factor']})",
        )
        _draw_line(below, line, first, style)
    above.set_title("Gain on the originals", loc="left", fontweight="bold", fontsize=9)
    below.set_title("Shift against the original", loc="left", fontweight="bold", fontsize=9)
    below.set_xlabel("optimiser steps")
    for axes in (above, below):
        axes.set_ylabel("nats/token")
    if variants:
        below.legend(frameon=False, fontsize=8, loc="best")
    return figure


@dataclass(frozen=True, slots=True)
class _LineStyle:
    role: str
    marker: str
    aside: float
    label: str


def _on_axis(step: int, first: int) -> float:
    """Position of a step: its logarithm; step 0 stands one doubling before the first measured one."""
    return math.log2(step) if step else math.log2(first) - 1


def _style_axes(axes: Axes, steps: Sequence[int], first: int) -> None:
    axes.axhline(0, color=light("ink"), linewidth=0.8, zorder=1)
    axes.grid(axis="y", color=light("rule"), linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    shown = {_on_axis(step, first): step for step in steps[:: math.ceil(len(steps) / _MAX_TICKS)]} if steps else {}
    axes.xaxis.set_major_locator(FixedLocator(list(shown)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{shown.get(value, '')}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_signed(value, 3)))


def _draw_line(axes: Axes, rows: Sequence[Mapping[str, Any]], first: int, style: "_LineStyle") -> None:
    """Estimates joined by a line, with their intervals; several lines stand a little apart, so that their intervals can be told from each other."""
    x = [_on_axis(row["step"], first) + style.aside for row in rows]
    colour = light(style.role)
    axes.vlines(x, [row["ci_low"] for row in rows], [row["ci_high"] for row in rows], colors=colour, linewidth=1.2, alpha=0.6, zorder=2)
    axes.plot(x, [row["estimate"] for row in rows], color=colour, marker=style.marker, markersize=3.6, linewidth=1.3, label=style.label, zorder=3)
