"""Charts of the other analyses: position, capacity, tempo, interactions, facts, cloze, natural pairs, fingerprint, what moved most."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.formats.study_tables import CHANGED_WORDS
from lmdissect.report.content import SELECTIONS
from lmdissect.report.study.charts import Chart, Mark, Panel, Series, Tick, choose_log
from lmdissect.report.study.content import Place, Row, StudyContent, group_rows, split_units
from lmdissect.report.study.estimates import REFERENCES, curve_panels, describe_row, make_mark, one_unit, place_ticks, row_label, selection_label
from lmdissect.report.study.statements import captioned
from lmdissect.report.text import short_label
from lmdissect.wording import format_plain

__all__ = [
    "MEASURES",
    "capacity_charts",
    "cloze_charts",
    "fact_charts",
    "fingerprint_charts",
    "interaction_charts",
    "moved_charts",
    "natural_charts",
    "position_charts",
    "tempo_charts",
]

MEASURES = {
    "contrast": ("true term against the other", "nats"),
    "true_logprob": ("log-probability of the true term", "nats"),
    "other_logprob": ("log-probability of the other term", "nats"),
    "true_rank": ("rank of the true term", "ranks"),
    "true_first": ("share ranked first", "share"),
}
"""Measures of the cloze test, in words, with their units; the contrast is the one to read first."""

_TOKENS_SHOWN = 12
_KINDS = {"natural": ("natural pairs", "facts", "square"), "synthetic": ("written variants", "original", "circle")}


def position_charts(content: StudyContent) -> list[Chart]:
    """Gain and shifts by bins of token position, then the share made before a position; the point trained on most first."""
    charts = [*_bin_charts(content), *_cumulative_charts(content)]
    seen: set[tuple[str, str]] = set()
    marked = []
    for chart in charts:
        key = (chart.name.rpartition("-")[0], chart.label.rpartition("(")[2])
        marked.append(replace(chart, is_static=key not in seen))
        seen.add(key)
    return marked


def _by_place(content: StudyContent, table: str) -> list[tuple[Place, list[Row]]]:
    """Rows of a table by place, the main place of every probe set first."""
    groups = {Place(*key): rows for key, rows in group_rows(content.tables[table], "experiment", "point", "probes").items()}
    ranks = {place: rank for probes in dict.fromkeys(place.probes for place in groups) for rank, place in enumerate(content.main_places(probes))}
    return sorted(groups.items(), key=lambda entry: ranks.get(entry[0], len(ranks)))


def _bin_charts(content: StudyContent) -> list[Chart]:
    charts: list[Chart] = []
    for place, rows in _by_place(content, "positions"):
        kept = [row for row in rows if row["document_set"] in ("all", None)]
        starts = sorted({(row["bin_start"], row["bin_end"]) for row in kept}, key=lambda bounds: bounds[0])
        ticks = [Tick(float(index), _bin_name(*bounds)) for index, bounds in enumerate(starts)]
        at = {bounds[0]: float(index) for index, bounds in enumerate(starts)}
        panels = [_bin_gain(kept, at), *_bin_shifts(content, kept, at)]
        label = f"by position, {place.text}"
        chart = Chart(f"position-{len(charts)}", label, "", "curve", panels, x_name="token position", ticks=ticks)
        charts.append(captioned(content, chart, "position", place, "Over all documents that reach a bin."))
    return charts


def _bin_name(start: int, end: int | None) -> str:
    if end is None:
        return f"{start} on"
    return f"{start}" if end - 1 == start else f"{start}\u2013{end - 1}"


def _bin_gain(rows: Sequence[Row], at: dict[int, float]) -> Panel:
    """The originals' gain, from the variant that covers most documents."""
    groups = group_rows((row for row in rows if row["gain"] is not None), "variant", "reference")
    widest = max(groups.values(), key=lambda group: (len(group), group[0]["num_documents"]), default=[])
    marks = [
        Mark(_bin_name(row["bin_start"], row["bin_end"]), at[row["bin_start"]], row["gain"], row["gain_ci_low"], row["gain_ci_high"], filled=False)
        for row in sorted(widest, key=lambda row: row["bin_start"])
    ]
    return Panel("gain on the originals", [Series("originals", "ink", "circle", marks)], "nats/token")


