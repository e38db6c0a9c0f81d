"""PubMed and MEDLINE XML (NLM DTD, 2016 to today) as a stream of citations, in constant memory.

Two forms are read: `MedlineCitationSet` (until 2016) and `PubmedArticleSet` (since 2017: baseline, update and efetch files). A citation without an
`Abstract` has no sections. `OtherAbstract` and `VernacularTitle` are ignored: they hold translations, plain-language summaries and publishers' texts.

Text of an element: all of its character data in document order, whatever inline markup stands around it (italics, sub- and superscripts, MathML);
runs of XML white space (space, tab, line feed, carriage return) become one space, nothing else is added or dropped. `10<sup>-3</sup>` is `10-3`, as in
PubMed's own text format, and a thin or no-break space stays what it is.

A file is not trusted. Nothing is fetched and no entity is expanded: a document type that declares anything of its own is refused before its first
record, because entities are how XML reads files of this machine or fills its memory.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lxml import etree

from lmdissect.bytestream import MAX_RATIO, DamagedStreamError, read_blocks
from lmdissect.corpus.citation import AbstractSection, Citation, DeletedCitation
from lmdissect.errors import UnreadableInputError
from lmdissect.records import RejectedRecord

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["MAX_ABSTRACT_CHARS", "PubmedRecord", "is_pubmed_xml", "read_citations"]

PubmedRecord = Citation | DeletedCitation | RejectedRecord

MAX_ABSTRACT_CHARS = 1_000_000
"""A longer abstract is set aside; the longest that PubMed holds have some tens of thousands."""

_MAX_RECORD_BYTES = 96 << 20  # of XML that one record may take before its file is given up: the parser holds a record whole
_MAX_PROLOG_BYTES = 1 << 20
_PROLOG_STEP_BYTES = 1 << 12
_MAX_PMID = 999_999_999
_ROOTS = ("MedlineCitationSet", "PubmedArticleSet")
_RECORDS = ("MedlineCitation", "DeleteCitation", "BookDocument")
_DECLARATION = re.compile(rb"<!(ENTITY|ATTLIST|ELEMENT|NOTATION)")
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")
_YEAR = re.compile(r"\b(1[5-9]|20)\d\d\b")
_FIELDS = {
    "Title": "Journal/Title",
    "Year": "Journal/JournalIssue/PubDate/Year",
    "MedlineDate": "Journal/JournalIssue/PubDate/MedlineDate",
    "ArticleTitle": "ArticleTitle",
    "AbstractText": "Abstract/AbstractText",
    "Language": "Language",
    "PublicationType": "PublicationTypeList/PublicationType",
}
_select_fields = etree.XPath("|".join(_FIELDS.values()))
"""All fields of an `Article`, in document order: one walk through it instead of one for each field."""

_select_mesh_terms = etree.XPath("MeshHeadingList/MeshHeading/DescriptorName/text()", smart_strings=False)
"""The most numerous field, and a plain one: taken as strings, so that no element has to be made for each of them where the file is without entities."""


class _RefusedError(Exception):
    """The file is not read on: the reason, for the user."""


def is_pubmed_xml(path: Path) -> bool:
    """Whether ``path`` is XML, gzip or not, with one of PubMed's two root elements.

    Raises:
        UnreadableInputError: The file cannot be opened.
    """
    return _root_name(path) in _ROOTS


def read_citations(path: Path, *, on_read: Callable[[int], None] | None = None) -> Iterator[PubmedRecord]:
    """Citations, deletions and records that had to be set aside, in the order of the file.

    Where the file is damaged, everything before the damage is handed out, and the damage itself is one rejected record that names the byte.

    Args:
        path: The file, gzip or not.
        on_read: Told after each block how many bytes of the file itself it took.

    Raises:
        UnreadableInputError: The file cannot be opened.
    """
    reader = _Reader(str(path))
    fault: tuple[str, str] | None = None
    try:
        for block in read_blocks(path, max_ratio=MAX_RATIO, on_read=on_read):
            yield from reader.feed(block)
        reader.close()
    except _RefusedError as error:
        fault = (reader.place(), str(error))
    except DamagedStreamError as error:
        fault = (reader.place(), f"the gzip file is damaged from byte {reader.num_bytes} of its content on ({error}); fetch it again")
    except etree.XMLSyntaxError as error:
        yield from reader.records()
        fault = (reader.place(), f"broken XML at {_position(path, error, reader.num_bytes)} ({_reason(error)}); fetch the file again")
    if fault is not None:
        yield RejectedRecord(str(path), *fault)


class _Reader:
    """One file's parser, and what is known of where it stands."""

    def __init__(self, source: str) -> None:
        self.num_bytes = 0
        self._source = source
        self._prolog: _Prolog | None = _Prolog()
        self._root: _Element | None = None
        self._num_record_bytes = 0
        self._last_pmid: int | None = None
        self._has_entities = False
        self._parser = etree.XMLPullParser(
            events=("start", "end"),
            tag=(*_ROOTS, *_RECORDS),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            remove_comments=True,
            remove_pis=True,
            huge_tree=True,  # one abstract of 50 MB must not cost the file its other records; the limits here are our own
        )

    def feed(self, block: bytes) -> list[PubmedRecord]:
        self.num_bytes += len(block)
        if self._prolog is not None:
            if not self._prolog.feed(block):
                return []
            block, self._prolog = bytes(self._prolog.content), None
        self._parse(block)
        self._num_record_bytes += len(block)
        found = self.records()
        if self._num_record_bytes > _MAX_RECORD_BYTES:
            message = f"{self._open_record()} takes more than {_MAX_RECORD_BYTES >> 20} MiB of XML: the file is not read on"
            raise _RefusedError(message)
        return found

    def close(self) -> None:
        """The file has ended.

        Raises:
            _RefusedError: It is short, and not a PubMed file.
            XMLSyntaxError: But its XML has not ended.
        """
        if self._prolog is not None:
            self._prolog.close()
            self._parse(bytes(self._prolog.content))
        self._parser.close()

    def records(self) -> list[PubmedRecord]:
        """Records that are complete; they are dropped from the tree."""
        found: list[PubmedRecord] = []
        for event, element in cast("Iterator[tuple[str, _Element]]", self._parser.read_events()):
            if self._root is None:
                self._root = element
            elif event == "end" and element is not self._root:
                found += self._read(element)
                self._num_record_bytes = 0
                element.clear()
                del self._root[:-1]  # what stands before it; its own place, with what is still to come of its article, must stay while it is parsed
        return found

    def _parse(self, block: bytes) -> None:
        """Hand a block to the parser. It does not raise for an entity without a document type, and would begin anew in the middle with the next block.

        Raises:
            XMLSyntaxError: The XML is broken.
        """
        self._parser.feed(block)
        last = self._parser.feed_error_log.last_error
        if last is not None and last.level == etree.ErrorLevels.FATAL:
            raise etree.XMLSyntaxError(last.message, last.type, last.line, last.column)  # type: ignore[call-arg]  # the stubs know SyntaxError's arguments
        self._has_entities = last is not None

    def place(self) -> str:
        """Where the reader stands, in words."""
        return "before the first record" if self._last_pmid is None else f"after PMID {self._last_pmid}"

    def _read(self, element: "_Element") -> list[PubmedRecord]:
        if element.tag == "DeleteCitation":
            return [self._deletion(entry) for entry in element.iterchildren("PMID")]
        found = _citation(element, has_entities=self._has_entities) if element.tag == "MedlineCitation" else "a book chapter, and not a citation"
        if isinstance(found, str):
            return [RejectedRecord(self._source, _named(element, self.place()), found)]
        self._last_pmid = found.pmid
        return [found]

    def _deletion(self, entry: "_Element") -> PubmedRecord:
        pmid, version = _numbers(entry)
        if pmid is None or version is None:
            return RejectedRecord(self._source, f"DeleteCitation {self.place()}", "PMID is not a whole number")
        return DeletedCitation(pmid, version)

    def _open_record(self) -> str:
        """The record that the parser is in, by its PMID where that is already known."""
        return "a record" if self._root is None or not len(self._root) else _named(self._root[-1], f"a record {self.place()}")


