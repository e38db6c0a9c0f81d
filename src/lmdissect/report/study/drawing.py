"""The static twin of a chart: the same numbers drawn by matplotlib, as PNG, SVG and PDF files and as SVG for the page."""

import math
import warnings
from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lmdissect.report.forest import NARROW, WIDE, PageWidth
from lmdissect.report.palette import light
from lmdissect.report.rendering import drawing_style, inline_svg, render_figure
from lmdissect.report.study.charts import Chart, Panel, Series
from lmdissect.report.text import clean_text, short_label
from lmdissect.wording import format_plain, format_signed

__all__ = ["KINDS", "draw_files", "draw_inline"]

KINDS = ("png", "svg", "pdf")
"""File formats of every static twin."""

_MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle": "^", "down": "v", "star": "*", "cross": "P"}
_ROW_IN = 0.24
_PANEL_IN = 2.1
_TITLE_IN = 0.36
_BOTTOM_IN = 0.56
_LEGEND_LINE_IN = 0.24
_LEFT_IN = 0.8
_GAP_IN = 0.3
_NARROWEST = 0.2
_CHAR_IN = 0.078
_LEGEND_KEY_IN = 0.4
_TITLE_PT = 9
_PT_PER_IN = 72.0
_MOST_CHARS = 80
_MOST_TICKS = 7


def draw_files(chart: Chart) -> dict[str, bytes]:
    """The chart as a file of every kind."""
    with drawing_style():
        figure = _draw(chart, WIDE)
        return {kind: render_figure(figure, kind) for kind in KINDS}


def draw_inline(chart: Chart) -> list[str]:
    """The chart as two ``<svg>`` elements, for a page and for a phone."""
    with drawing_style():
        return [inline_svg(_draw(chart, width), f"{chart.name}-{width.name}", clean_text(chart.label), width.name) for width in (WIDE, NARROW)]


def _draw(chart: Chart, width: PageWidth) -> Figure:
    stacked = not width.labels_beside or len(chart.panels) == 1
    num_columns = 1 if stacked else min(len(chart.panels), 3)
    num_rows = math.ceil(len(chart.panels) / num_columns)
    names = chart.series_names()
    legend_columns = _choose_columns(names, width)
    legend_in = _LEGEND_LINE_IN * math.ceil(len(names) / legend_columns) + 0.12
    panel_in = _panel_height(chart)
    height_in = legend_in + num_rows * (_TITLE_IN + panel_in + _BOTTOM_IN)
    left_in = _label_width(chart, width) if chart.kind == "forest" else _LEFT_IN
    column_in = (width.width_in - left_in - 0.08 - _GAP_IN * (num_columns - 1)) / num_columns
    figure = Figure(figsize=(width.width_in, height_in))
    limits = _limits(chart.panels, zero=chart.zero) if chart.same_scale else None
    for index, panel in enumerate(chart.panels):
        row, column = divmod(index, num_columns)
        bottom = height_in - legend_in - (row + 1) * (_TITLE_IN + panel_in + _BOTTOM_IN) + _BOTTOM_IN
        box = (left_in + column * (column_in + _GAP_IN), bottom, column_in, panel_in)
        axes = figure.add_axes((box[0] / width.width_in, box[1] / height_in, box[2] / width.width_in, box[3] / height_in))
        axes.set_title(_fit(panel.title, column_in, "bold"), loc="left", fontsize=_TITLE_PT, fontweight="bold", color=light("ink"), pad=6)
        fill = _fill_forest if chart.kind == "forest" else _fill_curve
        fill(axes, chart, panel, limits or _limits([panel], zero=chart.zero), show_labels=column == 0)
    _draw_legend(figure, chart, names, legend_columns, height_in)
    return figure


def _choose_columns(names: Sequence[str], width: PageWidth) -> int:
    """As many columns of a legend as leave every name whole, one at least."""
    longest_in = max((_width_in(clean_text(name)) for name in names), default=0.0)
    most = 3 if width.labels_beside else 1
    return next((number for number in range(most, 1, -1) if width.width_in / number >= _LEGEND_KEY_IN + longest_in + _LEGEND_KEY_IN / 4), 1)


def _fit(text: str, room_in: float, weight: str = "normal") -> str:
    """``text`` on one line, cut where it would be wider than ``room_in``."""
    line = short_label(text, _MOST_CHARS)
    return next((cut for number in range(len(line), 1, -1) if _width_in(cut := short_label(line, number), weight) <= room_in), line[:1])


def _width_in(text: str, weight: str = "normal") -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        path = TextPath((0, 0), text, size=_TITLE_PT, prop=FontProperties(family="DejaVu Sans", weight=weight))
    return float(path.get_extents().width) / _PT_PER_IN if text.strip() else 0.0


def _panel_height(chart: Chart) -> float:
    if chart.kind == "curve":
        return _PANEL_IN
    most = max(len(panel.series) for panel in chart.panels)
    return max(len(chart.rows), 1) * (_ROW_IN * max(most, 1) * 0.62 + 0.14) + 0.1


def _label_width(chart: Chart, width: PageWidth) -> float:
    longest = max((len(label) for label in chart.rows), default=0)
    most = 2.3 if width.labels_beside else 1.35
    return min(_CHAR_IN * longest + 0.2, most)


