"""Read training documents from JSONL, Parquet and text files, gzip or not.

.jsonl[.gz]   one object a line: `text`, and an id in `document_id`, else `id`, else `pmid` (which is kept beside the others too)
.parquet      the same columns
.txt[.gz]     one document a line

A document without an id of its own is named by its file and its line or row. Of files of the same name as many folders are told as tell them apart.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import Document, RejectedRecord

__all__ = ["read_corpus"]

_ID_FIELDS = ("document_id", "id", "pmid")
_BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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
        label = _label(path, paths)
        for where, record in _records(path):
            found = _document(record, f"{label}:{where.rpartition(' ')[2]}")
            if isinstance(found, Document) and found.document_id in seen:
                found = f"id '{found.document_id}' seen before"
            if isinstance(found, str):
                rejected.append(RejectedRecord(str(path), where, found))
                continue
            seen.add(found.document_id)
            documents.append(found)
    if not documents:
        message = (
            f"no usable document in {', '.join(map(str, paths))} ({len(rejected)} set aside; first: {rejected[0].reason if rejected else 'empty'})"
        )
        raise NothingToDoError(message)
    return documents, rejected


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
    except (ValueError, RecursionError) as error:
        return ValueError(f"not valid JSON ({error})")


def _lines(path: Path, parse: Callable[[str], object]) -> Iterator[tuple[str, object]]:
    try:
        opened = gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # noqa: SIM115 - closed by the with below
    except OSError as error:
        message = f"{path}: cannot be opened ({error.strerror or error})"
        raise UnreadableInputError(message) from error
    number = 0
    with opened as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", parse(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
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
            for index in range(batch.num_rows):
                number += 1
                yield f"row {number}", _parquet_row(batch, index)
    except (pa.ArrowException, OSError) as error:
        message = f"{path} cannot be read as Parquet ({' '.join(str(error).split())}): fetch it again"
        raise UnreadableInputError(message) from error


def _parquet_row(batch: pa.RecordBatch, index: int) -> object:
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:  # Parquet does not check what it calls a string
        return ValueError(f"not UTF-8 ({error.reason} at byte {error.start})")


def _document(record: object, name: str) -> Document | str:
    """The document, named ``name`` where it has no id, or the reason why there is none."""
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, dict):
        return "not an object with a 'text' field"
    text = record.get("text")
    if not isinstance(text, str):
        return "no 'text' field that is a string"
    if not text.strip():
        return "empty text"
    document_id, pmid = _given_id(record, _ID_FIELDS) or name, _given_id(record, ("pmid",))
    if any(_LONE_SURROGATE.search(string) for string in (text, document_id, pmid or "")):
        return "lone surrogate: not encodable as UTF-8"
    return Document(document_id, text, (pmid,) if pmid is not None and pmid != document_id else ())


def _given_id(record: dict[str, Any], names: Sequence[str]) -> str | None:
    values = (record.get(name) for name in names)
    given = (str(value) for value in values if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip())
    return next(given, None)


def _label(path: Path, paths: Sequence[Path]) -> str:
    """The file's name, with as many of its folders as tell it apart from the other files."""
    num_parts = 1
    while num_parts < len(path.parts) and any(other.parts[-num_parts:] == path.parts[-num_parts:] for other in paths if other != path):
        num_parts += 1
    return "/".join(path.parts[-num_parts:])
