"""Who wrote the variants shows: the control's own shift wherever a study measured it, and how many of the original's words each variant keeps.

A control changes no factor, so its shift against the original is what rewriting alone does under this writer: the fingerprint. All numbers are those of the
tables `estimates` and `curves`, against the original; a net shift is what is left after the control's is taken away.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdissect.factors import CONTROL
from lmdissect.shifts.panel import Panel

__all__ = ["fingerprint_rows", "kept_words_median"]

_NUMBERS = ("num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value", "p_holm")
_POINT = ("experiment", "point", "probes")
_AXIS = ("axis", "group", "x", "x_label")


def kept_words_median(panel: Panel, variant: str) -> float | None:
    """Median share of the original's words that ``variant`` keeps, over the documents that have it."""
    kept = panel.kept_words[variant]
    kept = kept[~np.isnan(kept)]
    return float(np.median(kept)) if len(kept) else None


def fingerprint_rows(panels: Sequence[Panel], estimates: Iterable[Mapping[str, Any]], curves: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table `fingerprint`: every variant at every point (axis null), and the control along every axis.

    Args:
        panels: All points.
        estimates: Rows of the table `estimates`.
        curves: Rows of the table `curves`.
    """
    panel_of = {(panel.experiment, panel.point, panel.probes): panel for panel in panels}
    rows = [_row(panel_of, row, dict.fromkeys(_AXIS)) for row in estimates if _against_original(panel_of, row)]
    rows += [
        _row(panel_of, row, {name: row[name] for name in _AXIS}) for row in curves if row["factor"] == CONTROL and _against_original(panel_of, row)
    ]
    return rows


def _against_original(panel_of: Mapping[tuple[str, str, str], Panel], row: Mapping[str, Any]) -> bool:
    panel = panel_of.get((row["experiment"], row["point"], row["probes"]))
    return panel is not None and row["statistic"] == "shift" and row["reference"] == "original" and row["normalization"] == panel.normalizations[0]


def _row(panel_of: Mapping[tuple[str, str, str], Panel], row: Mapping[str, Any], axis: Mapping[str, Any]) -> dict[str, Any]:
    panel = panel_of[row["experiment"], row["point"], row["probes"]]
    return {
        **{name: row[name] for name in _POINT},
        **axis,
        "variant": row["variant"],
        "writer": panel.runs[0].writers.get(row["variant"]),
        "kept_words_median": kept_words_median(panel, row["variant"]),
        **{name: row[name] for name in _NUMBERS},
    }
