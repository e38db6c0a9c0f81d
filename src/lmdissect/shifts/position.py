"""Shift and gain by token position.

Bins of the 0-based position among a text's own tokens: 0, 1, 2-3, 4-7, 8-15, ...

    bin contrast_m(d) = mean score of x_d's tokens in the bin - mean score of v_d's tokens in the bin
    cumulative share(t) = mean_d [sum over positions < t of (token gain of x_d - token gain of v_d)] / its value at the end

Shape letters: D documents, K bins, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.factors import ORIGINAL
from lmdissect.formats.scores import ScoreTable
from lmdissect.records import UnavailableRow
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS, seeded_rng
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats, bootstrap_means, confidence_interval

__all__ = ["BinnedShift", "bin_edges", "bin_of_position", "bin_shifts", "cumulative_rows", "fixed_documents", "position_rows", "summed_shifts"]

_FIXED_SET_MIN_SHARE = 0.25
_FIXED_SET_MIN_DOCUMENTS = 10


def bin_of_position(position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bin number of each position: 0 -> 0, 1 -> 1, 2-3 -> 2, 4-7 -> 3, ... (the position's bit length)."""
    bins: npt.NDArray[np.int64] = np.frexp(position.astype(np.float64))[1].astype(np.int64)
    return bins


def bin_edges(number: int) -> tuple[int, int]:
    """First position of a bin, and the first one after it."""
    return (0, 1) if number == 0 else (2 ** (number - 1), 2**number)


@dataclass(frozen=True, slots=True)
class _Binned:
    """Per document and bin: mean score and summed score of a variant's tokens under one model, shape (D, K); mean is NaN where no token is scored."""

    mean: Floats
    total: Floats


def _bin_scores(paired: PairedScores, table: ScoreTable, variant: str, num_bins: int) -> _Binned:
    mean = np.full((len(paired.documents), num_bins), np.nan)
    total = np.zeros((len(paired.documents), num_bins))
    for number, document_id in enumerate(paired.documents):
        row = table.rows.get((document_id, variant))
        if row is None:
            continue
        scores = table.token_logprob_nats[table.tokens(row)].astype(np.float64)
        scored = np.flatnonzero(~np.isnan(scores))
        bins = bin_of_position(scored)
        sums = np.bincount(bins, weights=scores[scored], minlength=num_bins)[:num_bins]
        counts = np.bincount(bins, minlength=num_bins)[:num_bins]
        total[number] = sums
        np.divide(sums, counts, out=mean[number], where=counts > 0)
    return _Binned(mean, total)


def _num_bins(paired: PairedScores) -> int:
    longest = max(int(np.diff(table.token_offsets).max(initial=0)) for table in (paired.base, paired.tuned))
    return int(bin_of_position(np.array([max(longest - 1, 0)]))[0]) + 1


@dataclass(frozen=True, slots=True)
class BinnedShift:
    """One variant's bins in every document, shape (D, K); NaN where a document lacks one of the two texts there.

    Attributes:
        base_contrast_DK: Bin contrast under the base.
        tuned_contrast_DK: Bin contrast under the tuned model.
        gain_DK: Gain of the originals in the bin, in the documents that have the contrast.
    """

    base_contrast_DK: Floats
    tuned_contrast_DK: Floats
    gain_DK: Floats

    @property
    def shift_DK(self) -> Floats:
        """Shift of the bin contrast."""
        shift: Floats = self.tuned_contrast_DK - self.base_contrast_DK
        return shift


def bin_shifts(paired: PairedScores) -> dict[str, BinnedShift]:
    """Contrasts and gain by bin of token position, by variant. Needs equal tokenizers."""
    num_bins = _num_bins(paired)
    original_base, original_tuned = (_bin_scores(paired, table, ORIGINAL, num_bins).mean for table in (paired.base, paired.tuned))
    found: dict[str, BinnedShift] = {}
    for variant in paired.factors:
        base_contrast = original_base - _bin_scores(paired, paired.base, variant, num_bins).mean
        tuned_contrast = original_tuned - _bin_scores(paired, paired.tuned, variant, num_bins).mean
        gain = np.where(np.isnan(base_contrast), np.nan, original_tuned - original_base)
        found[variant] = BinnedShift(base_contrast, tuned_contrast, gain)
    return found


