"""Curves over token positions: where in a text the gain and the shifts were made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lmdissect.report.captions import EARLY_TOKENS
from lmdissect.report.content import CumulativeShare
from lmdissect.report.forest import PageWidth
from lmdissect.report.palette import LINES, light
from lmdissect.report.text import short_label
from lmdissect.wording import format_plain, format_signed

__all__ = ["Curve", "Panel", "draw_cumulative", "draw_panels"]

_PANEL_IN = 1.18
_TITLE_IN = 0.34
_BOTTOM_IN = 0.5
_LEFT_IN = 0.56
_COLUMN_GAP_IN = 0.16
_ROW_GAP_IN = 0.58
_DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (8, 2)), (0, (2.5, 1.2)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SHARE_LIMITS = (-0.3, 1.5)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line with its band: x is the index of the bin."""

    x: Sequence[int]
    estimate: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One small plot: ``solid`` is over all documents, ``dashed`` over the fixed set."""

    title: str
    role: str
    solid: Curve
    dashed: Curve | None


def draw_panels(gain: Panel, shifts: Sequence[Panel], bin_starts: Sequence[int], width: PageWidth) -> Figure:
    """The gain across the top, one panel per variant below; the variants share one scale."""
    num_columns = 3 if width.labels_beside else 2
    num_rows = math.ceil(len(shifts) / num_columns)
    row_in = _PANEL_IN + _ROW_GAP_IN
    height_in = 0.3 + (1 + num_rows) * row_in + _BOTTOM_IN - 0.32
    figure = Figure(figsize=(width.width_in, height_in))
    inner_in = width.width_in - _LEFT_IN - 0.05
    column_in = (inner_in - _COLUMN_GAP_IN * (num_columns - 1)) / num_columns
    _draw_line_key(figure, width, height_in)
    top_in = height_in - 0.3 - _TITLE_IN
    axes = _add_axes(figure, _LEFT_IN, top_in - _PANEL_IN, inner_in, _PANEL_IN)
    _draw_panel(axes, gain, bin_starts, every=1, limits=_limits([gain]))
    limits = _limits(shifts)
    for index, panel in enumerate(shifts):
        row, column = divmod(index, num_columns)
        left = _LEFT_IN + column * (column_in + _COLUMN_GAP_IN)
        axes = _add_axes(figure, left, top_in - _PANEL_IN - (row + 1) * row_in, column_in, _PANEL_IN)
        _draw_panel(axes, panel, bin_starts, every=2, limits=limits)
        if column:
            axes.tick_params(labelleft=False)
    _draw_axis_names(figure, width, height_in, top_in, num_rows * row_in)
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    figure_width, figure_height = figure.get_size_inches()
    return figure.add_axes((left / figure_width, bottom / figure_height, width / figure_width, height / figure_height))


def _draw_line_key(figure: Figure, width: PageWidth, height_in: float) -> None:
    """What solid and dashed mean."""
    axes = _add_axes(figure, 0, height_in - 0.26, width.width_in, 0.24)
    axes.set_axis_off()
    axes.set_xlim(0, width.width_in)
    axes.set_ylim(-1, 1)
    texts = ("all documents that reach the bin", "the same documents in every bin") if width.labels_beside else ("all documents", "same documents")
    left = 0.0
    for text, dash in zip(texts, ("-", (0, (3, 1.6))), strict=True):
        axes.plot([left, left + 0.34], [0, 0], color=light("ink"), linewidth=1.4, linestyle=dash)
        axes.text(left + 0.44, 0, text, va="center")
        left += 0.75 + 0.078 * len(text)


def _draw_axis_names(figure: Figure, width: PageWidth, height_in: float, top_in: float, rows_in: float) -> None:
    muted = light("muted")
    figure.text(0.0, (top_in - _PANEL_IN / 2) / height_in, "nats/token", rotation=90, va="center", color=muted)
    figure.text(
        0.0, (top_in - _PANEL_IN - _ROW_GAP_IN - (rows_in - _ROW_GAP_IN) / 2) / height_in, "shift, nats/token", rotation=90, va="center", color=muted
    )
    figure.text(
        (_LEFT_IN + (width.width_in - _LEFT_IN) / 2) / width.width_in, 0.06 / height_in, "token position (start of bin)", ha="center", color=muted
    )


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Room for every estimate and its band; a band may reach at most as far again as the farthest estimate, so that one wide interval does not flatten the rest."""
    curves = [curve for panel in panels for curve in (panel.solid, panel.dashed) if curve is not None]
    estimates = np.asarray([0.0, *(value for curve in curves for value in curve.estimate)])
    room = 1.2 * float(np.abs(estimates).max())
    low = min([0.0, *(value for curve in curves for value in curve.low)])
    high = max([0.0, *(value for curve in curves for value in curve.high)])
    low, high = max(low, float(estimates.min()) - room), min(high, float(estimates.max()) + room)
    margin = 0.06 * (high - low) or 0.001
    return low - margin, high + margin


