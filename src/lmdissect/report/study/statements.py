"""Captions: a figure says its finding, in the words of the study's statements, or else of its own numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmdissect.formats.study_tables import VERDICTS
from lmdissect.report.study.charts import Chart, Mark, Panel, Series
from lmdissect.report.study.content import Place, Row, StudyContent
from lmdissect.report.text import join_words
from lmdissect.wording import UNITS, format_estimate, format_level, format_share, print_x

__all__ = ["captioned", "findings_first", "headline_of", "panel_finding", "unit_sentence"]

_MOST_SENTENCES = 4
_MOST_NAMES = 6
_MOST_DECIMALS = 6
_EARLY = 16.0


@dataclass(frozen=True, slots=True)
class _Read:
    """One mark with its name in words."""

    name: str
    panel: Panel
    mark: Mark

    @property
    def number(self) -> str:
        return f"{self.name}, {_number(self.panel, self.mark)}"


def unit_sentence(content: StudyContent, panels: Sequence[Panel]) -> str:
    """Level of a figure's intervals; the unit too, where all its numbers are shifts in one. Other axes name theirs."""
    units = {panel.unit for panel in panels}
    level = format_level(content.level)
    if len(units) == 1 and units <= set(UNITS.values()) and not any(panel.is_share for panel in panels):
        return f"Numbers are {units.pop()} with {level} intervals."
    return f"Intervals are at {level}."


def captioned(content: StudyContent, chart: Chart, analysis: str, place: Place, note: str = "", **columns: Any) -> Chart:  # noqa: ANN401 - cells
    """``chart`` with its caption: the statements about its place, or, where none was made, what its own numbers say; then unit, level and ``note``.

    Args:
        content: The study.
        chart: The figure.
        analysis: Whose statements.
        place: What the figure is of.
        note: What else to say.
        columns: What tells the figure from others of the place (``axis``, ``group``, ``share_of_full``), as the statements have it; a statement that has none
            there is of all of them.
    """
    said = _statements_of(content, analysis, place, columns) or _finding(chart, are_extremes=analysis == "moved")
    return replace(chart, caption=" ".join(part for part in (said, unit_sentence(content, chart.panels), note) if part))


def _statements_of(content: StudyContent, analysis: str, place: Place, columns: Mapping[str, Any]) -> str:
    """The statements about one place, the ones that name the very point before those about its experiment."""
    rows = [row for row in content.statements(analysis) if _speaks_of(row, place)]
    rows = [row for row in rows if all(row[name] in (value, None) for name, value in columns.items())]
    exact = [row for row in rows if place.point and row["point"] == place.point]
    fitting = exact or [row for row in rows if not place.point or not row["point"]]
    left = len(fitting) - _MOST_SENTENCES
    more = f" {left} more in the list above." if left > 0 else ""
    return f"{' '.join(row['sentence'] for row in fitting[:_MOST_SENTENCES])}{more}"


def _speaks_of(row: Row, place: Place) -> bool:
    return row["experiment"] in (place.experiment, None, "") and row["probes"] in (place.probes, None, "")


def headline_of(content: StudyContent, analysis: str, place: Place) -> str:
    """The first finding about a factor at ``place``; empty where nothing was found to move."""
    rows = [row for row in content.statements(analysis) if row["variant"] and row["verdict"] == "moved" and row["point"] == place.point]
    return next((str(row["sentence"]) for row in rows if row["probes"] == place.probes), "")


def findings_first(rows: Sequence[Row]) -> list[Row]:
    """Statements whose verdict is a finding first, what was not measured last, otherwise in their order."""
    return sorted(rows, key=lambda row: VERDICTS.index(row["verdict"]))


def _finding(chart: Chart, *, are_extremes: bool) -> str:
    """What the numbers of ``chart`` say: how many can be told from 0, the largest, and which cannot."""
    if all(panel.is_share for panel in chart.panels):
        return _share_finding(chart)
    if not chart.zero:
        return _amount_finding(chart)
    if are_extremes:
        return _extremes_finding(chart)
    panels = [panel for panel in chart.panels if any(mark.filled for series in panel.series for mark in series.marks)] or chart.panels
    return panel_finding(chart, panels if chart.same_scale else panels[:1], chart.label)


