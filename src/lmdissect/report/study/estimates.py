"""Charts of shifts: what was learned and forgotten, the corpora, and everything along an axis."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.formats.study_tables import CHANGED_WORDS
from lmdissect.records import NORMALIZATIONS
from lmdissect.report.findings import factor_noun
from lmdissect.report.study.charts import Chart, Mark, Panel, Series, Tick, choose_log
from lmdissect.report.study.content import Place, Row, StudyContent, group_rows, split_units
from lmdissect.report.study.statements import captioned, headline_of, panel_finding, unit_sentence
from lmdissect.wording import equate_p, format_count, format_level, format_plain

__all__ = [
    "REFERENCES",
    "curve_charts",
    "curve_panels",
    "describe_row",
    "forest_chart",
    "forest_series",
    "independence_charts",
    "learned_charts",
    "make_mark",
    "one_unit",
    "overview_chart",
    "place_ticks",
    "row_label",
    "selection_label",
]

REFERENCES = {ORIGINAL: ("against the original", "original", "circle"), CONTROL: ("net of the control", "net", "diamond")}
"""Name, colour role and symbol of a shift's two references: raw shifts always stand beside net ones."""

_ALL_WEIGHTS_GAP = 4.0


def make_mark(content: StudyContent, row: Row, label: str, x: float | None = None, *, filled: bool = True) -> Mark:
    """The mark of one row of numbers."""
    p_value = row.get("p_holm") if row.get("p_holm") is not None else row.get("p_value")
    is_weak = p_value is not None and p_value >= 1 - content.level
    return Mark(label, x, row["estimate"], row["ci_low"], row["ci_high"], filled, describe_row(content, row), is_weak)


def describe_row(content: StudyContent, row: Row) -> str:
    """What a pointer resting on a mark is told beyond the number: documents, seeds, adjusted p."""
    parts = [format_count(int(row["num_documents"]), "document")]
    if row.get("num_seeds"):
        parts.append(format_count(int(row["num_seeds"]), "training seed"))
    p_value = row.get("p_holm") if row.get("p_holm") is not None else row.get("p_value")
    if p_value is not None:
        parts.append(equate_p("Holm p" if row.get("p_holm") is not None else "p", p_value))
    return f"{', '.join(parts)}; {format_level(content.level)} interval"


def row_label(content: StudyContent, variant: str) -> str:
    """``casual · style``."""
    factor = content.factors.get(variant, "")
    return f"{variant} \u00b7 {factor_noun(factor)}" if factor else variant


def selection_label(content: StudyContent, row: Row) -> str:
    """`row_label` of a row of a curve, which may be of the changed words."""
    return f"{row_label(content, row['variant'])}{', changed words' if row.get('selection') == CHANGED_WORDS else ''}"


def forest_series(content: StudyContent, rows: Iterable[Row]) -> list[Series]:
    """Shift rows as one series per reference, a mark per variant."""
    series = []
    found = list(rows)
    for reference, (name, role, symbol) in REFERENCES.items():
        marks = [
            make_mark(content, row, row_label(content, row["variant"]), filled=bool(row.get("is_headline", True)))
            for row in found
            if row["reference"] == reference
        ]
        if marks:
            series.append(Series(name, role, symbol, marks))
    return series


def _fact_series(content: StudyContent, place: Place) -> list[Series]:
    """The number to read first for facts: the shift on the words that a factual variant changes."""
    marks = [
        make_mark(content, row, row_label(content, row["variant"]))
        for row in content.tables["facts"]
        if Place(row["experiment"], row["point"], row["probes"]) == place and (row["selection"], row["statistic"]) == ("changed", "mean")
    ]
    return [Series("on the changed words", "facts", "square", marks)] if marks else []


def forest_chart(content: StudyContent, name: str, label: str, caption: str, groups: Sequence[tuple[str, Sequence[Row]]]) -> Chart | None:
    """A forest with one panel per group of shift rows and one row per variant. Where a group is of one place, its fact tokens are drawn as well."""
    rows = [row for _, group in groups for row in group]
    if not rows:
        return None
    panels = [Panel(title, _place_series(content, group), content.unit_of(group)) for title, group in groups if group]
    labels = [row_label(content, variant) for variant in content.sort(row["variant"] for row in rows)]
    return Chart(name, label, caption, "forest", panels, rows=labels, same_scale=len({panel.unit for panel in panels}) == 1)