def _draw_panel(axes: Axes, panel: Panel, bin_starts: Sequence[int], *, every: int, limits: tuple[float, float]) -> None:
    colour = light(panel.role)
    axes.patch.set_visible(False)
    axes.axhline(0, color=light("ink"), linewidth=0.8, zorder=1)
    axes.grid(axis="y", color=light("rule"), linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.fill_between(panel.solid.x, panel.solid.low, panel.solid.high, color=colour, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(panel.solid.x, panel.solid.estimate, "o-", color=colour, linewidth=1.5, markersize=3.2, zorder=4)
    if panel.dashed is not None:
        axes.plot(panel.dashed.x, panel.dashed.estimate, linestyle=(0, (3, 1.6)), color=colour, linewidth=1.3, zorder=3)
    axes.set_xlim(-0.4, len(bin_starts) - 0.6)
    axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(FixedLocator(range(0, len(bin_starts), every)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{bin_starts[round(value)]}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: format_signed(value, 2) if abs(value) >= 0.005 or value == 0 else format_signed(value, 4))
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.text(0, 1.06, short_label(panel.title, 34), transform=axes.transAxes, va="bottom", fontweight="bold")


def draw_cumulative(curves: Sequence[tuple[str, Sequence[CumulativeShare]]], width: PageWidth) -> Figure:
    """Share of each shift made before a token position, on a logarithmic axis."""
    legend_columns = 3 if width.labels_beside else 1
    legend_in = 0.24 * math.ceil(len(curves) / legend_columns) + 0.1
    height_in = 2.5 + legend_in + _BOTTOM_IN
    figure = Figure(figsize=(width.width_in, height_in))
    axes = _add_axes(figure, _LEFT_IN, _BOTTOM_IN, width.width_in - _LEFT_IN - 0.12, 2.5)
    rows = [row for _, curve in curves for row in curve]
    _style_shares(axes, [row.position for row in rows], width)
    low, high = _SHARE_LIMITS
    bounds = [bound for row in rows for bound in (row.ci_low, row.ci_high)]
    axes.set_ylim(max(low, min(-0.05, *bounds)), min(high, max(1.05, *bounds)))
    for index, (_, curve) in enumerate(curves):
        _draw_share(axes, curve, index)
    _draw_share_key(figure, [name for name, _ in curves], legend_columns, height_in)
    return figure


def _style_shares(axes: Axes, positions: Sequence[int], width: PageWidth) -> None:
    axes.patch.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=light("rule"), linewidth=0.6, zorder=0)
    for level in (0.0, 1.0):
        axes.axhline(level, color=light("ink"), linewidth=0.8, zorder=1)
    axes.axvline(_on_axis(EARLY_TOKENS), color=light("muted"), linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{format_plain(100 * value, 0)} %"))
    axes.tick_params(axis="y", length=0)
    ticks = [1 << power for power in range(max(positions).bit_length() + 1) if 1 << power <= max(positions)]
    axes.xaxis.set_major_locator(FixedLocator([_on_axis(tick) for tick in ticks[:: 1 if width.labels_beside else 2]]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{2**value:.0f}"))
    axes.set_xlabel("first t tokens")
    axes.set_ylabel("share of the whole shift")


def _on_axis(position: int) -> float:
    return math.log2(max(position, 0.5))


def _draw_share(axes: Axes, curve: Sequence[CumulativeShare], index: int) -> None:
    colour = light(LINES[index % len(LINES)])
    x = [_on_axis(row.position) for row in curve]
    axes.fill_between(x, [row.ci_low for row in curve], [row.ci_high for row in curve], color=colour, alpha=0.12, linewidth=0)
    dash, marker = _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)]
    axes.plot(x, [row.share for row in curve], color=colour, linestyle=dash, marker=marker, markersize=3.6, linewidth=1.5, zorder=3)


def _draw_share_key(figure: Figure, names: Sequence[str], num_columns: int, height_in: float) -> None:
    width_in = float(figure.get_size_inches()[0])
    axes = _add_axes(figure, 0, 0, width_in, height_in)
    axes.set_axis_off()
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, height_in)
    for index, name in enumerate(names):
        row, column = divmod(index, num_columns)
        left, y = column * width_in / num_columns, height_in - 0.13 - 0.24 * row
        colour = light(LINES[index % len(LINES)])
        axes.plot([left, left + 0.4], [y, y], color=colour, linestyle=_DASHES[index % len(_DASHES)], linewidth=1.5)
        axes.plot([left + 0.2], [y], color=colour, marker=_MARKERS[index % len(_MARKERS)], markersize=3.6)
        axes.text(left + 0.5, y, short_label(name, 24), va="center", color=colour)
