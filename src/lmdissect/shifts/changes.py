"""Whether a shift changes along a curve: its last point against its first, document by document.

    change_sd = shift_sd(last x) - shift_sd(first x)

Both points score the same documents, and what makes a document's shift large or small is in both; the difference is therefore known better than two intervals,
each point's own, would say. Runs are paired by their seed; where two runs have nothing in common but its number this costs nothing.

Interval. Where both points have the same seeds, at least two, it is over documents and training runs, as in `seeds`. Else it is over documents, for these
training runs: the bootstrap of the mean over seeds. `interval_over` says which. p is adjusted by Holm over the variants of one curve and reference.

Shape letters: S seeds, D documents.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import Curve, shared_values
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import holm
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["change_rows"]

_FEWEST_POINTS = 2
_KEPT = ("estimate", "ci_low", "ci_high", "p_value")
_Row = dict[str, Any]


def change_rows(curves: Sequence[Curve], config: ShiftConfig) -> tuple[list[_Row], list[StudyGap]]:
    """The table `changes`: one row per curve, variant and reference that at least two of its points have.

    The ends are those of its points with the smallest and the largest number on the axis; full finetuning, which has no number among the ranks, is none of them.

    Args:
        curves: All curves.
        config: Statistics settings.

    Returns:
        The rows, and what could not be computed.
    """
    rows: list[_Row] = []
    gaps: list[StudyGap] = []
    for curve in curves:
        found: list[_Row] = []
        for variant, reference in dict.fromkeys(pairing for _, panel in curve.measured for pairing in panel.pairings):
            points = [(x, panel) for x, panel in curve.measured if (variant, reference) in panel.pairings]
            if len(points) < _FEWEST_POINTS:
                gaps.append(curve.gap("changes", variant, f"against the {reference}: fewer than two points of the curve have it"))
                continue
            row, reasons = _row(curve, points[0], points[-1], variant, reference, config)
            found += [row] if row else []
            gaps += [curve.gap("changes", variant, f"against the {reference}: {reason}") for reason in reasons]
        rows += _with_holm(found)
    return rows, gaps


def _row(
    curve: Curve, first: tuple[float, Panel], last: tuple[float, Panel], variant: str, reference: str, config: ShiftConfig
) -> tuple[_Row | None, list[str]]:
    """The row of one variant and reference, if there is one, and reasons for what is missing."""
    shared = shared_values([first[1], last[1]], variant, reference)
    if shared.too_few:
        return None, [shared.too_few]
    before_SD, after_SD = shared.values
    if not shared.seeds:
        before_SD, after_SD = before_SD.mean(axis=0, keepdims=True), after_SD.mean(axis=0, keepdims=True)
    change = estimate_crossed(after_SD - before_SD, config)
    row = {
        **curve.heading(variant, reference, shared),
        "first_x": first[0],
        "last_x": last[0],
        **{name: value for name, value in change.to_row().items() if name in _KEPT},
    }
    return row, list(shared.left_out)


def _with_holm(rows: Sequence[_Row]) -> list[_Row]:
    families: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        families[row["reference"]].append(row)
    adjusted = {
        (reference, row["variant"]): p_holm
        for reference, members in families.items()
        for row, p_holm in zip(members, holm([row["p_value"] for row in members]), strict=True)
    }
    return [{**row, "p_holm": adjusted[row["reference"], row["variant"]]} for row in rows]
