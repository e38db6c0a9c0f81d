"""How much capacity a factor needs: the smallest LoRA rank whose shift reaches a share of full finetuning's.

    rank(q) = min { rank : shift(rank) / shift(all weights) >= q },   q = 1/2 and 9/10, over the ranks that were measured

Interval. Where every point has the same seeds, at least two, it is over documents and training runs: every rank has a margin

    m_sd(rank) = shift_sd(rank) - q shift_sd(all weights)        turned so that the shift of full finetuning is positive

whose mean over crossed documents and seeds has the interval of `seeds`. It reaches from the smallest rank at which that interval's upper end is at least 0 to
the smallest at which its lower end is. Else it is over documents, for these training runs, and read off the same number in draws of documents (all points
share each draw; seeds are taken together as they are): the smallest ranks that at least 2.5 % and 97.5 % of the draws do not exceed. `interval_over`
says which. A rank that no measured one is counts as above all of them; where the upper end is such, the interval is open: it is left out, and listed with
its lower end. There is no number where no rank reaches the share, or where the interval of full finetuning's shift covers 0.

Shape letters: S seeds, D documents, P points of a curve, R draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import RANK, Curve, shared_values
from lmdissect.shifts.estimate import resample_means
from lmdissect.shifts.resampling import Floats
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["SHARES_OF_FULL", "capacity_rows", "rank_interval", "smallest_ranks"]

SHARES_OF_FULL = (0.5, 0.9)


def capacity_rows(curves: Sequence[Curve], config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """The table `capacity`: one row per curve along rank, variant, reference and share.

    Args:
        curves: All curves; those along another axis are passed over.
        config: Statistics settings.

    Returns:
        The rows, and what could not be computed.
    """
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    for curve in curves:
        if curve.axis != RANK:
            continue
        if curve.full is None:
            gaps.append(curve.gap("capacity", "all", "there is no point with all weights, or more than one, to compare the ranks with"))
            continue
        for variant, reference in curve.full.pairings:
            found, reasons = _rows(curve, variant, reference, config)
            rows += found
            gaps += [curve.gap("capacity", variant, f"against the {reference}: {reason}") for reason in reasons]
    return rows, gaps


def _rows(curve: Curve, variant: str, reference: str, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one variant and reference, and reasons for what is missing."""
    if not all((variant, reference) in panel.pairings for panel in curve.panels):
        return [], ["not every point of the curve has it"]
    shared = shared_values(curve.panels, variant, reference)
    values, reasons = shared.values, list(shared.left_out)
    if shared.too_few:
        return [], [*reasons, shared.too_few]
    full = estimate_crossed(values[-1], config)
    if full.covers_zero:
        reason = f"the interval of full finetuning's shift [{full.ci_low:.4g}, {full.ci_high:.4g}] covers 0: a share of it has no meaning"
        return [], [*reasons, reason]
    ranks_P = np.array([x for x, _ in curve.measured])
    means_1P = np.array([[shift_SD.mean() for shift_SD in values]])
    rows: list[dict[str, Any]] = []
    for share in SHARES_OF_FULL:
        rank = float(smallest_ranks(ranks_P, means_1P, share)[0])
        low, high = (rank_interval if shared.seeds else _interval_over_documents)(ranks_P, values, share, config)
        rows.append(
            {
                **curve.heading(variant, reference, shared),
                "share_of_full": share,
                "full_estimate": full.estimate,
                "largest_rank": float(ranks_P[-1]),
                **{
                    name: None if np.isinf(found) else found
                    for name, found in (("rank", rank), ("ci_low", min(low, rank)), ("ci_high", max(high, rank)))
                },
            }
        )
    return rows, reasons


def rank_interval(ranks_P: Floats, values: Sequence[Floats], share: float, config: ShiftConfig) -> tuple[float, float]:
    """Interval of the smallest rank that reaches ``share`` of full finetuning's shift, over documents and training runs; infinite ends where none does.

    Args:
        ranks_P: Ascending.
        values: Shifts at every rank, and last those of full finetuning, shape (S, D) each, of the same seeds and documents.
        share: For example 0.5.
        config: Level of the interval.
    """
    full_SD = values[-1]
    sign = np.sign(full_SD.mean())
    margins = [estimate_crossed(sign * (shift_SD - share * full_SD), config) for shift_SD in values[:-1]]
    ends = ([margin.ci_high for margin in margins], [margin.ci_low for margin in margins])
    low, high = (next((rank for rank, bound in zip(ranks_P.tolist(), bounds, strict=True) if bound >= 0.0), np.inf) for bounds in ends)
    return low, high


def _interval_over_documents(ranks_P: Floats, values: Sequence[Floats], share: float, config: ShiftConfig) -> tuple[float, float]:
    seed_means_DP = np.stack([shift_SD.mean(axis=0) for shift_SD in values], axis=1)
    tail = (1.0 - config.level) / 2.0
    drawn_R = smallest_ranks(ranks_P, resample_means(seed_means_DP, config, "curve"), share)
    low, high = np.quantile(drawn_R, [tail, 1.0 - tail], method="inverted_cdf").tolist()
    return low, high


def smallest_ranks(ranks_P: Floats, shifts_RP: Floats, share: float) -> Floats:
    """Smallest rank that reaches ``share`` of the last column's shift, shape (R,); infinite where none does.

    Args:
        ranks_P: Ascending.
        shifts_RP: One row per draw: the shift at each rank, and last that of full finetuning, so one column more than there are ranks.
        share: For example 0.5.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        reached_RP = shifts_RP[:, :-1] / shifts_RP[:, -1:] >= share
    found: Floats = np.where(reached_RP.any(axis=1), ranks_P[np.argmax(reached_RP, axis=1)], np.inf)
    return found
