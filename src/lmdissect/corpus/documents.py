"""One document of a corpus with what is known of it, whatever its source; and the columns it has on disk."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from lmdissect.corpus.citation import Citation
from lmdissect.store import hash_text

__all__ = [
    "DOCUMENT_FIELDS",
    "DOCUMENT_SCHEMA",
    "ID_FIELDS",
    "CorpusDocument",
    "citation_document",
    "given_id",
    "is_encodable",
    "own_id",
    "row_document",
    "text_fault",
    "text_id",
]

ID_FIELDS = ("document_id", "id", "pmid")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_HASH_ID_CHARS = 32
_MAX_NUMBER_CHARS = 10

DOCUMENT_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("section_labels", pa.list_(pa.string())),
        ("section_starts", pa.list_(pa.int32())),
        ("journal", pa.string()),
        ("year", pa.int32()),
        ("languages", pa.list_(pa.string())),
        ("publication_types", pa.list_(pa.string())),
        ("mesh_terms", pa.list_(pa.string())),
        ("version", pa.int32()),
        ("pmid", pa.string()),
        ("url", pa.string()),
        ("timestamp", pa.string()),
        ("source", pa.string()),
    ]
)
"""Columns of a corpus; a field that a source does not have is null."""

DOCUMENT_FIELDS = frozenset({*DOCUMENT_SCHEMA.names, *ID_FIELDS, "language"})
"""Fields of a record in a file that are read; others are not carried along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusDocument:
    """One document.

    Attributes:
        document_id: Unique within its corpus; the PMID of a PubMed citation.
        text: The text; empty where a citation has no abstract.
        title: Its title.
        section_labels: Label of each section of an abstract, None where it has none.
        section_starts: Character of ``text`` at which each of them begins (at its label, where labels are part of the text).
        journal: Title of the journal.
        year: Year of the issue.
        languages: Language codes.
        publication_types: PubMed's.
        mesh_terms: MeSH descriptors.
        version: Version of a citation.
        pmid: A PMID that is known beside another id.
        url: Where it came from.
        timestamp: When it was fetched, in the words of the source; of a source that stores it as a time, ``2019-04-25T12:57:54Z``.
    """

    document_id: str
    text: str
    title: str | None = None
    section_labels: Sequence[str | None] | None = None
    section_starts: Sequence[int] | None = None
    journal: str | None = None
    year: int | None = None
    languages: Sequence[str] | None = None
    publication_types: Sequence[str] | None = None
    mesh_terms: Sequence[str] | None = None
    version: int | None = None
    pmid: str | None = None
    url: str | None = None
    timestamp: str | None = None


def citation_document(citation: Citation, *, with_title: bool = False, with_labels: bool = False) -> CorpusDocument:
    """A citation as a document: the sections of its abstract, one space between them.

    Args:
        citation: The citation.
        with_title: Put the title on a line before the abstract.
        with_labels: Put ``LABEL: `` before each section that has one.
    """
    text = f"{citation.title}\n" if with_title and citation.title and citation.sections else ""
    starts: list[int] = []
    for number, section in enumerate(citation.sections):
        text += " " if number else ""
        starts.append(len(text))
        text += f"{section.label}: {section.text}" if with_labels and section.label else section.text
    return CorpusDocument(
        document_id=str(citation.pmid),
        text=text,
        title=citation.title or None,
        section_labels=[section.label for section in citation.sections],
        section_starts=starts,
        journal=citation.journal or None,
        year=citation.year,
        languages=citation.languages,
        publication_types=citation.publication_types,
        mesh_terms=citation.mesh_terms,
        version=citation.version,
    )


def row_document(record: object) -> CorpusDocument | str:
    """The document that a record of a file holds, or the reason why there is none.

    Its id is `document_id`, else `id`, else `pmid`; else, as in C4, a hash of `url` and `timestamp`; else a hash of its text.
    """
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, Mapping):
        return "not an object with a 'text' field"
    text = record.get("text")
    document_id = own_id(record)
    if (fault := text_fault(text, document_id)) is not None:
        return fault
    pmid = given_id(record, ("pmid",))
    language = _string(record, "language")
    return CorpusDocument(
        document_id=document_id or text_id(str(text)),
        text=str(text),
        title=_string(record, "title"),
        section_labels=_strings(record, "section_labels", with_none=True),
        section_starts=_numbers(record, "section_starts"),
        journal=_string(record, "journal"),
        year=_number(record, "year"),
        languages=_strings(record, "languages") or ([language] if language else None),
        publication_types=_strings(record, "publication_types"),
        mesh_terms=_strings(record, "mesh_terms"),
        version=_number(record, "version"),
        pmid=pmid if pmid != document_id and pmid is not None and is_encodable(pmid) else None,
        url=_string(record, "url"),
        timestamp=_timestamp(record),
    )


def text_fault(text: object, *ids: str | None) -> str | None:
    """Why a text, under its ids, cannot be a document; None where it can."""
    if not isinstance(text, str):
        return "no 'text' field that is a string"
    if not text.strip():
        return "empty text"
    if not all(is_encodable(string) for string in (text, *ids) if string is not None):
        return "lone surrogate: not encodable as UTF-8"
    return None


def given_id(record: Mapping[str, object], names: Sequence[str]) -> str | None:
    """First of the fields ``names`` that holds a string or whole number that can be an id."""
    values = (record.get(name) for name in names)
    given = (str(value) for value in values if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip())
    return next(given, None)


def own_id(record: Mapping[str, object]) -> str | None:
    """Id that a record has of its own: a field of `ID_FIELDS`, else a hash of `url` and `timestamp`."""
    return given_id(record, ID_FIELDS) or _url_id(record)


def text_id(text: str) -> str:
    """Id of a document that has none of its own: a hash of its text, whatever file it stands in and whatever stands beside it."""
    return hash_text(text)[:_HASH_ID_CHARS]


def is_encodable(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: a lone surrogate cannot."""
    return _LONE_SURROGATE.search(text) is None


def _url_id(record: Mapping[str, object]) -> str | None:
    url = record.get("url")
    if not isinstance(url, str) or not url.strip():
        return None
    timestamp = record.get("timestamp")
    told = _timestamp(record) if isinstance(timestamp, datetime) else timestamp
    named = f"{url}\n{told if told is not None else ''}"
    return hash_text(named)[:_HASH_ID_CHARS] if is_encodable(named) else None


def _timestamp(record: Mapping[str, object]) -> str | None:
    """A time in C4's own form, so that a document has the same id in JSON lines and in Parquet; without a time zone it is taken for UTC."""
    value = record.get("timestamp")
    if not isinstance(value, datetime):
        return _string(record, "timestamp")
    return (value.astimezone(UTC) if value.tzinfo is not None else value).replace(tzinfo=None).isoformat() + "Z"


def _string(record: Mapping[str, object], name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) and value.strip() and is_encodable(value) else None


def _number(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    if isinstance(value, str):  # CSV knows no numbers
        digits = value.strip()
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_NUMBER_CHARS else None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31 else None


def _strings(record: Mapping[str, object], name: str, *, with_none: bool = False) -> list[str] | None:
    value = record.get(name)
    fits = isinstance(value, list) and all((isinstance(entry, str) and is_encodable(entry)) or (with_none and entry is None) for entry in value)
    return value if fits and isinstance(value, list) else None


def _numbers(record: Mapping[str, object], name: str) -> list[int] | None:
    value = record.get(name)
    fits = isinstance(value, list) and all(isinstance(entry, int) and 0 <= entry < 1 << 31 for entry in value)
    return value if fits and isinstance(value, list) else None