def panel_finding(chart: Chart, panels: Sequence[Panel], where: str) -> str:
    """What the marks to be read first say in ``panels``, which share a unit."""
    found = [_Read(_name(chart, panel, series, mark), panel, mark) for panel in panels for series in panel.series for mark in series.marks]
    read = [entry for entry in found if entry.mark.filled] or found
    told = [entry for entry in read if entry.mark.is_told]
    if not read:
        return ""
    largest = max(told or read, key=lambda entry: abs(entry.mark.estimate))
    if len(read) == 1:
        return f"{where}: {largest.number}, which {'can' if told else 'cannot'} be told from 0{_why_not(largest.mark)}."
    if not told:
        return f"{where}: none of {len(read)} estimates can be told from 0; the largest is {largest.number}{_why_not(largest.mark)}."
    others = list(dict.fromkeys(entry.name for entry in read if not entry.mark.is_told))
    still = f" Not told from 0: {'; '.join(others)}." if others and len(others) <= _MOST_NAMES and chart.kind == "forest" else ""
    return f"{where}: {'all' if not others else f'{len(told)} of'} {len(read)} estimates can be told from 0; the largest is {largest.number}.{still}"


def _why_not(mark: Mark) -> str:
    """Why a mark whose interval leaves 0 out still cannot be told from it."""
    return ": its interval leaves 0 out, but its p-value is too large" if mark.is_weak and not mark.low <= 0 <= mark.high else ""


def _name(chart: Chart, panel: Panel, series: Series, mark: Mark) -> str:
    """A mark in words, as the axes and the legend name it."""
    parts = [mark.label, series.name] if chart.kind == "forest" else [f"{series.name} at {mark.label}"]
    if panel.title and len(chart.panels) > 1:
        parts.append(panel.title)
    return ", ".join(dict.fromkeys(parts))


def _number(panel: Panel, mark: Mark) -> str:
    half = (mark.high - mark.low) / 2 or abs(mark.estimate) or 1.0
    decimals = min(max(1 - math.floor(math.log10(half)), 0), _MOST_DECIMALS)
    return format_estimate(mark.estimate, mark.low, mark.high, decimals, panel.unit)


def _share_finding(chart: Chart) -> str:
    """How much of each shift is made early."""
    parts = []
    for panel in chart.panels:
        for series in panel.series:
            mark = next((mark for mark in series.marks if (mark.x or 0.0) >= _EARLY), series.marks[-1] if series.marks else None)
            if mark is not None:
                parts.append(f"{series.name} {format_share(mark.estimate, mark.low, mark.high)} in the first {mark.label} tokens")
    shown = "; ".join(parts[:_MOST_NAMES])
    return f"{chart.label}: {shown}{'; and others' if len(parts) > _MOST_NAMES else ''}." if parts else ""


def _amount_finding(chart: Chart) -> str:
    """The smallest and the largest of a figure of positive amounts."""
    marks = [(panel, series, mark) for panel in chart.panels for series in panel.series for mark in series.marks]
    if not marks:
        return ""
    ends = [min(marks, key=lambda entry: entry[2].estimate), max(marks, key=lambda entry: entry[2].estimate)]
    said = [f"{mark.label} ({series.name}) {_amount(mark)}" for _, series, mark in (ends if len(marks) > 1 else ends[:1])]
    return f"{chart.label}, {chart.panels[0].unit}: {f'least for {said[0]}, most for {said[1]}' if len(said) > 1 else said[0]}."


def _amount(mark: Mark) -> str:
    """``9.9 [8.1, 12]``; a mark without an interval has both ends at its estimate."""
    return print_x(mark.estimate) if mark.low == mark.high else f"{print_x(mark.estimate)} [{print_x(mark.low)}, {print_x(mark.high)}]"


def _extremes_finding(chart: Chart) -> str:
    """The two ends of a figure whose rows were picked for their size, which is why none of them is called a finding."""
    marks = [(panel, mark) for panel in chart.panels for series in panel.series for mark in series.marks]
    ends = [max(marks, key=lambda entry: entry[1].estimate), min(marks, key=lambda entry: entry[1].estimate)] if marks else []
    words = ("gained most", "lost most")
    parts = [
        f"{mark.label} {verb} ({_number(panel, mark)})"
        for verb, (panel, mark) in zip(words, ends, strict=False)
        if (mark.estimate > 0) == (verb == words[0])
    ]
    return f"{chart.label}: {join_words(parts)}. They were picked for their size: no single one is called a finding." if parts else ""
