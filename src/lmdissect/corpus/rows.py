"""Records of JSON lines, CSV, text and Parquet files, each with where it stands. What cannot be read is one record that says why.

.jsonl .ndjson .json   one JSON object a line (C4's files are named .json.gz)
.csv .tsv              a header line with a column `text`
.txt                   one document a line
.parquet               a column `text`

All but Parquet also as .gz.
"""

import csv
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.bytestream import MAX_RATIO, MAX_RECORD_BYTES, DamagedStreamError, read_lines
from lmdissect.errors import UnreadableInputError

__all__ = ["ROW_FORMATS", "read_rows", "row_format"]

ROW_FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")
_TOO_LONG = f"longer than {MAX_RECORD_BYTES >> 20} MiB"
_WITH_NUL = "holds a NUL byte: not text, or not UTF-8"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BATCH_ROWS = 1024

OnRead = Callable[[int], None]


def row_format(path: Path) -> str | None:
    """Ending of ``path`` that says how its records are stored (``.jsonl``), or None."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in ROW_FORMATS if name.endswith(ending)), None)


def read_rows(path: Path, fields: Collection[str], *, on_read: OnRead | None = None) -> Iterator[tuple[str, object]]:
    """Each record with where it stands ("line 7"); a ValueError instance stands for a record that could not be read.

    Args:
        path: The file.
        fields: Columns that are wanted; of Parquet, no others are read.
        on_read: Told now and then how many more bytes of the file were read.

    Raises:
        UnreadableInputError: The file cannot be opened, is of none of these forms, is UTF-16, or is CSV without a column ``text``.
    """
    ending = row_format(path)
    if ending == ".parquet":
        yield from _parquet_rows(path, fields, on_read)
    elif ending in {".csv", ".tsv"}:
        yield from _csv_rows(path, "," if ending == ".csv" else "\t", on_read)
    elif ending == ".txt":
        yield from _parsed_lines(path, lambda line: {"text": line}, on_read)
    elif ending is not None:
        yield from _parsed_lines(path, _parse_json, on_read)
    else:
        message = f"{path}: not a corpus file we read ({', '.join(ROW_FORMATS)}, the text ones also .gz)"
        raise UnreadableInputError(message)


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"not valid JSON ({error})")


def _refuse_utf16(path: Path, first_line: bytes) -> None:
    if first_line.startswith(_UTF16_MARKS):
        message = f"{path}: encoded as UTF-16, and UTF-8 is read: convert it (iconv -f UTF-16 -t UTF-8)"
        raise UnreadableInputError(message)


def _parsed_lines(path: Path, parse: Callable[[str], object], on_read: OnRead | None) -> Iterator[tuple[str, object]]:
    number = 0
    try:
        for number, line in read_lines(path, max_ratio=MAX_RATIO, on_read=on_read):
            if line is None:
                yield f"line {number}", ValueError(_TOO_LONG)
                continue
            if number == 1:
                _refuse_utf16(path, line)
            if b"\0" in line:
                yield f"line {number}", ValueError(_WITH_NUL)
            elif line.strip():
                try:
                    yield f"line {number}", parse(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
                except UnicodeDecodeError as error:
                    yield f"line {number}", ValueError(f"not UTF-8 ({error.reason} at byte {error.start})")
    except DamagedStreamError as error:
        yield f"after line {number}", ValueError(f"the gzip file is damaged from here on ({error}); fetch it again")


class _CsvLines:
    """Lines for the CSV reader. Bytes that are not UTF-8 come through as lone surrogates, by which their record is known later."""

    def __init__(self, path: Path, on_read: OnRead | None) -> None:
        self.damage: str | None = None
        self.too_long = False
        self._path = path
        self._lines = read_lines(path, max_ratio=MAX_RATIO, on_read=on_read)

    def __iter__(self) -> Iterator[str]:
        try:
            for number, line in self._lines:
                if line is None:
                    self.too_long = True
                    return  # where its quotes end is not known, so neither is where the next record begins
                if number == 1:
                    _refuse_utf16(self._path, line)
                yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
        except DamagedStreamError as error:
            self.damage = str(error)


def _csv_rows(path: Path, delimiter: str, on_read: OnRead | None) -> Iterator[tuple[str, object]]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    lines = _CsvLines(path, on_read)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        header = [str(error)]
    if "text" not in header:
        message = f"{path}: its first line names no column 'text'; add a header line, or rename the column"
        raise UnreadableInputError(message)
    while True:
        start = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield f"line {start}", ValueError(f"not valid CSV ({error})")
            continue
        if row is None:
            break
        if row:
            yield f"line {start}", _csv_record(row, header)
    if lines.too_long:
        yield f"after line {rows.line_num}", ValueError(f"a line {_TOO_LONG}: the file is not read on")
    if lines.damage is not None:
        yield f"after line {rows.line_num}", ValueError(f"the gzip file is damaged from here on ({lines.damage}); fetch it again")


def _csv_record(row: list[str], header: list[str]) -> dict[str, str] | ValueError:
    if len(row) != len(header):
        return ValueError(f"{len(row)} fields, and the header has {len(header)}")
    return ValueError(_WITH_NUL) if any("\0" in field for field in row) else dict(zip(header, row, strict=True))


def _parquet_rows(path: Path, fields: Collection[str], on_read: OnRead | None) -> Iterator[tuple[str, object]]:
    try:
        table = pq.ParquetFile(path)
        columns = [name for name in table.schema_arrow.names if name in fields]
        number = 0
        for group in range(table.num_row_groups):
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
                for row in _batch_rows(batch):
                    number += 1
                    yield f"row {number}", row
            if on_read is not None:
                on_read(path.stat().st_size // table.num_row_groups)
    except (pa.ArrowException, OSError) as error:
        message = f"{path} cannot be read as Parquet ({' '.join(str(error).split())}): fetch it again"
        raise UnreadableInputError(message) from error


def _batch_rows(batch: pa.RecordBatch) -> list[object]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_row(batch, index) for index in range(batch.num_rows)]


def _row(batch: pa.RecordBatch, index: int) -> object:
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:  # Parquet does not check what it calls a string
        return ValueError(f"not UTF-8 ({error.reason} at byte {error.start})")