def _limits(panels: Sequence[Panel], *, zero: bool) -> tuple[float, float]:
    """Room for every estimate and interval, but a very wide interval among narrow ones may not flatten the rest."""
    marks = [mark for panel in panels for series in panel.series for mark in series.marks]
    estimates = [mark.estimate for mark in marks]
    half = median((mark.high - mark.low) / 2 for mark in marks)
    room = max(1.5 * (max(estimates) - min(estimates)), 3 * half) or max(abs(value) for value in estimates) or 0.01
    low = max(min(mark.low for mark in marks), min(estimates) - room)
    high = min(max(mark.high for mark in marks), max(estimates) + room)
    middle = (low + high) / 2
    if not zero and high - low < _NARROWEST * abs(middle):  # amounts that agree to many digits: an axis of such digits says nothing
        low, high = middle - _NARROWEST / 2 * abs(middle), middle + _NARROWEST / 2 * abs(middle)
    margin = 0.06 * (high - low) or 0.001
    return low - margin, high + margin


def _fill_forest(axes: Axes, chart: Chart, panel: Panel, limits: tuple[float, float], *, show_labels: bool) -> None:
    at = {label: index for index, label in enumerate(chart.rows)}
    step = 0.62 / max(len(panel.series), 1)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * step
        for mark in series.marks:
            _draw_mark(axes, series, (mark.low, mark.estimate, mark.high), at[mark.label] + offset, filled=mark.filled)
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(len(chart.rows))))
    axes.set_yticklabels([short_label(label, 30) for label in chart.rows] if show_labels else [])
    axes.tick_params(axis="y", length=0)
    if chart.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_plain(value, 0)))
    else:
        axes.set_xlim(*limits if not chart.zero else (min(0.0, limits[0]), max(0.0, limits[1])))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
    _style(axes, "x", zero=chart.zero)
    axes.set_xlabel(panel.unit, fontsize=9)


def _draw_mark(axes: Axes, series: Series, values: tuple[float, float, float], y: float, *, filled: bool) -> None:
    colour = light(series.role)
    low, estimate, high = values
    axes.plot([low, high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    face = colour if filled else light("surface")
    marker = _MARKERS[series.symbol]
    axes.plot([estimate], [y], marker, color=colour, markersize=5.6, markerfacecolor=face, markeredgewidth=1.3, zorder=3)


def _fill_curve(axes: Axes, chart: Chart, panel: Panel, limits: tuple[float, float], *, show_labels: bool) -> None:
    for series in panel.series:
        x = [float(mark.x or 0.0) for mark in series.marks]
        colour = light(series.role)
        axes.fill_between(
            x, [mark.low for mark in series.marks], [mark.high for mark in series.marks], color=colour, alpha=0.14, linewidth=0, zorder=2
        )
        axes.plot(x, [mark.estimate for mark in series.marks], f"{_MARKERS[series.symbol]}-", color=colour, linewidth=1.4, markersize=3.6, zorder=3)
    if chart.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    every = max(1, math.ceil(len(chart.ticks) / _MOST_TICKS * (1 if show_labels else 1.4)))
    shown = [tick for index, tick in enumerate(chart.ticks) if index % every == 0]
    axes.set_xticks([tick.at for tick in shown], [short_label(tick.text, 12) for tick in shown])
    axes.set_ylim(min(0.0, limits[0]), max(0.0, limits[1]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent if panel.is_share else _number))
    axes.tick_params(axis="y", length=0, labelleft=show_labels or not chart.same_scale)
    _style(axes, "y", zero=chart.zero)
    axes.set_xlabel(chart.x_name, fontsize=9)
    if show_labels or not chart.same_scale:
        axes.set_ylabel(panel.unit, fontsize=9)


def _style(axes: Axes, axis: Any, *, zero: bool) -> None:  # noqa: ANN401 - matplotlib's literal type
    axes.patch.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis=axis, color=light("rule"), linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    if zero:
        (axes.axvline if axis == "x" else axes.axhline)(0, color=light("ink"), linewidth=0.8, zorder=1)


def _number(value: float, _: object) -> str:
    decimals = next((digits for digits in range(7) if abs(round(value, digits) - value) < 1e-9), 6)
    return format_signed(value, decimals)


def _percent(value: float, _: object) -> str:
    return f"{format_plain(100 * value, 0)} %"


def _draw_legend(figure: Figure, chart: Chart, names: Sequence[str], num_columns: int, height_in: float) -> None:
    """At the very top: mark and name of every series."""
    by_name = {series.name: series for panel in chart.panels for series in panel.series}
    width_in = float(figure.get_size_inches()[0])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, height_in)
    axes.patch.set_visible(False)
    for index, name in enumerate(names):
        row, column = divmod(index, num_columns)
        left, y = 0.02 + column * width_in / num_columns, height_in - 0.13 - _LEGEND_LINE_IN * row
        series = by_name[name]
        colour = light(series.role)
        axes.plot([left, left + 0.3], [y, y], color=colour, linewidth=1.4)
        axes.plot([left + 0.15], [y], _MARKERS[series.symbol], color=colour, markersize=5)
        axes.text(left + _LEGEND_KEY_IN, y, _fit(name, width_in / num_columns - _LEGEND_KEY_IN), va="center", color=light("ink"))