def _bin_shifts(content: StudyContent, rows: Sequence[Row], at: dict[int, float]) -> list[Panel]:
    panels = []
    for reference, (title, _, _) in REFERENCES.items():
        series = _variant_series(
            content,
            [row for row in rows if (row["reference"] or ORIGINAL) == reference],
            lambda row: make_mark(content, row, _bin_name(row["bin_start"], row["bin_end"]), at[row["bin_start"]]),
        )
        if series:
            panels.append(Panel(f"shift {title}", series, "nats/token"))
    return panels


def _variant_series(content: StudyContent, rows: Sequence[Row], make: Callable[[Row], Mark]) -> list[Series]:
    series = []
    for variant in content.sort(row["variant"] for row in rows):
        marks = sorted((make(row) for row in rows if row["variant"] == variant), key=lambda mark: mark.x or 0.0)
        series.append(Series(row_label(content, variant), content.role(variant), content.symbol(variant), marks))
    return series


def _cumulative_charts(content: StudyContent) -> list[Chart]:
    charts: list[Chart] = []
    for place, rows in _by_place(content, "cumulative"):
        places = sorted({int(row["position"]) for row in rows})
        ticks = [Tick(float(max(at, 1)), f"{at}") for at in places if at > 0]
        panels = []
        for reference, (title, _, _) in REFERENCES.items():
            kept = [row for row in rows if (row["reference"] or ORIGINAL) == reference and row["position"] > 0]
            series = _variant_series(content, kept, lambda row: _share_mark(content, row))
            if series:
                panels.append(Panel(f"share of the shift {title}", series, "of the whole shift", is_share=True))
        label = f"share made early, {place.text}"
        note = "Share of the shift per document that is made in the first t tokens; 100 % is the whole shift."
        chart = Chart(f"cumulative-{len(charts)}", label, "", "curve", panels, x_name="first t tokens", ticks=ticks, is_log=True)
        charts.append(captioned(content, chart, "position", place, note))
    return [chart for chart in charts if chart.panels]


def _share_mark(content: StudyContent, row: Row) -> Mark:
    return Mark(f"{row['position']}", float(max(row["position"], 1)), row["share"], row["ci_low"], row["ci_high"], hover=describe_row(content, row))


def capacity_charts(content: StudyContent) -> list[Chart]:
    """Smallest rank that reaches a share of full finetuning's shift, per variant."""
    charts: list[Chart] = []
    for (experiment, group, probes, share), rows in group_rows(content.tables["capacity"], "experiment", "group", "probes", "share_of_full").items():
        label = f"{experiment}{f', {group}' if group else ''} ({probes}): {format_plain(100 * share, 0)} % of full finetuning"
        chart = _amount_chart(content, rows, "rank", f"capacity-{len(charts)}", label, f"smallest rank that reaches {format_plain(100 * share, 0)} %")
        note = "Further right: more capacity is needed. An interval with ranks above those that were measured is drawn to the largest of these."
        charts.append(captioned(content, chart, "capacity", Place(experiment, "", probes), note, group=group, share_of_full=share))
    return charts


def tempo_charts(content: StudyContent) -> list[Chart]:
    """Where on a curve half of the last value is reached, per variant."""
    charts: list[Chart] = []
    for (experiment, axis, group, probes), rows in group_rows(content.tables["tempo"], "experiment", "axis", "group", "probes").items():
        label = f"{experiment}: {axis}{f', {group}' if group else ''} ({probes})"
        note = "Further left: more rapid. A shift whose last value covers 0 has no half."
        chart = _amount_chart(content, rows, "half_x", f"tempo-{len(charts)}", label, f"{axis} at half of the last shift")
        charts.append(captioned(content, chart, "tempo", Place(experiment, "", probes), note, axis=axis, group=group))
    return charts


