"""Tables of an experiment -> curves over the fields that were varied: one figure for each field and probe set, and the same numbers as text."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lmdissect.factors import ORIGINAL
from lmdissect.pipeline.points import LORA, cell_value, short_names, shown_forms
from lmdissect.report.palette import LINES, light
from lmdissect.report.rendering import drawing_style, render_figure
from lmdissect.wording import UNITS, format_plain, format_signed

__all__ = ["CurvePoint", "curve_points", "draw_curves", "text_tables"]

_LOG_FROM = 10.0
_COLUMNS = 3
_PANEL_IN = (2.35, 1.75)
_KINDS = ("png", "svg")
_GAIN = "gain on the originals"
_MARKERS = ("o", "s", "^", "D", "v", "P")
_TEXT_DECIMALS = 3
_RATE = "finetune.learning_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One estimate of one run.

    Attributes:
        probes: Probe set.
        variant: Variant, or `gain on the originals`.
        reference: ``original`` or ``control``; what the variant is compared with.
        x: Value of the analysed field; None for an absent one (full finetuning).
        group: Values of the other fields that tell curves apart, in short; empty where there is one curve.
        seed: Training seed.
        estimate: Shift or gain, nats per token (or per byte where the tokenizers differ).
        low: Lower end of its interval over documents.
        high: Upper end.
    """

    probes: str
    variant: str
    reference: str
    x: Any
    group: str
    seed: int
    estimate: float
    low: float
    high: float


def curve_points(tables: Mapping[str, pa.Table], field: str, others: Sequence[str]) -> tuple[list[CurvePoint], str]:
    """Estimates of every run, to be drawn over one field, and their unit.

    Per token where there are such rows, else per byte. Other fields tell curves apart only as far as they are needed for that.

    Args:
        tables: Tables of the experiment.
        field: The field of the horizontal axis.
        others: The other varied fields.
    """
    shifts = tables["shifts"].to_pylist() if "shifts" in tables else []
    gains = [{**row, "reference": ORIGINAL} for row in (tables["gains"].to_pylist() if "gains" in tables else []) if row["variant"] == ORIGINAL]
    normalization = "token" if any(row["normalization"] == "token" for row in shifts) else "byte"
    rows = [row for row in (*gains, *shifts) if row["normalization"] == normalization]
    telling = _telling_fields(rows, field, others)
    names, forms = short_names(telling), {name: _forms(name, [row[name] for row in rows]) for name in telling}
    points = [
        CurvePoint(
            probes=row["probes"],
            variant=_GAIN if row["variant"] == ORIGINAL else row["variant"],
            reference=row["reference"],
            x=row[field],
            group=" ".join(f"{names[name]}={forms[name][row[name]]}" for name in telling),
            seed=row["seed"],
            estimate=row["estimate"],
            low=row["ci_low"],
            high=row["ci_high"],
        )
        for row in rows
    ]
    return points, UNITS[normalization]


def _forms(field: str, cells: Iterable[Any]) -> dict[Any, str]:
    """Cells of a field in short; different ones have different forms."""
    distinct = list(dict.fromkeys(cells))
    return dict(zip(distinct, shown_forms(field, [cell_value(cell) for cell in distinct]), strict=True))


_Run: TypeAlias = tuple[Hashable, Mapping[str, Hashable]]
"""Value of the axis, and of the other fields."""


def _telling_fields(rows: Sequence[Mapping[str, Any]], field: str, others: Sequence[str]) -> list[str]:
    """The fewest fields without which runs would be joined to one curve that are none; rates go first, models and adapters last."""
    runs = [(row[field], {name: row[name] for name in others}) for row in rows]
    kept = list(others)
    for name in sorted(others, key=lambda name: (_tells_a_model(name, field), name != _RATE, -others.index(name))):
        fewer = [other for other in kept if other != name]
        groups: dict[tuple[Hashable, ...], list[_Run]] = {}
        for run in runs:
            groups.setdefault(tuple(run[1][other] for other in fewer), []).append(run)
        if all(_is_one_curve(group, name, joined=not _tells_a_model(name, field)) for group in groups.values()):
            kept = fewer
    return kept


def _tells_a_model(name: str, field: str) -> bool:
    """Whether it is another model, or other adapters, that a field stands for; along an axis of adapters all of them are one curve."""
    return name.startswith("models.") or (name.startswith(LORA) and not field.startswith(LORA))


