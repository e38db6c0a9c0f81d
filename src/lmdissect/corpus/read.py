"""Read training documents from JSONL, Parquet and text files, gzip or not.

    .jsonl[.gz]   one object a line: `text`, and an id in `document_id`, `id` or `pmid`
    .parquet      the same columns
    .txt[.gz]     one document a line; the id is file name and line number
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import Document, RejectedRecord
from lmdissect.store import fingerprint, hash_text

__all__ = ["hash_corpus", "read_corpus"]

_ID_FIELDS = ("document_id", "id", "pmid")
_BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)


def read_corpus(paths: Sequence[Path]) -> tuple[list[Document], list[RejectedRecord]]:
    """Documents of all files, in order, and the records that were set aside.

    A record without usable text, with an id seen before, or that cannot be parsed is set aside with its file, line and reason. A gzip file that
    breaks off gives what stands before the break, and one rejected record for the rest.

    Raises:
        UnreadableInputError: A file is missing or of a kind that is not read here.
        NothingToDoError: No document is left.
    """
    documents: list[Document] = []
    rejected: list[RejectedRecord] = []
    seen: set[str] = set()
    for path in paths:
        for where, record in _records(path):
            reason = _usable(record, seen)
            if reason is not None:
                rejected.append(RejectedRecord(str(path), where, reason))
                continue
            document = _document(record, path, where)
            seen.add(document.document_id)
            documents.append(document)
    if not documents:
        message = f"no usable document in {', '.join(map(str, paths))} ({len(rejected)} set aside; first: {rejected[0].reason if rejected else 'empty'})"
        raise NothingToDoError(message)
    return documents, rejected


def hash_corpus(documents: Iterable[Document]) -> str:
    """Fingerprint of documents and their order: training depends on both."""
    return fingerprint([hash_text(f"{document.document_id}\0{document.text}") for document in documents])


def _records(path: Path) -> Iterator[tuple[str, object]]:
    """Each record with where it stands; an exception instance stands for a record that could not be read."""
    if not path.is_file():
        message = f"{path}: no such corpus file"
        raise UnreadableInputError(message)
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        yield from _lines(path, _parse_json)
    elif name.endswith(".txt"):
        yield from _lines(path, lambda line: {"text": line})
    elif name.endswith(".parquet"):
        yield from _parquet_rows(path)
    else:
        message = f"{path}: not a corpus file we read (.jsonl, .parquet or .txt, the text ones also .gz)"
        raise UnreadableInputError(message)


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        return ValueError(f"not valid JSON ({error})")


def _lines(path: Path, parse: Callable[[str], object]) -> Iterator[tuple[str, object]]:
    opened = gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")
    number = 0
    with opened as stream:
        try:
            for number, line in enumerate(stream, start=1):  # noqa: B007 - the number of the last good line is needed below
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", parse(line.decode("utf-8").rstrip("\r\n"))
                except UnicodeDecodeError as error:
                    yield f"line {number}", ValueError(f"not UTF-8 ({error.reason} at byte {error.start})")
        except _BROKEN_GZIP as error:
            yield f"after line {number}", ValueError(f"the gzip file is damaged from here on ({error}); fetch it again")


def _parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    try:
        table = pq.ParquetFile(path)
        columns = [name for name in (*_ID_FIELDS, "text") if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        message = f"{path} cannot be read as Parquet ({' '.join(str(error).split())}): fetch it again"
        raise UnreadableInputError(message) from error


def _usable(record: object, seen: set[str]) -> str | None:
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, dict):
        return "not an object with a 'text' field"
    text = record.get("text")
    if not isinstance(text, str):
        return "no 'text' field that is a string"
    if not text.strip():
        return "empty text"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "lone surrogate: not encodable as UTF-8"
    given = _given_id(record)
    return f"id '{given}' seen before" if given is not None and given in seen else None


def _given_id(record: dict[str, Any]) -> str | None:
    for name in _ID_FIELDS:
        value = record.get(name)
        if isinstance(value, (str, int)) and str(value).strip():
            return str(value)
    return None


def _document(record: object, path: Path, where: str) -> Document:
    assert isinstance(record, dict)  # noqa: S101 - _usable has checked it
    return Document(_given_id(record) or f"{path.name}:{where.removeprefix('line ').removeprefix('row ')}", record["text"])
