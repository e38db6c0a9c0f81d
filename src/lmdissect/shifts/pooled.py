"""Gains and shifts of one point, its seeds taken together and each by itself: rows of the tables `estimates` and `seeds`.

    gain of a text     mean over documents and seeds of v_tuned - v_base
    shift              mean over documents and seeds of the reference's gain less the variant's
    share              mean shift / mean gain of the originals, over the same documents and seeds

Intervals: see `seeds`. That of a share is for one seed the percentile interval of the resampled ratios, and for several that of the mean of the linearised values
share + (shift - share gain) / mean gain (the delta method). There is no share where the gain's interval covers 0.
p-values are adjusted by Holm over the variants of one point, reference and normalization, as for a pair of models; gains over the texts of one normalization.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmdissect.factors import ORIGINAL
from lmdissect.records import NORMALIZATIONS, StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS, NO_RATIO, ratio_interval, resample_means
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.position_seeds import linearised_ratio
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.seeds import CrossedEstimate, estimate_crossed, estimate_crossed_each
from lmdissect.wording import format_count

__all__ = ["point_rows", "seed_rows"]

_Row = dict[str, Any]


def point_rows(panel: Panel, config: ShiftConfig) -> tuple[list[_Row], list[StudyGap]]:
    """Rows of the table `estimates` for one point, without the columns that name it; and what could not be computed.

    Args:
        panel: The runs of the point.
        config: Statistics settings.
    """
    gaps = _absent_normalizations(panel)
    labels, missing = _labels(panel)
    gaps += missing
    estimates = _estimate(panel, labels, config)
    shares, missing = _shares(panel, labels, estimates, config)
    gaps += missing
    rows = [{**label, **mean.to_row(), **share} for label, mean, share in zip(labels, estimates, shares, strict=True)]
    return _with_holm(rows), gaps


def seed_rows(panel: Panel, config: ShiftConfig) -> list[_Row]:
    """Rows of the table `seeds` for one point: every seed by itself, by the bootstrap over documents."""
    names = ("num_documents", "estimate", "ci_low", "ci_high")
    labels, _ = _labels(panel)
    kept = ("statistic", "variant", "factor", "reference", "normalization")
    rows: list[_Row] = []
    for number, seed in enumerate(panel.seeds):
        means = estimate_crossed_each([_values(panel, label)[number : number + 1] for label in labels], config) if labels else []
        rows += [
            {"seed": seed, **{name: label[name] for name in kept}, **{name: getattr(mean, name) for name in names}}
            for label, mean in zip(labels, means, strict=True)
        ]
    return rows


def _absent_normalizations(panel: Panel) -> list[StudyGap]:
    absent = [name for name in NORMALIZATIONS if name not in panel.normalizations]
    reason = f"no numbers per {' or '.join(absent)}: the tokenizers of base and tuned model differ, and only {', '.join(panel.normalizations)} can be compared"
    return [_gap(panel, "all", reason)] if absent else []


def _gap(panel: Panel, variant: str, reason: str) -> StudyGap:
    return StudyGap("estimates", panel.experiment, panel.label, panel.probes, variant, reason)


def _labels(panel: Panel) -> tuple[list[_Row], list[StudyGap]]:
    """What every row is of, in report order; rows that too few documents have are left out and listed."""
    found: list[_Row] = []
    gaps: list[StudyGap] = []
    for normalization in panel.normalizations:
        asked = [_label("gain", variant, panel.factors.get(variant), None, normalization, headline=True) for variant in (ORIGINAL, *panel.factors)]
        asked += [
            _label("shift", variant, panel.factors[variant], reference, normalization, headline=panel.headline[variant] == reference)
            for variant, reference in panel.pairings
        ]
        for label in asked:
            count = int((~np.isnan(_values(panel, label)[0])).sum())
            if count >= MIN_DOCUMENTS:
                found.append(label)
                continue
            against = f" against the {label['reference']}" if label["reference"] else ""
            whole = f"{format_count(count, 'document')} with the texts whole under every seed"
            reason = f"{label['statistic']}{against} per {normalization}: {whole}, {MIN_DOCUMENTS} are needed"
            gaps.append(_gap(panel, label["variant"], reason))
    return found, gaps


def _label(statistic: str, variant: str, factor: str | None, reference: str | None, normalization: str, *, headline: bool) -> _Row:
    return {
        "statistic": statistic,
        "variant": variant,
        "factor": factor,
        "reference": reference,
        "normalization": normalization,
        "is_headline": headline,
    }


def _values(panel: Panel, label: _Row) -> Floats:
    """Shape (S, D)."""
    if label["statistic"] == "gain":
        return panel.gain[label["normalization"]][label["variant"]]
    return panel.shift(label["normalization"], label["variant"], label["reference"])


def _estimate(panel: Panel, labels: Sequence[_Row], config: ShiftConfig) -> list[CrossedEstimate]:
    if len(panel.seeds) == 1 and labels:  # they share draws
        return estimate_crossed_each([_values(panel, label) for label in labels], config)
    return [estimate_crossed(_values(panel, label), config) for label in labels]


def _shares(panel: Panel, labels: Sequence[_Row], estimates: Sequence[CrossedEstimate], config: ShiftConfig) -> tuple[list[_Row], list[StudyGap]]:
    """Columns share, share_ci_low, share_ci_high of every row: null for gains, and where a share has no meaning (listed)."""
    empty: _Row = {"share": None, "share_ci_low": None, "share_ci_high": None}
    found = [dict(empty) for _ in labels]
    gaps: list[StudyGap] = []
    numbers = [number for number, label in enumerate(labels) if label["statistic"] == "shift"]
    gains = [_gain_beside(panel, labels[number]) for number in numbers]
    single = len(panel.seeds) == 1
    means = estimate_crossed_each(gains, config) if single and gains else [estimate_crossed(values_SD, config) for values_SD in gains]
    meaningful: list[tuple[int, Floats]] = []
    for number, gain_SD, gain in zip(numbers, gains, means, strict=True):
        if gain.covers_zero:
            label = labels[number]
            reason = (
                f"share against the {label['reference']} per {label['normalization']}: the gain's interval [{gain.ci_low:.4g}, {gain.ci_high:.4g}] covers 0, "
                "and a share of it has no meaning"
            )
            gaps.append(_gap(panel, label["variant"], reason))
            continue
        meaningful.append((number, gain_SD))
        found[number]["share"] = estimates[number].estimate / gain.estimate
    intervals = (_share_intervals if single else _share_intervals_over_seeds)(panel, labels, meaningful, config)
    for (number, _), ends in zip(meaningful, intervals, strict=True):
        if ends is None:
            found[number] = dict(empty)
            gaps.append(
                _gap(
                    panel,
                    labels[number]["variant"],
                    f"share against the {labels[number]['reference']} per {labels[number]['normalization']}: {NO_RATIO}",
                )
            )
        else:
            found[number] |= {"share_ci_low": ends[0], "share_ci_high": ends[1]}
    return found, gaps


def _gain_beside(panel: Panel, label: _Row) -> Floats:
    """Gain of the originals over the documents that a shift stands on, shape (S, D)."""
    return np.where(np.isnan(_values(panel, label)), np.nan, panel.gain[label["normalization"]][ORIGINAL])


def _share_intervals(
    panel: Panel, labels: Sequence[_Row], shifts: Sequence[tuple[int, Floats]], config: ShiftConfig
) -> list[tuple[float, float] | None]:
    if not shifts:
        return []
    columns = [values for number, gain_SD in shifts for values in (_values(panel, labels[number])[0], gain_SD[0])]
    means_RK = resample_means(np.stack(columns, axis=1), config, "bootstrap")
    return [ratio_interval(means_RK[:, 2 * number], means_RK[:, 2 * number + 1], config.level) for number in range(len(shifts))]


def _share_intervals_over_seeds(
    panel: Panel, labels: Sequence[_Row], shifts: Sequence[tuple[int, Floats]], config: ShiftConfig
) -> list[tuple[float, float] | None]:
    found: list[tuple[float, float] | None] = []
    for number, gain_SD in shifts:
        shift_SD = _values(panel, labels[number])
        present_D = ~np.isnan(shift_SD[0])
        ratio = estimate_crossed(linearised_ratio(shift_SD[:, present_D], gain_SD[:, present_D]), config)
        found.append((ratio.ci_low, ratio.ci_high))
    return found


def _with_holm(rows: list[_Row]) -> list[_Row]:
    families: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        families[row["statistic"], row["reference"], row["normalization"]].append(number)
    adjusted = [dict(row) for row in rows]
    for members in families.values():
        for number, p_holm in zip(members, holm([rows[number]["p_value"] for number in members]), strict=True):
            adjusted[number]["p_holm"] = p_holm
    return adjusted
