"""Training documents from every file kind, and every reason a record is set aside."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.corpus import read_corpus
from lmdissect.corpus.documents import text_id
from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import Document

ROWS = [{"document_id": "a", "text": "one"}, {"document_id": "b", "text": " two\r\nlines ünï 🙂 "}]
DOCUMENTS = [Document("a", "one"), Document("b", " two\r\nlines ünï 🙂 ")]


def _jsonl(path: Path, rows: Sequence[object]) -> Path:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.ndjson", "c.parquet"])
def test_records_are_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        _jsonl(path, ROWS)
    assert read_corpus([path]) == (DOCUMENTS, [])


@pytest.mark.parametrize("name", ["c.txt", "c.txt.gz"])
def test_text_files_hold_one_document_a_line(tmp_path: Path, name: str) -> None:
    content = b"first\n\n  \nfourth \r\nno line end"
    path = _bytes(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert read_corpus([path]) == ([Document(text_id(text), text) for text in ("first", "fourth ", "no line end")], [])


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    text = _bytes(tmp_path / "c.txt", mark + b"first\nsecond")
    lines = _bytes(tmp_path / "c.jsonl", mark + b'{"id": 1, "text": "third"}\n')
    assert [document.text for document in read_corpus([text, lines])[0]] == ["first", "second", "third"]


def test_ids_come_from_the_first_field_that_has_one(tmp_path: Path) -> None:
    rows = [
        {"document_id": "a", "id": "b", "pmid": 1, "text": "x"},
        {"document_id": None, "id": "b", "pmid": 2, "text": "x"},
        {"document_id": " ", "id": True, "pmid": 3, "text": "x"},
        {"id": ["7"], "text": "y"},
        {"text": "z", "url": "https://example.org/a", "timestamp": "2019-04-25T12:57:54Z"},
    ]
    documents, rejected = read_corpus([_jsonl(tmp_path / "c.jsonl", rows)])
    assert [document.document_id for document in documents] == ["a", "b", "3", text_id("y"), "644c0e5757f74fae244e49ed86eb754d"]
    assert [document.other_ids for document in documents] == [("1",), ("2",), (), (), ()]
    assert rejected == []
    table = pa.table({"pmid": pa.array([11, None], pa.int64()), "text": ["x", "y"], "more": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "c.parquet")
    assert [document.document_id for document in read_corpus([tmp_path / "c.parquet"])[0]] == ["11", text_id("y")]


def test_another_file_changes_no_id(tmp_path: Path) -> None:
    paths = [tmp_path / year / "abstracts" / "c.txt" for year in ("2019", "2020")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(f"a text of {path.parts[-3]}\n", encoding="utf-8")
    together, rejected = read_corpus(paths)
    assert together == [*read_corpus(paths[:1])[0], *read_corpus(paths[1:])[0]]
    assert rejected == []


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = _bytes(tmp_path / "c.txt", b"one\ntwo\n")
    documents, rejected = read_corpus([path, path])
    assert [document.text for document in documents] == ["one", "two"]
    assert [record.reason for record in rejected] == [f"id '{text_id(text)}' seen before" for text in ("one", "two")]


def test_file_name_that_is_not_utf8_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = _bytes(tmp_path / os.fsdecode(b"caf\xe9.txt"), b"one\n")
    with pytest.raises(UnreadableInputError, match=r"caf\\udce9\.txt: its name is not UTF-8; rename it") as caught:
        read_corpus([path])
    assert str(caught.value).encode()


BAD_LINES = [
    (b'{"text": "cut of', "not valid JSON"),
    (b'{"text": "\xff\xfe"}', "not UTF-8 (invalid start byte at byte 10)"),
    (b"[" * 100_000, "not valid JSON"),
    (b'["a list"]', "not an object with a 'text' field"),
    (b'{"id": "n"}', "no 'text' field that is a string"),
    (b'{"id": "n", "text": null}', "no 'text' field that is a string"),
    (b'{"id": "n", "text": 5}', "no 'text' field that is a string"),
    (b'{"id": "n", "text": ""}', "empty text"),
    (b'{"id": "n", "text": " \\n\\t "}', "empty text"),
    (b'{"id": "good", "text": "again"}', "id 'good' seen before"),
    (b'{"id": "n", "text": "half \\ud83d"}', "lone surrogate: not encodable as UTF-8"),
    (b'{"id": "\\ud83d", "text": "whole"}', "lone surrogate: not encodable as UTF-8"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[f"{number} {reason[:20]}" for number, (_, reason) in enumerate(BAD_LINES)])
@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_bad_line_is_set_aside_and_named(tmp_path: Path, name: str, line: bytes, reason: str) -> None:
    content = b'{"id": "good", "text": "x"}\n' + line + b'\n{"id": "later", "text": "\xf0\x9f\x99\x82"}\n'
    path = _bytes(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    documents, rejected = read_corpus([path])
    assert documents == [Document("good", "x"), Document("later", "🙂")]
    assert [(record.source, record.record) for record in rejected] == [(str(path), "line 2")]
    assert rejected[0].reason.startswith(reason)
    assert len(rejected[0].reason.splitlines()) == 1


def test_bad_parquet_rows_are_set_aside(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff", None, b" "], pa.binary())
    text = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0], raw.null_count)
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"], "text": text}), tmp_path / "c.parquet")
    documents, rejected = read_corpus([tmp_path / "c.parquet"])
    assert documents == [Document("a", "fine")]
    assert [(record.record, record.reason.split(" (")[0]) for record in rejected] == [
        ("row 2", "not UTF-8"),
        ("row 3", "no 'text' field that is a string"),
        ("row 4", "empty text"),
    ]


def test_truncated_gzip_gives_what_stands_before_the_break(tmp_path: Path) -> None:
    num_lines = 5000
    whole = gzip.compress("".join(f"line number {number * 7919}\n" for number in range(num_lines)).encode())
    path = _bytes(tmp_path / "c.txt.gz", whole[: len(whole) // 2])
    documents, rejected = read_corpus([path])
    assert 100 < len(documents) < num_lines
    assert [document.text for document in documents] == [f"line number {number * 7919}" for number in range(len(documents))]
    assert [record.record for record in rejected] == [f"after line {len(documents)}"]
    assert "the gzip file is damaged from here on" in rejected[0].reason


def test_gzip_with_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"one\ntwo\n"))
    whole[-5] ^= 0xFF
    documents, rejected = read_corpus([_bytes(tmp_path / "c.txt.gz", bytes(whole))])
    assert [document.text for document in documents] == ["one", "two"]
    assert [record.record for record in rejected] == ["after line 2"]


def test_a_broken_file_costs_no_other_file_its_documents(tmp_path: Path) -> None:
    broken = _bytes(tmp_path / "broken.txt.gz", b"no gzip at all")
    documents, rejected = read_corpus([broken, _jsonl(tmp_path / "c.jsonl", ROWS)])
    assert documents == DOCUMENTS
    assert [(record.source, record.record) for record in rejected] == [(str(broken), "after line 0")]


@pytest.mark.parametrize("name", ["missing.jsonl", "folder.jsonl", "c.csv", "c.jsonl.zip", "damaged.parquet"])
def test_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for existing in ("c.csv", "c.jsonl.zip", "damaged.parquet"):
        _bytes(tmp_path / existing, b"x" * 20)
    with pytest.raises(UnreadableInputError, match=name) as caught:
        read_corpus([_jsonl(tmp_path / "good.jsonl", ROWS), tmp_path / name])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("content", "told"), [(b"", "first: empty"), (b'\n{"text": ""}\n3\n', "2 set aside; first: empty text")])
def test_nothing_usable_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(NothingToDoError, match=told):
        read_corpus([_bytes(tmp_path / "c.jsonl", content)])


def test_parquet_without_text_column_has_nothing_usable(tmp_path: Path) -> None:
    pq.write_table(pa.table({"abstract": ["x", "y"]}), tmp_path / "c.parquet")
    with pytest.raises(NothingToDoError, match="2 set aside; first: no 'text' field"):
        read_corpus([tmp_path / "c.parquet"])
