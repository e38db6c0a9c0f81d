"""Shift on fact tokens for a point whose runs differ in the seed: the values of `fact_tokens` in every document, under every seed.

A point with one seed has the rows of its run. Holm's adjustment is over the variants of one point, selection and statistic, as for one run: each factual
variant has one headline, all changed words, mean.

Shape letters: S seeds, D documents.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdissect.formats.study_tables import CHANGED_WORDS
from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.fact_tokens import STATISTICS, FactValues
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.position_seeds import align_documents
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.run_tokens import RunTokens
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["changed_word_shifts", "facts_of_one_run", "facts_over_seeds"]

_CONTRASTS = ("base_contrast", "tuned_contrast")


def facts_of_one_run(fact_tokens: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table `facts` for a point with one seed.

    Args:
        fact_tokens: Rows of the table `fact_tokens` of its run.
    """
    return _with_holm([{**{name: value for name, value in row.items() if name not in _CONTRASTS}, "num_seeds": 1} for row in fact_tokens])


def facts_over_seeds(panel: Panel, tokens: Sequence[RunTokens], config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Rows of the table `facts` for several seeds, without the point's own columns; and what is missing.

    Args:
        panel: The runs of the point.
        tokens: Their tokens, in the order of the panel's seeds.
        config: Level of the intervals.
    """
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    for variant in (name for name, factor in panel.factors.items() if "factual" in factor.split("+")):
        for selection in tokens[0].facts.get(variant, {}):
            found = [run.facts[variant][selection] for run in tokens]
            spread = [_spread(panel, run, values) for run, values in zip(tokens, found, strict=True)]
            counts_D2 = _token_counts(panel, tokens[0], found[0])
            for column, statistic in enumerate(STATISTICS):
                values_SD = np.stack([shift_D2[:, column] for shift_D2 in spread])
                present_D = ~np.isnan(values_SD).any(axis=0)
                if present_D.sum() < MIN_DOCUMENTS:
                    reason = f"{selection}, {statistic}: fewer than {MIN_DOCUMENTS} documents have such tokens under every seed"
                    gaps.append(StudyGap("facts", panel.experiment, panel.point, panel.probes, variant, reason))
                    continue
                mean = estimate_crossed(values_SD[:, present_D], config)
                num_original, num_variant = counts_D2[present_D].sum(axis=0).tolist()
                rows.append(
                    {
                        "variant": variant,
                        "selection": selection,
                        "statistic": statistic,
                        "num_seeds": len(tokens),
                        "num_documents": int(present_D.sum()),
                        "num_original_tokens": num_original,
                        "num_variant_tokens": num_variant,
                        "estimate": mean.estimate,
                        "ci_low": mean.ci_low,
                        "ci_high": mean.ci_high,
                        "p_value": mean.p_value,
                    }
                )
    return _with_holm(rows), gaps


def changed_word_shifts(panel: Panel, tokens: Sequence[RunTokens]) -> Mapping[str, Floats]:
    """Shift on all changed words, mean per token, of every variant that changes facts: shape (S, D); NaN under all seeds where a document has none.

    Args:
        panel: The runs of a point.
        tokens: Their tokens, in the order of the panel's seeds.
    """
    found: dict[str, Floats] = {}
    for variant in (name for name in panel.factors if all(name in run.facts for run in tokens)):
        shift_SD = np.stack([_spread(panel, run, run.facts[variant][CHANGED_WORDS])[:, 0] for run in tokens])
        found[variant] = np.where(np.isnan(shift_SD).any(axis=0), np.nan, shift_SD)
    return found


def _spread(panel: Panel, tokens: RunTokens, values: FactValues) -> Floats:
    """(mean, sum) shift of the panel's documents, shape (D, 2); NaN where a document has no such token."""
    spread = np.full((len(tokens.documents), len(STATISTICS)), np.nan)
    spread[values.documents] = values.shift
    return spread[align_documents(panel, tokens)]


def _token_counts(panel: Panel, tokens: RunTokens, values: FactValues) -> np.ndarray:
    counts = np.zeros((len(tokens.documents), 2), dtype=np.int64)
    counts[values.documents] = values.num_tokens
    found: np.ndarray = counts[align_documents(panel, tokens)]
    return found


def _with_holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        families[row["selection"], row["statistic"]].append(number)
    for members in families.values():
        for number, p_holm in zip(members, holm([rows[number]["p_value"] for number in members]), strict=True):
            rows[number] = {**rows[number], "p_holm": p_holm}
    return rows
