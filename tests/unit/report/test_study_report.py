"""The study report: what it says, that it is whole and inert, and that a current one is left alone."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lmdissect.formats.study_tables import ANALYSES
from lmdissect.progress import SilentProgress
from lmdissect.report.study import write_study_report
from lmdissect.report.study.charts import Chart, Mark, Panel, Series, Tick, choose_log
from lmdissect.report.study.content import read_study_content
from lmdissect.report.study.drawing import draw_inline
from lmdissect.report.study.estimates import overview_chart, place_ticks
from lmdissect.report.study.scripts import safe_json
from lmdissect.report.study.sections import build_sections
from lmdissect.report.study.tables import build_tables, cell_text, write_table_latex
from study_world import Tables, build_scores, build_study, keep_points, make_texts, only_tables

POINT = "size=30000"
HOSTILE = "</span></script><script>window.__pwned=1</script><img src=x onerror=window.__pwned=1> \" ' \u202e"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text.append(data)


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


class _Lines(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    source = build_scores(folder / "scores", make_texts(5, num_words=30))
    study = build_study(
        folder / "study",
        lambda tables, details: (only_tables("estimates", "statements", "facts")(tables, details), keep_points(POINT)(tables, details)),
    )
    write_study_report(study, explorer=source)
    return study


def test_every_section_is_there_in_order_and_empty_ones_say_what_they_need(folder: Path) -> None:
    page = _parse(folder / "report.html")
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == ["overview", *ANALYSES, "explorer", "provenance", "methods", "limits"]
    sections = build_sections(read_study_content(folder))
    assert [section.name for section in sections if section.need] == ["moved"]


def test_the_overview_says_what_was_learned_and_forgotten(folder: Path) -> None:
    text = " ".join(_parse(folder / "report.html").text)
    learned, forgotten = text.index("What did it learn?"), text.index("What did it forget?")
    assert learned < text.index("Style (rap) moved towards the originals") < forgotten < text.index("On web text, style moved away")
    assert "1 not shown, 0 not measured" in text


def test_every_chart_has_its_static_twin_in_three_kinds(folder: Path) -> None:
    charts = [chart.name for section in build_sections(read_study_content(folder)) for chart in section.charts if chart.is_static]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in [*charts, "overview"] for kind in ("png", "svg", "pdf")
    }
    links = [attributes["href"] for tag, attributes in _parse(folder / "report.html").tags if tag == "a" and "download" in attributes]
    assert all((folder / str(link)).is_file() for link in links)
    assert len(links) == 3 * 4


def test_the_policy_names_every_script_and_style_by_hash_and_nothing_else(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in _parse(folder / "report.html").tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    texts = [*re.findall(r"<script>(.*?)</script>", html, re.DOTALL), *re.findall(r"<style>(.*?)</style>", html, re.DOTALL)]
    assert len(texts) == 3
    for text in texts:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_net_shifts_stand_beside_raw_ones(folder: Path) -> None:
    chart = overview_chart(read_study_content(folder))
    assert chart is not None
    assert [panel.title for panel in chart.panels] == ["Learned: pubmed", "Forgotten: c4"]
    for panel in chart.panels:
        assert [series.name for series in panel.series] == ["against the original", "net of the control", "on the changed words"]
    raw, net, facts = chart.panels[0].series
    assert [mark.label for mark in facts.marks] == ["counterfactual \u00b7 facts"]
    assert [mark.label for mark in raw.marks] == [
        "nonbiomedical \u00b7 topic",
        "casual \u00b7 style",
        "rap \u00b7 style",
        "counterfactual \u00b7 facts",
        "paraphrase \u00b7 wording",
    ]
    assert [mark.filled for mark in raw.marks] == [True, False, False, False, True]
    assert [mark.filled for mark in net.marks] == [False, True, True, False]


def test_a_caption_says_its_finding(folder: Path) -> None:
    sections = {section.name: section for section in build_sections(read_study_content(folder))}
    assert sections["facts"].charts[0].caption.startswith("On the changed words alone a shift of facts is not shown")
    assert sections["learned"].charts[0].caption.startswith("Style (casual) moved towards the originals")


def test_a_current_report_is_left_alone_and_a_changed_run_is_not(folder: Path, tmp_path: Path) -> None:
    source = build_scores(tmp_path, make_texts(5, num_words=30))
    lines = _Lines()
    before = (folder / "report.html").stat().st_mtime_ns
    write_study_report(folder, explorer=source, progress=lines)
    assert any("written" in line for line in lines.lines), "another run of texts"
    lines.lines.clear()
    write_study_report(folder, explorer=source, progress=lines)
    assert lines.lines == [f"{folder / 'report.html'}: current, nothing rewritten"]
    assert (folder / "report.html").stat().st_mtime_ns > before


def _make_hostile(tables: Tables, details: dict[str, Any]) -> None:
    only_tables("estimates", "statements", "moved_documents")(tables, details)
    keep_points(POINT)(tables, details)
    for rows in tables.values():
        for row in rows:
            row.update({name: HOSTILE for name in ("experiment", "point") if name in row})
    for row in tables["statements"]:
        row["sentence"] = HOSTILE
    tables["moved_documents"][0]["document_id"] = HOSTILE
    details["notes"] = [HOSTILE]
    details["unavailable"] = [{"table": HOSTILE, "reason": HOSTILE}]
    details["checks"] = {HOSTILE: {"passed": False, "text": HOSTILE}}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    write_study_report(build_study(tmp_path, _make_hostile))
    page = _parse(tmp_path / "report.html")
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 5
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert any("Read with care." in text for text in page.text)


def test_a_study_without_rows_is_a_page_of_needs(tmp_path: Path) -> None:
    def change(tables: Tables, _: dict[str, Any]) -> None:
        for rows in tables.values():
            rows.clear()

    page = _parse(write_study_report(build_study(tmp_path, change)))
    assert len([text for text in page.text if "It would need" in text]) == len(ANALYSES)
    assert not [attributes for tag, attributes in page.tags if tag == "figure"]


def test_scores_that_cannot_be_paired_leave_the_study_whole(tmp_path: Path) -> None:
    from lmdissect.records import ExplorerSource
    from score_tables import ScoredText, save_scores

    texts = [ScoredText("d", "original", "a b", [-1.0, -1.0])]
    save_scores(tmp_path / "base", texts)
    save_scores(tmp_path / "tuned", texts, model="tuned", tokenizer="bytes")
    study = build_study(tmp_path / "study", only_tables("statements"))
    page = _parse(write_study_report(study, explorer=ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run 7")))
    assert any("run 7: base and tuned model have different tokenizers" in text for text in page.text)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "interval", "\u2013"),
        ([0.0456, 0.034, 0.058, 3], "interval", "+0.046 [0.034, 0.058]"),
        ([-0.001, -0.0021, -0.0002, 3], "interval", "\u22120.0010 [\u22120.0021, \u22120.0002]"),
        ([48, 24, 96, 0], "amount_interval", "48 [24, 96]"),
        ([9.9019, 8.24, None, 3], "amount_interval", "9.9 [8.24, open]"),
        ([9.9019, None, None, 3], "amount_interval", "9.9"),
        ([9.9019, 8.24, 1234.5, 3], "amount_interval", "9.9 [8.24, 1,234]"),
        (0.0002, "amount", "0.0002"),
        ([0.02, 4e-8, 0.04, 3], "interval", "+0.020 [> 0, 0.040]"),
        ([-8.838, -15.838, -1.838, 1, "ranks"], "interval", "\u22128.8 ranks [\u221215.8, \u22121.8]"),
        ([0.011, 0.001, 0.021, 1, "% points"], "interval", "+1.1 % points [0.1, 2.1]"),
        ([0.16, 0.09, 0.24, 3], "share_interval", "16 % [9, 24]"),
        (12345, "count", "12,345"),
        (0.0004, "p", "< 0.001"),
        (0.0497, "p", "0.0497"),
        (0.0503, "p", "0.0503"),
        (0.5, "share", "50 %"),
        (30000.0, "number", "30,000"),
        (-3.1, "number", "\u22123.10"),
        (0.01234, "number", "0.0123"),
    ],
)
def test_cells_are_printed_as_everywhere(value: object, kind: str, text: str) -> None:
    assert cell_text(value, kind) == text


def test_tables_put_the_point_of_the_statements_first(tmp_path: Path) -> None:
    content = read_study_content(build_study(tmp_path))
    table, seeds = build_tables(content, "learned")
    assert seeds.source == "seeds"
    place = [column.key for column in table.columns].index("point")
    assert table.rows[0][place] == POINT
    assert {row[[column.key for column in seeds.columns].index("seed")] for row in seeds.rows} == {0, 1, 2}


def test_what_every_row_says_stands_above_a_table(tmp_path: Path) -> None:
    content = read_study_content(build_study(tmp_path))
    table, _ = build_tables(content, "learned")
    said = {column.key: cell for column, cell in table.shared}
    assert (said["probes"], said["num_seeds"]) == ("pubmed", 3)
    assert not {column.key for column in table.columns} & said.keys()
    assert "Probes pubmed" in table.note
    assert r"\caption{Gains and shifts on probes of the training domain. In every row: " in write_table_latex(table, table.rows)
    (row, *_) = content.tables["estimates"]
    content.tables["estimates"][:] = [{**row, "probes": "pubmed"}]
    alone = build_tables(content, "learned")[0]
    assert (alone.note, len(alone.rows)) == ("", 1), "of one row all is shown"


def test_all_weights_stand_right_of_the_largest_rank() -> None:
    rows = [{"x": rank, "x_label": f"{rank:g}"} for rank in (1.0, 4.0, 64.0)] + [{"x": None, "x_label": "all weights"}]
    ticks, is_log = place_ticks(rows)
    assert is_log
    assert [(tick.at, tick.text) for tick in ticks] == [(1.0, "1"), (4.0, "4"), (64.0, "64"), (256.0, "all weights")]


@pytest.mark.parametrize(
    ("values", "is_log"), [([1.0, 64.0], True), ([0.0, 64.0], False), ([60.0, 200.0, 600.0], True), ([10.0, 20.0], False), ([], False)]
)
def test_far_apart_positive_axes_are_logarithmic(values: list[float], is_log: bool) -> None:
    assert choose_log(values) is is_log


def _curve_chart(title: str, *names: str) -> Chart:
    marks = [Mark("a", x, 0.1, 0.0, 0.2) for x in (1.0, 2.0)]
    panels = [Panel(title, [Series(name, "ink", "circle", marks) for name in names], "nats/token")] * 3
    return Chart("c", "c", "", "curve", panels, ticks=[Tick(1.0, "1"), Tick(2.0, "2")])


def test_a_figure_cuts_no_name_that_has_room() -> None:
    """Three panels side by side, names of the length that combined factors have; only a name that fits no line ends in an ellipsis."""
    names = ("originals", "nonbiomedical_casual \u00b7 topic and style", "biomedical_academic \u00b7 topic and style")
    for svg in draw_inline(_curve_chart("shift against the original", *names)):
        assert "\u2026" not in svg
        assert all(name in svg for name in ("shift against the original", *names))
    assert "\u2026" in draw_inline(_curve_chart("w" * 60, "m" * 200))[0]


def test_variants_of_one_probe_set_differ_in_colour_and_a_factor_keeps_its_own(tmp_path: Path) -> None:
    content = read_study_content(build_study(tmp_path))
    pubmed = [content.role(variant) for variant in ("nonbiomedical", "casual", "rap", "counterfactual", "paraphrase")]
    assert len(set(pubmed)) == 5
    assert pubmed[-1] == "muted"
    assert content.role("biomedical") == content.role("nonbiomedical")
    assert content.role("academic") == content.role("casual")


def test_json_in_a_script_element_cannot_end_it() -> None:
    text = json.dumps({"a": "</script><!-- &\u2028"}, ensure_ascii=False)
    safe = safe_json(text)
    assert json.loads(safe) == json.loads(text)
    assert not set("<>&\u2028") & set(safe)
