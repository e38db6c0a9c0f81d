"""Phrases of the statements of a study: factors, numbers with their interval, and whether a row may be called a finding."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmdissect.factors import CONTROL
from lmdissect.formats.study_tables import OVER_DOCUMENTS
from lmdissect.records import NORMALIZATIONS
from lmdissect.shifts.curves import STEP
from lmdissect.wording import UNITS, choose_decimals, equate_p, format_count, format_estimate, join_words

__all__ = [
    "NO_WIDTH",
    "Numbers",
    "basis",
    "excludes_zero",
    "factor_noun",
    "has_no_width",
    "is_moved",
    "is_over_documents_alone",
    "over",
    "print_p",
    "seems_to_move",
]

NO_WIDTH = "every document has the same value, and an interval of no width says nothing"
"""Why constant values are no finding, whatever they are: scores that do not depend on the text are what a broken run gives."""

_NOUNS = {"topic": "topic", "style": "style", "factual": "facts", CONTROL: "wording"}
_BASES = {"original": "against the original", "control": "net of the control"}


def factor_noun(factor: str) -> str:
    """``topic+style`` as ``topic and style``, ``factual`` as ``facts``."""
    return join_words([_NOUNS.get(part, part) for part in factor.split("+")])


def basis(row: Mapping[str, Any]) -> str:
    """What the row is measured against, in words."""
    return _BASES[row["reference"]]


def is_over_documents_alone(row: Mapping[str, Any]) -> bool:
    """Whether the row compares training runs, and its interval leaves out that others would give other numbers.

    Several runs of a point do, and so do the points of every axis but a run's own steps, be there one run of each.
    """
    return row.get("interval_over") == OVER_DOCUMENTS and (row["num_seeds"] > 1 or row.get("axis", STEP) != STEP)


def over(row: Mapping[str, Any]) -> str:
    """What the interval is over: ``80 documents, over 3 training runs``."""
    runs = "for one training run" if row["num_seeds"] == 1 else f"over {row['num_seeds']} training runs"
    if is_over_documents_alone(row):
        these = "training runs, one at each point" if row["num_seeds"] == 1 else f"{row['num_seeds']} training runs"
        runs = f"over documents alone, for these {these}"
    return f"{format_count(row['num_documents'], 'document')}, {runs}"


def _p_of(row: Mapping[str, Any]) -> tuple[str, float | None]:
    adjusted = row.get("p_holm")
    return ("Holm-adjusted p", adjusted) if adjusted is not None else ("p", row.get("p_value"))


def has_no_width(row: Mapping[str, Any]) -> bool:
    """Whether the interval is a single number."""
    return bool(row["ci_low"] == row["ci_high"])


def excludes_zero(row: Mapping[str, Any]) -> bool:
    """Whether the interval leaves out 0. One of no width is no interval."""
    return not has_no_width(row) and not row["ci_low"] <= 0.0 <= row["ci_high"]


def is_moved(row: Mapping[str, Any], alpha: float) -> bool:
    """Whether the interval leaves out 0 and the adjusted p is below ``alpha``."""
    return excludes_zero(row) and not _is_weak(row, alpha)


def seems_to_move(row: Mapping[str, Any], alpha: float) -> bool:
    """Whether the interval leaves out 0 and the adjusted p does not support it."""
    return excludes_zero(row) and _is_weak(row, alpha)


def _is_weak(row: Mapping[str, Any], alpha: float) -> bool:
    p_value = _p_of(row)[1]
    return p_value is not None and p_value >= alpha


def print_p(row: Mapping[str, Any]) -> str:
    """``Holm-adjusted p = 0.012``; empty where the row has none."""
    name, p_value = _p_of(row)
    return "" if p_value is None else equate_p(name, p_value)


class Numbers:
    """Prints estimates of one study with one precision per unit.

    Args:
        rows: Rows with an interval and a normalization, from which the precision is chosen.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        widths: dict[str, list[float]] = {name: [] for name in NORMALIZATIONS}
        for row in rows:
            widths[row["normalization"]].append((row["ci_high"] - row["ci_low"]) / 2)
        self._decimals = {name: choose_decimals(found, name) for name, found in widths.items()}

    def with_unit(self, row: Mapping[str, Any], normalization: str = "token", unit: str | None = None) -> str:
        """``+0.046 nats/token [0.034, 0.058]``."""
        return format_estimate(row["estimate"], row["ci_low"], row["ci_high"], self._decimals[normalization], unit or UNITS[normalization])

    def bare(self, row: Mapping[str, Any], normalization: str = "token") -> str:
        """``+0.046 [0.034, 0.058]``."""
        return format_estimate(row["estimate"], row["ci_low"], row["ci_high"], self._decimals[normalization])
