"""Records of CSV files, and what is wrong with them. JSON lines, text and Parquet are tested with `read_corpus`."""

import gzip
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from lmdissect.bytestream import MAX_RECORD_BYTES
from lmdissect.corpus.documents import DOCUMENT_FIELDS, CorpusDocument, row_document, text_id
from lmdissect.corpus.rows import read_rows, row_format
from lmdissect.errors import UnreadableInputError


def _read(path: Path, content: bytes) -> list[tuple[str, object]]:
    path.write_bytes(content)
    return [(place, str(row) if isinstance(row, ValueError) else row) for place, row in read_rows(path, DOCUMENT_FIELDS)]


def test_fields_may_hold_quotes_commas_and_line_ends(tmp_path: Path) -> None:
    rows = _read(tmp_path / "c.csv", b'id,text\r\n1,"a, ""b""\nc"\r\n\r\n2,plain\r\n')
    assert rows == [("line 2", {"id": "1", "text": 'a, "b"\nc'}), ("line 5", {"id": "2", "text": "plain"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "1 fields, and the header has 2"),
        (b"1,2,3", "3 fields, and the header has 2"),
        (b'1,"a"b', "not valid CSV"),
    ],
)
def test_bad_line_is_set_aside_and_the_rest_read(tmp_path: Path, line: bytes, reason: str) -> None:
    rows = _read(tmp_path / "c.csv", b"id,text\n0,first\n" + line + b"\n2,last\n")
    assert rows[0] == ("line 2", {"id": "0", "text": "first"})
    assert rows[1][0] == "line 3"
    assert reason in str(rows[1][1])
    assert rows[2] == ("line 4", {"id": "2", "text": "last"})


def test_quote_that_never_ends_is_told(tmp_path: Path) -> None:
    rows = _read(tmp_path / "c.csv", b'id,text\n0,first\n1,"open\n2,swallowed\n')
    assert rows[0] == ("line 2", {"id": "0", "text": "first"})
    assert len(rows) == 2
    assert "not valid CSV (unexpected end of data)" in str(rows[1][1])


def test_bytes_that_are_not_utf8_set_their_record_aside(tmp_path: Path) -> None:
    (_, row), (_, other) = _read(tmp_path / "c.csv", b"id,text\n1,caf\xe9\n2,caf\xc3\xa9\n")
    assert row_document(row) == "lone surrogate: not encodable as UTF-8"
    assert row_document(other) == CorpusDocument(document_id="2", text="café")


def test_line_without_end_is_told(tmp_path: Path) -> None:
    rows = _read(tmp_path / "c.csv", b"id,text\n1,first\n2," + b"x" * (MAX_RECORD_BYTES + 1) + b"\n3,y\n")
    assert [place for place, _ in rows] == ["line 2", "after line 2"]
    assert rows[1][1] == "a line longer than 64 MiB: the file is not read on"


def test_damaged_gzip_keeps_what_stands_before(tmp_path: Path) -> None:
    lines = "".join(f"{number},text {number * 7919}\n" for number in range(5000))
    whole = gzip.compress(f"id,text\n{lines}".encode(), mtime=0)
    rows = _read(tmp_path / "c.csv.gz", whole[: len(whole) // 2])
    assert 100 < len(rows) < 5000
    assert rows[:-1] == [(f"line {number + 2}", {"id": str(number), "text": f"text {number * 7919}"}) for number in range(len(rows) - 1)]
    assert "the gzip file is damaged from here on" in str(rows[-1][1])


def test_bomb_is_given_up(tmp_path: Path) -> None:
    rows = _read(tmp_path / "c.jsonl.gz", gzip.compress(b'{"text": "one"}\n' + b" " * (80 << 20), 9))
    assert rows[0] == ("line 1", {"text": "one"})
    assert "it unpacks to more than 200 times its size" in str(rows[-1][1])
    assert len(rows) == 2


@pytest.mark.parametrize("content", [b"", b"id,body\n1,x\n", b"\xff\xfd\n"])
def test_csv_without_a_text_column_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableInputError, match=r"c\.csv: its first line names no column 'text'"):
        _read(tmp_path / "c.csv", content)


@pytest.mark.parametrize(
    ("name", "ending"), [("a.jsonl.gz", ".jsonl"), ("c4.json.gz", ".json"), ("A.CSV", ".csv"), ("a.xml.gz", None), ("a.jsonl.zip", None), ("a", None)]
)
def test_ending_says_how_records_are_stored(name: str, ending: str | None) -> None:
    assert row_format(Path(name)) == ending


def test_metadata_of_another_type_is_dropped_and_the_document_kept() -> None:
    record = {
        "text": "one",
        "id": 7,
        "pmid": "8",
        "title": 5,
        "year": "2001",
        "languages": ["eng", 3],
        "language": "eng",
        "url": "half \ud83d",
        "version": True,
        "section_starts": [0, -1],
    }
    assert row_document(record) == CorpusDocument(document_id="7", text="one", pmid="8", year=2001, languages=["eng"])


@pytest.mark.parametrize("value", ["20240101123456", "99999999999", "4294967296", "²"])
def test_number_over_the_range_is_dropped_and_not_cut(value: str) -> None:
    assert row_document({"text": "one", "id": "a", "version": value, "year": value}) == CorpusDocument(document_id="a", text="one")


@pytest.mark.parametrize(
    "timestamp",
    [
        "2019-04-25T12:57:54Z",
        datetime(2019, 4, 25, 12, 57, 54),  # noqa: DTZ001 - as Parquet without a time zone gives it
        datetime(2019, 4, 25, 12, 57, 54, tzinfo=UTC),
        datetime(2019, 4, 25, 14, 57, 54, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_time_has_one_form_whatever_it_is_stored_as(timestamp: object) -> None:
    found = row_document({"text": "one", "url": "https://example.org/a", "timestamp": timestamp})
    assert isinstance(found, CorpusDocument)
    assert (found.document_id, found.timestamp) == ("644c0e5757f74fae244e49ed86eb754d", "2019-04-25T12:57:54Z")


def test_address_that_cannot_be_written_names_no_document() -> None:
    found = row_document({"text": "one", "url": "half \ud83d"})
    assert isinstance(found, CorpusDocument)
    assert (found.document_id, found.url) == (text_id("one"), None)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [("c.txt", "one\ntwo\n"), ("c.csv", "id,text\n1,one\n"), ("c.jsonl.gz", '{"text": "one"}\n')])
def test_utf16_is_refused_by_name(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    content = f"\ufeff{text}".encode(encoding)
    with pytest.raises(UnreadableInputError, match=rf"{name}: encoded as UTF-16"):
        _read(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.txt", b"one\nt\0w\0o\0\nthree\n"), ("c.csv", b"text\none\nt\0w\0o\0\nthree\n"), ("c.jsonl", b'{"text": "one"}\n\0\0\n{"text": "three"}\n')],
)
def test_line_with_nul_bytes_is_set_aside(tmp_path: Path, name: str, content: bytes) -> None:
    assert [row for _, row in _read(tmp_path / name, content)] == [{"text": "one"}, "holds a NUL byte: not text, or not UTF-8", {"text": "three"}]
