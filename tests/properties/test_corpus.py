"""Whatever the ids, sizes, seed and order of the files: samples nest, splits do not overlap, the last version wins, and no character is lost."""

import re
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from citation_xml import article_set, citation_xml, write_xml
from lmdissect.corpus import Citation, read_citations, sample_documents, split_held_out
from lmdissect.corpus.merge import split_of
from lmdissect.corpus.parts import DELETED
from lmdissect.corpus.winners import Part, find_winners
from lmdissect.records import Document

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30, unique=True)
SEEDS = st.integers(min_value=0, max_value=2**32)


def _documents(ids: list[str]) -> list[Document]:
    return [Document(document_id, f"text of {document_id!r}") for document_id in ids]


@given(ids=IDS, seed=SEEDS, shuffle=st.integers(0, 2**32), sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_samples_nest_and_do_not_depend_on_order(ids: list[str], seed: int, shuffle: int, sizes: tuple[int, int]) -> None:
    documents = _documents(ids)
    shuffled = [documents[index] for index in np.random.default_rng(shuffle).permutation(len(documents))]
    small, large = (sample_documents(documents, size, seed) for size in sorted(sizes))
    assert large[: len(small)] == small
    assert len(large) == min(max(sizes), len(documents))
    assert sample_documents(shuffled, max(sizes), seed) == large


@given(ids=IDS, seed=SEEDS, shuffle=st.integers(0, 2**32), choose=st.data())
def test_held_out_documents_are_never_sampled(ids: list[str], seed: int, shuffle: int, choose: st.DataObject) -> None:
    documents = _documents(ids)
    shuffled = [documents[index] for index in np.random.default_rng(shuffle).permutation(len(documents))]
    num_held_out = choose.draw(st.integers(0, len(documents) - 1))
    training, held_out = split_held_out(documents, num_held_out, seed)
    assert split_held_out(shuffled, num_held_out, seed) == (training, held_out)
    assert len(held_out) == num_held_out
    assert sorted([*training, *held_out], key=lambda document: document.document_id) == sorted(documents, key=lambda document: document.document_id)
    for size in range(len(documents) + 1):
        assert not set(held_out) & set(sample_documents(training, size, seed))


@given(ids=IDS, seed=SEEDS, smaller=st.integers(0, 28))
def test_held_out_sets_nest(ids: list[str], seed: int, smaller: int) -> None:
    documents = _documents(ids)
    small, large = (split_held_out(documents, min(size, len(documents) - 1), seed)[1] for size in (smaller, smaller + 1))
    assert large[: len(small)] == small


RECORDS = st.lists(  # files of (id, version, is a deletion, has a text)
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans()), max_size=6), min_size=1, max_size=4
)


@settings(deadline=None)
@given(files=RECORDS, max_slice_rows=st.integers(1, 10))
def test_winners_are_those_of_applying_the_files_one_by_one(files: list[list[tuple[int, int, bool, bool]]], max_slice_rows: int) -> None:
    expected: dict[int, tuple[int, int]] = {}
    standing: dict[tuple[int, int], tuple[int, int]] = {}
    for part, records in enumerate(files):
        for row, (number, version, is_deletion, _) in enumerate(records):
            if not is_deletion:
                standing[number, version] = (part, row)
        for number, version, is_deletion, _ in records:  # deletions speak of their own file too, wherever in it they stand
            if is_deletion:
                standing.pop((number, version), None)
    for (number, _), where in sorted(standing.items()):
        expected[number] = where
    with tempfile.TemporaryDirectory() as folder:
        parts = [Part(_stored(Path(folder) / f"{index}.parquet", records), is_pubmed=True) for index, records in enumerate(files)]
        verdicts = find_winners(parts, max_slice_rows=max_slice_rows)
    found = {(part, int(row)) for part, wins in enumerate(verdicts.wins) for row in np.flatnonzero(wins)}
    assert found == set(expected.values())
    assert not any(repeats.any() for repeats in verdicts.repeats)
    num_citations = sum(not is_deletion for records in files for _, _, is_deletion, _ in records)
    assert len(found) + verdicts.num_superseded + verdicts.num_deleted == num_citations


@settings(deadline=None)
@given(files=RECORDS, max_slice_rows=st.integers(1, 10))
def test_first_of_other_records_counts(files: list[list[tuple[int, int, bool, bool]]], max_slice_rows: int) -> None:
    plain = [[(number, 0, False, has_text) for number, _, _, has_text in records] for records in files]
    first: dict[int, tuple[int, int]] = {}
    for part, records in enumerate(plain):
        for row, (number, *_) in enumerate(records):
            first.setdefault(number, (part, row))
    with tempfile.TemporaryDirectory() as folder:
        parts = [Part(_stored(Path(folder) / f"{index}.parquet", records), is_pubmed=False) for index, records in enumerate(plain)]
        verdicts = find_winners(parts, max_slice_rows=max_slice_rows)
    assert {(part, int(row)) for part, wins in enumerate(verdicts.wins) for row in np.flatnonzero(wins)} == set(first.values())
    assert sum(int(repeats.sum()) for repeats in verdicts.repeats) == sum(map(len, plain)) - len(first)


def _stored(path: Path, records: list[tuple[int, int, bool, bool]]) -> Path:
    """The columns of a part that the winners are found by."""
    columns = {
        "key_high": pa.array([number * 0x9E3779B97F4A7C15 % 2**64 for number, *_ in records], pa.uint64()),
        "key_low": pa.array([number for number, *_ in records], pa.uint64()),
        "version": pa.array([version or None for _, version, *_ in records], pa.int32()),
        "fate": pa.array([DELETED if is_deletion else int(not has_text) * 2 for _, _, is_deletion, has_text in records], pa.int8()),
    }
    pq.write_table(pa.table(columns), path)
    return path


@given(ids=IDS, seed=SEEDS, shares=st.lists(st.integers(1, 10), min_size=1, max_size=4))
def test_every_document_is_in_one_split(ids: list[str], seed: int, shares: list[int]) -> None:
    split = {f"s{number}": share / sum(shares) for number, share in enumerate(shares)}
    found = [split_of(document_id, split, seed) for document_id in ids]
    assert set(found) <= set(split)
    assert found == [split_of(document_id, split, seed) for document_id in ids]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
MARKUP = st.recursive(
    TEXT.map(lambda text: (text, escape(text))),
    lambda inner: st.tuples(st.sampled_from(["i", "sup", "sub", "b"]), st.lists(inner, max_size=3)).map(
        lambda node: ("".join(text for text, _ in node[1]), f"<{node[0]}>{''.join(xml for _, xml in node[1])}</{node[0]}>")
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(pieces=st.lists(MARKUP, min_size=1, max_size=4))
def test_no_character_of_an_abstract_is_lost_or_added(pieces: list[tuple[str, str]]) -> None:
    text = re.sub(r"[ \t\r\n]+", " ", "".join(text for text, _ in pieces)).strip(" ")
    with tempfile.TemporaryDirectory() as folder:
        path = write_xml(Path(folder) / "c.xml", article_set([citation_xml(1, "".join(xml for _, xml in pieces))]))
        (found,) = read_citations(path)
    assert isinstance(found, Citation)
    assert found.abstract == text
