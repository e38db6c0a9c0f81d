"""Points of a study that lie on a curve: equal in everything but one setting.

The axis is a varied field with more than one numeric value, or `step` where runs were measured on their way. Points belong to one curve where all other varied
fields are equal, with two exceptions, for what cannot be equal or has no part in the training:

- On the axis `finetune.lora.rank` the point with all weights (null) belongs to the curve although adapters have settings and a learning rate of their own,
  if only one can be meant.
- What is done about probes found in the training documents (`corpus.on_overlap`) tells no curves apart. A share of mixed-in text (`corpus.mix.share`) of null is 0.

Shape letters: S seeds, D documents, P points of a curve.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmdissect.formats.study_tables import OVER_DOCUMENTS, OVER_RUNS, WHOLE_TEXT
from lmdissect.records import StudyGap
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats
from lmdissect.store.fingerprint import canonical_json
from lmdissect.wording import format_count

__all__ = ["RANK", "STEP", "Curve", "SharedShifts", "curve_label", "curve_rows", "find_curves", "shared_normalization", "shared_values"]

STEP = "step"
RANK = "finetune.lora.rank"

_MIX = "corpus.mix.share"
_NOT_TRAINING = ("corpus.on_overlap",)
_OF_ADAPTERS = ("finetune.learning_rate", "finetune.lora")
_SHOWN_CHARS = 40
_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Points along one axis.

    Attributes:
        axis: Dotted name of the field, or `step`.
        group: What tells this curve from others of its axis: ``rank=8``; empty where there is one.
        xs: Values of the axis, ascending; None (all weights) last.
        panels: The points, in the same order.
        selection: Tokens that its shifts are of: whole texts, or the changed words (`fact_curves`).
    """

    axis: str
    group: str
    xs: tuple[float | None, ...]
    panels: tuple[Panel, ...]
    selection: str = WHOLE_TEXT

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.panels[0].experiment

    @property
    def probes(self) -> str:
        """Name of the probe set."""
        return self.panels[0].probes

    @property
    def full(self) -> Panel | None:
        """The point with all weights, where there is one."""
        return self.panels[-1] if self.xs[-1] is None else None

    @property
    def measured(self) -> list[tuple[float, Panel]]:
        """The points with a number on the axis."""
        return [(x, panel) for x, panel in zip(self.xs, self.panels, strict=True) if x is not None]

    def heading(self, variant: str, reference: str, shared: "SharedShifts") -> dict[str, Any]:
        """Columns that every row about this curve begins with: what it is of, and what it stands on."""
        return {
            "experiment": self.experiment,
            "axis": self.axis,
            "group": self.group,
            "probes": self.probes,
            "variant": variant,
            "factor": next(panel.factors[variant] for panel in self.panels if variant in panel.factors),
            "reference": reference,
            "selection": self.selection,
            "normalization": shared.normalization,
            "num_seeds": shared.num_seeds,
            "num_documents": shared.num_documents,
            "interval_over": shared.interval_over,
        }

    def gap(self, table: str, variant: str, reason: str) -> StudyGap:
        """Something of this curve that could not be computed."""
        on_words = "" if self.selection == WHOLE_TEXT else "on the changed words, "
        return StudyGap(table, self.experiment, curve_label(self.axis, self.group), self.probes, variant, f"{on_words}{reason}")


def curve_label(axis: str, group: str) -> str:
    """What stands for a curve where a point's label would: ``along corpus.size, rank=8``."""
    return f"along {axis}{f', {group}' if group else ''}"


def find_curves(panels: Sequence[Panel]) -> list[Curve]:
    """All curves of a study, experiment by experiment, in the order of its fields; `step` last.

    Args:
        panels: All points; those with a step make the curves along `step`.
    """
    curves: list[Curve] = []
    studies: dict[tuple[str, str], list[Panel]] = {}
    for panel in panels:
        studies.setdefault((panel.experiment, panel.probes), []).append(panel)
    for members in studies.values():
        final = [panel for panel in members if panel.step is None]
        for field in dict.fromkeys(name for panel in final for name in panel.fields):
            curves += _along_field(field, final)
        curves += _along_steps([panel for panel in members if panel.step is not None])
    return curves


