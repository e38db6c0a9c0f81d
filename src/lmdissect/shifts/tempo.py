"""How soon a factor moves: where on a curve over data size or steps half of its last shift is reached. "Rapid" against "slow" as a number.

    half_x = the smallest x at which shift(x) / shift(last x) reaches 1/2

Between two measured x the shift is taken as linear in log x. At x = 0 nothing is trained and every shift is 0 by definition; log 0 does not exist, so from 0 to the first
measured x the shift is taken as linear in x. Where half is reached before the first measured x, half_x rests on that line alone, and is below that x.

The interval is the percentile interval over draws of documents: all points of a curve share each draw, and seeds are taken together as they are. There is no
number where the interval of the last shift covers 0, because half of nothing is nowhere.

Shape letters: S seeds, D documents, P points of a curve, R draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import STEP, Curve, shared_values
from lmdissect.shifts.estimate import MIN_DOCUMENTS, resample_means
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["half_points", "tempo_rows"]

_SIZE = "corpus.size"
_FEWEST_POINTS = 2


def tempo_rows(curves: Sequence[Curve], config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """The table `tempo`: one row per curve along data size or step, variant and reference.

    Args:
        curves: All curves; those along another axis are passed over.
        config: Statistics settings.

    Returns:
        The rows, and what could not be computed.
    """
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    for curve in curves:
        points = [(x, panel) for x, panel in curve.measured if x > 0.0]
        if curve.axis not in {STEP, _SIZE} or len(points) < _FEWEST_POINTS:
            continue
        for variant, reference in points[-1][1].pairings:
            row = _row(curve, points, variant, reference, config)
            if isinstance(row, str):
                gaps.append(curve.gap("tempo", variant, f"against the {reference}: {row}"))
                continue
            lost = row.pop("num_left_out")
            if lost:
                gaps.append(curve.gap("tempo", variant, f"against the {reference}: {lost} documents that not every point has are left out"))
            rows.append(row)
    return rows, gaps


def _row(curve: Curve, points: Sequence[tuple[float, Panel]], variant: str, reference: str, config: ShiftConfig) -> dict[str, Any] | str:
    """A row with the number of documents left out, or why there is none."""
    panels = [panel for _, panel in points]
    if not all((variant, reference) in panel.pairings for panel in panels):
        return "not every point of the curve has it"
    values, num_left_out = shared_values(panels, variant, reference)
    if values[0].shape[1] < MIN_DOCUMENTS:
        return f"{values[0].shape[1]} documents are common to all points; at least {MIN_DOCUMENTS} are needed"
    last = estimate_crossed(values[-1], config)
    if last.covers_zero:
        return f"the last shift's interval [{last.ci_low:.4g}, {last.ci_high:.4g}] covers 0: half of it is reached nowhere"
    x_P = np.array([x for x, _ in points])
    seed_means_DP = np.stack([shift_SD.mean(axis=0) for shift_SD in values], axis=1)
    drawn_R = half_points(x_P, resample_means(seed_means_DP, config, "curve"))
    tail = (1.0 - config.level) / 2.0
    low, high = np.quantile(drawn_R, [tail, 1.0 - tail])
    return {
        "experiment": curve.experiment,
        "axis": curve.axis,
        "group": curve.group,
        "probes": curve.probes,
        "variant": variant,
        "factor": panels[-1].factors[variant],
        "reference": reference,
        "num_seeds": min(len(panel.seeds) for panel in panels),
        "num_documents": values[0].shape[1],
        "last_x": float(x_P[-1]),
        "last_estimate": last.estimate,
        "half_x": float(half_points(x_P, seed_means_DP.mean(axis=0)[None])[0]),
        "ci_low": float(low),
        "ci_high": float(high),
        "num_left_out": num_left_out,
    }


def half_points(x_P: Floats, shifts_RP: Floats) -> Floats:
    """Where each curve first reaches half of its last value, shape (R,).

    Args:
        x_P: Ascending, above 0.
        shifts_RP: One curve per row.
    """
    last_R = shifts_RP[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_RP = shifts_RP / last_R[:, None]
    ratio_RP[:, -1] = 1.0  # a draw whose last shift is exactly 0 reaches half of it at the end, like any other
    first_R = np.argmax(ratio_RP >= 0.5, axis=1)
    rows = np.arange(len(shifts_RP))
    after_R = ratio_RP[rows, first_R]
    before_R = np.where(first_R > 0, ratio_RP[rows, first_R - 1], 0.0)
    part_R = (0.5 - before_R) / (after_R - before_R)
    right_R = x_P[first_R]
    left_R = np.where(first_R > 0, x_P[first_R - 1], right_R)
    found: Floats = np.where(first_R > 0, left_R * (right_R / left_R) ** part_R, part_R * right_R)
    return found