def _is_one_curve(runs: Sequence[_Run], name: str, *, joined: bool) -> bool:
    """Whether runs may be one curve although ``name`` differs: it does not, or the axis says which it is and but one of its values has a curve at all.

    The last is a rate that a rank of adapters takes and all weights do not. Two values with several places each are two curves, though they share none.
    """
    values = {run[name] for _, run in runs}
    if len(values) == 1:
        return True
    places = [{x for x, run in runs if run[name] == value} for value in values]
    return joined and sum(map(len, places)) == len(set().union(*places)) and sum(len(of_one) > 1 for of_one in places) <= 1


def draw_curves(tables: Mapping[str, pa.Table], fields: Sequence[str], varied: Sequence[str]) -> dict[str, bytes]:
    """A figure for each field and probe set: content by file name.

    Args:
        tables: Tables of the experiment.
        fields: Fields to draw over; one with a single value is left out.
        varied: All varied fields.
    """
    files: dict[str, bytes] = {}
    for field in fields:
        points, unit = curve_points(tables, field, [name for name in varied if name != field])
        if len({_key(point.x) for point in points}) < 2:
            continue
        for probes in dict.fromkeys(point.probes for point in points):
            with drawing_style():
                figure = _draw([point for point in points if point.probes == probes], field, unit)
                for kind in _KINDS:
                    files[f"figures/{field}-{probes}.{kind}"] = render_figure(figure, kind)
    return files


def _key(value: object) -> tuple[int, Any]:
    """Order of the horizontal axis: numbers by size, words as they come, what is absent last."""
    if value is None:
        return (2, "")
    return (0, value) if isinstance(value, (int, float)) else (1, str(value))


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where the values of a field stand: to scale, on a log axis where they span a factor of ten, or side by side."""

    values: tuple[Any, ...]
    log: bool
    side_by_side: bool

    def place(self, value: object) -> float:
        return float(self.values.index(value)) if self.side_by_side else float(value)  # type: ignore[arg-type]


def _axis(values: Iterable[Any]) -> _Axis:
    ordered = tuple(sorted(set(values), key=_key))
    numbers = [value for value in ordered if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(ordered):
        return _Axis(ordered, log=False, side_by_side=True)
    return _Axis(ordered, log=min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_FROM, side_by_side=False)


def _draw(points: Sequence[CurvePoint], field: str, unit: str) -> Figure:
    panels = list(dict.fromkeys((point.variant, point.reference) for point in points))
    panels.sort(key=lambda panel: (panel[0] != _GAIN, list(dict.fromkeys(point.variant for point in points)).index(panel[0]), panel[1] != ORIGINAL))
    groups = list(dict.fromkeys(point.group for point in points))
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    key_in = 0.25 * math.ceil(len(groups) / 2) if len(groups) > 1 else 0.0
    figure = Figure(figsize=(columns * _PANEL_IN[0], rows * _PANEL_IN[1] + key_in), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axis = _axis(point.x for point in points)
    shifts: list[Axes] = []
    for number, (variant, reference) in enumerate(panels):
        axes: Axes = grid[number // columns][number % columns]
        if variant != _GAIN:
            shifts.append(axes)
        chosen = [point for point in points if (point.variant, point.reference) == (variant, reference)]
        for role, marker, group in zip(_cycled(LINES, groups), _cycled(_MARKERS, groups), groups, strict=True):
            _draw_curve(axes, [point for point in chosen if point.group == group], axis, light(role), marker)
        axes.set_title(variant if variant == _GAIN or reference == ORIGINAL else f"{variant} (net)", fontsize=9, loc="left")
        below = number + columns >= len(panels)
        _dress(axes, axis, field, unit, name_x=below, name_y=number % columns == 0)
    limits = _limits([point for point in points if point.variant != _GAIN])
    for axes in shifts:  # one scale for all variants, or a small shift looks like a large one
        axes.set_ylim(limits)
    for number in range(len(panels), rows * columns):
        grid[number // columns][number % columns].set_axis_off()
    if len(groups) > 1:
        handles = [
            Line2D([], [], color=light(role), marker=marker, markersize=4)
            for role, marker in zip(_cycled(LINES, groups), _cycled(_MARKERS, groups), strict=True)
        ]
        figure.legend(handles, groups, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _limits(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """A range that holds every interval, and 0."""
    low, high = min([0.0, *(point.low for point in points)]), max([0.0, *(point.high for point in points)])
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _cycled(values: Sequence[str], like: Sequence[object]) -> list[str]:
    return [values[number % len(values)] for number in range(len(like))]


def _draw_curve(axes: Axes, points: Sequence[CurvePoint], axis: _Axis, colour: str, marker: str) -> None:
    """A band for each seed's interval over documents, a dot for each seed, and a line through the means over all seeds, where they are there."""
    seeds = dict.fromkeys(point.seed for point in points)
    for seed in seeds:
        own = sorted((point for point in points if point.seed == seed), key=lambda point: axis.place(point.x))
        places = [axis.place(point.x) for point in own]
        if len(own) > 1:
            axes.fill_between(places, [point.low for point in own], [point.high for point in own], color=colour, alpha=0.13, linewidth=0)
        else:
            axes.vlines(places, [point.low for point in own], [point.high for point in own], color=colour, alpha=0.5, linewidth=1)
        axes.plot(places, [point.estimate for point in own], linestyle="none", marker=marker, markersize=3, color=colour, alpha=0.75)
    means = _means(points, len(seeds))
    ordered = sorted(means, key=axis.place)
    axes.plot([axis.place(x) for x in ordered], [means[x] for x in ordered], color=colour, linewidth=1.4)


