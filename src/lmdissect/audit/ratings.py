"""What raters sent back: read, checked against the sheet, and put together.

A file or an answer that cannot be used is set aside with its place and the reason; the rest counts.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdissect.audit.criteria import CRITERIA
from lmdissect.audit.sheet_index import SHEET_FILE, IndexedPair, SheetIndex, read_sheet
from lmdissect.audit.spreadsheet import NOT_ASKED, read_spreadsheet
from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import RejectedRecord

__all__ = ["AGREEMENT_FILE", "RATINGS_FILE", "RatedPair", "Ratings", "read_ratings"]

RATINGS_FILE = "ratings.parquet"
AGREEMENT_FILE = "agreement.json"
_OURS = frozenset({SHEET_FILE, AGREEMENT_FILE})
_KIND = "lmdissect-ratings"
_SUFFIXES = (".json", ".csv")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class RatedPair:
    """What one rater says of one pair.

    Attributes:
        pair: The pair, as the sheet holds it.
        answers: Answer by name of the question; a question left open is absent.
        comment: Free words; empty where there are none.
        seconds: How long the pair was in view, or None where the form does not tell (CSV).
    """

    pair: IndexedPair
    answers: Mapping[str, str]
    comment: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Ratings:
    """All answers to one sheet.

    Attributes:
        sheet: The sheet.
        folder: Where its `sheet.json` lies.
        by_rater: What each rater said, in the order of the files.
        rejected: Files and answers that were set aside.
        unanswered: Names of forms in which nothing is answered yet.
    """

    sheet: SheetIndex
    folder: Path
    by_rater: Mapping[str, Sequence[RatedPair]]
    rejected: Sequence[RejectedRecord]
    unanswered: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One pair of one file, not checked yet."""

    place: str
    key: object
    answers: Mapping[object, object]
    comment: object
    seconds: object


@dataclass(frozen=True, slots=True)
class _SentFile:
    """One file that a rater sent back."""

    path: Path
    rater: str
    entries: Sequence[_Entry]


class _Damage(Exception):  # noqa: N818 - never leaves this module: it becomes a rejected record
    """Why a file as a whole cannot be used."""


def read_ratings(paths: Sequence[Path]) -> Ratings:
    """Read what raters sent back.

    Args:
        paths: Files (JSON exports of the form, filled CSV forms) and folders that hold some. The sheet's own folder must be among them, or hold one of them.

    Raises:
        UnreadableInputError: A path is missing, or no `sheet.json` or several different ones lie with them.
        NothingToDoError: No file holds a usable answer.
    """
    sheet, folder = _find_sheet(paths)
    pairs = {pair.key: pair for pair in sheet.pairs}
    rejected: list[RejectedRecord] = []
    by_rater: dict[str, tuple[Path, Sequence[RatedPair]]] = {}
    unanswered: list[str] = []
    for path in dict.fromkeys(_answer_files(paths)):
        try:
            sent = _read_file(path, sheet.fingerprint)
        except _Damage as damage:
            rejected.append(RejectedRecord(str(path), "the file", str(damage)))
            continue
        rated = _rated_pairs(sent, sheet, pairs, rejected)
        if not rated:
            unanswered.append(path.name)
        elif sent.rater not in by_rater:
            by_rater[sent.rater] = (path, rated)
        elif by_rater[sent.rater][1] != rated:
            reason = (
                f"other answers of the rater '{sent.rater}' were read from {by_rater[sent.rater][0].name}: keep one of the two, or change the name"
            )
            rejected.append(RejectedRecord(str(path), "the file", reason))
    if not by_rater:
        seen = (
            f"; first: {rejected[0].source}: {rejected[0].reason}"
            if rejected
            else f" ({len(unanswered)} forms without answers)"
            if unanswered
            else ""
        )
        message = f"{', '.join(map(str, paths))}: no answers of a rater in it{seen}; put the files that raters send back into {folder}"
        raise NothingToDoError(message)
    return Ratings(sheet, folder, {name: rated for name, (_, rated) in by_rater.items()}, tuple(rejected), tuple(unanswered))


def _rated_pairs(sent: _SentFile, sheet: SheetIndex, pairs: Mapping[str, IndexedPair], rejected: list[RejectedRecord]) -> list[RatedPair]:
    """What can be used of one file, every pair once: a second answer to a pair is set aside, since nothing tells which of the two is meant."""
    first: dict[str, tuple[str, RatedPair]] = {}
    for entry in sent.entries:
        found = _checked(sent.path, entry, sheet, pairs, rejected)
        if found is None:
            continue
        key = found.pair.key
        if key in first:
            place, kept = first[key]
            reason = f"repeats {place}" if kept == found else f"other answers to the pair of {place}; the first are kept"
            rejected.append(RejectedRecord(str(sent.path), f"{entry.place} (pair {key})", reason))
        else:
            first[key] = (entry.place, found)
    return [found for _, found in first.values()]


