"""Facts along a curve, on the words that differ: over a whole text a changed number is diluted by everything else, and what facts do would not be seen.

The points of such a curve are panels whose shift against the original is the shift on the changed words (mean per token, as in the table `facts`), so that all
that is asked of a curve is asked of it in the same way.

Shape letters: S seeds, D documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmdissect.factors import ORIGINAL
from lmdissect.formats.study_tables import CHANGED_WORDS
from lmdissect.shifts.curves import Curve, curve_rows
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats

__all__ = ["fact_curve_rows", "fact_curves"]

_FEWEST_POINTS = 2
_COPIED = ("variant", "num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value", "p_holm")


def fact_curves(curves: Sequence[Curve], values: Mapping[Panel, Mapping[str, Floats]]) -> list[Curve]:
    """The curves on which at least two points have facts on changed words, with these points alone.

    Args:
        curves: Curves over whole texts.
        values: Shift on the changed words of every point that has any, by variant, shape (S, D); NaN under all seeds where a document has none.
    """
    found: list[Curve] = []
    for curve in curves:
        points = [(x, _on_changed_words(panel, values[panel])) for x, panel in zip(curve.xs, curve.panels, strict=True) if values.get(panel)]
        if len({x for x, _ in points}) >= _FEWEST_POINTS:
            found.append(replace(curve, xs=tuple(x for x, _ in points), panels=tuple(panel for _, panel in points), selection=CHANGED_WORDS))
    return found


def _on_changed_words(panel: Panel, shifts: Mapping[str, Floats]) -> Panel:
    """The point with nothing in it but the variants that change facts, and as their shift the one on the changed words."""
    zeros_SD = np.zeros((len(panel.seeds), len(panel.document_ids)))
    return replace(
        panel,
        factors={variant: panel.factors[variant] for variant in shifts},
        control=None,
        headline=dict.fromkeys(shifts, ORIGINAL),
        normalizations=("token",),
        gain={"token": {ORIGINAL: zeros_SD, **{variant: -shift_SD for variant, shift_SD in shifts.items()}}},
    )


def fact_curve_rows(curves: Sequence[Curve], facts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table `curves` on changed words.

    Args:
        curves: As `fact_curves` gives them.
        facts: Rows of the table `facts`.
    """
    chosen = [row for row in facts if (row["selection"], row["statistic"]) == (CHANGED_WORDS, "mean")]
    rows_of: dict[Panel, list[dict[str, Any]]] = {}
    for panel in (panel for curve in curves for panel in curve.panels):
        key = (panel.experiment, panel.point, panel.probes)
        rows_of[panel] = [
            {
                **{name: row[name] for name in _COPIED},
                "statistic": "shift",
                "factor": panel.factors[row["variant"]],
                "reference": ORIGINAL,
                "normalization": "token",
                "is_headline": True,
            }
            for row in chosen
            if (row["experiment"], row["point"], row["probes"]) == key and row["variant"] in panel.factors
        ]
    return curve_rows(curves, rows_of)
