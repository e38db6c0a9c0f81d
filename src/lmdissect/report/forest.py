"""Estimates with whiskers in rows, the numbers beside them: for shifts and for fact tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from lmdissect.report.palette import light
from lmdissect.report.text import short_label
from lmdissect.wording import format_signed

__all__ = ["NARROW", "WIDE", "ForestKey", "ForestPoint", "ForestRow", "PageWidth", "draw_forest", "text_width_in"]

_POINT_IN = 0.215
_LABEL_IN = 0.235
_HEADER_IN = 0.31
_GAP_IN = 0.10
_RULE_IN = 0.16
_TICKS_IN = 0.68
_KEY_IN = 0.23
_BLANK = {"facecolor": light("surface"), "edgecolor": "none", "pad": 1.5}


@dataclass(frozen=True, slots=True)
class PageWidth:
    """How wide a figure is drawn, in inches; type is 9 pt in all."""

    name: str
    width_in: float
    label_in: float

    @property
    def labels_beside(self) -> bool:
        """Whether row labels have a column of their own; on a phone they stand above their row."""
        return self.label_in > 0


WIDE = PageWidth("wide", 7.2, 1.75)
NARROW = PageWidth("narrow", 3.65, 0.0)


@dataclass(frozen=True, slots=True)
class ForestKey:
    """What one kind of mark means."""

    role: str
    marker: str
    text: str


@dataclass(frozen=True, slots=True)
class ForestPoint:
    """One estimate; ``filled`` marks the headline."""

    key: ForestKey
    estimate: float
    low: float
    high: float
    text: str
    filled: bool


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One variant or selection. ``header`` opens a group; ``apart`` sets the row apart with a rule."""

    label: str
    points: Sequence[ForestPoint]
    header: str = ""
    apart: bool = False


def draw_forest(rows: Sequence[ForestRow], width: PageWidth, *, unit: str) -> Figure:
    """Draw ``rows`` from top to bottom, a line at 0, the numbers on the right.

    Args:
        rows: At least one row with a point.
        width: Page or phone.
        unit: Unit of the axis.
    """
    keys = list(dict.fromkeys(point.key for row in rows for point in row.points))
    key_lines = 1 if width.labels_beside else len(keys)
    top_in = _KEY_IN * key_lines + 0.08
    body_in = sum(_row_height(row, width) for row in rows) + 0.05
    height_in = top_in + body_in + _TICKS_IN
    figure = Figure(figsize=(width.width_in, height_in))
    axis_left = width.label_in + 0.06
    numbers_left = width.width_in - max(text_width_in(point.text, bold=point.filled) for row in rows for point in row.points) - 0.02
    axis_width = numbers_left - axis_left - 0.1
    axes = figure.add_axes((axis_left / width.width_in, _TICKS_IN / height_in, axis_width / width.width_in, body_in / height_in))
    axes.set_ylim(body_in, 0)
    _style_axes(axes, rows, unit, width)
    for row, top in _stacked(rows, width):
        _draw_row(axes, row, top, width, numbers_left)
    _draw_keys(axes, keys, width, height_in)
    return figure


def _row_height(row: ForestRow, width: PageWidth) -> float:
    label = 0.0 if width.labels_beside or not row.label else _LABEL_IN
    return (_RULE_IN if row.apart else 0.0) + (_HEADER_IN if row.header else 0.0) + label + _POINT_IN * len(row.points) + _GAP_IN


def _stacked(rows: Sequence[ForestRow], width: PageWidth) -> Iterator[tuple[ForestRow, float]]:
    top = 0.0
    for row in rows:
        yield row, top
        top += _row_height(row, width)


