"""Who wrote the variants shows: the control's own shift wherever a study measured it, and how many of the original's words each variant keeps.

A control changes no factor, so its shift against the original is what rewriting alone does under this writer: the fingerprint. All numbers are those of the
tables `estimates` and `curves`, against the original; a net shift is what is left after the control's is taken away. Points stand per token, or per byte where
their models' tokenizers differ; along a curve all points stand in one unit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdissect.factors import CONTROL
from lmdissect.shifts.curves import STEP, shared_normalization
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
    panel_of = {(panel.experiment, panel.point, panel.probes, panel.step): panel for panel in panels}
    rows: list[dict[str, Any]] = []
    for row in filter(_against_original, estimates):
        panel = panel_of.get((*(row[name] for name in _POINT), None))
        if panel is not None and row["normalization"] == panel.normalizations[0]:
            rows.append(_row(panel, row, dict.fromkeys(_AXIS)))
    on_curves = [(panel_of.get(_place(row)), row) for row in curves if row["factor"] == CONTROL and _against_original(row)]
    placed = [(panel, row) for panel, row in on_curves if panel is not None]
    points: dict[tuple[str, ...], list[Panel]] = {}
    for panel, row in placed:
        points.setdefault(_line(row), []).append(panel)
    unit_of = {line: shared_normalization(found) for line, found in points.items()}
    rows += [_row(panel, row, {name: row[name] for name in _AXIS}) for panel, row in placed if row["normalization"] == unit_of[_line(row)]]
    return rows


def _against_original(row: Mapping[str, Any]) -> bool:
    return bool(row["statistic"] == "shift" and row["reference"] == "original")


def _place(row: Mapping[str, Any]) -> tuple[str, str, str, int | None]:
    """The point of a row of a curve; along `step` that is where its runs were measured on their way."""
    return row["experiment"], row["point"], row["probes"], int(row["x"]) if row["axis"] == STEP else None


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["experiment"], row["probes"], row["axis"], row["group"]


def _row(panel: Panel, row: Mapping[str, Any], axis: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in _POINT},
        **axis,
        "variant": row["variant"],
        "writer": panel.runs[0].writers.get(row["variant"]),
        "kept_words_median": kept_words_median(panel, row["variant"]),
        **{name: row[name] for name in ("normalization", *_NUMBERS)},
    }