def _amount_chart(content: StudyContent, rows: Sequence[Row], column: str, name: str, label: str, unit: str) -> Chart:
    """A forest of positive amounts (a rank, a number of documents): no line at 0, a logarithmic axis where they lie far apart."""
    series = []
    on_words = {row["variant"] for row in rows if row["selection"] == CHANGED_WORDS}
    kept = [row for row in rows if row[column] is not None and (row["selection"] == CHANGED_WORDS or row["variant"] not in on_words)]
    for reference, (title, role, symbol) in REFERENCES.items():
        marks = [
            Mark(
                selection_label(content, row),
                None,
                row[column],
                row[column] if row["ci_low"] is None else row["ci_low"],
                row["largest_rank"] if row["ci_high"] is None else row["ci_high"],
                hover=describe_row(content, row),
            )
            for row in kept
            if (row["reference"] or ORIGINAL) == reference
        ]
        if marks:
            series.append(Series(title, role, symbol, marks))
    bounds = [bound for entry in series for mark in entry.marks for bound in (mark.low, mark.estimate, mark.high)]
    label_of = {row["variant"]: selection_label(content, row) for row in kept}
    labels = [label_of[variant] for variant in content.sort(label_of)]
    return Chart(name, label, "", "forest", [Panel("", series, unit)], rows=labels, is_log=choose_log(bounds), zero=False)


def interaction_charts(content: StudyContent) -> list[Chart]:
    """Whether factors changed together move independently: 0 if they do."""
    charts: list[Chart] = []
    rows = [row for row in content.tables["interactions"] if content.is_drawn(row)]
    for members in [found for group in group_rows(rows, "experiment", "probes").values() for found in split_units(group)]:
        experiment, probes = members[0]["experiment"], members[0]["probes"]
        marks = [make_mark(content, row, f"{row['first_variant']} \u00d7 {row['second_variant']}, {row['point'] or experiment}") for row in members]
        panel = Panel("", [Series("interaction", "original", "circle", marks)], content.unit_of(members))
        labels = list(dict.fromkeys(mark.label for mark in marks))
        chart = Chart(f"interactions-{len(charts)}", f"{experiment} ({probes})", "", "forest", [panel], rows=labels)
        charts.append(captioned(content, chart, "interactions", Place(experiment, "", probes), "0 where the two factors move independently."))
    return charts


def _selection_words(selection: str) -> str:
    return SELECTIONS.get(selection, selection)


def _selection_rows(rows: Iterable[Row]) -> list[str]:
    found = {row["selection"] for row in rows}
    return [*(name for name in SELECTIONS if name in found), *sorted(found - set(SELECTIONS))]


def fact_charts(content: StudyContent) -> list[Chart]:
    """Shift on the tokens whose words differ; the mean per token."""
    charts: list[Chart] = []
    for place, rows in _by_place(content, "facts"):
        kept = [row for row in rows if row["statistic"] == "mean"] or rows
        unit = "nats/token" if kept[0]["statistic"] == "mean" else "nats/document"
        series = [
            Series(
                variant,
                content.role(variant),
                "square",
                [make_mark(content, row, _selection_words(row["selection"])) for row in kept if row["variant"] == variant],
            )
            for variant in content.sort(row["variant"] for row in kept)
        ]
        labels = [_selection_words(name) for name in _selection_rows(kept)]
        note = "Only the tokens of words that differ between original and variant count here."
        chart = Chart(f"facts-{len(charts)}", place.text, "", "forest", [Panel("", series, unit)], rows=labels, is_static=not charts)
        charts.append(captioned(content, chart, "facts", place, note))
    return charts


def cloze_charts(content: StudyContent) -> list[Chart]:
    """The true term against the counterfactual's, in the true context."""
    charts: list[Chart] = []
    for place, rows in _by_place(content, "cloze"):
        kept = [row for row in rows if row.get("terms") in ("all", None) and row.get("normalization") in ("term", None)]
        panels = [
            Panel(words, _cloze_series(content, [row for row in kept if row["measure"] == measure]), unit)
            for measure, (words, unit) in MEASURES.items()
            if any(row["measure"] == measure for row in kept)
        ]
        if not panels:
            continue
        labels = [_selection_words(name) for name in _selection_rows(kept)]
        note = "Change from the base to the tuned model; a rank that falls is a gain."
        chart = Chart(f"cloze-{len(charts)}", place.text, "", "forest", panels, rows=labels, same_scale=False, is_static=not charts)
        charts.append(captioned(content, chart, "cloze", place, note))
    return charts


def _cloze_series(content: StudyContent, rows: Sequence[Row]) -> list[Series]:
    return [
        Series(
            variant,
            content.role(variant),
            "square",
            [make_mark(content, row, _selection_words(row["selection"])) for row in rows if row["variant"] == variant],
        )
        for variant in content.sort(row["variant"] for row in rows)
    ]


