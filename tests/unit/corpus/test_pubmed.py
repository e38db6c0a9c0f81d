"""Citations out of XML: exact text, both forms of file, and every kind of damage."""

import gzip
import hashlib
import re
import tracemalloc
from pathlib import Path

import pytest

from citation_xml import DOCTYPE, article_set, citation_xml, deletion_xml, medline_set, write_xml
from lmdissect.corpus import AbstractSection, Citation, DeletedCitation, read_citations
from lmdissect.corpus.pubmed import MAX_ABSTRACT_CHARS, is_pubmed_xml
from lmdissect.errors import UnreadableInputError
from lmdissect.records import RejectedRecord

MATHML = "<mml:math xmlns:mml='http://www.w3.org/1998/Math/MathML'><mml:mi>x</mml:mi><mml:mo>=</mml:mo><mml:msup><mml:mn>2</mml:mn><mml:mn>3</mml:mn></mml:msup></mml:math>"

TEXTS = [
    ("plain text", "plain text"),
    ("10<sup>-3</sup> M H<sub>2</sub>O", "10-3 M H2O"),
    ("<i>E. coli</i>, <b>bold</b> and <u>under</u>lined", "E. coli, bold and underlined"),
    ("<i>E. coli</i>", "E. coli"),
    ("before <i> spaced </i> after", "before spaced after"),
    ("nested <i>it<sup>up<sub>down</sub></sup></i>end", "nested itupdownend"),
    (f"where {MATHML} holds", "where x=23 holds"),
    ("&lt;5 &amp; &gt;3 &#946;-blocker &#x3b1; &quot;q&quot; &apos;a&apos;", "<5 & >3 \u03b2-blocker \u03b1 \"q\" 'a'"),
    ("one\n\t\t  two\r\nthree", "one two three"),
    ("  \n edges \n ", "edges"),
    ("thin\u2009space, no\u00a0break,\u2003em", "thin\u2009space, no\u00a0break,\u2003em"),
    ("a<!-- hidden -->b<?pi hidden?>c<![CDATA[<d> & e]]>f", "abc<d> & ef"),
    ("p&#8201;&lt;&#8201;0.05", "p\u2009<\u20090.05"),
    ("emoji 🙂 and \U0001d6fc", "emoji 🙂 and \U0001d6fc"),
    ("cafe\u0301", "cafe\u0301"),
]


def _read(path: Path, text: str) -> list[Citation | DeletedCitation | RejectedRecord]:
    return list(read_citations(write_xml(path, text)))


def _pmids(records: list[Citation | DeletedCitation | RejectedRecord]) -> list[int]:
    return [record.pmid for record in records if isinstance(record, Citation)]


def _rejected(records: list[Citation | DeletedCitation | RejectedRecord]) -> list[RejectedRecord]:
    return [record for record in records if isinstance(record, RejectedRecord)]


@pytest.mark.parametrize("form", [article_set, medline_set])
@pytest.mark.parametrize("name", ["c.xml", "c.xml.gz"])
def test_both_forms_give_the_same_citation(tmp_path: Path, form: object, name: str) -> None:
    sections = (
        '<Abstract><AbstractText Label="AIM" NlmCategory="OBJECTIVE">To see.</AbstractText><AbstractText>It <i>is</i>.</AbstractText>'
        '<AbstractText Label="EMPTY"> </AbstractText><CopyrightInformation>Copyright.</CopyrightInformation></Abstract>'
    )
    records = [citation_xml(1, sections, title="On <i>E. coli</i>"), citation_xml(2, None, language="ger"), deletion_xml(5, 6, version=2)]
    found = _read(tmp_path / name, form(records))  # type: ignore[operator]
    expected = Citation(
        pmid=1,
        version=1,
        title="On E. coli",
        sections=(AbstractSection("AIM", "To see."), AbstractSection(None, "It is.")),
        languages=("eng",),
        journal="A journal",
        year=2007,
        publication_types=("Journal Article",),
        mesh_terms=("Asthma",),
    )
    assert found[0] == expected
    assert expected.abstract == "To see. It is."
    assert isinstance(found[1], Citation)
    assert (found[1].pmid, found[1].sections, found[1].languages) == (2, (), ("ger",))
    assert found[2:] == [DeletedCitation(5, 2), DeletedCitation(6, 2)]


