"""Sheets: made blind and safe, read back whatever happened to them on the way."""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from lmdissect.audit.criteria import CRITERIA, choose_criteria
from lmdissect.audit.form import mark_changes
from lmdissect.audit.ratings import read_ratings
from lmdissect.audit.sheets import build_sheet, write_sheets
from lmdissect.audit.spreadsheet import guard_cell, read_spreadsheet, unguard_cell
from lmdissect.cli.sheets import app
from lmdissect.errors import NothingToDoError, StaleArtifactError, UnreadableInputError, UnusableOutputError, UserInputError
from lmdissect.probes import write_audit, write_probe_set
from lmdissect.recipes import read_recipes
from lmdissect.records import AuditResult, ProbeSet, ProbeText, Verdict

HOSTILE = "</script><script>window.__pwned=1</script><img src=x onerror=alert(1)> \u202e & \u2028 =1+1"


def _probe_set(num_documents: int = 6) -> ProbeSet:
    texts = [
        ProbeText(f"{number:05d}", variant, f"{'=1+2 ' if variant == 'casual' else ''}{variant} words of document {number}, {HOSTILE}")
        for number in range(num_documents)
        for variant in ("original", "casual", "counterfactual", "sad")
    ]
    return ProbeSet(texts=tuple(texts[:-1]), factors={"casual": "style", "counterfactual": "factual", "sad": "mood"}, source="a test")


def _export(folder: Path, name: str, rater: str, choose, **changes: object) -> Path:
    """A file as the form saves it; ``choose(pair, question)`` gives the answer or None."""
    sheet = json.loads((folder / "sheet.json").read_text())
    ratings = []
    for pair in sheet["pairs"]:
        answers = {question: choose(pair, question) for question in sheet["tasks"][pair["variant"]]["criteria"]}
        given = {question: answer for question, answer in answers.items() if answer is not None}
        ratings.append({"pair": pair["key"], "answers": given, "comment": "", "seconds": 12.5, "answered_at": "2024-01-01T00:00:00Z"})
    content = {"kind": "lmdissect-ratings", "schema_version": 1, "sheet": sheet["fingerprint"], "rater": rater, "ratings": ratings} | changes
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _kindly(pair: dict[str, str], question: str) -> str:
    return "accept" if question == "accept" else "yes"


def _strictly(pair: dict[str, str], question: str) -> str:
    if question == "accept":
        return "reject" if pair["variant"] == "sad" else "accept"
    return "no" if pair["variant"] == "sad" else "partly"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert write_sheets(build_sheet(_probe_set(), read_recipes()), tmp_path / "sheets", num_raters=2) == "written"
    return tmp_path / "sheets"


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        ("control", ("topic_kept", "style_kept", "facts_kept", "fluent", "accept")),
        ("topic", ("topic_changed", "style_kept", "statements_kept", "fluent", "accept")),
        ("style", ("style_changed", "topic_kept", "facts_kept", "fluent", "accept")),
        ("factual", ("facts_changed", "topic_kept", "style_kept", "fluent", "accept")),
        ("topic+style", ("topic_changed", "style_changed", "statements_kept", "fluent", "accept")),
        ("mood", ("changed", "rest_kept", "fluent", "accept")),
    ],
)
def test_questions_follow_from_the_factor(factor: str, expected: tuple[str, ...]) -> None:
    assert choose_criteria(factor) == expected
    assert all(name in CRITERIA for name in expected)


def test_fewer_documents_are_inside_more() -> None:
    few, more = (build_sheet(_probe_set(), read_recipes(), limit=limit, seed=3) for limit in (2, 4))
    assert {pair.document_id for pair in few.pairs} < {pair.document_id for pair in more.pairs}
    assert few.pairs == build_sheet(_probe_set(), read_recipes(), limit=2, seed=3).pairs
    only = build_sheet(_probe_set(), read_recipes(), variants=["casual"])
    assert {pair.variant for pair in only.pairs} == set(only.tasks) == {"casual"}


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"--variant causal: a test has no variant 'causal' \(it has casual, counterfactual, sad\)"):
        build_sheet(_probe_set(), {}, variants=["causal"])
    with pytest.raises(NothingToDoError, match="no document has both an original and a variant"):
        build_sheet(ProbeSet((ProbeText("1", "original", "x"),), {}, "a test"), {})