def natural_charts(content: StudyContent) -> list[Chart]:
    """Style by pairs that people wrote beside style by written variants."""
    charts: list[Chart] = []
    for place, rows in [(place, rows) for place, found in _by_place(content, "natural") for rows in split_units(found)]:
        labels = list(dict.fromkeys(f"{row['variant']} \u00b7 {row['kind']}" for row in rows))
        series = [
            Series(name, role, symbol, [make_mark(content, row, f"{row['variant']} \u00b7 {kind}") for row in rows if row["kind"] == kind])
            for kind, (name, role, symbol) in _KINDS.items()
            if any(row["kind"] == kind for row in rows)
        ]
        panel = Panel("", series, content.unit_of(rows))
        chart = Chart(f"natural-{len(charts)}", place.text, "", "forest", [panel], rows=labels, is_static=not charts)
        charts.append(captioned(content, chart, "natural", place))
    return charts


def fingerprint_charts(content: StudyContent) -> list[Chart]:
    """The control's own shift: along every axis, and at every point beside the other variants and their net shifts."""
    rows = [row for row in content.tables["fingerprint"] if row["estimate"] is not None]
    charts: list[Chart] = []
    for (experiment, probes, axis, group), found in group_rows((row for row in rows if row["axis"]), "experiment", "probes", "axis", "group").items():
        members = one_unit(found)
        ticks, is_log = place_ticks(members)
        shown = [{**row, "statistic": "shift", "reference": ORIGINAL} for row in members] + _net_rows(content, members[0])
        label = f"{experiment}: {axis}{f', {group}' if group else ''} ({probes})"
        panels = curve_panels(content, shown, ticks)
        chart = Chart(f"fingerprint-{len(charts)}", label, "", "curve", panels, x_name=axis, ticks=ticks, is_log=is_log)
        charts.append(captioned(content, chart, "fingerprint", Place(experiment, "", probes)))
    if charts:
        return charts
    for (experiment, point, probes), found in group_rows(rows, "experiment", "point", "probes").items():
        place, members = Place(experiment, point, probes), one_unit(found)
        marks = [make_mark(content, row, _kept_label(content, row)) for row in members]
        panel = Panel("", [Series("against the original", "muted", "circle", marks)], content.unit_of(members))
        labels = [mark.label for mark in marks]
        chart = Chart(f"fingerprint-{len(charts)}", place.text, "", "forest", [panel], rows=labels, is_static=not charts)
        charts.append(captioned(content, chart, "fingerprint", place))
    return charts


def _net_rows(content: StudyContent, like: Row) -> list[Row]:
    """Net shifts along the axis of ``like`` and in its unit, from the curves: what is left without the control stands beside what it does, to be read second."""
    columns = ("experiment", "probes", "axis", "group", "normalization")
    wanted = [like[name] for name in columns]
    rows = content.tables["curves"]
    found = [row for row in rows if row["statistic"] == "shift" and row["reference"] == CONTROL and [row[name] for name in columns] == wanted]
    return [{**row, "is_headline": False} for row in found]


def _kept_label(content: StudyContent, row: Row) -> str:
    kept = row["kept_words_median"]
    words = f", keeps {format_plain(100 * kept, 0)} %" if kept is not None else ""
    return f"{row_label(content, row['variant'])}{words}"


def moved_charts(content: StudyContent) -> list[Chart]:
    """Token strings whose log-probability changed most, up and down."""
    charts: list[Chart] = []
    for place, rows in _by_place(content, "moved_tokens"):
        for (variant,), members in group_rows(rows, "variant").items():
            chosen = [
                row for (_,), group in group_rows(members, "direction").items() for row in sorted(group, key=lambda row: row["rank"])[:_TOKENS_SHOWN]
            ]
            marks = [make_mark(content, row, _token_label(row["token"])) for row in chosen]
            panel = Panel("", [Series("gain of the token", "original", "circle", marks)], "nats per occurrence")
            note = f"Tokens of the {variant or 'original'} texts whose log-probability changed most."
            labels = list(dict.fromkeys(mark.label for mark in marks))
            name, label = f"moved-{len(charts)}", f"{variant or 'original'}, {place.text}"
            chart = Chart(name, label, "", "forest", [panel], rows=labels, is_static=not charts)
            charts.append(captioned(content, chart, "moved", place, note))
    return charts


def _token_label(token: str) -> str:
    """A token with its spaces made visible."""
    return short_label(token.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5"), 24)