def position_rows(paired: PairedScores, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[UnavailableRow]]:
    """The position table: per variant, document set and bin, shift of the bin contrast and gain of the originals, with intervals.

    Document set ``all``: the documents whose texts both have a scored token in the bin. ``fixed``: the same documents in every bin, those that reach
    the last bin that at least a quarter of the documents (and ten) reach; so a trend over bins is not a change of documents. Needs equal tokenizers.
    """
    if not paired.tokenizers_equal:
        return [], []
    rows: list[dict[str, Any]] = []
    unavailable: list[UnavailableRow] = []
    for variant, binned in bin_shifts(paired).items():
        base_contrast, tuned_contrast = binned.base_contrast_DK, binned.tuned_contrast_DK
        kept = ~np.isnan(base_contrast).all(axis=1)
        sets = {"all": kept, "fixed": fixed_documents(base_contrast)}
        for name, documents in sets.items():
            factor = paired.factors[variant]
            profile = _profile(name, variant, factor, base_contrast[documents], tuned_contrast[documents], binned.gain_DK[documents], config)
            rows += profile
            unavailable += [UnavailableRow("position", variant, "original", "token", reason) for reason in _missing(name, profile, base_contrast)]
    return rows, unavailable


def _missing(document_set: str, profile: Sequence[dict[str, Any]], contrast_DK: Floats) -> list[str]:
    """Why rows are missing that could have been expected: bins that a single document reaches, or no fixed set at all."""
    if document_set == "fixed":
        return [] if profile else [f"fixed: no bin is reached by {_FIXED_SET_MIN_DOCUMENTS} documents and a quarter of them"]
    alone = np.flatnonzero((~np.isnan(contrast_DK)).sum(axis=0) == 1).tolist()
    return [f"all, from position {bin_edges(number)[0]}: a single document has both texts there" for number in alone]


def fixed_documents(contrast_DK: Floats) -> npt.NDArray[np.bool_]:
    """The documents that reach the last bin which a quarter of the documents (and ten) reach, and have every bin before it; shape (D,)."""
    present_DK = ~np.isnan(contrast_DK)
    enough = max(_FIXED_SET_MIN_DOCUMENTS, _FIXED_SET_MIN_SHARE * int(present_DK.any(axis=1).sum()))
    reached = np.flatnonzero(present_DK.sum(axis=0) >= enough)
    if len(reached) == 0:
        return np.zeros(len(contrast_DK), dtype=bool)
    in_all: npt.NDArray[np.bool_] = np.all(present_DK[:, reached], axis=1)
    return in_all


def _profile(
    document_set: str, variant: str, factor: str, base_contrast: Floats, tuned_contrast: Floats, gain: Floats, config: ShiftConfig
) -> list[dict[str, Any]]:
    shift = tuned_contrast - base_contrast
    num_bins = shift.shape[1]
    if len(shift) < MIN_DOCUMENTS:
        return []
    means_RK = bootstrap_means(np.concatenate([shift, gain], axis=1), config.num_draws, seeded_rng(config, "position"))
    rows: list[dict[str, Any]] = []
    for number in range(num_bins):
        present = ~np.isnan(shift[:, number])
        drawn = means_RK[:, [number, num_bins + number]]
        drawn = drawn[~np.isnan(drawn).any(axis=1)]
        full_fixed = document_set == "all" or bool(present.all())
        if int(present.sum()) < MIN_DOCUMENTS or len(drawn) == 0 or not full_fixed:
            continue
        low, high, _ = confidence_interval(shift[present, number], drawn[:, 0], config.level, config.ci_method)
        gain_low, gain_high, _ = confidence_interval(gain[present, number], drawn[:, 1], config.level, config.ci_method)
        start, end = bin_edges(number)
        rows.append(
            {
                "variant": variant,
                "factor": factor,
                "document_set": document_set,
                "bin_start": start,
                "bin_end": end,
                "num_documents": int(present.sum()),
                "base_contrast": float(base_contrast[present, number].mean()),
                "tuned_contrast": float(tuned_contrast[present, number].mean()),
                "estimate": float(shift[present, number].mean()),
                "ci_low": low,
                "ci_high": high,
                "gain": float(gain[present, number].mean()),
                "gain_ci_low": gain_low,
                "gain_ci_high": gain_high,
            }
        )
    return rows