def _place_series(content: StudyContent, rows: Sequence[Row]) -> list[Series]:
    """Raw and net shifts, and for facts the changed words, which then are the number to read first."""
    series = forest_series(content, rows)
    places = {Place(row["experiment"], row["point"], row["probes"]) for row in rows}
    is_estimate = all("fields" in row for row in rows)  # rows of `estimates`, not of another table
    is_per_token = all(row["normalization"] == "token" for row in rows)
    facts = _fact_series(content, places.pop()) if len(places) == 1 and is_estimate and is_per_token else []
    labels = {mark.label for entry in facts for mark in entry.marks}
    return [
        *(replace(entry, marks=[replace(mark, filled=mark.filled and mark.label not in labels) for mark in entry.marks]) for entry in series),
        *facts,
    ]


def _shift_rows(content: StudyContent, place: Place) -> list[Row]:
    return content.shifts("estimates", lambda row: (row["experiment"], row["point"], row["probes"]) == (place.experiment, place.point, place.probes))


def overview_chart(content: StudyContent) -> Chart | None:
    """Learned beside forgotten, by factor, at the point that the statements speak of."""
    shown: list[tuple[str, str, Place]] = []
    for analysis, title in (("learned", "Learned"), ("forgotten", "Forgotten")):
        for probes in content.probes_of(analysis)[:1]:
            shown += [(analysis, f"{title}: {probes}", place) for place in content.main_places(probes)[:1]]
    if not shown:
        known = dict.fromkeys(str(row["probes"]) for row in content.shifts("estimates"))
        shown = [("", probes, content.main_places(probes)[0]) for probes in known]
    groups = [(analysis, place, title, rows) for analysis, title, place in shown if (rows := _shift_rows(content, place))]
    label = "Shift of every factor, learned beside forgotten"
    chart = forest_chart(content, "overview", label, "", [(title, rows) for _, _, title, rows in groups])
    if chart is None:
        return None
    said = [
        headline_of(content, analysis, place)
        or panel_finding(replace(chart, panels=[panel]), [panel], f"{panel.title} ({place.experiment}, {place.point})")
        for panel, (analysis, place, _, _) in zip(chart.panels, groups, strict=True)
    ]
    how = "Left of 0 a model moved away from the originals\u2019 value of the factor, right of 0 towards it."
    points = f"Points shown: {'; '.join(place.text for _, place, _, _ in groups)}."
    filled = "Filled: the number to read first; hollow: its other reference."
    return replace(chart, caption=" ".join([*said, how, points, unit_sentence(content, chart.panels), filled]))


def learned_charts(content: StudyContent, analysis: str) -> list[Chart]:
    """One forest per point, on the probe sets of ``analysis``; the main point first, which alone has a static twin."""
    charts: list[Chart] = []
    for probes in content.probes_of(analysis):
        for index, place in enumerate(content.main_places(probes)):
            chart = forest_chart(content, f"{analysis}-{len(charts)}", place.text, "", [(place.text, _shift_rows(content, place))])
            if chart is not None:
                charts.append(captioned(content, replace(chart, is_static=index == 0), analysis, place))
    return charts


def place_ticks(rows: Iterable[Row]) -> tuple[list[Tick], bool]:
    """Labelled places of a curve's x, and whether the axis is logarithmic. All weights (x null) stand right of the largest x."""
    labels: dict[float, str] = {}
    beyond = ""
    for row in rows:
        if row["x"] is None:
            beyond = row["x_label"] or "all weights"
        else:
            labels.setdefault(float(row["x"]), row["x_label"] or format_plain(row["x"], 0))
    places = sorted(labels)
    is_log = choose_log(places)
    ticks = [Tick(place, labels[place]) for place in places]
    if beyond:
        last = places[-1] if places else 1.0
        step = last * _ALL_WEIGHTS_GAP if is_log else last + (last - places[0]) / 4 if len(places) > 1 else last + 1
        ticks.append(Tick(step, beyond))
    return ticks, is_log


