"""Interactions of a point whose runs differ in the seed: I(s, d) = g(x) - g(v_first) - g(v_second) + g(v_both), documents crossed with seeds.

Shape letters: S seeds, D documents.
"""

from typing import Any

import numpy as np

from lmdissect.factors import ORIGINAL
from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.interactions import single_variants
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import holm
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["interactions_over_seeds"]


def interactions_over_seeds(panel: Panel, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Rows of a study's table `interactions` for one point, without the point's own columns; Holm over its combinations of one normalization."""
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []

    def miss(variant: str, reason: str) -> None:
        gaps.append(StudyGap("interactions", panel.experiment, panel.point, panel.probes, variant, reason))

    for normalization in panel.normalizations:
        found: list[dict[str, Any]] = []
        for variant in (name for name, factor in panel.factors.items() if "+" in factor):
            singles = single_variants(variant, panel.factors)
            if singles is None:
                miss(variant, f"the two variants that '{variant}' combines cannot be told from the names")
                continue
            original, first, second, both = (panel.gain[normalization][name] for name in (ORIGINAL, *singles, variant))
            values_SD = original - first - second + both
            present_D = ~np.isnan(values_SD).any(axis=0)
            if present_D.sum() < MIN_DOCUMENTS:
                miss(variant, f"{normalization}: fewer than {MIN_DOCUMENTS} documents have all four texts whole")
                continue
            mean = estimate_crossed(values_SD[:, present_D], config)
            found.append(
                {
                    "variant": variant,
                    "first_variant": singles[0],
                    "second_variant": singles[1],
                    "normalization": normalization,
                    "num_seeds": len(panel.seeds),
                    "num_documents": int(present_D.sum()),
                    "estimate": mean.estimate,
                    "ci_low": mean.ci_low,
                    "ci_high": mean.ci_high,
                    "p_value": mean.p_value,
                }
            )
        adjusted = holm([row["p_value"] for row in found])
        rows += [{**row, "p_holm": p_holm} for row, p_holm in zip(found, adjusted, strict=True)]
    return rows, list(dict.fromkeys(gaps))