def _along_field(field: str, panels: Sequence[Panel]) -> list[Curve]:
    placed = [(x, panel) for panel in panels for x in _place(field, panel)]
    ignored: tuple[str, ...] = _NOT_TRAINING
    if len({(x, _others(field, panel, ignored)) for x, panel in placed}) < len(placed):
        ignored = ()  # it tells points of one x apart
    groups: dict[str, list[tuple[float | None, Panel]]] = {}
    for x, panel in placed:
        if x is not None:
            groups.setdefault(_others(field, panel, ignored), []).append((x, panel))
    full = [panel for x, panel in placed if x is None]
    found = {key: members for key, members in groups.items() if len({x for x, _ in members}) > 1}
    for members in found.values():
        if (whole := _full_point(full, members[0][1], ignored)) is not None:
            members.append((None, whole))
    telling = [name for name in _telling_fields(field, [members[0][1] for members in found.values()]) if name not in ignored]
    return [_curve(field, _shown_group(telling, members[0][1]), members) for members in found.values()]


def _place(field: str, panel: Panel) -> list[float | None]:
    """Where a point stands on an axis; empty where it has no number there. None is a place on the axis of ranks alone, 0 on that of mixed-in text."""
    value = panel.fields.get(field)
    if value is None:
        return [None] if field == RANK else [0.0] if field == _MIX else []
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def _others(field: str, panel: Panel, ignored: Sequence[str]) -> str:
    """All other fields that a curve must share, but for those whose name begins with one of ``ignored``, as one key."""
    return canonical_json(
        {name: value for name, value in panel.fields.items() if name != field and not any(name.startswith(start) for start in ignored)}
    )


def _full_point(full: Sequence[Panel], member: Panel, ignored: Sequence[str]) -> Panel | None:
    """The point with all weights that belongs to a curve over ranks: equal otherwise, or the only one that is equal but for settings of adapters."""
    equal: list[Panel] = []
    for left_out in (ignored, (*ignored, *_OF_ADAPTERS)):
        equal = equal or [panel for panel in full if _others(RANK, panel, left_out) == _others(RANK, member, left_out)]
    return equal[0] if len(equal) == 1 else None


def _telling_fields(field: str, panels: Sequence[Panel]) -> list[str]:
    """Other fields in which the curves of an axis differ."""
    names = dict.fromkeys(name for panel in panels for name in panel.fields if name != field)
    return [name for name in names if len({canonical_json(panel.fields.get(name)) for panel in panels}) > 1]


def _shown_group(names: Sequence[str], panel: Panel) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={_shown(name, panel.fields.get(name))}" for name in names)


def _shown(name: str, value: Any) -> str:  # noqa: ANN401 - a setting is whatever it is
    if value is None:
        return "full" if name.startswith("finetune.lora") else "none"
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _along_steps(panels: Sequence[Panel]) -> list[Curve]:
    groups: dict[str, list[tuple[float | None, Panel]]] = {}
    for panel in panels:
        groups.setdefault(panel.point, []).append((float(panel.step or 0), panel))
    return [_curve(STEP, point if len(groups) > 1 else "", members) for point, members in groups.items() if len(members) > 1]


def _curve(axis: str, group: str, members: Sequence[tuple[float | None, Panel]]) -> Curve:
    ordered = sorted(members, key=lambda member: (member[0] is None, member[0] or 0.0))
    return Curve(axis, group, tuple(x for x, _ in ordered), tuple(panel for _, panel in ordered))


