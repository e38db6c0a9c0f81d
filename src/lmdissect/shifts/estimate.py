"""Contrast, shift, gain and share, with intervals and tests: the numbers this package is for.

    contrast_m(d) = v_m(reference_d) - v_m(variant_d),   v = l/n, l/b or l   (per token, byte or document)
    gain(d)       = v_tuned(x_d) - v_base(x_d)
    shift(d)      = contrast_tuned(d) - contrast_base(d)
    share         = mean_d shift / mean_d gain

The reference is the original (the paper's), or the control: then the shift is the net shift, which holds the variants' writer constant.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift, UnavailableRow
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats, bootstrap_means, confidence_interval, holm, sign_flip_p_values

__all__ = ["MIN_DOCUMENTS", "Estimate", "estimate_gains", "estimate_mean", "estimate_means", "estimate_shifts", "seeded_rng"]

MIN_DOCUMENTS = 2
"""Fewest documents a mean with an interval can stand on."""


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


def estimate_mean(values_D: Floats, means_R: Floats, p_value: float, config: ShiftConfig) -> Estimate:
    """Mean of ``values_D`` (no NaN) with the interval that its resampled means give."""
    low, high, method = confidence_interval(values_D, means_R, config.level, config.ci_method)
    return Estimate(float(values_D.mean()), low, high, method, p_value, len(values_D))


def estimate_means(values_DK: Floats, config: ShiftConfig) -> list[Estimate]:
    """Mean of each column of ``values_DK`` (no NaN) with interval and test; all columns share each draw."""
    means_RK = bootstrap_means(values_DK, config.num_draws, seeded_rng(config, "bootstrap"))
    p_values = sign_flip_p_values(values_DK, config.num_draws, seeded_rng(config, "sign-flip"))
    return [estimate_mean(values_DK[:, column], means_RK[:, column], float(p_value), config) for column, p_value in enumerate(p_values)]


def estimate_shifts(paired: PairedScores, config: ShiftConfig) -> tuple[list[FactorShift], list[UnavailableRow]]:
    """Every variant x reference x normalization: shift, interval, p-values, gain and share.

    Positive: finetuning moved the model towards the reference's value of the factor. p-values are adjusted by Holm over all variants of one
    reference and normalization.

    Returns:
        Rows in report order, and the rows (or shares) that could not be computed, with reasons.

    Source: Zhang & Wu (2024), section 2, for the contrast per token and its change; intervals, tests, net shifts and shares are ours.
    """
    rows: list[FactorShift] = []
    unavailable: list[UnavailableRow] = []
    for normalization in paired.normalizations:
        for variant, reference in _comparisons(paired):
            row, reasons = _estimate_row(paired, variant, reference, normalization, config)
            unavailable.extend(UnavailableRow(table, variant, reference, normalization, reason) for table, reason in reasons)
            if row is not None:
                rows.append(row)
    if not paired.tokenizers_equal:
        reason = "the models' tokenizers differ: only per-byte numbers can be compared"
        unavailable.extend(UnavailableRow("shifts", "all", "all", normalization, reason) for normalization in ("token", "document"))
    return _with_holm(rows), unavailable


def _comparisons(paired: PairedScores) -> Iterator[tuple[str, str]]:
    """(variant, reference) pairs in report order."""
    for variant, factor in paired.factors.items():
        yield variant, "original"
        if paired.control is not None and factor != CONTROL:
            yield variant, "control"


def _estimate_row(
    paired: PairedScores, variant: str, reference: str, normalization: str, config: ShiftConfig
) -> tuple[FactorShift | None, list[tuple[str, str]]]:
    names = {"original": ORIGINAL, "control": paired.control or ORIGINAL}
    base, tuned = paired.base_values[normalization], paired.tuned_values[normalization]
    base_contrast = base[names[reference]] - base[variant]
    tuned_contrast = tuned[names[reference]] - tuned[variant]
    gain = paired.gains(normalization, ORIGINAL)
    usable = ~np.isnan(base_contrast + tuned_contrast + gain)
    if normalization == "document":
        usable &= ~(
            paired.truncated[variant] | paired.truncated[names[reference]] | paired.truncated[ORIGINAL]
        )  # the original's gain stands in the row
    num_documents = int(usable.sum())
    if num_documents < MIN_DOCUMENTS:
        return None, [("shifts", f"{num_documents} documents have both texts whole; at least {MIN_DOCUMENTS} are needed")]
    shift_D, gain_D = (tuned_contrast - base_contrast)[usable], gain[usable]
    means_RK = bootstrap_means(np.stack([shift_D, gain_D], axis=1), config.num_draws, seeded_rng(config, "bootstrap"))
    p_values = sign_flip_p_values(shift_D[:, None], config.num_draws, seeded_rng(config, "sign-flip"))
    shift = estimate_mean(shift_D, means_RK[:, 0], float(p_values[0]), config)
    gained = estimate_mean(gain_D, means_RK[:, 1], 1.0, config)
    share, share_low, share_high, reason = _share(shift, gained, means_RK, config)
    row = FactorShift(
        base_model=paired.base.model,
        tuned_model=paired.tuned.model,
        factor=paired.factors[variant],
        variant=variant,
        reference=reference,
        normalization=normalization,
        estimate=shift.estimate,
        ci_low=shift.ci_low,
        ci_high=shift.ci_high,
        level=config.level,
        ci_method=shift.ci_method,
        p_value=shift.p_value,
        p_holm=shift.p_value,
        num_documents=num_documents,
        base_contrast=float(base_contrast[usable].mean()),
        tuned_contrast=float(tuned_contrast[usable].mean()),
        gain=gained.estimate,
        share=share,
        share_ci_low=share_low,
        share_ci_high=share_high,
    )
    return row, [] if reason is None else [("shifts.share", reason)]


def _share(
    shift: Estimate,
    gain: Estimate,
    means_RK: Floats,
    config: ShiftConfig,
) -> tuple[float | None, float | None, float | None, str | None]:
    """Ratio of the two means with a percentile interval of the resampled ratios; None where the gain cannot be told from 0."""
    if gain.covers_zero:
        return None, None, None, f"the gain's interval [{gain.ci_low:.4g}, {gain.ci_high:.4g}] covers 0: a share of it has no meaning"
    ratios = means_RK[:, 0] / means_RK[:, 1]
    tail = (1.0 - config.level) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return shift.estimate / gain.estimate, float(low), float(high), None


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
    rows: list[dict[str, Any]] = []
    unavailable: list[UnavailableRow] = []
    for normalization in paired.normalizations:
        for variant in (ORIGINAL, *paired.factors):
            values = paired.gains(normalization, variant)
            if normalization == "document":
                values = np.where(paired.truncated[variant], np.nan, values)
            values_D = values[~np.isnan(values)]
            if len(values_D) < MIN_DOCUMENTS:
                reason = f"{len(values_D)} documents have this text whole and scored; at least {MIN_DOCUMENTS} are needed"
                unavailable.append(UnavailableRow("gains", variant, variant, normalization, reason))
                continue
            [mean] = estimate_means(values_D[:, None], config)
            rows.append({"variant": variant, "factor": paired.factors.get(variant), "normalization": normalization, **mean.to_row()})
    return rows, unavailable
