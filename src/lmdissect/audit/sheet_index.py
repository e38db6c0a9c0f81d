"""What a sheet holds: its pairs, the tasks behind them, and the file by which answers are checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmdissect.errors import UnreadableInputError

__all__ = ["SHEET_FILE", "IndexedPair", "SheetIndex", "SheetPair", "SheetTask", "read_sheet"]

SHEET_FILE = "sheet.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SheetTask(_Frozen):
    """What the writer of a variant was asked to do, and what readers are asked about it."""

    factor: str
    instruction: str
    keeps: tuple[str, ...]
    criteria: tuple[str, ...]


class IndexedPair(_Frozen):
    """One pair of a sheet, by the hashes of its texts."""

    key: str
    document_id: str
    variant: str
    original_sha256: str
    text_sha256: str


class SheetIndex(_Frozen):
    """Content of `sheet.json`."""

    schema_version: Literal[1]
    fingerprint: str
    tasks: dict[str, SheetTask]
    pairs: tuple[IndexedPair, ...]


@dataclass(frozen=True, slots=True)
class SheetPair:
    """One pair of texts. Its key stands for it wherever a document id could be mangled, as spreadsheets do with long numbers."""

    key: str
    document_id: str
    variant: str
    original: str
    text: str


def read_sheet(path: Path) -> SheetIndex:
    """Content of a `sheet.json`.

    Raises:
        UnreadableInputError: It is missing or not what this program wrote.
    """
    try:
        index = SheetIndex.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        message = f"{path}: cannot be read as a sheet ({reason}); it must be the file that `lmdissect sheets make` wrote"
        raise UnreadableInputError(message) from error
    return index