@pytest.mark.parametrize(("xml", "text"), TEXTS, ids=[text[:20] for _, text in TEXTS])
def test_text_is_exact(tmp_path: Path, xml: str, text: str) -> None:
    found = _read(tmp_path / "c.xml", article_set([citation_xml(1, xml, title=xml)]))
    assert isinstance(found[0], Citation)
    assert found[0].abstract == text
    assert found[0].title == text


@pytest.mark.parametrize(
    ("date", "year"), [("<MedlineDate>1998 Nov-Dec</MedlineDate>", 1998), ("<Season>Spring</Season>", None), ("<Year>2021</Year>", 2021)]
)
def test_year_comes_from_the_issue(tmp_path: Path, date: str, year: int | None) -> None:
    text = article_set([citation_xml(1).replace("<Year>2007</Year>", date)])
    found = _read(tmp_path / "c.xml", text)
    assert isinstance(found[0], Citation)
    assert found[0].year == year


def test_real_medline_file(shared_data: Path) -> None:
    found = list(read_citations(shared_data / "pubmed" / "medline16n0902.xml.gz"))
    citations = [record for record in found if isinstance(record, Citation)]
    with_abstract = [citation for citation in citations if citation.sections]
    assert (len(citations), len(with_abstract), len(found)) == (604, 526, 605)
    assert found[-1] == DeletedCitation(26432306, 1)
    assert sum(section.label is not None for citation in citations for section in citation.sections) == 1085
    raw = gzip.decompress((shared_data / "pubmed" / "medline16n0902.xml.gz").read_bytes()).decode()
    assert raw.count("<OtherAbstract") == 21
    first = with_abstract[0]
    assert first.pmid == 17942999
    assert first.abstract.startswith("An auditory electrophysiological study was conducted to explore the influence")
    assert first.abstract.endswith("tones and their acoustic correlates within a particular tone space.")
    texts = "\n".join(f"{citation.pmid}\t{citation.title}\t{citation.abstract}" for citation in with_abstract)
    assert hashlib.sha256(texts.encode()).hexdigest() == TEXTS_SHA256


TEXTS_SHA256 = "18aa142854def344a8ab9de75da68b1ecf41f770527b1480f462daffef192e31"


def test_real_texts_agree_with_a_naive_reading(shared_data: Path) -> None:
    from xml.etree import ElementTree as ET

    path = shared_data / "pubmed" / "medline16n0902.xml.gz"
    root = ET.fromstring(gzip.decompress(path.read_bytes()))  # noqa: S314 - a file of our own collection
    expected = {
        int(entry.findtext("PMID", "")): " ".join(
            " ".join("".join(part.itertext()).split()) for part in entry.iterfind("Article/Abstract/AbstractText")
        )
        for entry in root.iterfind("MedlineCitation")
    }
    for record in read_citations(path):
        if isinstance(record, Citation):
            assert " ".join(record.abstract.split()) == expected[record.pmid]


def test_real_efetch_record(shared_data: Path) -> None:
    (found,) = read_citations(shared_data / "pubmed" / "pubmed-29768149.xml")
    assert isinstance(found, Citation)
    assert [section.label for section in found.sections] == ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
    assert "fast-acting β 2-agonist may be" in found.abstract, "the file was indented anew: the space is in it"
    assert found.year == 2018


MANY = [citation_xml(number, f"Text of number {number}, which is long enough to fill a line.") for number in range(1, 2001)]


@pytest.mark.parametrize("damage", ["<broken>", "</Abstract>", "&nosuch ", "\x01", "<Article", "&#0;"])
def test_broken_xml_keeps_what_stands_before_and_names_the_byte(tmp_path: Path, damage: str) -> None:
    text = article_set([*MANY[:1000], MANY[1000].replace("which is", damage), *MANY[1001:]])
    found = _read(tmp_path / "c.xml", text)
    assert _pmids(found) == list(range(1, 1001))
    (rejected,) = _rejected(found)
    assert (rejected.source, rejected.record) == (str(tmp_path / "c.xml"), "after PMID 1000")
    told = int(rejected.reason.split("byte ")[1].split(" ")[0].rstrip(")"))
    assert abs(told - text.index(f"Text of number 1001, {damage}")) < 300
    assert rejected.reason.startswith("broken XML at ")
    assert found[-1] is rejected


