"""Every form a probe set is read from, and every reason a record is set aside."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.errors import NothingToDoError, UnreadableInputError, UserInputError
from lmdissect.probes import probe_fingerprint, read_probe_set

ROWS = [
    {"document_id": "1", "variant": "original", "text": "one original"},
    {"document_id": "1", "variant": "casual", "text": " one\r\ncasual\0 "},
    {"document_id": "2", "variant": "casual", "text": 'two casual, "quoted" ünï 🙂'},
    {"document_id": "2", "variant": "original", "text": "two original"},
]
TABLE = {
    "original": {"1": "one original", "2": "two original"},
    "casual": {"1": " one\r\ncasual\0 ", "2": 'two casual, "quoted" ünï 🙂'},
}
NOT_A_WORD = "variant is not a word (letters, digits, underscores, inside also . + -; 64 at most)"


def _jsonl(path: Path, rows: Sequence[object]) -> str:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return str(path)


def _json(path: Path, rows: object) -> str:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "parquet"])
def test_long_form_is_read_from_every_file_format(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"probes.{kind}"
    if kind.startswith("jsonl"):
        _jsonl(path, ROWS)
    elif kind == "json":
        _json(path, ROWS)
    elif kind.startswith("csv"):
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        content = stream.getvalue().encode()
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    probe_set = read_probe_set(str(path))
    assert probe_set.by_variant() == TABLE
    assert dict(probe_set.factors) == {"casual": "style"}
    assert probe_set.rejected == ()
    assert probe_set.source == str(path)
    assert [text.variant for text in probe_set.texts] == [row["variant"] for row in ROWS]


def test_papers_list(tmp_path: Path) -> None:
    rows = [
        {"type": "counterfactual", "id": ["7", "10.1/x"], "text": "false"},
        {"type": "pubmed", "id": ["7", "10.1/x"], "text": "true"},
        {"type": "casual", "id": ["8"], "text": "chat"},
    ]
    probe_set = read_probe_set(_json(tmp_path / "derived.json", rows))
    assert probe_set.by_variant() == {"counterfactual": {"7": "false"}, "original": {"7": "true"}, "casual": {"8": "chat"}}
    assert dict(probe_set.factors) == {"casual": "style", "counterfactual": "factual"}


def test_unknown_type_is_set_aside_unless_it_has_a_factor(tmp_path: Path) -> None:
    rows = [{"type": "pubmed", "id": ["7"], "text": "a"}, {"type": "sad", "id": ["7"], "text": "b"}, {"type": 3, "id": ["7"], "text": "c"}]
    source = _json(tmp_path / "derived.json", rows)
    probe_set = read_probe_set(source)
    assert [record.reason.split(" (")[0] for record in probe_set.rejected] == ["unknown type sad", "unknown type of another kind"]
    assert dict(read_probe_set(source, factors={"sad": "sentiment"}).factors) == {"sad": "sentiment"}


def test_natural_pairs(tmp_path: Path) -> None:
    rows = [{"id": "doi/1", "technical": "long word", "plain": "word", "source": "somewhere"}, {"id": "doi/2", "technical": "x", "plain": ""}]
    probe_set = read_probe_set(_jsonl(tmp_path / "pairs.jsonl", rows))
    assert probe_set.by_variant() == {"original": {"doi/1": "long word", "doi/2": "x"}, "plain": {"doi/1": "word"}}
    assert dict(probe_set.factors) == {"plain": "style"}
    [record] = probe_set.rejected
    assert (record.record, record.reason) == ("line 2 (document doi/2, variant plain)", "text is empty or white space")


def test_control_is_merged_where_id_and_original_agree(tmp_path: Path) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", ROWS)
    rows = [
        {"id": ["1", "doi"], "original_corpus": "one original", "paraphrase_corpus": "1 p", "keywords": ["k"], "answer": "a"},
        {"id": ["2"], "original_corpus": "two original ", "paraphrase_corpus": "2 p"},
        {"id": ["3"], "original_corpus": "three", "paraphrase_corpus": "3 p"},
        {"id": ["1"], "original_corpus": "one original", "paraphrase_corpus": "other"},
        {"id": None, "original_corpus": "one original", "paraphrase_corpus": "other"},
    ]
    control = _json(tmp_path / "control.json", rows)
    probe_set = read_probe_set(source, control=control)
    assert probe_set.by_variant() == {**TABLE, "paraphrase": {"1": "1 p"}}
    assert dict(probe_set.factors) == {"casual": "style", "paraphrase": "control"}
    assert dict(probe_set.metadata) == {"1": {"keywords": ["k"], "answer": "a"}}
    assert [(record.source, record.record, record.reason) for record in probe_set.rejected] == [
        (control, "entry 2 (document 2)", "original_corpus differs from the original of this id"),
        (control, "entry 3 (document 3)", "no original with this id"),
        (control, "entry 4 (document 1, variant paraphrase)", "another text of a document and variant seen before; the first is kept"),
        (control, "entry 5 (variant paraphrase)", "id missing"),
    ]


def test_odd_key_terms_are_named_and_the_text_stays(tmp_path: Path) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", ROWS)
    rows = [{"id": "1", "original_corpus": "one original", "paraphrase_corpus": "1 p", "keywords": ["k", 3], "answer": "\ud800"}]
    probe_set = read_probe_set(source, control=_json(tmp_path / "control.json", rows))
    assert probe_set.by_variant()["paraphrase"] == {"1": "1 p"}
    assert dict(probe_set.metadata) == {}
    assert [record.reason.split(";")[0] for record in probe_set.rejected] == ["keywords is not a list of strings", "answer is not a string"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"document_id": "9", "variant": "casual", "text": ""}, "text is empty or white space"),
        ({"document_id": "9", "variant": "casual", "text": " \n\u3000"}, "text is empty or white space"),
        ({"document_id": "9", "variant": "casual", "text": None}, "text missing"),
        ({"document_id": "9", "variant": "casual"}, "text missing"),
        ({"document_id": "9", "variant": "casual", "text": ["a"]}, "text is not a string (list)"),
        (
            {"document_id": "9", "variant": "casual", "text": "a\ud800"},
            "text holds a lone surrogate or invalid bytes, and cannot be encoded as UTF-8",
        ),
        ({"variant": "casual", "text": "a"}, "id missing"),
        ({"document_id": " ", "variant": "casual", "text": "a"}, "id is blank"),
        ({"document_id": 1.5, "variant": "casual", "text": "a"}, "id is not a string (float)"),
        ({"document_id": True, "variant": "casual", "text": "a"}, "id is not a string (bool)"),
        ({"document_id": ["9"], "variant": "casual", "text": "a"}, "id is not a string (list)"),
        ({"document_id": "\udfff", "variant": "casual", "text": "a"}, "id holds a lone surrogate or invalid bytes"),
        ({"document_id": "9", "text": "a"}, "variant missing"),
        ({"document_id": "9", "variant": "../up", "text": "a"}, NOT_A_WORD),
        ({"document_id": "9", "variant": 3, "text": "a"}, NOT_A_WORD),
        ({"document_id": "1", "variant": "original", "text": "one original"}, "repeats an earlier record"),
        ({"document_id": "1", "variant": "original", "text": "?"}, "another text of a document and variant seen before; the first is kept"),
        ({"words": "a", "b": 1}, "not a probe row (it has b, words; needed are document_id, variant and text)"),
        ({}, "not a probe row (it has nothing; needed are document_id, variant and text)"),
    ],
)
def test_unusable_record_is_set_aside_with_its_reason(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", [*ROWS, row])
    probe_set = read_probe_set(source)
    assert probe_set.by_variant() == TABLE
    [record] = probe_set.rejected
    assert (record.source, record.record.split(" (")[0], record.reason) == (source, "line 5", reason)


def test_whole_numbers_become_ids(tmp_path: Path) -> None:
    rows = [{"document_id": 12, "variant": "original", "text": "a"}, {"document_id": "12", "variant": "casual", "text": "b"}]
    assert read_probe_set(_jsonl(tmp_path / "probes.jsonl", rows)).by_variant() == {"original": {"12": "a"}, "casual": {"12": "b"}}


def test_invalid_bytes_in_csv_cost_one_text(tmp_path: Path) -> None:
    path = tmp_path / "probes.csv"
    path.write_bytes(b"document_id,variant,text\n1,original,caf\xe9\n2,original,caf\xc3\xa9\n")
    probe_set = read_probe_set(str(path))
    assert probe_set.by_variant() == {"original": {"2": "café"}}
    assert [record.record for record in probe_set.rejected] == ["line 2 (document 1, variant original)"]


def test_damaged_gzip_keeps_what_stands_before_and_names_the_line(tmp_path: Path) -> None:
    rows = [{"document_id": number, "variant": "original", "text": str(number**9)} for number in range(3000)]
    source = _jsonl(tmp_path / "probes.jsonl.gz", rows)
    path = Path(source)
    path.write_bytes(path.read_bytes()[:-4000])
    probe_set = read_probe_set(source)
    assert [text.text for text in probe_set.texts] == [row["text"] for row in rows[: len(probe_set.texts)]]
    assert 1000 < len(probe_set.texts) < 3000
    [record] = probe_set.rejected
    assert (record.source, record.record) == (source, f"line {len(probe_set.texts) + 1}")


def test_unknown_variant_needs_a_factor(tmp_path: Path) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", [*ROWS, {"document_id": "1", "variant": "sad", "text": "one sad"}])
    with pytest.raises(UserInputError, match="variant 'sad' has no factor"):
        read_probe_set(source)
    assert dict(read_probe_set(source, factors={"sad": "sentiment+style", "casual": "register"}).factors) == {
        "sad": "sentiment+style",
        "casual": "register",
    }


@pytest.mark.parametrize("factor", ["", "two words", "Style", "a=b", "sty\nle"])
def test_factor_must_be_a_word(tmp_path: Path, factor: str) -> None:
    with pytest.raises(UserInputError, match="is not a word of a-z"):
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", ROWS), factors={"casual": factor})


def test_original_has_no_factor(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="'original' is what variants are compared with"):
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", ROWS), factors={"original": "style"})


@pytest.mark.parametrize(("rows", "reason"), [([], r"\(0 records set aside\)"), ([{"a": 1}], r"first: line 1: not a probe row \(it has a;")])
def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path: Path, rows: list[object], reason: str) -> None:
    with pytest.raises(NothingToDoError, match=f"no usable text in it .*{reason}"):
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", rows))


@pytest.mark.parametrize("name", ["none.jsonl", "data/none.jsonl", "data/none.csv.gz", "/none/folder", "none"])
def test_missing_source_is_named_and_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(UnreadableInputError, match=f"^{name}: no such file; check the path$"):
        read_probe_set(name)


def test_a_control_of_other_documents_is_refused(tmp_path: Path) -> None:
    control = _json(tmp_path / "control.json", [{"id": ["77"], "original_corpus": "x", "paraphrase_corpus": "y"}])
    with pytest.raises(UserInputError, match=r"no rewrite in it belongs to .*: ids and originals must agree .first: no original with this id"):
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", ROWS), control=control)


def test_a_misspelt_local_path_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableInputError, match="runs/nope"):
        read_probe_set("runs/nope")


def test_missing_control_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"none\.json: no such file"):
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", ROWS), control=str(tmp_path / "none.json"))


def test_set_may_have_variants_alone_or_originals_alone(tmp_path: Path) -> None:
    alone = read_probe_set(_jsonl(tmp_path / "variants.jsonl", ROWS[1:3]))
    assert set(alone.by_variant()) == {"casual"}
    assert dict(read_probe_set(_jsonl(tmp_path / "originals.jsonl", ROWS[::3])).factors) == {}


def test_untrusted_names_cannot_break_a_message(tmp_path: Path) -> None:
    rows = [{"document_id": "a\n\x1b[2J" + "x" * 500, "variant": "casual"}, {"\x1bkey\n": 1}]
    with pytest.raises(NothingToDoError) as caught:
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", rows))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    with pytest.raises(NothingToDoError) as caught:
        read_probe_set(_jsonl(tmp_path / "probes.jsonl", rows[1:]))
    assert str(caught.value).isprintable()


def test_fingerprint_is_about_texts_pairing_and_factors(tmp_path: Path) -> None:
    here = probe_fingerprint(read_probe_set(_jsonl(tmp_path / "a.jsonl", ROWS)))
    assert here == probe_fingerprint(read_probe_set(_json(tmp_path / "b.json", ROWS[::-1])))
    assert here != probe_fingerprint(read_probe_set(str(tmp_path / "a.jsonl"), factors={"casual": "register"}))
    swapped = [{**row, "document_id": {"1": "2", "2": "1"}[row["document_id"]]} if row["variant"] == "casual" else row for row in ROWS]
    assert here != probe_fingerprint(read_probe_set(_jsonl(tmp_path / "c.jsonl", swapped)))
    assert len(here) == 64
