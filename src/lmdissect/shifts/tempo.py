"""How soon a factor moves: where on a curve over data size or steps half of its last shift is reached. "Rapid" against "slow" as a number.

    half_x = the smallest x at which shift(x) / shift(last x) reaches 1/2

Between two measured x the shift is taken as linear in log x. At x = 0 nothing is trained and every shift is 0 by definition; log 0 does not exist, so from 0 to the first
measured x the shift is taken as linear in x. Where half is reached before the first measured x, half_x rests on that line alone, and is below that x.

Interval. Where every point has the same seeds, at least two, it is over documents and training runs (Fieller's way): every x has a margin

    m_sd(x) = shift_sd(x) - shift_sd(last x) / 2            turned so that the last shift is positive

whose mean over crossed documents and seeds has the interval of `seeds`. It reaches from the smallest x at which that interval's upper end is at least 0 to the
smallest at which its lower end is: before the first, half is not there yet; at the second, it is. Nothing is assumed of the form of the curve, and where
the curve is flat the interval is as wide as it must be. Else it is over documents, for these training runs: the percentile interval over draws of documents,
which all points of a curve share, with seeds taken together as they are. `interval_over` says which.

There is no number where the interval of the last shift covers 0, because half of nothing is nowhere.

Shape letters: S seeds, D documents, P points of a curve, R draws.

Source: Fieller (1954), "Some problems in interval estimation", J. R. Statist. Soc. B 16, for a ratio's interval from the margins that cannot be told from 0.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import STEP, Curve, shared_values
from lmdissect.shifts.estimate import resample_means
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["half_interval", "half_points", "tempo_rows"]

_SIZE = "corpus.size"
_FEWEST_POINTS = 2
_LOOKED_AT = 16
"""Places looked at between two measured x; where a bound of the margin passes 0 between two of them is then narrowed down."""
_HALVINGS = 12


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
            found, reasons = _rows(curve, points, variant, reference, config)
            rows += found
            gaps += [curve.gap("tempo", variant, f"against the {reference}: {reason}") for reason in reasons]
    return rows, gaps


def _rows(
    curve: Curve, points: Sequence[tuple[float, Panel]], variant: str, reference: str, config: ShiftConfig
) -> tuple[list[dict[str, Any]], list[str]]:
    """The row of one variant and reference, if there is one, and reasons for what is missing."""
    panels = [panel for _, panel in points]
    if not all((variant, reference) in panel.pairings for panel in panels):
        return [], ["not every point of the curve has it"]
    shared = shared_values(panels, variant, reference)
    if shared.too_few:
        return [], [shared.too_few]
    values = shared.values
    last = estimate_crossed(values[-1], config)
    if last.covers_zero:
        return [], [f"the last shift's interval [{last.ci_low:.4g}, {last.ci_high:.4g}] covers 0: half of it is reached nowhere"]
    x_P = np.array([x for x, _ in points])
    seed_means_DP = np.stack([shift_SD.mean(axis=0) for shift_SD in values], axis=1)
    if shared.seeds:
        low, high = half_interval(x_P, values, config)
    else:
        tail = (1.0 - config.level) / 2.0
        low, high = np.quantile(half_points(x_P, resample_means(seed_means_DP, config, "curve")), [tail, 1.0 - tail]).tolist()
    row = {
        **curve.heading(variant, reference, shared),
        "last_x": float(x_P[-1]),
        "last_estimate": last.estimate,
        "half_x": float(half_points(x_P, seed_means_DP.mean(axis=0)[None])[0]),
        "ci_low": low,
        "ci_high": high,
    }
    return [row], list(shared.left_out)


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


def half_interval(x_P: Floats, values: Sequence[Floats], config: ShiftConfig) -> tuple[float, float]:
    """Interval of the place where half of the last shift is first reached, over documents and training runs.

    Args:
        x_P: Ascending, above 0.
        values: Shifts at every x, shape (S, D) each, of the same seeds and documents. The interval of the last one's mean leaves out 0.
        config: Level of the interval.
    """
    half_SD = 0.5 * values[-1]
    sign = np.sign(half_SD.mean())
    before = [np.zeros_like(half_SD), *values[:-1]]  # nothing is trained at x = 0

    places = [number / _LOOKED_AT for number in range(_LOOKED_AT * len(values) + 1)]

    @cache
    def bounds(place: float) -> tuple[float, float]:
        """Upper and lower end of the margin's interval; the whole part of ``place`` is the measured x before it, its fraction the way to the next."""
        segment = min(int(place), len(values) - 1)
        part = place - segment
        margin = estimate_crossed(sign * ((1.0 - part) * before[segment] + part * values[segment] - half_SD), config)
        return margin.ci_high, margin.ci_low

    def first(end: int) -> float:
        """The place from which on one end of the margin's interval is at least 0."""
        for earlier, place in pairwise(places):
            if bounds(place)[end] >= 0.0:
                return _narrow(lambda at: bounds(at)[end] >= 0.0, earlier, place)
        return places[-1]  # the last margin is half of a shift above 0, but for rounding

    return _x_at(x_P, first(0)), _x_at(x_P, first(1))


def _narrow(reached: Callable[[float], bool], before: float, after: float) -> float:
    """The place between two where ``reached`` begins to hold: not at ``before``, but at ``after``."""
    for _ in range(_HALVINGS):
        middle = (before + after) / 2.0
        before, after = (before, middle) if reached(middle) else (middle, after)
    return after


def _x_at(x_P: Floats, place: float) -> float:
    """The x of a place: linear in x up to the first measured one, in log x from there on."""
    segment = min(int(place), len(x_P) - 1)
    part = place - segment
    return float(part * x_P[0]) if segment == 0 else float(x_P[segment - 1] * (x_P[segment] / x_P[segment - 1]) ** part)