def _means(points: Sequence[CurvePoint], num_seeds: int) -> dict[Any, float]:
    """Mean over seeds at each value of the field that has all of them: means over different seeds are not to be joined."""
    found = {x: [point.estimate for point in points if point.x == x] for x in dict.fromkeys(point.x for point in points)}
    return {x: sum(estimates) / len(estimates) for x, estimates in found.items() if len(estimates) == num_seeds}


def _dress(axes: Axes, axis: _Axis, field: str, unit: str, *, name_x: bool, name_y: bool) -> None:
    axes.axhline(0, color=light("rule"), linewidth=0.8, zorder=0)
    if axis.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    places = [axis.place(value) for value in axis.values]
    axes.xaxis.set_major_locator(FixedLocator(places))
    forms = _forms(field, axis.values)
    labels = [forms[value] for value in axis.values]
    axes.set_xticks(places, labels, fontsize=7, rotation=30 if max(map(len, labels)) > 6 else 0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_plain(value, _TEXT_DECIMALS if abs(value) < 1 else 1)))
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel(field if name_x else "", fontsize=8)
    axes.set_ylabel(unit if name_y else "", fontsize=8)


def text_tables(tables: Mapping[str, pa.Table], fields: Sequence[str], varied: Sequence[str]) -> list[str]:
    """The curves as lines of text: for each field and probe set a row per value, a column per variant, the mean over seeds and their range."""
    lines: list[str] = []
    for field in fields or ([""] if "shifts" in tables else []):
        points, unit = curve_points(tables, field, [name for name in varied if name != field]) if field else _single(tables, varied)
        for probes in dict.fromkeys(point.probes for point in points):
            chosen = [point for point in points if point.probes == probes]
            lines.extend([*_text_table(chosen, field, unit), ""])
    return lines


def _single(tables: Mapping[str, pa.Table], varied: Sequence[str]) -> tuple[list[CurvePoint], str]:
    """The estimates of an experiment with no field to look along; fields that vary all the same tell its rows apart."""
    named = {name: table.append_column("", pa.array(["all"] * len(table))) for name, table in tables.items() if name in {"shifts", "gains"}}
    return curve_points(named, "", varied)


def _text_table(points: Sequence[CurvePoint], field: str, unit: str) -> list[str]:
    columns = list(dict.fromkeys((point.variant, point.reference) for point in points))
    groups = list(dict.fromkeys(point.group for point in points))
    seeds = len({point.seed for point in points})
    forms = _forms(field, (point.x for point in points))
    head = [field or "points", *(variant if reference == ORIGINAL else f"{variant} (net)" for variant, reference in columns)]
    body = []
    for group in groups:
        for x in sorted({point.x for point in points if point.group == group}, key=_key):
            row = [forms[x] + (f" ({group})" if group else "")]
            for variant, reference in columns:
                found = [p.estimate for p in points if (p.variant, p.reference, p.group) == (variant, reference, group) and p.x == x]
                row.append(_cell(found, seeds))
            body.append(row)
    fewer = " unless the cell says of how many" if any(cell.endswith(f" of {seeds})") for row in body for cell in row[1:]) else ""
    over = f"; mean of {seeds} seeds [least, greatest]{fewer}" if seeds > 1 else ""
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    shown = [
        "  ".join(cell.ljust(width) if number == 0 else cell.rjust(width) for number, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *body)
    ]
    return [f"{points[0].probes}: shift of each variant against the original, {unit}{over}", *(line.rstrip() for line in shown)]


def _cell(values: Sequence[float], num_seeds: int) -> str:
    if not values:
        return "-"
    mean = format_signed(sum(values) / len(values), _TEXT_DECIMALS)
    of = f" ({len(values)} of {num_seeds})" if len(values) < num_seeds else ""
    if len(values) == 1:
        return f"{mean}{of}"
    return f"{mean} [{format_signed(min(values), _TEXT_DECIMALS)}, {format_signed(max(values), _TEXT_DECIMALS)}]{of}"