class _Prolog:
    """What stands before the first element, parsed apart with the library's own limits on, and refused if it declares anything."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.root_name: str | None = None
        self._num_fed = 0
        self._parser = etree.XMLPullParser(events=("start",), resolve_entities=False, no_network=True, load_dtd=False)

    def feed(self, block: bytes) -> bool:
        """Take a block; whether the first element has begun.

        Raises:
            _RefusedError: The prolog declares something, is too long, or the first element is not one of PubMed's.
            XMLSyntaxError: It is not XML.
        """
        self.content += block
        while self._num_fed < len(self.content):
            step = bytes(self.content[self._num_fed : self._num_fed + _PROLOG_STEP_BYTES])
            self._num_fed += len(step)
            if self._has_begun(functools.partial(self._parser.feed, step)):
                return True
        if len(self.content) > _MAX_PROLOG_BYTES:
            message = f"no element in its first {_MAX_PROLOG_BYTES >> 10} KiB: not a PubMed file"
            raise _RefusedError(message)
        return False

    def close(self) -> None:
        """The file has ended here: a short one may be whole.

        Raises:
            _RefusedError: As in `feed`.
            XMLSyntaxError: It is not XML.
        """
        self._has_begun(self._parser.close)

    def _has_begun(self, parse: Callable[[], object]) -> bool:
        """Whether the first element has begun after ``parse``; what is wrong behind its start is for the parser of the whole file to say."""
        try:
            parse()
        except etree.XMLSyntaxError:
            if not self._checked():
                raise
            return True
        return self._checked()

    def _checked(self) -> bool:
        for _, element in cast("Iterator[tuple[str, _Element]]", self._parser.read_events()):
            self._check(element)
            return True
        return False

    def _check(self, root: "_Element") -> None:
        self.root_name = str(root.tag)
        if found := _DECLARATION.search(etree.tostring(root.getroottree())):
            message = f"its document type declares an {found[1].decode()} of its own, which PubMed's never do: refused, and nothing it names was read"
            raise _RefusedError(message)
        if self.root_name not in _ROOTS:
            message = f"its first element is <{self.root_name}>, and not <{'> or <'.join(_ROOTS)}>: not a PubMed file"
            raise _RefusedError(message)


def _root_name(path: Path) -> str | None:
    prolog = _Prolog()
    try:
        for block in read_blocks(path):
            if not block.lstrip(b"\xef\xbb\xbf \t\r\n\0").startswith((b"<", b"\xff\xfe", b"\xfe\xff")) and not prolog.content:
                return None
            if prolog.feed(block):
                break
        else:
            prolog.close()
    except (_RefusedError, DamagedStreamError, etree.XMLSyntaxError):
        pass
    return prolog.root_name


def _citation(element: "_Element", *, has_entities: bool) -> Citation | str:
    """The citation, or the reason why it is set aside; ``has_entities``: whether the file may hold entities that nothing declares."""
    pmid, version = _numbers(next(element.iterchildren("PMID"), None))
    if pmid is None or version is None:
        return "no PMID and version that are whole numbers"
    texts: dict[str, list[str]] = {name: [] for name in _FIELDS}
    sections: list[AbstractSection] = []
    try:
        for article in element.iterchildren("Article"):
            for field in cast("list[_Element]", _select_fields(article)):
                name, text = field.tag, _text(field)
                if text and name == "AbstractText":
                    sections.append(AbstractSection(field.get("Label"), text))
                elif text:
                    texts[name].append(text)
        for term in element.iterfind("MeshHeadingList/MeshHeading/DescriptorName") if has_entities else ():
            _text(term)
    except _RefusedError as error:
        return str(error)
    if sum([len(section.text) for section in sections]) > MAX_ABSTRACT_CHARS:
        return f"its abstract is longer than {MAX_ABSTRACT_CHARS} characters"
    return Citation(
        pmid=pmid,
        version=version,
        title=" ".join(texts["ArticleTitle"]),
        sections=tuple(sections),
        languages=tuple(texts["Language"]),
        journal=" ".join(texts["Title"]),
        year=_year(texts["Year"] or texts["MedlineDate"]),
        publication_types=tuple(texts["PublicationType"]),
        mesh_terms=tuple([text.strip() for text in cast("list[str]", _select_mesh_terms(element))]),
    )


def _year(dates: Sequence[str]) -> int | None:
    """The first year in the dates of an issue: `2007`, or `2007 Nov-Dec`."""
    return next((int(found[0]) for date in dates if (found := _YEAR.search(date))), None)


def _text(element: "_Element") -> str:
    """All character data of ``element``.

    Raises:
        _RefusedError: It holds an entity that is not declared: what it stands for would be lost.
    """
    if len(element):
        for entity in element.iter(etree.Entity):
            message = f"holds the entity {entity.text}, which nothing declares"
            raise _RefusedError(message)
        text = "".join(cast("Iterator[str]", element.itertext()))
    else:
        text = element.text or ""
    if "\n" in text or "  " in text or "\t" in text or "\r" in text:
        text = _WHITE_SPACE.sub(" ", text)
    return text.strip(" ")


def _named(element: "_Element", otherwise: str) -> str:
    text = next((entry.text for entry in element.iter("PMID")), None)
    pmid = _whole_number(text)
    return otherwise if pmid is None else f"PMID {pmid}"


def _numbers(pmid: "_Element | None") -> tuple[int | None, int | None]:
    """PMID and version that a `PMID` element tells."""
    if pmid is None or len(pmid):
        return None, None
    return _whole_number(pmid.text), _whole_number(pmid.get("Version", "1"))


def _whole_number(text: str | None) -> int | None:
    """``text`` as a positive whole number of at most nine digits, or None."""
    text = (text or "").strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_PMID)) else 0
    return number or None


def _reason(error: "etree.XMLSyntaxError") -> str:
    """The parser's words, without the place, which is told apart, on one line."""
    reason = re.sub(r", line \d+, column \d+$", "", " ".join(str(error.msg).split()))
    return f"wrong encoding: {reason}" if "ncoding" in reason else reason


def _position(path: Path, error: "etree.XMLSyntaxError", num_bytes: int) -> str:
    """Byte, line and column of an error. The parser counts lines; the file is read again up to that line to count bytes."""
    line, column = error.position
    if line < 1:
        return f"or before byte {num_bytes}"
    start = lines = seen = 0
    try:
        for block in read_blocks(path):
            if lines == line - 1:
                break
            missing = line - 1 - lines
            here = block.count(b"\n")
            if here >= missing:
                index = -1
                for _ in range(missing):
                    index = block.index(b"\n", index + 1)
                start, lines = seen + index + 1, line - 1
                break
            lines, seen = lines + here, seen + len(block)
    except (DamagedStreamError, UnreadableInputError):  # the file changed, or ends before: the place is then as good as the parser knows it
        return f"line {line}, column {column}"
    return f"byte {start + max(column - 1, 0)} (line {line}, column {column})"