def _find_sheet(paths: Sequence[Path]) -> tuple[SheetIndex, Path]:
    folders = dict.fromkeys(path.resolve() if path.is_dir() else path.resolve().parent for path in paths)
    found = {folder: read_sheet(folder / SHEET_FILE) for folder in folders if (folder / SHEET_FILE).is_file()}
    if not found:
        message = f"{', '.join(map(str, paths))}: no {SHEET_FILE} beside it; give the folder that `lmdissect sheets make` wrote as well"
        raise UnreadableInputError(message)
    first, *others = found.items()
    if different := [folder for folder, sheet in others if sheet.fingerprint != first[1].fingerprint]:
        message = f"{first[0]} and {different[0]} hold different sheets; read one at a time"
        raise UnreadableInputError(message)
    return first[1], first[0]


def _answer_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(entry.resolve() for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.name not in _OURS)
        elif path.is_file():
            yield path.resolve()
        else:
            message = f"{path}: no such file or folder; check the path"
            raise UnreadableInputError(message)


def _read_file(path: Path, fingerprint: str) -> _SentFile:
    return _read_csv(path, fingerprint) if path.suffix.lower() == ".csv" else _read_export(path, fingerprint)


def _read_export(path: Path, fingerprint: str) -> _SentFile:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        reason = f"cannot be read as JSON ({' '.join(str(error).split())}): ask the rater to save it again"
        raise _Damage(reason) from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        reason = "is not a file of answers"
        raise _Damage(reason)
    _check_origin(content.get("sheet"), fingerprint)
    rater, ratings = content.get("rater"), content.get("ratings")
    if not isinstance(rater, str) or not rater.strip() or not isinstance(ratings, list):
        reason = "has no rater or no list of ratings: ask the rater to save it again"
        raise _Damage(reason)
    return _SentFile(path, _encodable(rater.strip()), [_export_entry(number, entry) for number, entry in enumerate(ratings, start=1)])


def _export_entry(number: int, entry: Any) -> _Entry:  # noqa: ANN401 - whatever a file holds
    fields = entry if isinstance(entry, dict) else {}
    answers = fields.get("answers")
    return _Entry(
        f"rating {number}", fields.get("pair"), answers if isinstance(answers, dict) else {}, fields.get("comment", ""), fields.get("seconds")
    )


def _read_csv(path: Path, fingerprint: str) -> _SentFile:
    try:
        rows = list(read_spreadsheet(path))
    except UnreadableInputError as error:
        raise _Damage(str(error).removeprefix(f"{path}: ")) from error
    raters = sorted({row.get("rater", "").strip() for _, row in rows})
    for _, row in rows:
        _check_origin(row.get("sheet"), fingerprint)
    if len(raters) != 1 or not raters[0]:
        reason = f"names {len([name for name in raters if name])} raters in its column 'rater'; one form is one rater's"
        raise _Damage(reason)
    return _SentFile(path, raters[0], [_csv_entry(line, row) for line, row in rows])


def _csv_entry(line: int, row: Mapping[str, str]) -> _Entry:
    given = {name: row.get(name, "").strip().lower() for name in CRITERIA}
    answers: dict[object, object] = {name: answer for name, answer in given.items() if answer and answer != NOT_ASKED}
    return _Entry(f"line {line}", row.get("pair", "").strip(), answers, row.get("comment", ""), None)


def _check_origin(found: object, fingerprint: str) -> None:
    if found != fingerprint:
        reason = "holds answers to another sheet" if isinstance(found, str) and found else "does not say which sheet it answers"
        raise _Damage(reason)


def _checked(path: Path, entry: _Entry, sheet: SheetIndex, pairs: Mapping[str, IndexedPair], rejected: list[RejectedRecord]) -> RatedPair | None:
    """The usable part of one entry; None where nothing of it is. What is not usable is set aside."""
    pair = pairs.get(entry.key) if isinstance(entry.key, str) else None
    if pair is None:
        rejected.append(RejectedRecord(str(path), entry.place, f"no pair {entry.key!r} in the sheet"))
        return None
    place = f"{entry.place} (pair {pair.key})"
    answers: dict[str, str] = {}
    for name in sheet.tasks[pair.variant].criteria:
        answer = entry.answers.get(name)
        if isinstance(answer, str) and answer in CRITERIA[name].answers:
            answers[name] = answer
        elif answer is not None:
            possible = "/".join(CRITERIA[name].answers)
            rejected.append(RejectedRecord(str(path), place, f"{name} is {answer!r}, not one of {possible}; left open"))
    strange = sorted(map(str, set(entry.answers) - set(sheet.tasks[pair.variant].criteria)))
    rejected.extend(RejectedRecord(str(path), place, f"{name!r} is no question about the variant '{pair.variant}'; left out") for name in strange)
    comment = _encodable(entry.comment) if isinstance(entry.comment, str) else ""
    return RatedPair(pair, answers, comment, _duration(entry.seconds)) if answers or comment else None


def _encodable(text: str) -> str:
    """``text`` with U+FFFD for lone surrogates, which no file can hold: half an emoji must not cost the answers beside it."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _duration(seconds: object) -> float | None:
    known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= _MAX_SECONDS
    return float(seconds) if known and isinstance(seconds, (int, float)) else None
