"""A corpus from files: which records become documents, which do not, and what is said of it."""

import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from citation_xml import article_set, citation_xml, deletion_xml, medline_set, write_xml
from lmdissect.corpus import CorpusConfig, CorpusSummary, build_corpus, read_corpus, sample_documents
from lmdissect.corpus.documents import text_id
from lmdissect.corpus.merge import split_of
from lmdissect.errors import DamagedArtifactError, NothingToDoError, StaleArtifactError, UnreadableInputError
from lmdissect.records import Document
from lmdissect.store import read_manifest


def _build(tmp_path: Path, sources: Sequence[Path | str], name: str = "corpus", **settings: object) -> CorpusSummary:
    return build_corpus([str(source) for source in sources], CorpusConfig.model_validate(settings), tmp_path / name, num_workers=1)


def _rows(summary: CorpusSummary, split: str = "documents") -> list[dict[str, object]]:
    return [row for path in sorted((summary.folder / "data").glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _texts(summary: CorpusSummary, split: str = "documents") -> dict[object, object]:
    return {row["document_id"]: row["text"] for row in _rows(summary, split)}


def _jsonl(path: Path, rows: Sequence[object]) -> Path:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path


LABELLED = '<Abstract><AbstractText Label="AIM">To see.</AbstractText><AbstractText>It is.</AbstractText></Abstract>'


@pytest.mark.parametrize(
    ("settings", "text", "starts"),
    [
        ({}, "To see. It is.", [0, 8]),
        ({"with_title": True}, "On things.\nTo see. It is.", [11, 19]),
        ({"with_labels": True}, "AIM: To see. It is.", [0, 13]),
        ({"with_title": True, "with_labels": True}, "On things.\nAIM: To see. It is.", [11, 24]),
    ],
)
def test_title_and_labels_are_columns_and_text_only_when_asked_for(tmp_path: Path, settings: dict[str, bool], text: str, starts: list[int]) -> None:
    records = [citation_xml(1, LABELLED, title="On things."), citation_xml(2, None, title="No abstract.")]
    summary = _build(tmp_path, [write_xml(tmp_path / "c.xml", article_set(records))], **settings)
    (row,) = _rows(summary)
    assert row == {
        "document_id": "1",
        "text": text,
        "title": "On things.",
        "section_labels": ["AIM", None],
        "section_starts": starts,
        "journal": "A journal",
        "year": 2007,
        "languages": ["eng"],
        "publication_types": ["Journal Article"],
        "mesh_terms": ["Asthma"],
        "version": 1,
        "pmid": None,
        "url": None,
        "timestamp": None,
        "source": "c.xml",
    }
    assert summary.counts == {"documents": 1, "records": 2, "set aside": 0, "without abstract": 1}


def _update_files(folder: Path) -> list[Path]:
    return [
        write_xml(
            folder / "pubmed25n0001.xml.gz",
            article_set([citation_xml(number, f"Baseline text {number}.") for number in range(1, 9)] + [citation_xml(9, None)]),
        ),
        write_xml(
            folder / "pubmed25n0010.xml.gz",
            article_set(
                [
                    citation_xml(1, "Revised."),
                    citation_xml(2, "Second version.", version=2),
                    citation_xml(3, "Third version.", version=3),
                    citation_xml(4, None),
                    citation_xml(9, "Has an abstract now."),
                    deletion_xml(5, 6),
                    deletion_xml(7, version=2),
                ]
            ),
        ),
        write_xml(
            folder / "pubmed25n0011.xml",
            article_set([citation_xml(1, "Revised again."), citation_xml(3, "Second version.", version=2), citation_xml(6, "Back again.")]),
        ),
    ]


REVISED = {
    "1": "Revised again.",
    "2": "Second version.",
    "3": "Third version.",
    "6": "Back again.",
    "7": "Baseline text 7.",
    "8": "Baseline text 8.",
    "9": "Has an abstract now.",
}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_last_version_wins_whatever_the_order_of_the_files(tmp_path: Path, order: tuple[int, ...]) -> None:
    files = _update_files(tmp_path)
    summary = _build(tmp_path, [files[index] for index in order])
    assert _texts(summary) == REVISED
    assert summary.counts == {
        "documents": 7,
        "records": 17,
        "set aside": 0,
        "superseded": 7,  # 1 twice, 2, 3 twice, 4 and 9
        "deleted": 2,
        "deletions": 3,
        "without abstract": 1,
    }
    assert read_manifest(summary.folder).inputs["sources"][0]["label"] == "pubmed25n0001.xml.gz"


def test_deletion_at_the_end_of_a_file_takes_back_its_own_citations(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml", medline_set([citation_xml(1), citation_xml(2), citation_xml(1, "Twice."), deletion_xml(2)]))
    summary = _build(tmp_path, [path])
    assert _texts(summary) == {"1": "Twice."}
    assert (summary.counts["superseded"], summary.counts["deleted"]) == (1, 1)


def test_deleting_the_second_version_leaves_the_first(tmp_path: Path) -> None:
    files = [
        write_xml(tmp_path / "pubmed25n0001.xml", article_set([citation_xml(1, "First."), citation_xml(1, "Second.", version=2)])),
        write_xml(tmp_path / "pubmed25n0002.xml", article_set([deletion_xml(1, version=2)])),
    ]
    assert _texts(_build(tmp_path, files)) == {"1": "First."}


def test_other_ids_count_once_and_the_rest_is_set_aside_by_name(tmp_path: Path) -> None:
    first = _jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": "one"}, {"id": "x", "text": "two"}, {"pmid": 7, "text": "not the citation"}])
    second = _jsonl(tmp_path / "b.jsonl", [{"id": "x", "text": "three"}, {"id": "y", "text": "four", "pmid": 9}])
    citations = write_xml(tmp_path / "z.xml", article_set([citation_xml(7, "The citation.")]))
    summary = _build(tmp_path, [second, citations, first])
    assert _texts(summary) == {"7": "The citation.", "x": "one", "y": "four"}
    assert [(record.source, record.record, record.reason) for record in summary.rejected] == [
        ("a.jsonl", "line 2", "id seen before ('x')"),
        ("a.jsonl", "line 3", "id seen before ('7')"),
        ("b.jsonl", "line 1", "id seen before ('x')"),
    ]
    assert summary.counts == {"documents": 3, "records": 6, "set aside": 3}
    assert read_corpus([summary.folder])[0] == [Document("7", "The citation."), Document("x", "one"), Document("y", "four", ("9",))]


def test_c4_documents_are_named_by_their_address_and_time(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "url": "https://example.org/a", "timestamp": "2019-04-25T12:57:54Z"},
        {"text": "two", "url": "https://example.org/a", "timestamp": "2019-05-25T12:57:54Z"},
        {"text": "three"},
    ]
    summary = _build(tmp_path, [_jsonl(tmp_path / "c4-validation.00000-of-00008.json.gz", rows)])
    found = _rows(summary)
    assert [row["document_id"] for row in found] == [
        "644c0e5757f74fae244e49ed86eb754d",
        hashlib.sha256(b"https://example.org/a\n2019-05-25T12:57:54Z").hexdigest()[:32],
        text_id("three"),
    ]
    assert (found[0]["url"], found[0]["timestamp"]) == ("https://example.org/a", "2019-04-25T12:57:54Z")
    other_file = _build(tmp_path, [_jsonl(tmp_path / "other.jsonl", rows)], "other")
    assert [row["document_id"] for row in _rows(other_file)] == [row["document_id"] for row in found]


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    rows = [
        {"document_id": "a", "text": 'One, "quoted"\nline', "title": "T", "year": 2001},
        {"document_id": "b", "text": "Zwei ü", "title": None, "year": None},
    ]
    _jsonl(tmp_path / "c.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "c.csv").write_text('\ufeffdocument_id,text,title,year,more\na,"One, ""quoted""\nline",T,2001,x\nb,Zwei ü,,,x\n', encoding="utf-8")
    (tmp_path / "c.tsv.gz").write_bytes(
        gzip.compress('document_id\ttext\ttitle\tyear\na\t"One, ""quoted""\nline"\tT\t2001\nb\tZwei ü\t\t\n'.encode())
    )
    for name in ("c.jsonl", "c.parquet", "c.csv", "c.tsv.gz"):
        found = _rows(_build(tmp_path, [tmp_path / name], f"out-{name}"))
        assert [{field: row[field] for field in rows[0]} for row in found] == rows, name


def test_text_file_and_folder_of_another_corpus(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("one text\n\nanother text\n", encoding="utf-8")
    first = _build(tmp_path, [tmp_path / "c.txt", write_xml(tmp_path / "c.xml", article_set([citation_xml(1, LABELLED)]))], "first")
    assert _texts(first) == {"1": "To see. It is.", text_id("one text"): "one text", text_id("another text"): "another text"}
    second = _build(tmp_path, [first.folder], "second", min_chars=9)
    assert [(row["document_id"], row["section_starts"], row["source"]) for row in _rows(second)] == [
        ("1", [0, 8], "documents-00000.parquet"),
        (text_id("another text"), None, "documents-00000.parquet"),
    ]


RULES = [
    ({"min_chars": 8}, {"too short": 2}, ["3", "4"]),
    ({"max_chars": 7}, {"too long": 2}, ["1", "2"]),
    ({"languages": ["ger"]}, {"language not wanted": 2, "language not known": 1}, ["2"]),
    ({"languages": ["ger", "eng"]}, {"language not known": 1}, ["1", "2", "3"]),
    ({"match": "(?i)LONG"}, {"no match": 2}, ["3", "4"]),
    ({"exclude": r"\bone\b"}, {"excluded": 1}, ["2", "3", "4"]),
    ({"min_chars": 8, "match": "three"}, {"too short": 2, "no match": 1}, ["3"]),
]


@pytest.mark.parametrize(("settings", "counts", "kept"), RULES)
def test_rules_leave_out_and_count(tmp_path: Path, settings: dict[str, object], counts: dict[str, int], kept: list[str]) -> None:
    rows = [
        {"id": "1", "text": "one", "language": "eng"},
        {"id": "2", "text": "two", "languages": ["ger", "fre"]},
        {"id": "3", "text": "three is long", "language": "eng"},
        {"id": "4", "text": "four is long"},
    ]
    summary = _build(tmp_path, [_jsonl(tmp_path / "c.jsonl", rows)], **settings)
    assert sorted(str(name) for name in _texts(summary)) == kept
    assert {reason: count for reason, count in summary.counts.items() if reason not in {"documents", "records", "set aside", "not English"}} == counts
    assert summary.counts["documents"] + sum(counts.values()) == summary.counts["records"] == 4


def _many(tmp_path: Path, count: int = 400) -> list[Path]:
    return [
        _jsonl(tmp_path / f"{name}.jsonl", [{"id": f"{name}{number}", "text": f"text {name} {number}"} for number in range(count)])
        for name in ("a", "b")
    ]


def test_samples_nest_and_are_those_of_the_whole_corpus(tmp_path: Path) -> None:
    files = _many(tmp_path)
    small, large = (_build(tmp_path, files, f"n{count}", num_documents=count, seed=3) for count in (20, 200))
    assert len(_texts(small)) == 20
    assert set(_texts(small)) < set(_texts(large))
    assert small.counts["not in the sample"] == 780
    whole = read_corpus([_build(tmp_path, files, "whole").folder])[0]
    assert {document.document_id for document in sample_documents(whole, 200, 3)} == set(_texts(large))
    assert _texts(_build(tmp_path, files, "more", num_documents=5000)) == {document.document_id: document.text for document in whole}
    assert set(_texts(_build(tmp_path, files, "seed4", num_documents=20, seed=4))) != set(_texts(small))


def test_splits_never_overlap_and_do_not_depend_on_the_sample(tmp_path: Path) -> None:
    files = _many(tmp_path)
    shares = {"train": 0.8, "validation": 0.1, "probe": 0.1}
    large = _build(tmp_path, files, "large", split=shares)
    small = _build(tmp_path, files, "small", split=shares, num_documents=100)
    found = {name: set(_texts(large, name)) for name in shares}
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == large.counts["documents"] == 800
    assert 590 < len(found["train"]) < 690
    assert [large.counts[f"split {name}"] for name in shares] == [len(found[name]) for name in shares]
    for name in shares:
        assert set(_texts(small, name)) <= found[name]
    assert read_corpus([Path(f"{large.folder}#probe")])[0] == [Document(str(key), str(text)) for key, text in _texts(large, "probe").items()]
    assert len(read_corpus([Path(f"{large.folder}#all")])[0]) == 800
    with pytest.raises(UnreadableInputError, match=r"has the splits probe, train, validation: say which, as .*#train"):
        read_corpus([large.folder])
    with pytest.raises(UnreadableInputError, match="has no split 'test'"):
        read_corpus([Path(f"{large.folder}#test")])


def test_room_that_the_shares_leave_is_counted(tmp_path: Path) -> None:
    summary = _build(tmp_path, _many(tmp_path), split={"train": 0.25, "probe": 0.25})
    assert summary.counts["documents"] == summary.counts["split train"] + summary.counts["split probe"]
    assert summary.counts["documents"] + summary.counts["in no split"] == 800
    assert 340 < summary.counts["in no split"] < 460


def test_splits_that_leave_no_document_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match=r"no document is left: 20 in no split"):
        _build(tmp_path, _many(tmp_path, 10), split={"train": 1e-9})
    assert not (tmp_path / "corpus" / "manifest.json").exists()


def test_split_without_documents_is_named(tmp_path: Path) -> None:
    summary = _build(tmp_path, _many(tmp_path, 10), split={"train": 0.999999999, "probe": 1e-9})
    assert summary.counts["split probe"] == 0
    for read in (lambda path: read_corpus([Path(path)]), lambda path: _build(tmp_path, [path], "again")):
        with pytest.raises(UnreadableInputError, match="corpus: its split 'probe' holds no document"):
            read(f"{summary.folder}#probe")


def test_source_spelled_in_two_ways_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    path = _jsonl(tmp_path / "d" / "c.jsonl", [{"text": f"text {number}"} for number in range(20)])
    (tmp_path / "link.jsonl").symlink_to(path)
    spellings = ["d/c.jsonl", path, "d/../d/c.jsonl", "link.jsonl"]
    once = _build(tmp_path, ["d/c.jsonl"], "once", split={"train": 0.5, "probe": 0.5})
    often = [
        _build(tmp_path, chosen, f"often{number}", split={"train": 0.5, "probe": 0.5}) for number, chosen in enumerate((spellings, spellings[::-1]))
    ]
    for summary in often:
        assert summary.counts == once.counts
        for split in ("train", "probe"):
            assert _texts(summary, split) == _texts(once, split)
    assert read_manifest(often[0].folder).inputs == read_manifest(often[1].folder).inputs


def test_another_source_moves_no_document_without_an_id(tmp_path: Path) -> None:
    paths = [tmp_path / name / "x.txt" for name in ("d1", "d2")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("".join(f"text {number} of {path.parent.name}\n" for number in range(50)), encoding="utf-8")
    shares = {"train": 0.5, "probe": 0.5}
    alone, both = (_build(tmp_path, chosen, f"n{len(chosen)}", split=shares) for chosen in (paths[:1], paths))
    for split in shares:
        assert _texts(alone, split).items() <= _texts(both, split).items()
    assert both.counts["documents"] == 100
    assert {row["source"] for row in _rows(both, "train")} == {"d1/x.txt", "d2/x.txt"}


def test_time_stored_as_a_time_gives_the_same_documents(tmp_path: Path) -> None:
    row = {"text": "one", "url": "https://example.org/a", "timestamp": "2019-04-25T12:57:54Z"}
    columns = {"text": ["one"], "url": [row["url"]], "timestamp": pa.array([datetime(2019, 4, 25, 12, 57, 54, tzinfo=UTC)], pa.timestamp("s"))}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    found = [_rows(_build(tmp_path, [path], path.suffix[1:]))[0] for path in (_jsonl(tmp_path / "c.jsonl", [row]), tmp_path / "c.parquet")]
    for name in ("document_id", "timestamp"):
        assert found[0][name] == found[1][name]


def test_split_shares_that_sum_to_one_only_nearly_leave_no_room() -> None:
    shares = {"a": 0.9, "b": 0.05, "c": 0.05}
    assert all(split_of(str(number), shares, 0) is not None for number in range(5000))
    assert split_of("any", {}, 0) == "documents"


def test_order_in_which_splits_are_given_has_no_meaning() -> None:
    one, other = (CorpusConfig(split=dict(pairs)) for pairs in ([("a", 0.3), ("b", 0.7)], [("b", 0.7), ("a", 0.3)]))
    assert [split_of(str(number), one.split, 0) for number in range(200)] == [split_of(str(number), other.split, 0) for number in range(200)]


WORDS = [f"word{number}" for number in range(200)]


def test_near_duplicates_are_dropped_verified_and_listed_whatever_the_order(tmp_path: Path) -> None:
    near = [" ".join([*WORDS[:100], *(["changed"] if number else []), *WORDS[100:]]) for number in range(2)]
    rows = [
        {"id": "a", "text": near[0]},
        {"id": "b", "text": near[1]},
        {"id": "c", "text": near[0].upper()},
        {"id": "d", "text": " ".join(reversed(WORDS))},
        {"id": "e", "text": "short"},
        {"id": "f", "text": " ".join([*WORDS[:100], *reversed(WORDS[100:])])},
    ]
    kept: list[set[object]] = []
    for name, chosen in (("forward", rows), ("backward", rows[::-1])):
        summary = _build(tmp_path, [_jsonl(tmp_path / f"{name}.jsonl", chosen)], name, drop_near_duplicates=0.8)
        kept.append(set(_texts(summary)))
        assert summary.counts["near-duplicate"] == 2
        listed = pq.read_table(summary.folder / "near_duplicates.parquet").to_pylist()
        assert {row["document_id"] for row in listed} == {row["id"] for row in rows} - kept[-1]
        assert all(row["kept_id"] in kept[-1] and row["similarity"] >= 0.8 for row in listed)
    assert kept[0] == kept[1]
    assert {"d", "e", "f"} <= kept[0]
    assert len(kept[0] & {"a", "b", "c"}) == 1
    sample = _build(tmp_path, [tmp_path / "forward.jsonl"], "sample", drop_near_duplicates=0.8, num_documents=2)
    assert set(_texts(sample)) < kept[0]


def test_md5_beside_a_file_is_checked(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml.gz", article_set([citation_xml(1)]))
    (tmp_path / "c.xml.gz.md5").write_text("MD5(c.xml.gz)= 00000000000000000000000000000000\n", encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"c\.xml\.gz: its MD5 is [0-9a-f]{32}, and c\.xml\.gz\.md5 says 0{32}"):
        _build(tmp_path, [path])


def test_damaged_file_is_told_and_costs_no_other_file_its_documents(tmp_path: Path) -> None:
    bad = write_xml(tmp_path / "bad.xml", article_set([citation_xml(1), "<broken>"]))
    good = write_xml(tmp_path / "good.xml", article_set([citation_xml(2)]))
    summary = _build(tmp_path, [bad, good])
    assert set(_texts(summary)) == {"1", "2"}
    assert [(Path(record.source).name, record.record) for record in summary.rejected] == [("bad.xml", "after PMID 1")]
    assert pq.read_table(summary.folder / "set_aside.parquet").num_rows == 1
    with pytest.raises(UnreadableInputError, match=r"1 records had to be set aside and --strict is on \(first: .*bad\.xml, after PMID 1"):
        build_corpus([str(bad), str(good)], CorpusConfig(), tmp_path / "strict", num_workers=1, strict=True)
    assert not (tmp_path / "strict" / "manifest.json").exists()


def test_finished_corpus_is_reused_and_another_one_refused(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml", article_set([citation_xml(1)]))
    assert not _build(tmp_path, [path]).reused
    again = _build(tmp_path, [path])
    assert again.reused
    assert again.counts["documents"] == 1
    with pytest.raises(StaleArtifactError, match="min_chars: null there, 3 here"):
        _build(tmp_path, [path], min_chars=3)
    write_xml(path, article_set([citation_xml(2)]))
    with pytest.raises(StaleArtifactError, match="sources"):
        _build(tmp_path, [path])


def test_damaged_corpus_is_not_read_and_is_made_again(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml", article_set([citation_xml(1)]))
    shard = _build(tmp_path, [path]).folder / "data" / "documents-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DamagedArtifactError, match=r"data/documents-00000\.parquet"):
        read_corpus([tmp_path / "corpus"])
    assert not _build(tmp_path, [path]).reused
    assert shard.read_bytes() == whole


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml", article_set([citation_xml(1, None), citation_xml(2)]))
    with pytest.raises(NothingToDoError, match="no document is left: 1 without abstract, 1 too short"):
        _build(tmp_path, [path], min_chars=1000)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.xml", "no such file"),
        ("c.pdf", "neither PubMed XML nor one of .jsonl"),
        ("folder", "a folder that holds no corpus"),
        ("c.csv", "no column 'text'"),
        (os.fsdecode(b"caf\xe9.jsonl"), r"caf\\udce9\.jsonl: its name is not UTF-8; rename it"),
    ],
)
def test_source_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    (tmp_path / "c.csv").write_bytes(b"id,body\n1,x\n")
    (tmp_path / "folder").mkdir()
    _jsonl(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), [{"text": "one"}])
    with pytest.raises(UnreadableInputError, match=told):
        _build(tmp_path, [tmp_path / name])


@pytest.mark.parametrize(
    "settings",
    [
        {"min_chars": 10, "max_chars": 5},
        {"match": "("},
        {"drop_near_duplicates": 0.0},
        {"drop_near_duplicates": 1.5},
        {"split": {"train": 0.9, "probe": 0.2}},
        {"split": {"all": 0.5}},
        {"split": {"../up": 0.5}},
        {"split": {"train": 0.0}},
        {"num_documents": 0},
        {"nonsense": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CorpusConfig.model_validate(settings)


def test_citations_are_not_read_without_their_versions(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml.gz", article_set([citation_xml(1)]))
    with pytest.raises(UnreadableInputError, match=r"lmdissect corpus .*xml\.gz --out DIR, then give DIR"):
        read_corpus([path])


def test_real_files(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "pubmed"
    summary = _build(tmp_path, [folder / "medline16n0902.xml.gz"])
    assert summary.counts == {"documents": 526, "records": 604, "set aside": 0, "without abstract": 78, "deletions": 1, "not English": 8}
    both = _build(tmp_path, [folder / "pubmed-29768149.xml", folder / "medline16n0902.xml.gz"], "both")
    assert both.counts["documents"] == 527
