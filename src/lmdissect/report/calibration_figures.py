"""Figures of the calibration page: rates and biases in strips with the goal as a band, power and slips as curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lmdissect.report.forest import NARROW, WIDE, PageWidth
from lmdissect.report.palette import LINES, light
from lmdissect.report.rendering import drawing_style, inline_svg, render_figure
from lmdissect.wording import format_plain, format_signed

__all__ = ["Curve", "CurvePanel", "Drawing", "Strip", "StripPoint", "draw_both", "draw_curves", "draw_strips"]

_POINT_IN, _GAP_IN, _LABEL_IN, _TICKS_IN, _KEY_IN = 0.115, 0.16, 0.21, 0.5, 0.24
_MARKERS = ("o", "s", "^", "D")
_KINDS = ("png", "svg", "pdf")


@dataclass(frozen=True, slots=True)
class StripPoint:
    """One number with its interval; ``net`` against the control, ``filled`` where the factor was planted."""

    value: float
    low: float
    high: float
    net: bool
    filled: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """The numbers of one planted change."""

    label: str
    points: Sequence[StripPoint]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: what was measured, with its interval, and what was expected (dashed), or None."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    expected: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One small plot."""

    title: str
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure for the page and for files.

    Attributes:
        name: File name without its ending.
        inline: Two ``<svg>`` elements, for a page and for a phone.
        files: Content by kind of file.
    """

    name: str
    inline: tuple[str, ...]
    files: Mapping[str, bytes]


def draw_both(name: str, label: str, draw: Callable[[PageWidth], Figure]) -> Drawing:
    """Draw for a page and for a phone."""
    with drawing_style():
        figures = [(draw(width), width) for width in (WIDE, NARROW)]
        inline = tuple(inline_svg(figure, f"{name}-{width.name}", label, width.name) for figure, width in figures)
        return Drawing(name, inline, {kind: render_figure(figures[0][0], kind) for kind in _KINDS})


def draw_strips(
    strips: Sequence[Strip], width: PageWidth, *, band: tuple[float, float], target: float, unit: str, decimals: int, signed: bool
) -> Figure:
    """One strip for each planted change, the goal as a band behind it.

    Args:
        strips: From top to bottom.
        width: Page or phone.
        band: Where the goal holds.
        target: The value aimed at.
        unit: What the axis shows.
        decimals: Of its ticks.
        signed: Whether ticks carry a plus sign.
    """
    beside = width.labels_beside
    heights = [_GAP_IN + _POINT_IN * len(strip.points) + (0.0 if beside else _LABEL_IN) for strip in strips]
    top_in = _KEY_IN * (1 if beside else 3) + 0.06
    height_in = top_in + sum(heights) + _TICKS_IN
    figure = Figure(figsize=(width.width_in, height_in))
    left_in = 1.75 if beside else 0.08
    axes = figure.add_axes((left_in / width.width_in, _TICKS_IN / height_in, 1 - (left_in + 0.15) / width.width_in, sum(heights) / height_in))
    axes.set_ylim(sum(heights), 0)
    axes.axvspan(*band, color=light("rule"), alpha=0.55, linewidth=0)
    axes.axvline(target, color=light("ink"), linewidth=0.9)
    top = 0.0
    for strip, height in zip(strips, heights, strict=True):
        _draw_strip(axes, strip, top, height, beside=beside)
        top += height
    _style_values(axes, unit, decimals, signed=signed, few=not beside)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _draw_keys(axes, width, height_in)
    return figure


def _draw_strip(axes: Axes, strip: Strip, top: float, height: float, *, beside: bool) -> None:
    label_y = top + height / 2 if beside else top + _GAP_IN / 2 + _LABEL_IN / 2
    x, transform = (-0.02, "right") if beside else (0.0, "left")
    axes.text(x, label_y, strip.label, transform=axes.get_yaxis_transform(), ha=transform, va="center", color=light("ink"))
    first = top + _GAP_IN / 2 + (0.0 if beside else _LABEL_IN)
    for index, point in enumerate(strip.points):
        y = first + _POINT_IN * (index + 0.5)
        colour = light("net" if point.net else "original")
        axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt")
        face = colour if point.filled else light("surface")
        axes.plot([point.value], [y], "D" if point.net else "o", color=colour, markersize=4.0, markerfacecolor=face, markeredgewidth=1.0)


def _style_values(axes: Axes, unit: str, decimals: int, *, signed: bool, few: bool) -> None:
    axes.patch.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if few else 7, steps=[1, 2, 5, 10]))
    write = format_signed if signed else format_plain
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(100 * value, decimals)))
    axes.grid(axis="x", color=light("rule"), linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(unit)


def _draw_keys(axes: Axes, width: PageWidth, height_in: float) -> None:
    scale = axes.get_figure().dpi_scale_trans  # type: ignore[union-attr]
    left, top = 0.0, height_in - _KEY_IN / 2
    keys = (
        ("original", "o", False, "against the original"),
        ("net", "D", False, "net of the control"),
        ("muted", "o", True, "filled: planted factor"),
    )
    for role, marker, filled, text in keys:
        colour = light(role)
        face = colour if filled else light("surface")
        axes.plot([left + 0.08], [top], marker, color=colour, markersize=4.5, markerfacecolor=face, transform=scale, clip_on=False)
        axes.text(left + 0.2, top, text, transform=scale, va="center", color=colour)
        if width.labels_beside:
            left += 1.75
        else:
            top -= _KEY_IN


def draw_curves(
    panels: Sequence[CurvePanel],
    width: PageWidth,
    *,
    x_label: str,
    y_label: str,
    log_x: bool,
    x_percent: bool,
    goal: float | None,
    limits: tuple[float, float] | None,
) -> Figure:
    """Small plots side by side (on a phone, one below the other) that share the y axis.

    Args:
        panels: From left to right.
        width: Page or phone.
        x_label: What x is.
        y_label: What y is; shown in per cent.
        log_x: Whether x is logarithmic.
        x_percent: Whether x is a share, shown in per cent.
        goal: A level to mark, or None.
        limits: Of y, or None for what the curves need.
    """
    columns = len(panels) if width.labels_beside else 1
    rows = -(-len(panels) // columns)
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    key_lines = 1 if width.labels_beside else len(labels)
    top_in, row_in, left_in = _KEY_IN * key_lines + 0.4, 1.9, 0.62
    height_in = top_in + rows * row_in + (rows - 1) * 0.85 + 0.55
    figure = Figure(figsize=(width.width_in, height_in))
    bounds = limits or _common_limits(panels)
    column_in = (width.width_in - left_in - 0.1 - 0.25 * (columns - 1)) / columns
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        bottom_in = height_in - top_in - row_in - row * (row_in + 0.85)
        place = (left_in + column * (column_in + 0.25)) / width.width_in, bottom_in / height_in, column_in / width.width_in, row_in / height_in
        axes = figure.add_axes(place)
        _draw_panel(axes, panel, labels, goal)
        _style_curves(axes, panel, log_x=log_x, x_percent=x_percent)
        axes.set_xlabel(x_label)
        axes.set_ylim(*bounds)
        if column == 0:
            axes.set_ylabel(y_label)
        else:
            axes.tick_params(labelleft=False)
    _draw_curve_keys(figure, labels, width, height_in)
    return figure


def _common_limits(panels: Sequence[CurvePanel]) -> tuple[float, float]:
    """Limits of y that all panels share."""
    values = [
        value for panel in panels for curve in panel.curves for line in (curve.y, curve.low, curve.high, curve.expected or ()) for value in line
    ]
    margin = 0.06 * (max(values) - min(values)) or 0.01
    return min(values) - margin, max(values) + margin


def _draw_panel(axes: Axes, panel: CurvePanel, labels: Sequence[str], goal: float | None) -> None:
    axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold", color=light("ink"))
    if goal is not None:
        axes.axhline(goal, color=light("muted"), linewidth=0.9, linestyle=(0, (3, 2)))
    for curve in panel.curves:
        index = labels.index(curve.label)
        colour = light(LINES[index])
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(curve.x, curve.y, marker=_MARKERS[index], color=colour, linewidth=1.4, markersize=4)
        if curve.expected is not None:
            axes.plot(curve.x, curve.expected, color=colour, linewidth=1.0, linestyle=(0, (4, 2)))


def _style_curves(axes: Axes, panel: CurvePanel, *, log_x: bool, x_percent: bool) -> None:
    axes.patch.set_visible(False)
    ticks = sorted({x for curve in panel.curves for x in curve.x})
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_plain(100 * value if x_percent else value, 0).replace(",", "")))
    axes.tick_params(axis="x", labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 4, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_plain(100 * value, 0)))
    axes.grid(axis="y", color=light("rule"), linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_curve_keys(figure: Figure, labels: Sequence[str], width: PageWidth, height_in: float) -> None:
    axes = figure.axes[0]
    scale = figure.dpi_scale_trans
    left, top = 0.0, height_in - _KEY_IN / 2
    for index, label in enumerate(labels):
        colour = light(LINES[index])
        axes.plot([left, left + 0.26], [top, top], color=colour, linewidth=1.4, transform=scale, clip_on=False)
        axes.plot([left + 0.13], [top], _MARKERS[index], color=colour, markersize=4, transform=scale, clip_on=False)
        axes.text(left + 0.34, top, label, transform=scale, va="center", color=colour)
        if width.labels_beside:
            left += 0.55 + 0.085 * len(label)
        else:
            top -= _KEY_IN
