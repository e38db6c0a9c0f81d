"""Rows of every file format, and what is wrong with some."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.errors import UnreadableInputError
from lmdissect.probes.rows import read_rows


def _read(path: Path) -> tuple[dict[str, dict[str, object]], list[tuple[str, str]]]:
    """Rows by place, and rejections."""
    rejected: list[tuple[str, str]] = []
    rows = {row.place: dict(row.fields) for row in read_rows(path, lambda place, reason: rejected.append((place, reason)))}
    return rows, rejected


def _write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "ROWS.JSONL", "rows.jsonl.gz"])
def test_json_lines_keep_their_numbers(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path, name, '\ufeff{"a": 1}\n\n  \r\n{"a": "x\\u0000\\r\\ny"}\r\n{"a": 3}')
    assert _read(path) == ({"line 1": {"a": 1}, "line 4": {"a": "x\0\r\ny"}, "line 5": {"a": 3}}, [])


def test_bad_json_lines_are_named_and_skipped(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b'{"a": ', b'["a"]', b'{"a": "\xff"}', b"[" * 200_000, b'{"a": 2}']
    rows, rejected = _read(_write(tmp_path, "rows.jsonl", b"\n".join(lines)))
    assert list(rows) == ["line 1", "line 6"]
    assert [place for place, _ in rejected] == ["line 2", "line 3", "line 4", "line 5"]
    assert [reason.split(" (")[0] for _, reason in rejected] == ["invalid JSON", "not a JSON object", "not UTF-8", "invalid JSON"]
    assert "column 7" in rejected[0][1]


def test_truncated_json_lines_keep_what_stands_before(tmp_path: Path) -> None:
    path = _write(tmp_path, "rows.jsonl.gz", "".join(f'{{"a": {number**9}}}\n' for number in range(2000)))
    path.write_bytes(path.read_bytes()[:-3000])
    rows, rejected = _read(path)
    assert 100 < len(rows) < 2000
    assert [place for place, _ in rejected] == [f"line {len(rows) + 1}"]
    assert "damaged gzip file" in rejected[0][1]


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
def test_json_document_gives_its_entries(tmp_path: Path, name: str) -> None:
    rows, rejected = _read(_write(tmp_path, name, '\ufeff[{"a": 1}, 7, {"a": 2}]'))
    assert rows == {"entry 1": {"a": 1}, "entry 3": {"a": 2}}
    assert rejected == [("entry 2", "not a JSON object")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1},\n {"a" 2}]', r"rows\.json: invalid JSON at line 2, column 7"),
        ('[{"a": 1}', "invalid JSON at line 1, column 10"),
        ('{"a": 1}\n{"a": 2}', r"a second one begins at line 2; .* \.jsonl"),
        ('{"a": 1}', "holds one JSON dict, not a list"),
        (b'["\xff"]', "not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ("", "invalid JSON at line 1, column 1"),
    ],
)
def test_broken_json_document_names_the_place(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(UnreadableInputError, match=reason):
        _read(_write(tmp_path, "rows.json", content))


def test_truncated_json_document_keeps_whole_entries(tmp_path: Path) -> None:
    entries = [{"a": number**9} for number in range(2000)]
    path = _write(tmp_path, "rows.json.gz", json.dumps(entries, indent=1))
    path.write_bytes(path.read_bytes()[:-3000])
    rows, rejected = _read(path)
    assert list(rows.values()) == entries[: len(rows)]
    assert 100 < len(rows) < 2000
    [(place, reason)] = rejected
    assert place.endswith(f"after entry {len(rows)}")
    line = int(place.removeprefix("line ").split(",")[0])
    assert 0 < line - 3 * len(rows) <= 4  # three lines an entry, and the cut falls inside the next one
    assert "damaged gzip file" in reason


def test_csv_keeps_newlines_quotes_and_large_fields(tmp_path: Path) -> None:
    large = "x" * 300_000
    path = _write(tmp_path, "rows.csv", f'\ufeffdocument_id, text\r\n1,"a\r\nb ""c"", d"\r\n\r\n2,{large}\r\n3,\n')
    rows, rejected = _read(path)
    assert rows == {
        "line 2": {"document_id": "1", "text": 'a\r\nb "c", d'},
        "line 5": {"document_id": "2", "text": large},
        "line 6": {"document_id": "3", "text": ""},
    }
    assert rejected == []


def test_bad_csv_rows_are_named_and_skipped(tmp_path: Path) -> None:
    path = _write(tmp_path, "rows.csv", b'document_id,text\n1,"a"b\n2,c,d\n3\n4,\xff\n5,e\n6,"never closed\n7,f\n')
    rows, rejected = _read(path)
    assert rows == {"line 4": {"document_id": "3"}, "line 5": {"document_id": "4", "text": "\udcff"}, "line 6": {"document_id": "5", "text": "e"}}
    assert [place for place, _ in rejected] == ["line 2", "line 3", "line 7"]
    assert [reason.split(" (")[0] for _, reason in rejected] == ["invalid CSV", "3 fields under 2 columns", "invalid CSV"]


def test_truncated_csv_is_one_rejection_inside_a_quoted_field_too(tmp_path: Path) -> None:
    rows_there = "".join(f'{number},"first {number**9}\nsecond {number**7}"\n' for number in range(1000))
    whole = gzip.compress(f"document_id,text\n{rows_there}".encode())
    path = tmp_path / "rows.csv.gz"
    inside_a_field = set()
    for cut in range(len(whole) // 2, len(whole) // 2 + 60):
        path.write_bytes(whole[:cut])
        rows, rejected = _read(path)
        assert len(rows) > 300
        assert all(fields["text"] == f"first {number**9}\nsecond {number**7}" for number, fields in enumerate(rows.values()))
        [(place, reason)] = rejected
        assert "damaged gzip file" in reason
        inside_a_field.add(int(place.removeprefix("line ")) - 2 - 2 * len(rows))
    assert inside_a_field == {0, 1}


def test_csv_header_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="line 1 names the column 'text' twice"):
        _read(_write(tmp_path, "rows.csv", "document_id,text,text\n1,a,b\n"))


def test_parquet_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [{"pmid": "1"}, None], "text": ["a\0", None]}), path)
    assert _read(path) == ({"row 1": {"id": {"pmid": "1"}, "text": "a\0"}, "row 2": {"id": None, "text": None}}, [])


def test_broken_parquet_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [str(number) * 50 for number in range(5000)]}), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UnreadableInputError, match=r"rows\.parquet: cannot be read as Parquet") as caught:
        _read(path)
    assert "\n" not in str(caught.value)


def test_other_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"rows\.txt: not a format we read"):
        _read(_write(tmp_path, "rows.txt", "a"))
    with pytest.raises(UnreadableInputError, match=r"none\.json: no such file"):
        _read(tmp_path / "none.json")


@pytest.mark.parametrize(("name", "opening"), [("rows.json.gz", b'[{"a": 1}, '), ("rows.jsonl.gz", b'{"a": 1}\n'), ("rows.csv.gz", b"a\n1\n")])
def test_a_gzip_bomb_is_damage_and_what_stands_before_it_counts(tmp_path: Path, name: str, opening: bytes) -> None:
    rows, rejected = _read(_write(tmp_path, name, opening + b" " * (80 << 20)))
    assert [str(fields["a"]) for fields in rows.values()] == ["1"]
    [(_, reason)] = rejected
    assert "damaged gzip file" in reason
    assert "unpacks to more than 200 times its size" in reason
