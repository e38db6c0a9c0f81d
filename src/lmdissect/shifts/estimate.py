"""Contrast, shift, gain and share, with intervals and tests: the numbers this package is for.

    contrast_m(d) = v_m(reference_d) - v_m(variant_d),   v = l/n, l/b or l   (per token, byte or document)
    gain(d)       = v_tuned(x_d) - v_base(x_d)
    shift(d)      = contrast_tuned(d) - contrast_base(d)
    share         = mean_d shift / mean_d gain

The reference is the original (the paper's), or the control: then the shift is the net shift, which holds the variants' writer constant.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift, UnavailableRow
from lmdissect.shifts.blocks import BLOCKED_FROM, blocked_means, blocked_sign_flip_p_values
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats, bootstrap_means, confidence_interval, holm, sign_flip_p_values
from lmdissect.wording import format_count

__all__ = [
    "BLOCKED",
    "MIN_DOCUMENTS",
    "Estimate",
    "estimate_gains",
    "estimate_means",
    "estimate_shifts",
    "label_means",
    "resample_means",
    "seeded_rng",
]

MIN_DOCUMENTS = 2
"""Fewest documents a mean with an interval can stand on."""

NO_RATIO = "the gain is exactly 0 in some draws of the documents: the interval of a share of it has no finite end"
"""Why there is no share although the gain's interval leaves out 0."""

