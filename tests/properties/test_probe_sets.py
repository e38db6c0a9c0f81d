"""What holds for any probe set: nothing is lost or changed on the way through a file, and the order of rows means nothing."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdissect.alignment import kept_word_share
from lmdissect.bytestream import read_lines
from lmdissect.probes import find_overlap, probe_fingerprint, read_probe_set, write_probe_set
from lmdissect.records import Document, ProbeSet, ProbeText

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(lambda text: bool(text.strip()))
FACTORS = {"casual": "style", "counterfactual": "factual", "nonbiomedical_casual": "topic+style", "my-own.2": "register"}
ROWS = st.dictionaries(st.tuples(ANY_TEXT, st.sampled_from(["original", *FACTORS])), ANY_TEXT, min_size=1, max_size=12).map(
    lambda table: [{"document_id": document_id, "variant": variant, "text": text} for (document_id, variant), text in table.items()]
)


def _probes(rows: list[dict[str, str]]) -> ProbeSet:
    present = {row["variant"] for row in rows}
    return ProbeSet(
        texts=tuple(ProbeText(**row) for row in rows),
        factors={name: factor for name, factor in FACTORS.items() if name in present},
        source="here",
    )


def _write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8", newline="\n")


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["document_id", "variant", "text"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(stream.getvalue().encode())


def _write_parquet(path: Path, rows: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_write_then_read_gives_the_same_set(rows: list[dict[str, str]]) -> None:
    probes = _probes(rows)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "probes"
        assert write_probe_set(probes, target) == "written"
        there = read_probe_set(str(target))
        assert write_probe_set(there, target) == "reused"
    assert there.by_variant() == probes.by_variant()
    assert dict(there.factors) == dict(probes.factors)
    assert there.rejected == ()
    assert probe_fingerprint(there) == probe_fingerprint(probes)


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", _write_jsonl), ("a.csv", _write_csv), ("a.parquet", _write_parquet)])
@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_every_file_format_keeps_every_character(name: str, write: Callable[[Path, list[dict[str, str]]], None], rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, rows)
        there = read_probe_set(str(path), factors={"my-own.2": "register"})
    assert [(text.document_id, text.variant, text.text) for text in there.texts] == [tuple(row.values()) for row in rows]
    assert there.rejected == ()


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data())
def test_order_of_rows_changes_neither_pairing_nor_fingerprint(rows: list[dict[str, str]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    with tempfile.TemporaryDirectory() as folder:
        sets = []
        for name, order in (("a.jsonl", rows), ("b.jsonl", shuffled)):
            _write_jsonl(Path(folder) / name, order)
            sets.append(read_probe_set(str(Path(folder) / name), factors={"my-own.2": "register"}))
    here, there = sets
    assert here.by_variant() == there.by_variant()
    assert list(here.factors.items()) == list(there.factors.items())
    assert probe_fingerprint(here) == probe_fingerprint(there)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data())
def test_any_change_changes_the_fingerprint(rows: list[dict[str, str]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    field = data.draw(st.sampled_from(["document_id", "text"]))
    changed = [{**row, field: row[field] + "x"} if position == index else row for position, row in enumerate(rows)]
    assert probe_fingerprint(_probes(changed)) != probe_fingerprint(_probes(rows))


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=20), last=st.booleans())
def test_lines_put_together_are_the_file(lines: list[bytes], *, last: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if last else b"")
    content = b"x" + content  # never the two bytes that begin a gzip file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.write_bytes(content)
        numbers, pieces = zip(*read_lines(path), strict=True)
    assert b"".join(piece or b"" for piece in pieces) == content
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert all(piece is not None and piece.count(b"\n") <= 1 for piece in pieces)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_a_set_is_found_whole_in_a_corpus_made_of_itself(rows: list[dict[str, str]]) -> None:
    probes = _probes(rows)
    corpus = [Document(f"corpus {number}", f"\n{row['text'].replace(' ', '  ')}\t") for number, row in enumerate(rows)]
    found = {(match.document_id, match.variant) for match in find_overlap(probes, corpus).matches if match.kind == "text"}
    assert found == {(row["document_id"], row["variant"]) for row in rows}


@settings(max_examples=100, deadline=None)
@given(original=st.text("abc  ", max_size=40), variant=st.text("abc  ", max_size=40))
def test_kept_word_share_is_a_share_and_one_for_a_copy(original: str, variant: str) -> None:
    assert 0.0 <= kept_word_share(original, variant) <= 1.0
    assert kept_word_share(original, original) == 1.0
