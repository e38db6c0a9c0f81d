"""Phrases of the statements of a study: factors, numbers with their interval, and whether a row may be called a finding."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmdissect.factors import CONTROL
from lmdissect.records import NORMALIZATIONS
from lmdissect.wording import UNITS, choose_decimals, equate_p, format_count, format_estimate, format_plain, join_words

__all__ = ["Numbers", "basis", "factor_noun", "is_moved", "over", "print_p", "print_x", "seems_to_move", "whose_runs"]

_NOUNS = {"topic": "topic", "style": "style", "factual": "facts", CONTROL: "wording"}
_BASES = {"original": "against the original", "control": "net of the control"}


def factor_noun(factor: str) -> str:
    """``topic+style`` as ``topic and style``, ``factual`` as ``facts``."""
    return join_words([_NOUNS.get(part, part) for part in factor.split("+")])


def basis(row: Mapping[str, Any]) -> str:
    """What the row is measured against, in words."""
    return _BASES[row["reference"]]


def whose_runs(num_seeds: int) -> str:
    """What the intervals are over."""
    return "for one training run" if num_seeds == 1 else f"over {num_seeds} training runs"


def over(row: Mapping[str, Any]) -> str:
    """``80 documents, over 3 training runs``."""
    return f"{format_count(row['num_documents'], 'document')}, {whose_runs(row['num_seeds'])}"


def _p_of(row: Mapping[str, Any]) -> tuple[str, float | None]:
    adjusted = row.get("p_holm")
    return ("Holm-adjusted p", adjusted) if adjusted is not None else ("p", row.get("p_value"))


def is_moved(row: Mapping[str, Any], alpha: float) -> bool:
    """Whether the interval leaves out 0 and the adjusted p is below ``alpha``."""
    return not row["ci_low"] <= 0.0 <= row["ci_high"] and not _is_weak(row, alpha)


def seems_to_move(row: Mapping[str, Any], alpha: float) -> bool:
    """Whether the interval leaves out 0 and the adjusted p does not support it."""
    return not row["ci_low"] <= 0.0 <= row["ci_high"] and _is_weak(row, alpha)


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


def print_x(value: float) -> str:
    """A place on an axis: ``1,200``, ``0.25``, ``2e-04``."""
    if value == int(value):
        return format_plain(value, 0)
    return f"{value:.3g}"