BLOCKED = "drawn in blocks"
"""What `ci_method` says of draws made by `blocks`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over documents with its interval and test."""

    estimate: float
    ci_low: float
    ci_high: float
    ci_method: str
    p_value: float
    num_documents: int

    def to_row(self) -> dict[str, Any]:
        """Columns that every table with an estimate has."""
        names = ("num_documents", "estimate", "ci_low", "ci_high", "p_value")
        return {name: getattr(self, name) for name in names}

    @property
    def covers_zero(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.ci_low <= 0.0 <= self.ci_high


def seeded_rng(config: ShiftConfig, purpose: str) -> np.random.Generator:
    """A generator for one purpose: the same draws whatever else was computed before."""
    return np.random.default_rng([config.seed, *purpose.encode()])


def estimate_means(values_DK: Floats, config: ShiftConfig) -> tuple[list[Estimate], Floats]:
    """Mean of each column over the documents that have it (not NaN), with interval and test.

    Columns that the same documents have are drawn together, so that ratios and differences of them keep their pairing, and a draw is made once for
    all of them. What else is computed changes nothing: every group of columns starts with the same seed. Columns of `BLOCKED_FROM` or more documents
    are drawn in blocks (`blocks`), and their ``ci_method`` says so.

    Args:
        values_DK: One row per document; every column has at least `MIN_DOCUMENTS` numbers.
        config: Level, draws, method, seed.

    Returns:
        One estimate per column, and the resampled means, shape (R, K).
    """
    present_DK = ~np.isnan(values_DK)
    means_RK = resample_means(values_DK, config, "bootstrap")
    estimates: dict[int, Estimate] = {}
    for columns, blocked in _draw_groups(present_DK):
        if blocked:
            p_values = blocked_sign_flip_p_values(values_DK[:, columns], config.num_draws, seeded_rng(config, "sign-flip"))
        else:
            values = values_DK[present_DK[:, columns[0]]][:, columns]
            p_values = sign_flip_p_values(values, config.num_draws, seeded_rng(config, "sign-flip"))
        for column, p_value in zip(columns, p_values, strict=True):
            values_D = values_DK[present_DK[:, column], column]
            low, high, method = confidence_interval(values_D, means_RK[:, column], config.level, config.ci_method)
            method = f"{method}, {BLOCKED}" if blocked else method
            estimates[column] = Estimate(float(values_D.mean()), low, high, method, float(p_value), len(values_D))
    return [estimates[column] for column in range(values_DK.shape[1])], means_RK


def resample_means(values_DK: Floats, config: ShiftConfig, purpose: str) -> Floats:
    """Means of resampled documents, shape (R, K), with the draws that `estimate_means` explains.

    Args:
        values_DK: One row per document, NaN where a quantity is not defined for a document.
        config: Draws, seed.
        purpose: Names the draws.
    """
    present_DK = ~np.isnan(values_DK)
    means_RK = np.empty((config.num_draws, values_DK.shape[1]))
    for columns, blocked in _draw_groups(present_DK):
        rng = seeded_rng(config, purpose)
        if blocked:
            means_RK[:, columns] = blocked_means(values_DK[:, columns], config.num_draws, rng)
        else:
            means_RK[:, columns] = bootstrap_means(values_DK[present_DK[:, columns[0]]][:, columns], config.num_draws, rng)
    return means_RK


def _draw_groups(present_DK: npt.NDArray[np.bool_]) -> list[tuple[list[int], bool]]:
    """Columns that are drawn together, and whether in blocks: all large ones, and the others by the documents they have."""
    large = np.flatnonzero(present_DK.sum(axis=0) >= BLOCKED_FROM).tolist()
    groups: dict[bytes, list[int]] = defaultdict(list)
    for column in range(present_DK.shape[1]):
        if column not in large:
            groups[present_DK[:, column].tobytes()].append(column)
    return [*([(large, True)] if large else []), *((columns, False) for columns in groups.values())]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One row of the shift table before its interval: values of every document, NaN where the pair cannot be used."""

    variant: str
    reference: str
    normalization: str
    base_contrast_D: Floats
    tuned_contrast_D: Floats
    gain_D: Floats

    @property
    def num_documents(self) -> int:
        return int((~np.isnan(self.gain_D)).sum())

    @property
    def shift_D(self) -> Floats:
        return self.tuned_contrast_D - self.base_contrast_D


def estimate_shifts(paired: PairedScores, config: ShiftConfig) -> tuple[list[FactorShift], list[UnavailableRow]]:
    """Every variant x reference x normalization: shift, interval, p-values, gain and share.

    Positive: finetuning moved the model towards the reference's value of the factor. p-values are adjusted by Holm over all variants of one
    reference and normalization.

    Returns:
        Rows in report order, and the rows (or shares) that could not be computed, with reasons.

    Source: Zhang & Wu (2024), section 2, for the contrast per token and its change; intervals, tests, net shifts and shares are ours.
    """
    unavailable: list[UnavailableRow] = []
    comparisons: list[_Comparison] = []
    for normalization in paired.normalizations:
        for variant, reference in _pairings(paired):
            comparison = _compare(paired, variant, reference, normalization)
            if comparison.num_documents >= MIN_DOCUMENTS:
                comparisons.append(comparison)
            else:
                reason = f"both texts are whole for {format_count(comparison.num_documents, 'document')}; at least {MIN_DOCUMENTS} are needed"
                unavailable.append(UnavailableRow("shifts", variant, reference, normalization, reason))
    if not paired.tokenizers_equal:
        reason = "the models' tokenizers differ: only per-byte numbers can be compared"
        unavailable.extend(UnavailableRow("shifts", "all", "all", normalization, reason) for normalization in ("token", "document"))
    rows, no_shares = _estimate_rows(paired, comparisons, config) if comparisons else ([], [])
    return _with_holm(rows), [*unavailable, *no_shares]


def _pairings(paired: PairedScores) -> Iterator[tuple[str, str]]:
    """(variant, reference) pairs in report order."""
    for variant, factor in paired.factors.items():
        yield variant, "original"
        if paired.control is not None and factor != CONTROL:
            yield variant, "control"


def _compare(paired: PairedScores, variant: str, reference: str, normalization: str) -> _Comparison:
    names = {"original": ORIGINAL, "control": paired.control or ORIGINAL}
    base, tuned = paired.base_values[normalization], paired.tuned_values[normalization]
    base_contrast = base[names[reference]] - base[variant]
    tuned_contrast = tuned[names[reference]] - tuned[variant]
    gain = paired.gains(normalization, ORIGINAL)
    usable = ~np.isnan(base_contrast + tuned_contrast + gain)
    if normalization == "document":  # the original's gain stands in the row too
        usable &= ~(paired.truncated[variant] | paired.truncated[names[reference]] | paired.truncated[ORIGINAL])
    columns = (np.where(usable, values, np.nan) for values in (base_contrast, tuned_contrast, gain))
    return _Comparison(variant, reference, normalization, *columns)


def _estimate_rows(paired: PairedScores, comparisons: Sequence[_Comparison], config: ShiftConfig) -> tuple[list[FactorShift], list[UnavailableRow]]:
    columns = [values for comparison in comparisons for values in (comparison.shift_D, comparison.gain_D)]
    estimates, means_RK = estimate_means(np.stack(columns, axis=1), config)
    rows: list[FactorShift] = []
    no_shares: list[UnavailableRow] = []
    for number, comparison in enumerate(comparisons):
        shift, gain = estimates[2 * number : 2 * number + 2]
        share, share_low, share_high, reason = _share(shift, gain, means_RK[:, 2 * number : 2 * number + 2], config)
        if reason is not None:
            no_shares.append(UnavailableRow("shifts.share", comparison.variant, comparison.reference, comparison.normalization, reason))
        rows.append(
            FactorShift(
                base_model=paired.base.model,
                tuned_model=paired.tuned.model,
                factor=paired.factors[comparison.variant],
                variant=comparison.variant,
                reference=comparison.reference,
                normalization=comparison.normalization,
                estimate=shift.estimate,
                ci_low=shift.ci_low,
                ci_high=shift.ci_high,
                level=config.level,
                ci_method=shift.ci_method,
                p_value=shift.p_value,
                p_holm=shift.p_value,
                num_documents=comparison.num_documents,
                base_contrast=float(np.nanmean(comparison.base_contrast_D)),
                tuned_contrast=float(np.nanmean(comparison.tuned_contrast_D)),
                gain=gain.estimate,
                share=share,
                share_ci_low=share_low,
                share_ci_high=share_high,
            )
        )
    return rows, no_shares


def _share(
    shift: Estimate,
    gain: Estimate,
    means_RK: Floats,
    config: ShiftConfig,
) -> tuple[float | None, float | None, float | None, str | None]:
    """Ratio of the two means with a percentile interval of the resampled ratios; None where the gain cannot be told from 0."""
    if gain.covers_zero:
        return None, None, None, f"the gain's interval [{gain.ci_low:.4g}, {gain.ci_high:.4g}] covers 0: a share of it has no meaning"
    ends = ratio_interval(means_RK[:, 0], means_RK[:, 1], config.level)
    if ends is None:
        return None, None, None, NO_RATIO
    return shift.estimate / gain.estimate, *ends, None


def ratio_interval(top_R: Floats, bottom_R: Floats, level: float) -> tuple[float, float] | None:
    """Percentile interval of resampled ratios; None where so many draws have a denominator of exactly 0 that an end is not a number (very few documents)."""
    tail = (1.0 - level) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.quantile(top_R / bottom_R, [tail, 1.0 - tail])
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None


def _with_holm(rows: list[FactorShift]) -> list[FactorShift]:
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        families[row.reference, row.normalization].append(number)
    adjusted = list(rows)
    for members in families.values():
        for number, p_holm in zip(members, holm([rows[number].p_value for number in members]), strict=True):
            adjusted[number] = replace(rows[number], p_holm=p_holm)
    return adjusted


def estimate_gains(paired: PairedScores, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[UnavailableRow]]:
    """Mean gain of every variant's texts (and the originals'), per normalization, with interval and p-value; and what could not be computed."""
    labels: list[dict[str, Any]] = []
    columns: list[Floats] = []
    unavailable: list[UnavailableRow] = []
    for normalization in paired.normalizations:
        for variant in (ORIGINAL, *paired.factors):
            values_D = paired.gains(normalization, variant)
            if normalization == "document":
                values_D = np.where(paired.truncated[variant], np.nan, values_D)
            num_documents = int((~np.isnan(values_D)).sum())
            if num_documents < MIN_DOCUMENTS:
                reason = f"this text is whole and scored for {format_count(num_documents, 'document')}; at least {MIN_DOCUMENTS} are needed"
                unavailable.append(UnavailableRow("gains", variant, variant, normalization, reason))
                continue
            labels.append({"variant": variant, "factor": paired.factors.get(variant), "normalization": normalization})
            columns.append(values_D)
    return label_means(labels, columns, config), unavailable


def label_means(labels: Sequence[dict[str, Any]], columns: Sequence[Floats], config: ShiftConfig) -> list[dict[str, Any]]:
    """Rows of a table: each label with the estimate of its column, shape (D,)."""
    if not columns:
        return []
    estimates, _ = estimate_means(np.stack(columns, axis=1), config)
    return [{**label, **mean.to_row()} for label, mean in zip(labels, estimates, strict=True)]