def test_position_is_found_in_a_file_without_line_ends(tmp_path: Path) -> None:
    text = article_set([*MANY[:1000], MANY[1000].replace("which is", "</X>")]).replace("\n", " ")
    (rejected,) = _rejected(_read(tmp_path / "c.xml.gz", text))
    assert abs(int(rejected.reason.split("byte ")[1].split(" ")[0]) - text.index("</X>")) < 200


def test_plain_file_that_ends_too_early(tmp_path: Path) -> None:
    text = article_set(MANY[:10])
    found = _read(tmp_path / "c.xml", text[: text.index('<PMID Version="1">8<')])
    assert _pmids(found) == list(range(1, 8))
    assert _rejected(found)[0].record == "after PMID 7"
    assert "Premature end" in _rejected(found)[0].reason


@pytest.mark.parametrize("cut", ["half", "last byte of the checksum", "a flipped byte"])
def test_damaged_gzip_keeps_what_stands_before(tmp_path: Path, cut: str) -> None:
    whole = bytearray(gzip.compress(article_set(MANY).encode(), mtime=0))
    if cut == "half":
        del whole[len(whole) // 2 :]
    elif cut == "a flipped byte":
        whole[len(whole) // 2] ^= 0xFF
    else:
        del whole[-1]
    path = tmp_path / "c.xml.gz"
    path.write_bytes(bytes(whole))
    found = list(read_citations(path))
    pmids = _pmids(found)
    assert pmids == list(range(1, len(pmids) + 1))
    assert len(pmids) == 2000 if cut == "last byte of the checksum" else 200 < len(pmids) < 2000
    (rejected,) = _rejected(found)
    assert rejected.record == f"after PMID {len(pmids)}"
    assert "damaged from byte" in rejected.reason or "broken XML at" in rejected.reason


BOMB = (
    "<!DOCTYPE PubmedArticleSet ["
    + "".join(f'<!ENTITY e{number} "{f"&e{number - 1};" * 10 if number else "ha" * 50}">' for number in range(12))
    + "]>"
)


@pytest.mark.parametrize(
    "doctype",
    [
        BOMB,
        '<!DOCTYPE PubmedArticleSet [<!ENTITY e11 "inner">]>',
        '<!DOCTYPE PubmedArticleSet [<!ENTITY e11 SYSTEM "SECRET">]>',
        '<!DOCTYPE PubmedArticleSet [<!ENTITY % p SYSTEM "SECRET"> %p;]>',
        '<!DOCTYPE PubmedArticleSet [<!ATTLIST PMID Version CDATA "9">]>',
        '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD" "SECRET" [<!ENTITY e11 "inner">]>',
    ],
    ids=["bomb", "internal", "external", "parameter", "attribute", "with external subset"],
)
def test_declarations_are_refused_and_nothing_is_read(tmp_path: Path, doctype: str) -> None:
    secret = tmp_path / "secret.dtd"
    secret.write_text('<!ENTITY e11 "leaked">', encoding="utf-8")
    text = article_set([citation_xml(1, "a &e11; b")], doctype.replace("SECRET", secret.as_uri()))
    found = _read(tmp_path / "c.xml", text)
    (rejected,) = found
    assert isinstance(rejected, RejectedRecord)
    assert rejected.record == "before the first record"
    assert "of its own, which PubMed's never do: refused" in rejected.reason


def test_entity_bomb_in_an_attribute_of_the_root_is_refused_in_little_memory(tmp_path: Path) -> None:
    text = article_set([citation_xml(1)], BOMB).replace("<PubmedArticleSet>", '<PubmedArticleSet a="&e11;">')
    tracemalloc.start()
    found = _read(tmp_path / "c.xml", text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert _pmids(found) == []
    assert len(_rejected(found)) == 1
    assert peak < 20_000_000


def test_external_document_type_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.dtd"
    secret.write_text('<!ENTITY leak "leaked">', encoding="utf-8")
    doctype = f'<!DOCTYPE PubmedArticleSet SYSTEM "{secret.as_uri()}">'
    found = _read(tmp_path / "c.xml", article_set([citation_xml(1, "a &leak; b"), citation_xml(2, "a&leak;")], doctype))
    assert _rejected(found) == [
        RejectedRecord(str(tmp_path / "c.xml"), f"PMID {pmid}", "holds the entity &leak;, which nothing declares") for pmid in (1, 2)
    ]


@pytest.mark.parametrize("step", ["in one block", "in many blocks"])
@pytest.mark.parametrize(
    "broken", [citation_xml(2, "a &alpha; b"), citation_xml(2, '<Abstract><AbstractText Label="&alpha;">x</AbstractText></Abstract>')]
)
def test_entity_without_a_document_type_ends_the_file_there(tmp_path: Path, broken: str, step: str) -> None:
    more = [citation_xml(number, "word " * 5000) for number in range(3, 40 if step == "in many blocks" else 4)]
    path = write_xml(tmp_path / "c.xml", article_set([citation_xml(1), broken, *more], doctype=""))
    found = list(read_citations(path))
    assert _pmids(found) == [1]
    (rejected,) = _rejected(found)
    byte = int(re.search(r"byte (\d+) \(line \d+, column \d+\)", rejected.reason)[1])  # type: ignore[index]
    assert rejected.record == "after PMID 1"
    assert "Entity 'alpha' not defined" in rejected.reason
    assert abs(byte - path.read_bytes().index(b"&alpha;")) <= len("&alpha;")


def test_entity_without_a_document_type_after_whole_blocks(tmp_path: Path) -> None:
    many = [citation_xml(number, "word " * 5000) for number in range(1, 40)]
    found = _read(tmp_path / "c.xml", article_set([*many, citation_xml(40, "&alpha;"), *many], doctype=""))
    assert _pmids(found) == list(range(1, 40))
    assert [record.record for record in _rejected(found)] == ["after PMID 39"]


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        (">Asthma<", ">Asth&alpha;ma<", "PMID 2", "holds the entity &alpha;, which nothing declares"),
        (">Asthma<", ">&alpha;<", "PMID 2", "holds the entity &alpha;, which nothing declares"),
        (">2</PMID>", ">2&alpha;</PMID>", "PMID 2", "no PMID and version that are whole numbers"),
    ],
)
def test_entity_in_a_mesh_term_or_a_pmid_sets_its_record_aside(tmp_path: Path, old: str, new: str, place: str, reason: str) -> None:
    found = _read(tmp_path / "c.xml", article_set([citation_xml(1), citation_xml(2).replace(old, new), citation_xml(3)]))
    assert _pmids(found) == [1, 3]
    assert _rejected(found) == [RejectedRecord(str(tmp_path / "c.xml"), place, reason)]


ENCODINGS = [
    (article_set([citation_xml(1, "caf\xe9")]).encode("latin-1"), "wrong encoding: Invalid bytes in character encoding"),
    (article_set([citation_xml(1)]).replace("utf-8", "klingon").encode(), "wrong encoding: Unsupported encoding: klingon"),
]


@pytest.mark.parametrize(("content", "reason"), ENCODINGS, ids=["latin-1", "unknown"])
def test_wrong_encoding_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "c.xml"
    path.write_bytes(content)
    (rejected,) = read_citations(path)
    assert isinstance(rejected, RejectedRecord)
    assert reason in rejected.reason


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "utf-8-sig"])
def test_other_encodings_that_are_declared_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "c.xml"
    path.write_bytes(article_set([citation_xml(1, "caf\xe9")]).replace("utf-8", encoding.removesuffix("-sig")).encode(encoding))
    (found,) = read_citations(path)
    assert isinstance(found, Citation)
    assert found.abstract == "café"
    assert is_pubmed_xml(path)