def curve_panels(content: StudyContent, rows: Sequence[Row], ticks: Sequence[Tick]) -> list[Panel]:
    """Gain on the originals, shifts against the original, and net shifts, over one axis. Facts are drawn on the changed words, where they are known there."""
    unit = content.unit_of(rows)
    on_words = {row["variant"] for row in rows if row.get("selection") == CHANGED_WORDS}
    gains = [row for row in rows if row["statistic"] == "gain" and row["variant"] == ORIGINAL]
    panels = [Panel("gain on the originals", [_curve_series(content, ORIGINAL, gains, ticks)], unit)] if gains else []
    for reference, (title, _, _) in REFERENCES.items():
        shifts = [row for row in rows if row["statistic"] == "shift" and row["reference"] == reference]
        series = []
        for variant in content.sort(row["variant"] for row in shifts):
            members = [row for row in shifts if row["variant"] == variant]
            if variant in on_words:
                read_first = [row for row in members if row["selection"] == CHANGED_WORDS]
                members = read_first or [{**row, "is_headline": False} for row in members]
            series.append(_curve_series(content, variant, members, ticks))
        if series:
            panels.append(Panel(f"shift {title}", series, unit))
    return panels


def _curve_series(content: StudyContent, variant: str, rows: Sequence[Row], ticks: Sequence[Tick]) -> Series:
    last = ticks[-1].at
    placed = sorted(rows, key=lambda row: last if row["x"] is None else row["x"])
    marks = [
        make_mark(
            content,
            row,
            row["x_label"] or "",
            last if row["x"] is None else float(row["x"]),
            filled=bool(row.get("is_headline", True)),
        )
        for row in placed
    ]
    name = "originals" if variant == ORIGINAL else selection_label(content, placed[0])
    return Series(name, content.role(variant), content.symbol(variant), marks)


def curve_charts(content: StudyContent) -> list[Chart]:
    """One chart per experiment, probe set, axis and group."""
    charts: list[Chart] = []
    for (experiment, probes, axis, group), rows in group_rows(content.tables["curves"], "experiment", "probes", "axis", "group").items():
        members = one_unit(rows)
        ticks, is_log = place_ticks(members)
        label = f"{experiment}: {axis}{f', {group}' if group else ''} ({probes})"
        panels = curve_panels(content, members, ticks)
        chart = Chart(f"curves-{len(charts)}", label, "", "curve", panels, x_name=axis, ticks=ticks, is_log=is_log)
        charts.append(captioned(content, chart, "curves", Place(experiment, "", probes), axis=axis, group=group))
    return charts


def one_unit(rows: Sequence[Row]) -> list[Row]:
    """The rows of one curve in one unit: the one in which most of its places are known, per token before per byte."""
    units = sorted(split_units(rows), key=lambda members: [name == members[0].get("normalization") for name in NORMALIZATIONS], reverse=True)
    return max(units, key=lambda members: len({row["x"] for row in members}))


def independence_charts(content: StudyContent) -> list[Chart]:
    """Training corpus by factor: one panel per corpus, then the differences between two corpora."""
    charts: list[Chart] = []
    first = _headline_references(content)
    tables = [rows for found in group_rows(content.tables["independence"], "experiment", "probes").values() for rows in split_units(found)]
    for rows in tables:
        experiment, probes = rows[0]["experiment"], rows[0]["probes"]
        members = [{**row, "is_headline": (row["probes"], row["variant"], row["reference"]) in first} for row in rows]
        alone = [row for row in members if row.get("compared_with") is None]
        against = [row for row in members if row.get("compared_with") is not None]
        own = [(f"trained on {corpus or 'an unnamed corpus'}", found) for (corpus,), found in group_rows(alone, "training_corpus").items()]
        differences = [
            (f"{corpus} less {other}", found) for (corpus, other), found in group_rows(against, "training_corpus", "compared_with").items()
        ]
        for label, groups in ((f"{experiment} ({probes})", own), (f"{experiment} ({probes}), differences between corpora", differences)):
            chart = forest_chart(content, f"independence-{len(charts)}", label, "", groups)
            if chart is not None:
                charts.append(captioned(content, chart, "independence", Place(experiment, "", probes)))
    return charts


def _headline_references(content: StudyContent) -> set[tuple[Any, ...]]:
    """Which reference of a variant is read first on a probe set. A variant that `estimates` has no such row of, here a corpus's, is read against both."""
    headlines = {(row["probes"], row["variant"], row["reference"]) for row in content.tables["estimates"] if row["is_headline"]}
    known = {key[:2] for key in headlines}
    rows = content.tables["independence"]
    return headlines | {(row["probes"], row["variant"], row["reference"]) for row in rows if (row["probes"], row["variant"]) not in known}