def test_a_recipe_of_another_factor_is_not_shown() -> None:
    probes = ProbeSet((ProbeText("1", "original", "x"), ProbeText("1", "casual", "y")), {"casual": "mood"}, "a test")
    assert build_sheet(probes, read_recipes()).tasks["casual"].instruction == ""
    assert build_sheet(_probe_set(), read_recipes()).tasks["casual"].instruction.startswith("Retell the document in a casual style")


def test_forms_hold_all_pairs_in_an_order_of_their_own_and_no_verdict(folder: Path) -> None:
    orders = []
    for rater in ("rater-1", "rater-2"):
        html = (folder / f"{rater}.html").read_text(encoding="utf-8")
        [page] = re.findall(r'<script id="page" type="application/json">(.*?)</script>', html)
        assert page.isascii()
        assert "<" not in page
        content = json.loads(page)
        orders.append([pair["key"] for pair in content["pairs"]])
        assert [row["pair"] for _, row in read_spreadsheet(folder / f"{rater}.csv")] == orders[-1]
        first = content["pairs"][0]
        assert "".join(text for text, _ in first["text"]).endswith(HOSTILE)
        assert "accepted" not in html
        assert "00003" not in page
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_words_that_differ_are_cut_out() -> None:
    left, right = mark_changes("one two  three", "one 2 three four")
    assert left == [("one ", False), ("two", True), ("  three", False)]
    assert right == [("one ", False), ("2", True), (" three ", False), ("four", True)]
    long = "word " * 5000
    assert mark_changes(long, "other") == ([(long, False)], [("other", False)])


def test_same_sheet_again_adds_forms_and_touches_none(folder: Path) -> None:
    filled = folder / "rater-1.csv"
    filled.write_text("half filled in", encoding="utf-8")
    sheet = build_sheet(_probe_set(), read_recipes())
    assert write_sheets(sheet, folder, num_raters=2) == "reused"
    assert write_sheets(sheet, folder, num_raters=3) == "extended"
    assert filled.read_text(encoding="utf-8") == "half filled in"
    assert (folder / "rater-3.html").is_file()
    with pytest.raises(StaleArtifactError, match="holds a sheet of other pairs or questions"):
        write_sheets(build_sheet(_probe_set(), read_recipes(), limit=2), folder, num_raters=2)


@pytest.mark.parametrize(("gone", "kept"), [("rater-1.html", "rater-1.csv"), ("rater-1.csv", "rater-1.html")])
def test_each_file_of_a_form_is_missing_by_itself(folder: Path, gone: str, kept: str) -> None:
    before = (folder / gone).read_bytes()
    (folder / gone).unlink()
    (folder / kept).write_text("half filled in", encoding="utf-8")
    assert write_sheets(build_sheet(_probe_set(), read_recipes()), folder, num_raters=2) == "extended"
    assert (folder / kept).read_text(encoding="utf-8") == "half filled in"
    assert (folder / gone).read_bytes() == before


