"""Do two factors move independently?

    I(d) = g(x) - g(v_first) - g(v_second) + g(v_both)

0 where the shift of both together is the sum of the two alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmdissect.factors import ORIGINAL
from lmdissect.records import UnavailableRow
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS, label_means
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats

__all__ = ["interaction_rows", "single_variants"]

_COMBINED = 2
"""Factors of a combination that the formula speaks of."""


def single_variants(both: str, factors: Mapping[str, str]) -> tuple[str, str] | None:
    """The two variants that ``both`` combines: those its name is made of (``casual`` in ``nonbiomedical_casual``), else the only ones of its factors.

    Returns:
        Their names in the order of the combined factor, or None where they cannot be told.
    """
    parts = factors[both].split("+")
    if len(parts) != _COMBINED:
        return None
    chosen: list[str] = []
    for part in parts:
        candidates = [name for name, factor in factors.items() if factor == part]
        named = [name for name in candidates if name in both.split("_")]
        pick = named if len(named) == 1 else candidates
        if len(pick) != 1:
            return None
        chosen.append(pick[0])
    return chosen[0], chosen[1]


def interaction_rows(paired: PairedScores, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[UnavailableRow]]:
    """The interaction table: one row per combination variant and normalization."""
    labels: list[dict[str, Any]] = []
    columns: list[Floats] = []
    unavailable: list[UnavailableRow] = []
    for variant in (name for name, factor in paired.factors.items() if "+" in factor):
        singles = single_variants(variant, paired.factors)
        if singles is None:
            reason = f"the two variants that '{variant}' combines cannot be told from the names"
            unavailable.append(UnavailableRow("interactions", variant, "original", "all", reason))
            continue
        for normalization in paired.normalizations:
            values_D = _values(paired, (ORIGINAL, *singles, variant), normalization)
            if int((~np.isnan(values_D)).sum()) < MIN_DOCUMENTS:
                reason = f"fewer than {MIN_DOCUMENTS} documents have all four texts whole"
                unavailable.append(UnavailableRow("interactions", variant, "original", normalization, reason))
                continue
            labels.append({"variant": variant, "first_variant": singles[0], "second_variant": singles[1], "normalization": normalization})
            columns.append(values_D)
    return label_means(labels, columns, config), unavailable


def _values(paired: PairedScores, names: tuple[str, ...], normalization: str) -> Floats:
    """I(d) of every document, shape (D,); NaN where a text is missing, or cut where whole texts are needed."""
    original, first, second, both = (paired.gains(normalization, name) for name in names)
    values: Floats = original - first - second + both
    if normalization == "document":
        values[np.logical_or.reduce([paired.truncated[name] for name in names])] = np.nan
    return values