def cumulative_rows(paired: PairedScores, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[UnavailableRow]]:
    """The cumulative-share table, at t = 1, 2, 4, 8, ...; a variant whose whole shift cannot be told from 0 has no shares."""
    if not paired.tokenizers_equal:
        return [], []
    num_bins = _num_bins(paired)
    rows: list[dict[str, Any]] = []
    unavailable: list[UnavailableRow] = []
    for variant, by_bin in summed_shifts(paired).items():
        factor = paired.factors[variant]
        per_bin = by_bin[~np.isnan(by_bin).any(axis=1)]
        if len(per_bin) < MIN_DOCUMENTS:
            unavailable.append(UnavailableRow("cumulative", variant, "original", "document", "fewer than 2 documents"))
            continue
        sums = per_bin.cumsum(axis=1)
        means_RK = bootstrap_means(sums, config.num_draws, seeded_rng(config, "position"))
        low, high, _ = confidence_interval(sums[:, -1], means_RK[:, -1], config.level, config.ci_method)
        if low <= 0.0 <= high:
            reason = f"the per-document shift's interval [{low:.4g}, {high:.4g}] covers 0: shares of it have no meaning"
            unavailable.append(UnavailableRow("cumulative", variant, "original", "document", reason))
            continue
        tail = (1.0 - config.level) / 2.0
        whole_R1 = means_RK[:, -1:]  # a draw of nothing but documents that did not shift at all has no share
        ratios_RK = np.divide(means_RK, whole_R1, out=np.full_like(means_RK, np.nan), where=whole_R1 != 0.0)
        ends = np.nanquantile(ratios_RK, [tail, 1.0 - tail], axis=0)
        shares = sums.mean(axis=0) / sums[:, -1].mean()
        rows += [
            {
                "variant": variant,
                "factor": factor,
                "position": bin_edges(number)[1],
                "share": float(shares[number]),
                "ci_low": float(ends[0, number]),
                "ci_high": float(ends[1, number]),
                "num_documents": len(per_bin),
            }
            for number in range(num_bins)
        ]
    return rows, unavailable


def summed_shifts(paired: PairedScores) -> dict[str, Floats]:
    """Per document and bin: token gains of the original minus those of the variant, summed; by variant, shape (D, K), NaN rows for absent variants.

    Their cumulative sum over bins is the part of the per-document shift that is made before the end of each bin. Needs equal tokenizers.
    """
    num_bins = _num_bins(paired)
    original = _token_gains(paired, ORIGINAL, num_bins)
    return {variant: original - _token_gains(paired, variant, num_bins) for variant in paired.factors}


def _token_gains(paired: PairedScores, variant: str, num_bins: int) -> Floats:
    """Summed token gain per document and bin, shape (D, K); NaN rows for documents without the variant."""
    gains: Floats = _bin_scores(paired, paired.tuned, variant, num_bins).total - _bin_scores(paired, paired.base, variant, num_bins).total
    missing = np.isnan(paired.gains(paired.normalizations[0], variant))
    gains[missing] = np.nan
    return gains