def test_another_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match=r"holds no sheet of ours"):
        write_sheets(build_sheet(_probe_set(), {}), tmp_path, num_raters=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@given(st.text(alphabet=st.sampled_from("=+-@'\"; \t\r\nab\uff1d"), max_size=9) | st.text(max_size=20))
def test_guarded_cells_are_no_formulas_and_come_back(text: str) -> None:
    guarded = guard_cell(text)
    assert not re.match(r"[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]", guarded)
    assert not re.search(r'[;\t\r\n][" ]*[=+\-@\uff0b\uff0d\uff1d\uff20]', guarded)
    assert unguard_cell(guarded) == text


def test_spreadsheet_cells_are_safe_and_exact(folder: Path) -> None:
    raw = (folder / "rater-1.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    cells = [cell for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]
    texts = {text.text for text in _probe_set().texts}
    assert all(row["text"] in texts and row["original"] in texts for _, row in read_spreadsheet(folder / "rater-1.csv"))


def _fill_csv(path: Path, *, delimiter: str = ",", rater: str | None = None) -> None:
    """Fill every open cell as a spreadsheet would save it."""
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    head, *body = rows
    for row in body:
        for column, name in enumerate(head):
            if row[column] == "" and name != "comment":
                row[column] = "Accept" if name.startswith("accept") else " yes "
        if rater is not None:
            row[head.index("rater")] = rater
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([*body[:0], head, *body[::-1], [""] * len(head)])
    path.write_bytes(stream.getvalue().encode("utf-8-sig"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_spreadsheet_says_what_an_export_says(folder: Path, delimiter: str) -> None:
    _fill_csv(folder / "rater-1.csv", delimiter=delimiter)
    _export(folder, "kind.json", "kind", _kindly)
    ratings = read_ratings([folder])
    assert ratings.rejected == ()
    assert list(ratings.unanswered) == ["rater-2.csv"]
    by_csv, by_form = ({rated.pair.key: rated.answers for rated in ratings.by_rater[name]} for name in ("rater-1", "kind"))
    assert by_csv == by_form
    assert len(by_csv) == 17


def test_what_is_damaged_is_named_and_the_rest_counts(folder: Path) -> None:
    _export(folder, "a.json", "ann", _kindly)
    other = _export(folder, "b.json", "ben", _kindly, sheet="0" * 64)
    broken = _export(folder, "c.json", "cat", _kindly)
    broken.write_bytes(broken.read_bytes()[:-40])
    _export(folder, "d.json", "ann", _strictly)
    _export(folder, "e.json", "ann", _kindly)  # the same answers again: nothing to complain about
    _export(folder, "f.json", " ", _kindly)
    (folder / "g.json").write_text('{"some": "thing"}', encoding="utf-8")
    odd = json.loads(_export(folder, "h.json", "hal", _kindly).read_text())
    odd["ratings"] = [
        {"pair": "P9999", "answers": {"accept": "accept"}},
        {"pair": "P0001", "answers": {"accept": "perhaps", "fluent": ["yes"], "mood": "yes", "style_changed": "no"}, "seconds": -3},
        "nonsense",
        {"pair": "P0002", "answers": {"accept": "reject"}, "comment": 5, "seconds": float("inf")},
    ]
    (folder / "h.json").write_text(json.dumps(odd), encoding="utf-8")
    (folder / "i.csv").write_bytes("pair;rater\nP0001;\xfc".encode("latin-1"))
    (folder / "j.csv").write_text("pair,rater\nP0001,ann\n", encoding="utf-8")
    ratings = read_ratings([folder])
    assert set(ratings.by_rater) == {"ann", "hal"}
    assert [(rated.pair.key, dict(rated.answers), rated.comment, rated.seconds) for rated in ratings.by_rater["hal"]] == [
        ("P0001", {"style_changed": "no"}, "", None),
        ("P0002", {"accept": "reject"}, "", None),
    ]
    found = [(Path(record.source).name, record.record, record.reason) for record in ratings.rejected]
    assert found[0] == (other.name, "the file", "holds answers to another sheet")
    assert found[1][0] == "c.json"
    assert found[1][2].startswith("cannot be read as JSON (")
    assert found[2:] == [
        ("d.json", "the file", "other answers of the rater 'ann' were read from a.json: keep one of the two, or change the name"),
        ("f.json", "the file", "has no rater or no list of ratings: ask the rater to save it again"),
        ("g.json", "the file", "is not a file of answers"),
        ("h.json", "rating 1", "no pair 'P9999' in the sheet"),
        ("h.json", "rating 2 (pair P0001)", "fluent is ['yes'], not one of yes/partly/no; left open"),
        ("h.json", "rating 2 (pair P0001)", "accept is 'perhaps', not one of accept/reject; left open"),
        ("h.json", "rating 2 (pair P0001)", "'mood' is no question about the variant 'casual'; left out"),
        ("h.json", "rating 3", "no pair None in the sheet"),
        ("i.csv", "the file", "not UTF-8 at byte 17; save it as 'CSV UTF-8'"),
        (
            "j.csv",
            "the file",
            "line 1 has no column 'sheet': it must be a CSV form of `lmdissect sheets make`, with its columns as they were",
        ),
    ]


def test_half_an_emoji_costs_no_answers(folder: Path) -> None:
    odd = json.loads(_export(folder, "a.json", "ann\ud83d", _kindly).read_text())
    odd["ratings"][0] |= {"comment": "well \udc00 done", "seconds": 10**400, "answers": {"accept": "\ud83d", "\ud83d": "yes", "fluent": "yes"}}
    (folder / "a.json").write_text(json.dumps(odd), encoding="utf-8")
    _export(folder, "b.json", "ben", _strictly)
    read = _run("read", str(folder))
    assert read.exit_code == 0, read.exception
    rows = pq.read_table(folder / "ratings.parquet").to_pylist()
    assert {row["rater"] for row in rows} == {"ann\ufffd", "ben"}
    assert {(row["comment"], row["seconds"], row["answer"]) for row in rows if row["comment"]} == {("well \ufffd done", None, "yes")}


def test_a_pair_counts_once_in_a_file(folder: Path) -> None:
    sent = json.loads(_export(folder, "a.json", "ann", _kindly).read_text())
    first, second = sent["ratings"][:2]
    sent["ratings"] += [first, second | {"answers": {"accept": "reject"}}]
    (folder / "a.json").write_text(json.dumps(sent), encoding="utf-8")
    _fill_csv(folder / "rater-1.csv")
    with (folder / "rater-1.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    with (folder / "rater-1.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([*rows, ["reject" if cell == "Accept" else cell for cell in rows[1]]])
    assert _run("read", str(folder)).exit_code == 0
    found = [(Path(record.source).name, record.record, record.reason) for record in read_ratings([folder]).rejected]
    assert found[:2] == [
        ("a.json", "rating 18 (pair P0001)", "repeats rating 1"),
        ("a.json", "rating 19 (pair P0002)", "other answers to the pair of rating 2; the first are kept"),
    ]
    assert [(name, reason) for name, _, reason in found[2:]] == [("rater-1.csv", "other answers to the pair of line 2; the first are kept")]
    rows = pq.read_table(folder / "ratings.parquet").to_pylist()
    for rater in ("ann", "rater-1"):
        own = [(row["document_id"], row["variant"], row["criterion"]) for row in rows if row["rater"] == rater]
        assert len(own) == len(set(own)) == 17 * 5 - 5
        assert {row["answer"] for row in rows if row["rater"] == rater and row["criterion"] == "accept"} == {"accept"}


def test_one_form_is_one_raters(folder: Path) -> None:
    _fill_csv(folder / "rater-1.csv", rater="")
    _export(folder, "a.json", "ann", _kindly)
    assert [record.reason for record in read_ratings([folder]).rejected] == ["names 0 raters in its column 'rater'; one form is one rater's"]


def test_without_sheet_or_answers_nothing_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match=r"no answers of a rater in it \(2 forms without answers\)"):
        read_ratings([folder])
    alone = tmp_path / "alone"
    alone.mkdir()
    answers = _export(folder, "a.json", "ann", _kindly).rename(alone / "a.json")
    with pytest.raises(UnreadableInputError, match=r"no sheet\.json beside it; give the folder"):
        read_ratings([answers])
    assert set(read_ratings([answers, folder]).by_rater) == {"ann"}
    with pytest.raises(UnreadableInputError, match="no such file or folder"):
        read_ratings([folder, alone / "b.json"])


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def test_the_whole_way_on_an_audited_set(tmp_path: Path) -> None:
    probes, sheets = tmp_path / "probes", tmp_path / "sheets"
    write_probe_set(_probe_set(), probes)
    verdicts = [
        Verdict(text.document_id, text.variant, accepted=text.variant != "sad" or text.document_id == "00000", reasons=(), measures={})
        for text in _probe_set().texts
        if text.variant != "original"
    ]
    write_audit(probes, AuditResult(tuple(verdicts), {}, {"rules": {}}))
    made = _run("make", str(probes), "--out", str(sheets), "--raters", "3")
    assert made.exit_code == 0, made.output
    assert "17 pairs of 6 documents for 3 readers" in made.stdout  # rejected texts among them
    _export(sheets, "a.json", "ann", _kindly)
    _export(sheets, "b.json", "ben", _strictly)
    _export(sheets, "c.json", "cleo\x1b[31m", _strictly)
    read = _run("read", str(sheets), "--probes", str(probes))
    assert read.exit_code == 0, read.output
    assert "\x1b" not in read.output
    review = json.loads((sheets / "agreement.json").read_text(encoding="utf-8"))
    rows = {(row["criterion"], row["variant"]): row for row in review["criteria"]}
    assert rows["accept", None]["num_units"] == 17
    assert rows["accept", None]["percent_agreement"] == pytest.approx(100 * (12 * 3 + 5 * 1) / 51)
    assert rows["accept", "casual"]["reason"] == "only one answer was ever given: nothing could have disagreed"
    assert rows["style_changed", None]["metric"] == "ordinal"
    assert ("facts_kept", "sad") not in rows
    automatic = {row["variant"]: row for row in review["automatic"]}
    assert (automatic[None]["both_accept"], automatic[None]["both_reject"], automatic[None]["only_raters_reject"]) == (12, 4, 1)
    assert (automatic[None]["recall"]["count"], automatic[None]["recall"]["total"]) == (4, 5)
    assert {row["variant"]: (row["count"], row["total"]) for row in review["acceptance"]} == {
        None: (12, 17),
        "casual": (6, 6),
        "counterfactual": (6, 6),
        "sad": (0, 5),
    }
    table = pq.read_table(sheets / "ratings.parquet").to_pylist()
    assert len(table) == 3 * (6 * 5 + 6 * 5 + 5 * 4)
    assert {"document_id": "00000", "variant": "casual", "factor": "style", "rater": "ben", "criterion": "fluent"}.items() <= next(
        row for row in table if (row["rater"], row["variant"], row["criterion"], row["document_id"]) == ("ben", "casual", "fluent", "00000")
    ).items()
    again = _run("read", str(sheets), "--probes", str(probes))
    assert again.stdout == read.stdout


def test_another_probe_set_or_none_audited_is_refused(folder: Path, tmp_path: Path) -> None:
    _export(folder, "a.json", "ann", _kindly)
    write_probe_set(_probe_set(), tmp_path / "probes")
    plain = _run("read", str(folder), "--probes", str(tmp_path / "probes"))
    assert "holds no audit; run lmdissect audit" in str(plain.exception)
    write_probe_set(_probe_set(3), tmp_path / "fewer")
    write_audit(tmp_path / "fewer", AuditResult((), {}, {"rules": {}}))
    other = _run("read", str(folder), "--probes", str(tmp_path / "fewer"))
    assert isinstance(other.exception, UserInputError)
    assert "not the texts of the sheet" in str(other.exception)


def test_strict_refuses_damaged_answers(folder: Path) -> None:
    _export(folder, "a.json", "ann", _kindly)
    (folder / "b.json").write_text("{", encoding="utf-8")
    assert _run("read", str(folder)).exit_code == 0
    (folder / "agreement.json").unlink()
    strict = _run("read", str(folder), "--strict")
    assert isinstance(strict.exception, UnreadableInputError)
    assert not (folder / "agreement.json").exists()
