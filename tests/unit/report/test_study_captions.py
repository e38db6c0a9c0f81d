"""What figures of a study say of themselves: captions from statements or from their own numbers, marks, units, and the limits of it all."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmdissect.report.study.charts import Chart, Mark, Panel, Series
from lmdissect.report.study.content import Place, StudyContent, read_study_content
from lmdissect.report.study.drawing import draw_inline
from lmdissect.report.study.estimates import overview_chart
from lmdissect.report.study.page import _chart_json, _table_json
from lmdissect.report.study.sections import build_sections
from lmdissect.report.study.statements import captioned
from lmdissect.report.study.tables import Column, StudyTable, build_tables, cell_text
from lmdissect.report.study.words import limits
from study_world import Tables, build_study

Read = Callable[..., StudyContent]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> StudyContent:
    """Content of the made-up study."""
    return read_study_content(build_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def charts(content: StudyContent) -> dict[str, Chart]:
    return _charts(content)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Content of the made-up study, changed."""

    def make(change: Callable[[Tables], None]) -> StudyContent:
        return read_study_content(build_study(tmp_path, lambda tables, _: change(tables)))

    return make


def _charts(content: StudyContent) -> dict[str, Chart]:
    return {chart.name: chart for section in build_sections(content) for chart in section.charts}


def test_a_figure_without_a_statement_says_the_finding_of_its_own_numbers(charts: dict[str, Chart]) -> None:
    assert not [chart.name for chart in charts.values() if not re.search(r"\d", chart.caption.partition("95 %")[0])]
    caption = charts["learned-1"].caption
    assert caption.startswith("size=10000 (pubmed): ")
    assert re.search(
        r"[23] of 5 estimates can be told from 0; the largest is rap \u00b7 style, net of the control, \+0\.1\d\d nats/token \[", caption
    )
    assert "Not told from 0: " in caption
    assert "counterfactual \u00b7 facts, on the changed words" in caption


def _forest(*marks: Mark) -> Chart:
    rows = [mark.label for mark in marks]
    return Chart("c", "rank=4 (web)", "", "forest", [Panel("", [Series("net of the control", "net", "circle", marks)], "nats/token")], rows=rows)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([Mark("a", None, 0.1, -0.1, 0.3)], "rank=4 (web): a, net of the control, +0.10 nats/token [\u22120.10, 0.30], which cannot be told from 0."),
        ([Mark("a", None, 0.1, 0.05, 0.15)], "rank=4 (web): a, net of the control, +0.100 nats/token [0.050, 0.150], which can be told from 0."),
        (
            [Mark("a", None, 0.1, 0.05, 0.15, is_weak=True), Mark("b", None, 0.01, -0.04, 0.06)],
            (
                "rank=4 (web): none of 2 estimates can be told from 0; the largest is a, net of the control, +0.100 nats/token [0.050, 0.150]: its interval "
                "leaves 0 out, but its p-value is too large."
            ),
        ),
        (
            [Mark("a", None, 0.1, 0.05, 0.15), Mark("b", None, 0.3, -0.04, 0.64), Mark("c", None, 0.9, 0.8, 1.0, filled=False)],
            (
                "rank=4 (web): 1 of 2 estimates can be told from 0; the largest is a, net of the control, +0.100 nats/token [0.050, 0.150]. "
                "Not told from 0: b, net of the control."
            ),
        ),
        ([Mark("a", None, 0.1, 0.1, 0.1)], "rank=4 (web): a, net of the control, +0.10 nats/token [0.10, 0.10], which cannot be told from 0."),
    ],
)
def test_what_a_figure_says(content: StudyContent, marks: list[Mark], said: str) -> None:
    caption = captioned(content, _forest(*marks), "learned", Place("rank", "rank=4", "web")).caption
    assert caption == f"{said} Numbers are nats/token with 95 % intervals."


def test_the_overview_repeats_its_findings(content: StudyContent, read: Read) -> None:
    chart = overview_chart(content)
    assert chart is not None
    assert chart.caption.startswith("Style (casual) moved towards the originals")
    assert "On web text, style moved away from the originals" in chart.caption

    def unsaid(tables: Tables) -> None:
        for row in tables["statements"]:
            row["verdict"] = "not shown"

    chart = overview_chart(read(unsaid))
    assert chart is not None
    assert re.match(r"Learned: pubmed \(size, size=30000\): \d of 5 estimates can be told from 0; the largest is rap", chart.caption)


