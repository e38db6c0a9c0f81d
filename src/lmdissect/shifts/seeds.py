"""Mean over documents and training seeds. The two are crossed: every seed's model scores the same documents.

    y_sd = mu + a_d + b_s + e_sd,   a_d ~ (0, v_D), b_s ~ (0, v_S), e_sd ~ (0, v_E)

Mean squares of the two-way layout with one value in each cell, and what they are expected to be:

    MS_D = S sum_d (y_.d - y_..)^2 / (D - 1)                               E = v_E + S v_D
    MS_S = D sum_s (y_s. - y_..)^2 / (S - 1)                               E = v_E + D v_S
    MS_E = sum_sd (y_sd - y_s. - y_.d + y_..)^2 / ((S - 1)(D - 1))         E = v_E

Solved for the components, a negative one set to 0 (its mean square then tells nothing apart from noise, and is left out below):

    v_D = max(0, (MS_D - MS_E) / S),   v_S = max(0, (MS_S - MS_E) / D),   v_E = MS_E
    Var(y_..) = v_D / D + v_S / S + v_E / (S D) = sum of c_i MS_i / (S D),   c_D, c_S in {0, 1},  c_E = 1 - c_D - c_S
    df = (sum c_i MS_i)^2 / sum((c_i MS_i)^2 / df_i)                       interval: y_.. +- t(df) sqrt(Var)

With one seed there is nothing to tell seeds by: the interval is the bootstrap over documents, for this one training run.

Coverage of nominal 95 % in simulated studies (200 documents, v_D = 1, v_E = 1/4; 4,000 studies each, so +- 0.7 points), by the variance that seeds add to the
mean as a multiple of what documents add (`python benchmarks/resampling.py --coverage`):

    seeds          2      3      5     10
    none        95.9   95.5   95.8   95.5
    as much     92.7   94.5   94.7   94.7
    ten times   87.4   91.8   94.2   94.5

Under five seeds an interval is too short where seeds vary much more than documents: two or three runs may agree by chance. Tables and captions therefore show
each seed.

Shape letters: S seeds, D documents.

Source: Searle, Casella & McCulloch (1992), "Variance Components", chapter 4, for the ANOVA estimators; Satterthwaite (1946), "An approximate distribution of estimates of
variance components", Biometrics Bulletin 2, for the degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS, estimate_means, seeded_rng
from lmdissect.shifts.resampling import Floats, sign_flip_p_values
from lmdissect.wording import format_count

__all__ = ["ENOUGH_SEEDS", "CrossedEstimate", "estimate_crossed", "estimate_crossed_each", "seed_hint"]

ENOUGH_SEEDS = 5
"""From here on an interval over seeds covers what it says; below, every seed is shown too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedEstimate:
    """A mean over documents and seeds with its interval and test.

    Attributes:
        estimate: Mean over all cells.
        ci_low: Lower end of its interval.
        ci_high: Upper end.
        ci_method: ``t over documents and seeds``, or for one seed that of the bootstrap over documents.
        p_value: Two-sided, of "the mean is 0".
        df: Satterthwaite's degrees of freedom; None for one seed, or where nothing varies.
        var_documents: v_D; None for one seed, like the other components.
        var_seeds: v_S.
        var_residual: v_E.
        num_seeds: S.
        num_documents: D: documents that every seed has.
        num_left_out: Documents that only some seeds have.
    """

    estimate: float
    ci_low: float
    ci_high: float
    ci_method: str
    p_value: float
    df: float | None
    var_documents: float | None
    var_seeds: float | None
    var_residual: float | None
    num_seeds: int
    num_documents: int
    num_left_out: int

    @property
    def covers_zero(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.ci_low <= 0.0 <= self.ci_high

    def to_row(self) -> dict[str, Any]:
        """Columns of a study table (`lmdissect.formats.study_tables`), all but `p_holm`."""
        names = (
            "num_seeds",
            "num_documents",
            "estimate",
            "ci_low",
            "ci_high",
            "ci_method",
            "df",
            "var_documents",
            "var_seeds",
            "var_residual",
            "p_value",
        )
        return {name: getattr(self, name) for name in names}


def seed_hint(num_seeds: int) -> str:
    """What a caption must say of the seeds behind an interval."""
    if num_seeds == 1:
        return "over documents, for this one training run"
    if num_seeds < ENOUGH_SEEDS:
        return f"over documents and {num_seeds} training seeds: few to judge by how much seeds differ, so each is shown"
    return f"over documents and {num_seeds} training seeds"


def estimate_crossed(values_SD: Floats, config: ShiftConfig) -> CrossedEstimate:
    """Mean over crossed documents and seeds; for one seed the bootstrap over documents.

    Args:
        values_SD: One row per seed, one column per document; a document that any seed lacks (NaN) is left out and counted.
        config: Level, draws, method, seed.

    Raises:
        ValueError: Fewer than `MIN_DOCUMENTS` documents are common to all seeds.
    """
    return estimate_crossed_each([values_SD], config)[0]


def estimate_crossed_each(columns: Sequence[Floats], config: ShiftConfig) -> list[CrossedEstimate]:
    """`estimate_crossed` of several quantities of the same D documents; those with one seed share their draws.

    Args:
        columns: Shape (S, D) each; S may differ.
        config: Level, draws, method, seed.

    Raises:
        ValueError: A quantity has fewer than `MIN_DOCUMENTS` documents that are common to all seeds.
    """
    blanked = [np.where(np.isnan(values_SD).any(axis=0), np.nan, values_SD) for values_SD in columns]
    left_out = [int((np.isnan(new[0]) & ~np.isnan(old).all(axis=0)).sum()) for new, old in zip(blanked, columns, strict=True)]
    for values_SD in blanked:
        if (found := int((~np.isnan(values_SD[0])).sum())) < MIN_DOCUMENTS:
            message = f"common to all seeds: {format_count(found, 'document')}; at least {MIN_DOCUMENTS} are needed"
            raise ValueError(message)
    single = [number for number, values_SD in enumerate(blanked) if len(values_SD) == 1]
    means = estimate_means(np.stack([blanked[number][0] for number in single], axis=1), config)[0] if single else []
    found_single = dict(zip(single, means, strict=True))
    estimates: list[CrossedEstimate] = []
    for number, values_SD in enumerate(blanked):
        if number not in found_single:
            estimates.append(_over_seeds(values_SD[:, ~np.isnan(values_SD[0])], left_out[number], config))
            continue
        mean = found_single[number]
        estimates.append(
            CrossedEstimate(
                estimate=mean.estimate,
                ci_low=mean.ci_low,
                ci_high=mean.ci_high,
                ci_method=mean.ci_method,
                p_value=mean.p_value,
                df=None,
                var_documents=None,
                var_seeds=None,
                var_residual=None,
                num_seeds=1,
                num_documents=mean.num_documents,
                num_left_out=left_out[number],
            )
        )
    return estimates


def _over_seeds(values_SD: Floats, num_left_out: int, config: ShiftConfig) -> CrossedEstimate:
    num_seeds, num_documents = values_SD.shape
    mean = float(values_SD.mean())
    of_documents, of_seeds, of_residual = _mean_squares(values_SD)
    kept = np.array([float(of_documents > of_residual), float(of_seeds > of_residual), 0.0])
    kept[2] = 1.0 - kept.sum()
    parts = kept * (of_documents, of_seeds, of_residual)
    freedoms = np.array([num_documents - 1, num_seeds - 1, (num_documents - 1) * (num_seeds - 1)], dtype=np.float64)
    total = float(parts.sum())
    df: float | None = None
    if total > 0.0 and np.ptp(values_SD, axis=1).any():
        df = total**2 / float((parts**2 / freedoms).sum())
        error = float(np.sqrt(total / (num_seeds * num_documents)))
        reach = error * float(stdtrit(df, 0.5 + config.level / 2.0))
        p_value, method = 2.0 * float(stdtr(df, -abs(mean) / error)), "t over documents and seeds"
    else:  # the documents of a run all have one value, as a broken scorer gives it: there is no spread to judge by, but signs can be counted
        reach, method = 0.0, "none (all values are equal)"
        p_value = float(sign_flip_p_values(values_SD.mean(axis=0)[:, None], config.num_draws, seeded_rng(config, "sign-flip"))[0])
    return CrossedEstimate(
        estimate=mean,
        ci_low=mean - reach,
        ci_high=mean + reach,
        ci_method=method,
        p_value=p_value,
        df=df,
        var_documents=max(0.0, (of_documents - of_residual) / num_seeds),
        var_seeds=max(0.0, (of_seeds - of_residual) / num_documents),
        var_residual=of_residual,
        num_seeds=num_seeds,
        num_documents=num_documents,
        num_left_out=num_left_out,
    )


def _mean_squares(values_SD: Floats) -> tuple[float, float, float]:
    """MS_D, MS_S and MS_E."""
    num_seeds, num_documents = values_SD.shape
    if np.ptp(values_SD) == 0.0:  # rounding must not make a spread
        return 0.0, 0.0, 0.0
    centred_SD = values_SD - values_SD.mean()
    by_document, by_seed = centred_SD.mean(axis=0), centred_SD.mean(axis=1)
    residual_SD = centred_SD - by_document - by_seed[:, None]
    of_documents = num_seeds * float((by_document**2).sum()) / (num_documents - 1)
    of_seeds = num_documents * float((by_seed**2).sum()) / (num_seeds - 1)
    return of_documents, of_seeds, float((residual_SD**2).sum()) / ((num_seeds - 1) * (num_documents - 1))
