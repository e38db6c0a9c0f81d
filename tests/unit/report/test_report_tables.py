"""Tables and self-check as cells of text."""
# ruff: noqa: RUF001 - the report prints true minus signs

from pathlib import Path

import pytest

from lmdissect.report import tables
from lmdissect.report.content import ReportContent
from lmdissect.report.selfcheck import MOST_NAMED, check_content, failed_sentence, list_facts
from unit.report.shift_artifact import Details, Tables, build_content


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    return build_content(tmp_path_factory.mktemp("shifts"))


def _rows(table: tables.Table) -> dict[str, list[str]]:
    return {row[0].text: [" ".join(filter(None, (cell.text, cell.note))) for cell in row[1:]] for group in table.groups for row in group.rows}


def test_a_variant_has_three_columns_of_shifts(content: ReportContent) -> None:
    assert _rows(tables.shift_table(content, "token"))["casual"] == [
        *("+0.065 [0.050, 0.080]", "< 0.001 < 0.001", "31 % [24, 38]"),
        "+0.019 [0.004, 0.034]",
        *("+0.046 [0.034, 0.058]", "< 0.001 < 0.001", "22 % [16, 28]"),
        *("80", "+0.210"),
    ]


def test_the_control_stands_last_and_has_no_net(content: ReportContent) -> None:
    table = tables.shift_table(content, "document")
    assert [group.title for group in table.groups] == ["Topic", "Style", "Facts", "Topic and style", "Control"]
    assert _rows(table)["paraphrase"][3:7] == ["–", "–", "–", "–"]
    assert _rows(table)["paraphrase"][-2:] == ["78", "+35.7"]


def test_exactly_the_headline_is_marked(content: ReportContent) -> None:
    table = tables.shift_table(content, "token")
    marked = {row[0].text: [index for index, cell in enumerate(row) if cell.is_headline] for group in table.groups for row in group.rows}
    assert marked == {"nonbiomedical": [1], "casual": [5], "rap": [5], "counterfactual": [], "nonbiomedical_casual": [5], "paraphrase": []}
    facts = [cell.text for group in tables.fact_table(content).groups for row in group.rows for cell in row if cell.is_headline]
    assert facts == ["+0.005"]


def test_bands_cover_all_columns(content: ReportContent) -> None:
    for table in (tables.shift_table(content, "token"), tables.loss_table(content), tables.fact_table(content)):
        assert sum(band.span for band in table.bands) == len(table.heads)
        assert {len(row) for group in table.groups for row in group.rows} == {len(table.heads)}


def test_net_rows_over_fewer_documents_say_so(tmp_path: Path) -> None:
    def change(rows: Tables, details: Details) -> None:
        for row in rows["shifts"]:
            if row["reference"] == "control":
                row["num_documents"] = 71

    assert _rows(tables.shift_table(build_content(tmp_path, change), "token"))["casual"][-2] == "80 net 71"


def test_a_row_that_could_not_be_computed_is_a_dash(tmp_path: Path) -> None:
    def change(rows: Tables, details: Details) -> None:
        rows["shifts"] = [row for row in rows["shifts"] if not (row["variant"] == "casual" and row["reference"] == "original")]

    assert _rows(tables.shift_table(build_content(tmp_path, change), "token"))["casual"][:3] == ["–", "–", "–"]


def test_losses_and_interactions(content: ReportContent) -> None:
    assert _rows(tables.loss_table(content))["casual"] == [
        *("80", "13,819", "3.300", "3.155", "0.7300", "0.6981", "27.11", "21.98"),
        "+0.145 [0.124, 0.166]",
    ]
    assert [row[3].text for group in tables.interaction_table(content).groups for row in group.rows] == [
        "−0.023 [−0.038, −0.008]",
        "−0.0051 [−0.0084, −0.0018]",
        "−3.9 [−6.5, −1.4]",
    ]


def test_dropped_texts_are_counted_by_reason_and_the_first_are_named(tmp_path: Path) -> None:
    def change(rows: Tables, details: Details) -> None:
        details["num_dropped"] = 1_250
        details["dropped"] = [{"variant": "rap", "document_id": f"d-{n}", "reason": "no original" if n % 3 else "no token"} for n in range(1_000)]

    dropped = check_content(build_content(tmp_path, change)).left_out[1]
    assert dropped.num_records == 1_250
    assert dropped.reasons == [("no original", 666), ("no token", 334)]
    assert len(dropped.named) == MOST_NAMED
    assert dropped.named[0] == ("d-0, rap", "no token")


def test_checks_that_failed_are_announced(content: ReportContent, tmp_path: Path) -> None:
    assert failed_sentence(check_content(content).checks) == ""

    def change(rows: Tables, details: Details) -> None:
        details["checks"]["equal conditions"] = {"passed": False, "text": "other devices"}

    assert failed_sentence(check_content(build_content(tmp_path, change)).checks) == "1 self-check of 2 failed. equal conditions: other devices."


def test_facts_are_flat_and_hashes_short() -> None:
    facts = {"num_draws": 10_000, "seed": 20_240_101, "model": {"weights": "ab" * 32, "adapter": None}, "ids": [1, 2], "equal": True, "empty": []}
    assert list_facts(facts) == [
        ("number of draws", "10,000"),
        ("seed", "20240101"),
        ("model, weights", "abababababab…"),
        ("ids", "1, 2"),
        ("equal", "yes"),
    ]