def test_a_caption_names_a_unit_only_where_it_is_the_axis(charts: dict[str, Chart]) -> None:
    wrong = {
        name: chart.caption
        for name, chart in charts.items()
        if "Numbers are nats/token" in chart.caption and {(panel.unit, panel.is_share) for panel in chart.panels} != {("nats/token", False)}
    }
    assert wrong == {}
    assert "Numbers are nats/token with 95 % intervals." in charts["learned-0"].caption
    for name in ("capacity-1", "tempo-1", "cumulative-1", "cloze-1", "moved-0"):
        assert "Intervals are at 95 %." in charts[name].caption


def test_variants_of_one_probe_set_differ_in_their_marks_and_from_the_originals(content: StudyContent, charts: dict[str, Chart]) -> None:
    for variants in (("nonbiomedical", "casual", "rap", "counterfactual", "paraphrase"), ("biomedical", "academic", "counterfactual", "paraphrase")):
        symbols = [content.symbol(variant) for variant in ("original", *variants)]
        assert len(set(symbols)) == len(symbols)
    assert draw_inline(charts["position-0"])


def test_each_row_is_drawn_in_its_own_unit(read: Read) -> None:
    def per_byte(tables: Tables) -> None:
        for row in tables["independence"]:
            row["normalization"] = "byte" if row["probes"] == "c4" else "token"
        tables["estimates"][:] = [row for row in tables["estimates"] if row["normalization"] == "byte" or row["probes"] == "pubmed"]
        tables["curves"][:] = [row for row in tables["curves"] if row["normalization"] == "byte" or row["probes"] == "pubmed"]

    content = read(per_byte)
    units = {name: (chart.label, {panel.unit for panel in chart.panels}) for name, chart in _charts(content).items()}
    assert units["independence-0"] == ("corpora (pubmed)", {"nats/token"})
    assert units["independence-1"] == ("corpora (c4)", {"nats/byte"})
    assert units["curves-1"] == ("size: corpus.size (c4)", {"nats/byte"})
    assert units["forgotten-0"] == ("size=30000 (c4)", {"nats/byte"})
    overview = overview_chart(content)
    assert overview is not None
    assert ([panel.unit for panel in overview.panels], overview.same_scale) == (["nats/token", "nats/byte"], False)


def test_marks_of_a_corpus_are_filled_where_they_are_read_first(charts: dict[str, Chart]) -> None:
    chart = charts["independence-0"]
    filled = {(series.name, mark.label): mark.filled for series in chart.panels[0].series for mark in series.marks}
    assert filled["net of the control", "casual \u00b7 style"]
    assert not filled["against the original", "casual \u00b7 style"]
    assert filled["against the original", "nonbiomedical \u00b7 topic"]
    assert not filled["net of the control", "nonbiomedical \u00b7 topic"]


def _one_seed(tables: Tables) -> None:
    tables["runs"][:] = [row for row in tables["runs"] if row["experiment"] != "rank" or row["seed"] == 0]


def _one_point(tables: Tables) -> None:
    tables["runs"][:] = [row for row in tables["runs"] if row["point"] != "size=100" or row["seed"] == 0]


def _all_one(tables: Tables) -> None:
    tables["runs"][:] = [row for row in tables["runs"] if row["seed"] == 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [(_one_seed, "One training seed in rank:"), (_one_point, "One training seed in size (size=100):"), (_all_one, "One training seed: ")],
)
def test_limits_name_what_has_one_training_seed(read: Read, change: Callable[[Tables], None], said: str) -> None:
    assert [line for line in limits(read(change)) if line.startswith(said)]


def test_limits_are_silent_where_seeds_and_controls_are_there(content: StudyContent) -> None:
    assert not [line for line in limits(content) if "One training seed" in line or "a control: what" in line or "no control" in line]


