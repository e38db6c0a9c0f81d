"""Do raters agree with one another, and with the automatic checks?

Krippendorff's alpha with its interval, the share of agreeing pairs, and the 2x2 table of raters against automatic verdicts. Numbers in, numbers out:
where the ratings come from is the business of `lmdissect.audit.sheets`.

Shape letters: U rated units (one variant text each), R raters, C categories, D documents, B bootstrap draws.
"""

# ruff: noqa: N803, N806 - arrays carry shape letters
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

__all__ = [
    "CI_METHOD",
    "METRICS",
    "Agreement",
    "Metric",
    "Proportion",
    "VerdictTable",
    "compare_verdicts",
    "krippendorff_alpha",
    "majority",
    "measure_agreement",
    "wilson_interval",
]

Floats = npt.NDArray[np.float64]
Metric: TypeAlias = Literal["nominal", "ordinal", "interval"]

METRICS: tuple[Metric, ...] = ("nominal", "ordinal", "interval")
"""Differences between two ratings that alpha knows: any, by rank, by value."""

CI_METHOD = "percentile bootstrap over documents"
"""How the interval of alpha is made."""

_MIN_DEFINED_SHARE = 0.95
_DRAWN_COUNTS = 4_000_000  # coincidences held at once: bounds the memory


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree on one question.

    Attributes:
        num_ratings: Ratings given, those without a second one on the same unit among them.
        num_units: Units with at least two ratings; only they count.
        percent_agreement: Agreeing pairs of ratings / pairs of ratings, in percent; None without a pair.
        alpha: Krippendorff's alpha by metric; None where it is not defined.
        metric: The metric that fits the question's scale; the interval is that of its alpha.
        ci_low: Low end of the interval of ``alpha[metric]``, or None.
        ci_high: High end.
        reason: Why alpha or its interval is None; empty otherwise.
    """

    num_ratings: int
    num_units: int
    percent_agreement: float | None
    alpha: Mapping[Metric, float | None]
    metric: Metric
    ci_low: float | None
    ci_high: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Proportion:
    """``count`` of ``total``, and the Wilson interval of the proportion; share and interval are None where ``total`` is 0."""

    count: int
    total: int
    share: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """Raters' majority against the automatic verdict, over texts that have both.

    Attributes:
        both_accept: Texts that both accept.
        both_reject: Texts that both reject.
        only_raters_reject: Rejected by the raters, accepted by the automatic checks.
        only_checks_reject: Accepted by the raters, rejected by the automatic checks.
        num_tied: Texts on which as many raters accept as reject; in none of the four.
        precision: Of the texts that the checks reject, the share that the raters reject too.
        recall: Of the texts that the raters reject, the share that the checks reject too.
        alpha: Nominal alpha of the two verdicts, or None where only one of them was ever given.
    """

    both_accept: int
    both_reject: int
    only_raters_reject: int
    only_checks_reject: int
    num_tied: int
    precision: Proportion
    recall: Proportion
    alpha: float | None


def krippendorff_alpha(ratings_UR: Floats, metric: Metric) -> float | None:
    """Krippendorff's alpha: 1 where all raters agree, 0 where they agree as often as chance would have it.

        alpha = 1 - D_o / D_e = 1 - (n - 1) sum_{c<k} o_ck d_ck / sum_{c<k} n_c n_k d_ck
        o_ck  = sum over units of (ordered pairs of ratings c, k in the unit) / (m_u - 1),   m_u = ratings of the unit
        n_c   = sum_k o_ck,   n = sum_c n_c
        d_ck  = 1 (nominal), (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2 (ordinal), (c - k)^2 (interval)

    Units with fewer than two ratings are left out. Where every remaining rating is the same, nothing could have disagreed: alpha is not defined
    (0 / 0), and not 1.

    Args:
        ratings_UR: One row per unit, one column per rater, NaN where a rater gave none.
        metric: How far apart two ratings are.

    Returns:
        Alpha, at most 1; None where it is not defined.

    Source: Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania.
    """
    values_C, coincidences_UCC = _coincidences(ratings_UR)
    [alpha] = _alphas(coincidences_UCC.sum(axis=0)[None], values_C, metric)
    return None if math.isnan(alpha) else float(alpha)


def _coincidences(ratings_UR: Floats) -> tuple[Floats, Floats]:
    """Values in use, in order, shape (C,), and every unit's coincidence matrix, shape (U, C, C); zeros for a unit without a pair."""
    values_C = np.unique(ratings_UR[~np.isnan(ratings_UR)])
    counts_UC = (
        np.stack([(ratings_UR == value).sum(axis=1) for value in values_C], axis=1).astype(np.float64)
        if len(values_C)
        else np.zeros((len(ratings_UR), 0))
    )
    num_U = counts_UC.sum(axis=1)
    pairs_UCC = counts_UC[:, :, None] * counts_UC[:, None, :]
    diagonal = np.arange(len(values_C))
    pairs_UCC[:, diagonal, diagonal] -= counts_UC
    weights_U = np.divide(1.0, num_U - 1.0, out=np.zeros(len(num_U)), where=num_U > 1.0)
    return values_C, pairs_UCC * weights_U[:, None, None]


def _alphas(coincidences_BCC: Floats, values_C: Floats, metric: Metric) -> Floats:
    """Alpha of each of B coincidence matrices, NaN where it is not defined, shape (B,)."""
    totals_BC = coincidences_BCC.sum(axis=2)
    total_B = totals_BC.sum(axis=1)
    distances_BCC = _distances(totals_BC, values_C, metric)
    observed_B = (coincidences_BCC * distances_BCC).sum(axis=(1, 2))
    expected_B = (totals_BC[:, :, None] * totals_BC[:, None, :] * distances_BCC).sum(axis=(1, 2))
    ratio_B = np.divide((total_B - 1.0) * observed_B, expected_B, out=np.full(len(total_B), np.nan), where=expected_B > 0.0)
    alphas: Floats = 1.0 - ratio_B
    return alphas


def _distances(totals_BC: Floats, values_C: Floats, metric: Metric) -> Floats:
    """Squared difference of every two categories, shape (B, C, C)."""
    shape = (*totals_BC.shape, totals_BC.shape[1])
    if metric == "nominal":
        return np.broadcast_to(1.0 - np.eye(len(values_C)), shape)
    if metric == "interval":
        return np.broadcast_to((values_C[:, None] - values_C[None, :]) ** 2, shape)
    middle_BC = np.cumsum(totals_BC, axis=1) - totals_BC / 2.0  # the mean rank of a category's ratings
    distances: Floats = (middle_BC[:, :, None] - middle_BC[:, None, :]) ** 2
    return distances


def measure_agreement(
    ratings_UR: Floats,
    document_ids: Sequence[str],
    *,
    metric: Metric,
    num_draws: int,
    level: float,
    rng: np.random.Generator,
) -> Agreement:
    """Agreement of several raters on one question, with an interval over documents.

    The interval holds the quantiles of alpha over ``num_draws`` draws of documents with replacement; a document comes with all its units, because ratings of
    variants of one document are not independent. Deviation from Krippendorff, who draws pairs of ratings as if each were its own. Draws in which alpha is
    not defined are left out; if they are more than 5 % there is no interval.

    Args:
        ratings_UR: One row per unit, one column per rater, NaN where there is no rating.
        document_ids: Document of every unit, length U.
        metric: The one that fits the scale.
        num_draws: B.
        level: For example 0.95.
        rng: Where the draws come from.
    """
    values_C, coincidences_UCC = _coincidences(ratings_UR)
    num_U = (~np.isnan(ratings_UR)).sum(axis=1)
    summed_CC = coincidences_UCC.sum(axis=0)
    alphas = {name: _defined(_alphas(summed_CC[None], values_C, name)[0]) for name in METRICS}
    low, high, reason = None, None, _undefined_reason(num_U, alphas)
    if not reason:
        documents_DCC = _by_document(coincidences_UCC, document_ids, num_U > 1)
        drawn_B = _drawn_alphas(documents_DCC, values_C, metric, num_draws, rng)
        low, high, reason = _interval(drawn_B, len(documents_DCC), level)
    return Agreement(
        num_ratings=int(num_U.sum()),
        num_units=int((num_U > 1).sum()),
        percent_agreement=_percent_agreement(ratings_UR),
        alpha=alphas,
        metric=metric,
        ci_low=low,
        ci_high=high,
        reason=reason,
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _undefined_reason(num_U: npt.NDArray[np.int64], alphas: Mapping[Metric, float | None]) -> str:
    if not (num_U > 1).any():
        return "no text has ratings by two raters"
    return "only one answer was ever given: nothing could have disagreed" if alphas["nominal"] is None else ""


def _by_document(coincidences_UCC: Floats, document_ids: Sequence[str], paired_U: npt.NDArray[np.bool_]) -> Floats:
    """Coincidence matrices added up by document, over units with a pair, shape (D, C, C)."""
    rows = {document_id: row for row, document_id in enumerate(sorted({name for name, paired in zip(document_ids, paired_U, strict=True) if paired}))}
    documents_DCC = np.zeros((len(rows), *coincidences_UCC.shape[1:]))
    for unit, document_id in enumerate(document_ids):
        if paired_U[unit]:
            documents_DCC[rows[document_id]] += coincidences_UCC[unit]
    return documents_DCC


def _drawn_alphas(documents_DCC: Floats, values_C: Floats, metric: Metric, num_draws: int, rng: np.random.Generator) -> Floats:
    """Alpha of each bootstrap draw of documents, NaN where it is not defined, shape (B,)."""
    num_documents, num_categories = documents_DCC.shape[:2]
    flat_DK = documents_DCC.reshape(num_documents, -1)
    alphas_B = np.empty(num_draws)
    step = max(1, _DRAWN_COUNTS // max(num_documents, flat_DK.shape[1]))
    for start in range(0, num_draws, step):
        size = min(step, num_draws - start)
        weights_BD = rng.multinomial(num_documents, np.full(num_documents, 1.0 / num_documents), size=size).astype(np.float64)
        coincidences_BCC = (weights_BD @ flat_DK).reshape(size, num_categories, num_categories)
        alphas_B[start : start + size] = _alphas(coincidences_BCC, values_C, metric)
    return alphas_B


def _interval(drawn_B: Floats, num_documents: int, level: float) -> tuple[float | None, float | None, str]:
    """Low end, high end, and why there is none."""
    if num_documents < 2:
        return None, None, "one document only: no interval over documents"
    defined = drawn_B[~np.isnan(drawn_B)]
    if len(defined) < _MIN_DEFINED_SHARE * len(drawn_B):
        share = 100.0 * (1.0 - len(defined) / len(drawn_B))
        return None, None, f"no interval: in {share:.0f} % of the draws only one answer was given"
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high), ""


def _percent_agreement(ratings_UR: Floats) -> float | None:
    num_raters = ratings_UR.shape[1]
    agreeing = pairs = 0
    for left in range(num_raters):
        for right in range(left + 1, num_raters):
            both = ~np.isnan(ratings_UR[:, left]) & ~np.isnan(ratings_UR[:, right])
            pairs += int(both.sum())
            agreeing += int((ratings_UR[both, left] == ratings_UR[both, right]).sum())
    return 100.0 * agreeing / pairs if pairs else None


def majority(accepts: Sequence[bool]) -> bool | None:
    """What most raters say; None where as many accept as reject."""
    balance = sum(1 if accept else -1 for accept in accepts)
    return None if balance == 0 else balance > 0


def compare_verdicts(pairs: Sequence[tuple[bool | None, bool]], *, level: float) -> VerdictTable:
    """Table of the raters' majority against the automatic verdict.

    Args:
        pairs: For every text whether the raters accept it (None: a tie), and whether the automatic checks do.
        level: Of the Wilson intervals, for example 0.95.
    """
    settled = [(raters, checks) for raters, checks in pairs if raters is not None]
    count = {cell: settled.count(cell) for cell in ((True, True), (False, False), (False, True), (True, False))}
    ratings_UR = np.array(settled, dtype=np.float64).reshape(-1, 2)
    both_reject = count[False, False]
    return VerdictTable(
        both_accept=count[True, True],
        both_reject=both_reject,
        only_raters_reject=count[False, True],
        only_checks_reject=count[True, False],
        num_tied=len(pairs) - len(settled),
        precision=wilson_interval(both_reject, both_reject + count[True, False], level),
        recall=wilson_interval(both_reject, both_reject + count[False, True], level),
        alpha=krippendorff_alpha(ratings_UR, "nominal"),
    )


def wilson_interval(count: int, total: int, level: float) -> Proportion:
    """Score interval of a proportion.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = count / n, n = total, z = Phi^-1((1 + level) / 2)

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if total == 0:
        return Proportion(count, total, None, None, None)
    share, squared = count / total, float(ndtri((1.0 + level) / 2.0)) ** 2
    centre = share + squared / (2 * total)
    spread = math.sqrt(squared * (share * (1.0 - share) / total + squared / (4 * total**2)))
    scale = 1.0 + squared / total
    return Proportion(count, total, share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))
