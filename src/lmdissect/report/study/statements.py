"""Captions from the statements of the study: a figure says the finding, in the words that the numbers allow."""

from collections.abc import Sequence

from lmdissect.report.numbers import UNITS, format_level
from lmdissect.report.study.content import Place, Row, StudyContent

__all__ = ["VERDICT_WORDS", "caption_of", "findings_first", "unit_sentence"]

VERDICT_WORDS = {"moved": "moved", "not shown": "not shown", "not measured": "not measured"}
"""Verdicts as the page prints them."""

_MOST_SENTENCES = 4


def unit_sentence(content: StudyContent) -> str:
    """Unit and level of every number of a shift figure."""
    return f"Numbers are {UNITS[content.normalization]} with {format_level(content.level)} intervals."


def caption_of(content: StudyContent, analysis: str, place: Place) -> str:
    """The statements about one place, the ones that name the very point before those about its experiment, then unit and level."""
    rows = [row for row in content.statements(analysis) if _speaks_of(row, place)]
    exact = [row for row in rows if place.point and row["point"] == place.point]
    chosen = (exact or [row for row in rows if not place.point or not row["point"]])[:_MOST_SENTENCES]
    left = len(exact or rows) - len(chosen)
    more = f" {left} more in the list above." if left > 0 else ""
    said = " ".join(row["sentence"] for row in chosen)
    return (
        f"{said}{more} {unit_sentence(content)}" if said else f"No statement was made about this point; read the intervals. {unit_sentence(content)}"
    )


def _speaks_of(row: Row, place: Place) -> bool:
    return row["experiment"] in (place.experiment, None, "") and row["probes"] in (place.probes, None, "")


def findings_first(rows: Sequence[Row]) -> list[Row]:
    """Statements whose verdict is a finding first, what was not measured last, otherwise in their order."""
    order = list(VERDICT_WORDS)
    return sorted(rows, key=lambda row: order.index(row["verdict"]) if row["verdict"] in order else len(order))