def _style_axes(axes: Axes, rows: Sequence[ForestRow], unit: str, width: PageWidth) -> None:
    bounds = [bound for row in rows for point in row.points for bound in (point.low, point.high, point.estimate)]
    low, high = min([0.0, *bounds]), max([0.0, *bounds])
    margin = 0.07 * (high - low) or 0.001
    axes.set_xlim(low - margin, high + margin)
    axes.patch.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.axvline(0, color=light("ink"), linewidth=0.9, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if width.labels_beside else 3, steps=[1, 2, 2.5, 5, 10]))
    decimals = _tick_decimals(axes.get_xticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_signed(value, decimals)))
    axes.grid(axis="x", color=light("rule"), linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    away, towards = ("\u2190 away from the originals", "towards them \u2192") if width.labels_beside else ("\u2190 away", "towards \u2192")
    for text, x, align in ((away, 0.0, "left"), (towards, 1.0, "right")):
        axes.annotate(text, (x, 0), (0, -19), "axes fraction", "offset points", ha=align, va="top", color=light("muted"))
    axes.annotate(f"shift, {unit}", (0.5, 0), (0, -33), "axes fraction", "offset points", ha="center", va="top", color=light("muted"))


def _tick_decimals(ticks: npt.NDArray[np.float64]) -> int:
    step = float(abs(ticks[1] - ticks[0])) if len(ticks) > 1 else 1.0
    return next((decimals for decimals in range(8) if abs(round(step, decimals) - step) < step * 1e-6), 8)


def _draw_row(axes: Axes, row: ForestRow, top: float, width: PageWidth, numbers_left: float) -> None:
    inches = blended_transform_factory(axes.get_figure().dpi_scale_trans, axes.transData)  # type: ignore[union-attr]
    if row.apart:
        axes.plot([0, width.width_in], [top + 0.03] * 2, color=light("rule"), linewidth=0.8, transform=inches, clip_on=False)
        top += _RULE_IN
    if row.header:
        axes.text(0, top + _HEADER_IN / 2, short_label(row.header, 48), transform=inches, va="center", fontweight="bold", bbox=_BLANK)
        top += _HEADER_IN
    indent = 0.12
    if width.labels_beside:
        axes.text(indent, top + _POINT_IN * len(row.points) / 2, short_label(row.label, 24), transform=inches, va="center")
    elif row.label:
        axes.text(indent, top + _LABEL_IN / 2, short_label(row.label, 40), transform=inches, va="center", bbox=_BLANK)
        top += _LABEL_IN
    for index, point in enumerate(row.points):
        y = top + _POINT_IN * (index + 0.5)
        _draw_point(axes, point, y)
        weight = "bold" if point.filled else "normal"
        axes.text(numbers_left, y, point.text, transform=inches, va="center", color=light(point.key.role), fontweight=weight)


def _draw_point(axes: Axes, point: ForestPoint, y: float) -> None:
    colour = light(point.key.role)
    axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    face = colour if point.filled else light("surface")
    size = _marker_size(point.key)
    axes.plot([point.estimate], [y], point.key.marker, color=colour, markersize=size, markerfacecolor=face, markeredgewidth=1.3, zorder=3)


def _marker_size(key: ForestKey) -> float:
    return 6.0 if key.marker == "o" else 5.6


def _draw_keys(axes: Axes, keys: Sequence[ForestKey], width: PageWidth, height_in: float) -> None:
    """The legend, at the very top: in one line on a page, one below the other on a phone."""
    scale = axes.get_figure().dpi_scale_trans  # type: ignore[union-attr]
    left, top = 0.0, height_in - _KEY_IN / 2
    for key in keys:
        colour = light(key.role)
        axes.plot([left, left + 0.3], [top, top], color=colour, linewidth=1.4, transform=scale, clip_on=False)
        axes.plot([left + 0.15], [top], key.marker, color=colour, markersize=_marker_size(key), markeredgewidth=1.3, transform=scale, clip_on=False)
        axes.text(left + 0.4, top, key.text, transform=scale, va="center", color=colour)
        if width.labels_beside:
            left += 0.68 + text_width_in(key.text)
        else:
            top -= _KEY_IN


@cache
def text_width_in(text: str, *, bold: bool = False) -> float:
    """Width in inches of one line of 9 pt text."""
    properties = FontProperties(family=["DejaVu Sans"], size=9, weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, prop=properties).get_extents().width) / 72