def test_huge_abstract_is_set_aside_by_its_pmid_and_the_rest_read(tmp_path: Path) -> None:
    huge = "word " * 10_000_000
    path = write_xml(
        tmp_path / "c.xml", article_set([citation_xml(1), citation_xml(2, huge), citation_xml(3, "w" * MAX_ABSTRACT_CHARS), citation_xml(4)])
    )
    found = list(read_citations(path))
    assert _pmids(found) == [1, 3, 4]
    assert _rejected(found) == [RejectedRecord(str(path), "PMID 2", "its abstract is longer than 1000000 characters")]


def test_record_without_end_gives_up_the_file_by_its_pmid(tmp_path: Path) -> None:
    path = tmp_path / "c.xml.gz"
    head, tail = article_set([citation_xml(1), citation_xml(2, "HERE")]).split("HERE")
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(head.encode())
        for number in range(110):
            stream.write(hashlib.sha512(str(number).encode()).hexdigest().encode() * (1 << 13))
        stream.write(tail.encode())
    found = list(read_citations(path))
    assert _pmids(found) == [1]
    (rejected,) = _rejected(found)
    assert "PMID 2 takes more than 96 MiB of XML" in rejected.reason


def test_gzip_bomb_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "c.xml.gz"
    head, tail = article_set([citation_xml(1), citation_xml(2, "HERE")]).split("HERE")
    path.write_bytes(gzip.compress(head.encode() + b" " * (80 << 20) + tail.encode(), 9, mtime=0))
    found = list(read_citations(path))
    assert _pmids(found) == [1]
    assert "it unpacks to more than 200 times its size" in _rejected(found)[0].reason


