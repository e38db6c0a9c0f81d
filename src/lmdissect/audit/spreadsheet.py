"""The CSV form: written so that a spreadsheet shows it and runs nothing of it, read back as spreadsheets save it.

A cell that a spreadsheet would take for a formula is written with an apostrophe before it, and read without. So is what follows a semicolon, a tab or a line
break inside a cell: where lists are separated by semicolons, Excel splits there when the file is opened by a double click. UTF-8 with a byte order mark, by
which Excel knows the encoding.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmdissect.audit.criteria import Criterion
from lmdissect.audit.sheet_index import SheetPair, SheetTask
from lmdissect.errors import UnreadableInputError
from lmdissect.store import write_bytes

__all__ = ["MAX_CELL_CHARS", "NOT_ASKED", "guard_cell", "read_spreadsheet", "unguard_cell", "write_spreadsheet"]

MAX_CELL_CHARS = 32_767
"""Characters in one cell that Excel keeps; what is longer it cuts when it saves."""

NOT_ASKED = "n/a"
"""Stands where a question does not belong to the variant of the row."""

_SIGNS = r"=+\-@\uff0b\uff0d\uff1d\uff20"
_GUARD = re.compile(rf"""\A(?='*[{_SIGNS}\t\r\n])|(?<=[;\t\r\n])(?=['" ]*[{_SIGNS}])""")
_GUARDED = re.compile(rf"""\A'(?='*[{_SIGNS}\t\r\n])|(?<=[;\t\r\n])'(?=['" ]*[{_SIGNS}])""")
_FIXED_COLUMNS = ("sheet", "rater", "pair", "factor", "variant", "asked", "must_stay", "original", "text")
_NEEDED_COLUMNS = ("sheet", "rater", "pair")
_LAST_COLUMN = "comment"
_DELIMITERS = ",;\t"
_MAX_FIELD_CHARS = 1 << 26


def guard_cell(text: str) -> str:
    """``text`` as no spreadsheet takes it, or a part of it, for a formula; `unguard_cell` undoes it, whatever the text."""
    return _GUARD.sub("'", text)


def unguard_cell(cell: str) -> str:
    """The text of a cell that `guard_cell` wrote."""
    return _GUARDED.sub("", cell)


def write_spreadsheet(
    path: Path, pairs: Sequence[SheetPair], tasks: Mapping[str, SheetTask], criteria: Sequence[Criterion], *, sheet_fingerprint: str, rater: str
) -> None:
    """Write one rater's CSV file: one row a pair, one empty cell a question; the head names the possible answers.

    Args:
        path: The file.
        pairs: In the rater's order.
        tasks: What was asked, by variant.
        criteria: Every question that any of the variants has.
        sheet_fingerprint: Of the sheet; stands in every row.
        rater: Their name; stands in every row, and may be changed there.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([*_FIXED_COLUMNS, *(f"{criterion.name} ({'/'.join(criterion.answers)})" for criterion in criteria), _LAST_COLUMN])
    for pair in pairs:
        task = tasks[pair.variant]
        asked = task.instruction or f"change {task.factor}"
        fixed = [sheet_fingerprint, rater, pair.key, task.factor, pair.variant, asked, "; ".join(task.keeps), pair.original, pair.text]
        answers = ["" if criterion.name in task.criteria else NOT_ASKED for criterion in criteria]
        writer.writerow([guard_cell(cell) for cell in (*fixed, *answers, "")])
    write_bytes(path, stream.getvalue().encode("utf-8-sig"))


def read_spreadsheet(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV form with the lines they begin at, by column name (of a question: the name alone), cells as they were before the guard.

    Commas, semicolons and tabs are known as delimiters: spreadsheets save with that of the user's country.

    Raises:
        UnreadableInputError: The file cannot be read, is not UTF-8, no CSV, or lacks a column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
        message = f"{path}: {reason}; save it as 'CSV UTF-8'"
        raise UnreadableInputError(message) from error
    head = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    csv.field_size_limit(_MAX_FIELD_CHARS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if names is None:
                names = _column_names(path, cells)
            elif any(cell.strip() for cell in cells):
                yield line, dict(zip(names, map(unguard_cell, cells), strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"{path}: line {line}: invalid CSV ({error}); save the file again as CSV"
        raise UnreadableInputError(message) from error


def _column_names(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip().partition(" ")[0] for cell in cells]
    if missing := [name for name in _NEEDED_COLUMNS if name not in names]:
        message = f"{path}: line 1 has no column '{missing[0]}': it must be a CSV form of `lmdissect sheets make`, with its columns as they were"
        raise UnreadableInputError(message)
    return names
