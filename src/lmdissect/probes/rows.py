"""Rows of JSON, JSON lines, CSV and Parquet files, each with the place it stands at.

A row that cannot be parsed is handed to ``reject`` with its place and the reason, and reading goes on. Only a file of which nothing can be told
apart any more (one broken JSON document, a broken Parquet file) is an error.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmdissect.bytestream import MAX_RATIO, MAX_RECORD_BYTES, DamagedStreamError, read_bytes, read_lines
from lmdissect.errors import UnreadableInputError

__all__ = ["ROW_SUFFIXES", "Reject", "Row", "read_rows", "row_suffix"]

Reject = Callable[[str, str], None]
"""Takes the place of a record and the reason why it was set aside."""

_BATCH_ROWS = 1024
_BLANK = re.compile(r"[ \t\r\n]*")
_UNCLOSED = "unexpected end of data"


@dataclass(frozen=True, slots=True)
class Row:
    """One parsed record: where it stands in its file, and its fields."""

    place: str
    fields: Mapping[str, object]


def row_suffix(path: Path) -> str:
    """Ending that tells the format of ``path``, in lower case and without ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def read_rows(path: Path, reject: Reject) -> Iterator[Row]:
    """Rows of one file, in order.

    Args:
        path: A .json, .jsonl, .ndjson, .csv (each also .gz) or .parquet file.
        reject: Called for every record that cannot be parsed.

    Raises:
        UnreadableInputError: The file is missing, of another format, or broken as a whole.
    """
    if not path.is_file():
        message = f"{path}: no such file; check the path"
        raise UnreadableInputError(message)
    reader = _READERS.get(row_suffix(path))
    if reader is None:
        message = f"{path}: not a format we read ({', '.join(ROW_SUFFIXES)}; the text ones also .gz); rename or convert it"
        raise UnreadableInputError(message)
    yield from reader(path, reject)


def _json_lines(path: Path, reject: Reject) -> Iterator[Row]:
    for number, line in _intact_lines(path, reject):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            fields = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            reject(place, _json_reason(error))
            continue
        if isinstance(fields, dict):
            yield Row(place, fields)
        else:
            reject(place, "not a JSON object")


def _intact_lines(path: Path, reject: Reject) -> Iterator[tuple[int, bytes]]:
    """Lines up to the end, or to the damage, which is rejected as one record."""
    following = 1
    try:
        for number, line in read_lines(path, max_ratio=MAX_RATIO):
            following = number + 1
            if line is None:
                reject(f"line {number}", f"line of more than {MAX_RECORD_BYTES >> 20} MiB")
            else:
                yield number, line
    except DamagedStreamError as error:
        reject(f"line {following}", f"damaged gzip file, everything from here on is lost ({error}); fetch the file again")


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"invalid JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason} at byte {error.start})"
    if isinstance(error, RecursionError):
        return "invalid JSON (nested too deeply)"
    return f"invalid JSON ({error})"


def _json_document(path: Path, reject: Reject) -> Iterator[Row]:
    content, damage = read_bytes(path, max_ratio=MAX_RATIO)
    entries = _parse_document(path, content) if damage is None else _salvage(path, content, damage, reject)
    for number, fields in enumerate(entries, start=1):
        if isinstance(fields, dict):
            yield Row(f"entry {number}", fields)
        else:
            reject(f"entry {number}", "not a JSON object")


def _parse_document(path: Path, content: bytes) -> list[object]:
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        message = f"{path}: {_document_reason(error)}; mend that place, or fetch the file again"
        raise UnreadableInputError(message) from error
    if not isinstance(document, list):
        message = f"{path}: holds one JSON {type(document).__name__}, not a list of rows; write the rows as [{{...}}, ...]"
        raise UnreadableInputError(message)
    return document


def _document_reason(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return _json_reason(error)
    if error.msg == "Extra data":
        return f"not one JSON document (a second one begins at line {error.lineno}; one object a line needs the ending .jsonl)"
    return f"invalid JSON at line {error.lineno}, column {error.colno} ({error.msg})"


def _salvage(path: Path, content: bytes, damage: str, reject: Reject) -> list[object]:
    """Whole entries before the damage in a list whose gzip file broke off."""
    text = content.decode("utf-8-sig", "ignore")
    decoder = json.JSONDecoder()
    entries: list[object] = []
    position = _skip(text, 0, "[")
    while position < len(text):
        try:
            fields, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        entries.append(fields)
        position = _skip(text, position, ",")
    place = f"line {text.count(chr(10)) + 1}, after entry {len(entries)}"
    reject(place, f"damaged gzip file, everything from here on is lost ({damage}); fetch {path.name} again")
    return entries


def _skip(text: str, position: int, mark: str) -> int:
    """Index after white space, one ``mark`` and white space."""
    position = _BLANK.match(text, position).end()  # type: ignore[union-attr] # matches the empty text too
    return _BLANK.match(text, position + text.startswith(mark, position)).end()  # type: ignore[union-attr]


def _csv_rows(path: Path, reject: Reject) -> Iterator[Row]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    damaged: list[str] = []

    def note(place: str, reason: str) -> None:
        damaged.append(place)
        reject(place, reason)

    reader = csv.reader(_csv_lines(path, note), strict=True)
    names: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not (damaged and str(error) == _UNCLOSED):  # a quoted field cut by the damage is the damage again
                reject(f"line {start}", f"invalid CSV ({error})")
            continue
        if names is None:
            names = _header(path, cells)
        elif len(cells) > len(names):
            reject(f"line {start}", f"{len(cells)} fields under {len(names)} columns")
        elif cells:
            yield Row(f"line {start}", dict(zip(names, cells, strict=False)))


def _csv_lines(path: Path, reject: Reject) -> Iterator[str]:
    """Decoded lines; invalid bytes become lone surrogates, so that the one text that holds them is set aside and not the file."""
    for number, line in _intact_lines(path, reject):
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        message = f"{path}: line 1 names the column {twice[0]!r} twice; rename one"
        raise UnreadableInputError(message)
    return names


def _parquet_rows(path: Path, reject: Reject) -> Iterator[Row]:  # noqa: ARG001 - Parquet has no readable half
    import pyarrow as pa  # noqa: PLC0415 - slow to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        message = f"{path}: cannot be read as Parquet after row {number} ({reason}); fetch or write the file again"
        raise UnreadableInputError(message) from error


_READERS: dict[str, Callable[[Path, Reject], Iterator[Row]]] = {
    ".json": _json_document,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}

ROW_SUFFIXES = tuple(_READERS)
"""Endings of the files `read_rows` reads."""