def test_deep_nesting_is_given_up(tmp_path: Path) -> None:
    depth = 100_000
    found = _read(tmp_path / "c.xml", article_set([citation_xml(1), citation_xml(2, "<i>" * depth + "</i>" * depth), citation_xml(3)]))
    assert _pmids(found) == [1]
    assert "Excessive depth" in _rejected(found)[0].reason


BAD_RECORDS = [
    (citation_xml(1).replace(">1</PMID>", ">x1</PMID>"), "after PMID 9", "no PMID and version that are whole numbers"),
    (citation_xml(1).replace(">1</PMID>", "></PMID>"), "after PMID 9", "no PMID and version that are whole numbers"),
    (citation_xml(0), "after PMID 9", "no PMID and version that are whole numbers"),
    (citation_xml(1, version=0), "PMID 1", "no PMID and version that are whole numbers"),
    (deletion_xml(0), "DeleteCitation after PMID 9", "PMID is not a whole number"),
    (
        "<PubmedBookArticle><BookDocument><PMID>3</PMID><Abstract><AbstractText>x</AbstractText></Abstract></BookDocument></PubmedBookArticle>",
        "PMID 3",
        "a book chapter, and not a citation",
    ),
]


@pytest.mark.parametrize(("record", "place", "reason"), BAD_RECORDS)
def test_bad_record_is_set_aside_and_the_rest_read(tmp_path: Path, record: str, place: str, reason: str) -> None:
    found = _read(tmp_path / "c.xml", article_set([citation_xml(9), record, citation_xml(11)]))
    assert _pmids(found) == [9, 11]
    assert _rejected(found) == [RejectedRecord(str(tmp_path / "c.xml"), place, reason)]


@pytest.mark.parametrize("content", [b"", b"no xml", b"<html><body/></html>", b"<a/>", b"<a><b/></a>", b"\x1f\x8bno gzip", b"   \n"])
def test_file_that_is_not_pubmeds(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.xml"
    path.write_bytes(content)
    assert not is_pubmed_xml(path)
    (rejected,) = read_citations(path)
    assert isinstance(rejected, RejectedRecord)
    assert rejected.record == "before the first record"


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"missing\.xml: cannot be opened"):
        list(read_citations(tmp_path / "missing.xml"))


def test_reading_may_be_broken_off(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml.gz", article_set(MANY))
    reading = read_citations(path)
    assert isinstance(next(reading), Citation)
    reading.close()  # type: ignore[attr-defined]


def test_bytes_read_are_told(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "c.xml.gz", article_set(MANY))
    counts: list[int] = []
    assert len(list(read_citations(path, on_read=counts.append))) == 2000
    assert sum(counts) == path.stat().st_size


def test_document_type_is_the_one_that_nlm_writes(tmp_path: Path) -> None:
    assert DOCTYPE in article_set([])
    assert _read(tmp_path / "c.xml", article_set([])) == []