def curve_rows(curves: Sequence[Curve], rows_of: Mapping[Panel, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of the table `curves`.

    Args:
        curves: As `find_curves` gives them.
        rows_of: The rows of every point, as `point_rows` gives them.
    """
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for x, panel in zip(curve.xs, curve.panels, strict=True):
            place = {
                "experiment": curve.experiment,
                "point": panel.point,
                "probes": curve.probes,
                "axis": curve.axis,
                "group": curve.group,
                "x": x,
                "x_label": "full" if x is None else f"{x:.10g}",
                "selection": curve.selection,
            }
            rows += [{**place, **{name: value for name, value in row.items() if not name.startswith("share")}} for row in rows_of.get(panel, ())]
    return rows


@dataclass(frozen=True, slots=True)
class SharedShifts:
    """Shifts of one variant at all points of a curve, in one unit and over the same documents.

    Attributes:
        values: Shape (S, D) for every point, without NaN, documents in the same order.
        normalization: Their unit: per token where every point has it, else per byte.
        seeds: Seeds that every point has, where there are at least two: then the rows of `values` are these, at every point. Else empty, and every point has
            its own.
        left_out: What not every point has, in words; empty if nothing.
    """

    values: tuple[Floats, ...]
    normalization: str
    seeds: tuple[int, ...]
    left_out: tuple[str, ...]

    @property
    def num_documents(self) -> int:
        """Documents that every point has."""
        return int(self.values[0].shape[1])

    @property
    def num_seeds(self) -> int:
        """Training runs of the point that has the fewest."""
        return min(len(shift_SD) for shift_SD in self.values)

    @property
    def interval_over(self) -> str:
        """What an interval of these shifts is over: training runs too, where all points have the same."""
        return OVER_RUNS if self.seeds else OVER_DOCUMENTS

    @property
    def too_few(self) -> str:
        """Why no interval can be had; empty where one can."""
        if self.num_documents >= MIN_DOCUMENTS:
            return ""
        return f"common to all points: {format_count(self.num_documents, 'document')}; at least {MIN_DOCUMENTS} are needed"


def shared_values(panels: Sequence[Panel], variant: str, reference: str) -> SharedShifts:
    """Shifts of the documents, and where there are several the seeds, that all points of a curve have.

    Args:
        panels: The points.
        variant: Variant; every point has it.
        reference: ``original`` or ``control``.
    """
    normalization = shared_normalization(panels)
    seeds = tuple(seed for seed in panels[0].seeds if all(seed in panel.seeds for panel in panels))
    if len(seeds) < _SEVERAL:
        seeds = ()
    shifts = [panel.shift(normalization, variant, reference) for panel in panels]
    having = [set(_chosen(panel.document_ids, ~np.isnan(shift_SD[0]))) for panel, shift_SD in zip(panels, shifts, strict=True)]
    shared = set.intersection(*having)
    order = [name for name in panels[0].document_ids if name in shared]
    values: list[Floats] = []
    for panel, shift_SD in zip(panels, shifts, strict=True):
        index = {name: number for number, name in enumerate(panel.document_ids)}
        rows = [panel.seeds.index(seed) for seed in seeds or panel.seeds]
        values.append(shift_SD[np.ix_(rows, [index[name] for name in order])])
    num_documents = len(set.union(*having)) - len(shared)
    num_runs = sum(len(panel.seeds) - len(seeds) for panel in panels) if seeds else 0
    left_out = [
        f"{format_count(number, what)} that not every point has: left out"
        for number, what in ((num_documents, "document"), (num_runs, "training run"))
        if number
    ]
    return SharedShifts(tuple(values), normalization, seeds, tuple(left_out))


def shared_normalization(panels: Sequence[Panel]) -> str:
    """The first normalization, in the order in which they are shown, that all points have: per token, or per byte where some point's tokenizers differ."""
    return next(name for name in panels[0].normalizations if all(name in panel.normalizations for panel in panels))


def _chosen(names: Sequence[str], here_D: Any) -> Iterator[str]:  # noqa: ANN401 - a boolean array
    return (name for name, is_here in zip(names, here_D.tolist(), strict=True) if is_here)