def test_limits_name_probes_without_a_control(read: Read) -> None:
    def change(tables: Tables) -> None:
        rows = tables["estimates"]
        rows[:] = [row for row in rows if row["probes"] != "c4" or "control" not in (row["factor"], row["reference"])]

    assert [line for line in limits(read(change)) if line.startswith("c4 without a control:")]


def _cells(table: StudyTable, key: str) -> list[str]:
    place = [column.key for column in table.columns].index(key)
    return [cell_text(row[place], table.columns[place].kind) for row in table.rows]


def test_cloze_says_its_measures_in_words_and_prints_each_in_its_own_digits(content: StudyContent) -> None:
    (table,) = build_tables(content, "cloze")
    said = dict(zip(_cells(table, "measure"), _cells(table, "estimate"), strict=True))
    assert re.fullmatch(r"\u2212\d+\.\d ranks \[\u2212\d+\.\d, \u2212?\d+\.\d\]", said["rank of the true term"])
    assert re.fullmatch(r"[+\u2212]?\d+\.\d % points \[\u2212?\d+\.\d, \u2212?\d+\.\d\]", said["share ranked first"])
    assert re.fullmatch(r"[+\u2212]\d\.\d{3} nats \[.*\]", said["true term against the other"])
    assert set(_cells(table, "selection")) == {"all changed words", "key terms"}
    assert [column.label for column in table.columns].index("Change") < 8


def test_amounts_are_printed_as_in_the_sentences(read: Read) -> None:
    def change(tables: Tables) -> None:
        for row in tables["tempo"]:
            row.update(half_x=9.90194, ci_low=9.90192, ci_high=9.90197)

    content = read(change)
    (table,) = build_tables(content, "tempo")
    assert set(_cells(table, "half_x")) == {"9.9 [9.9, 9.9]"}
    assert "9.9 [9.9, 9.9]" in _charts(content)["tempo-1"].caption


@pytest.mark.parametrize("name", ["moved", "interactions", "natural", "fingerprint"])
def test_tables_begin_with_the_point_of_the_statements(read: Read, name: str) -> None:
    def change(tables: Tables) -> None:
        for source in ("moved_documents", "interactions", "natural", "fingerprint"):
            rows = tables[source]
            rows[:0] = [{**row, "point": "size=100"} for row in rows]

    table = build_tables(read(change), name)[0]
    assert _cells(table, "point")[0] == "size=30000"


def test_tables_keep_every_digit_and_figures_six() -> None:
    table = StudyTable("t", "t", "", [Column("x", "x", "number"), Column("e", "e", "interval")], [[1234567.25, [0.123456789, 0.1, 0.2, 3]]])
    assert _table_json(table)["rows"] == [[1234567.25, [0.123456789, 0.1, 0.2, 3]]]
    chart: dict[str, Any] = _chart_json(_forest(Mark("a", None, 0.123456789, 0.1, 0.2)))
    assert chart["panels"][0]["series"][0]["marks"][0]["estimate"] == 0.123457


def test_curves_name_their_unit_in_the_static_figure(charts: dict[str, Chart]) -> None:
    assert "nats/token" in draw_inline(charts["curves-0"])[0]


def test_each_figure_of_capacity_has_the_sentences_of_its_share(read: Read) -> None:
    def change(tables: Tables) -> None:
        said = [row for row in tables["statements"] if row["analysis"] == "capacity"]
        tables["statements"] = [row for row in tables["statements"] if row["analysis"] != "capacity"]
        tables["capacity"] += [{**row, "share_of_full": 0.5} for row in tables["capacity"]]
        for share in (0.5, 0.9):
            tables["statements"] += [{**said[0], "axis": "finetune.lora.rank", "group": "", "share_of_full": share, "sentence": f"Said of {share}."}]
            tables["statements"] += [
                {**said[0], "axis": "finetune.lora.rank", "group": "other", "share_of_full": share, "sentence": "Of another group."}
            ]

    captions = [chart.caption for name, chart in _charts(read(change)).items() if name.startswith("capacity") and "(pubmed)" in chart.label]
    assert [re.findall(r"Said of 0\.\d|another group", caption) for caption in captions] in (
        [["Said of 0.9"], ["Said of 0.5"]],
        [["Said of 0.5"], ["Said of 0.9"]],
    )
