"""The ledger of requests: one row for every request that was paid for or given up, in sqlite, never lost and never sent twice.

    OUT/ledger.sqlite     journal mode WAL, synchronous FULL
      requests            one row per request, keyed by the hash of what was sent and where
      notes               what was learned about a server, by name

One thread writes. It takes everything that is waiting, commits it in one transaction, and only then tells those who wait: an answer counts once it is
committed. While one commit is at the disk the next group gathers, so many requests share the price of one. Every row carries a checksum of its own.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lmdissect.errors import DamagedArtifactError, LmdissectError, OutOfSpaceError, RunFailedError, UnusableOutputError
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.store import fingerprint

__all__ = ["LEDGER_FILE", "Ledger", "LedgerRow"]

LEDGER_FILE = "ledger.sqlite"

_FORMAT_VERSION = 1
_LARGEST_GROUP = 1000
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One request and what came of it.

    Attributes:
        key: Hash of the request as it was sent, and where to.
        document_id: Document it was for (the first one, where several have the same text).
        variant: Variant it asked for.
        attempt: Number of the attempt, from 0.
        location: Where it was sent.
        model: The model, as the user named it.
        structured: Whether JSON was asked for.
        answer: What came back.
        tries: How often it was sent until then, in that run; where it was given up before, in the run that gave it up.
        capacity_refusals: How many of those met a server at capacity.
        latency_s: Seconds the last try took.
        worst_cost_usd: What its unanswered tries may have cost at most, in US dollars; 0 where nothing is paid or the price is unknown.
    """

    key: str
    document_id: str
    variant: str
    attempt: int
    location: str
    model: str
    structured: bool
    answer: RawAnswer
    tries: int
    capacity_refusals: int
    latency_s: float
    worst_cost_usd: float = 0.0


_ANSWER_COLUMNS = tuple(field.name for field in fields(RawAnswer))
_COLUMNS = tuple(field.name for field in fields(LedgerRow) if field.name != "answer") + _ANSWER_COLUMNS
_INSERT = f"INSERT OR REPLACE INTO requests ({', '.join((*_COLUMNS, 'checksum'))}) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"  # noqa: S608 - our names
_SELECT = f"SELECT {', '.join((*_COLUMNS, 'checksum'))} FROM requests"  # noqa: S608 - our names
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
  key TEXT PRIMARY KEY, document_id TEXT NOT NULL, variant TEXT NOT NULL, attempt INTEGER NOT NULL, location TEXT NOT NULL, model TEXT NOT NULL,
  structured INTEGER NOT NULL, tries INTEGER NOT NULL, capacity_refusals INTEGER NOT NULL, latency_s REAL NOT NULL, worst_cost_usd REAL NOT NULL,
  problem TEXT, text TEXT, refusal TEXT, finish_reason TEXT, answered_by TEXT, input_tokens INTEGER, output_tokens INTEGER, detail TEXT,
  checksum TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def _checksum(values: tuple[Any, ...]) -> str:
    return fingerprint(list(values))


def _to_values(row: LedgerRow) -> tuple[Any, ...]:
    flat = {**{field.name: getattr(row, field.name) for field in fields(LedgerRow)}, **asdict(row.answer), "structured": int(row.structured)}
    flat["problem"] = None if row.answer.problem is None else row.answer.problem.value
    flat["latency_s"], flat["worst_cost_usd"] = float(row.latency_s), float(row.worst_cost_usd)
    return tuple(flat[name] for name in _COLUMNS)


def _from_values(values: tuple[Any, ...]) -> LedgerRow:
    flat = dict(zip(_COLUMNS, values, strict=True))
    answer = {name: flat.pop(name) for name in _ANSWER_COLUMNS}
    answer["problem"] = None if answer["problem"] is None else Outcome(answer["problem"])
    return LedgerRow(**{**flat, "structured": bool(flat["structured"])}, answer=RawAnswer(**answer))


class Ledger:
    """The ledger of one folder, held by one process (the caller holds the folder's lock).

    Attributes:
        path: The file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER_FILE
        self._damaged: set[str] = set()
        self._reader = self._open()
        with self._errors():
            self._check()
        self._inbox: queue.SimpleQueue[tuple[LedgerRow, Callable[[BaseException | None], None]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="ledger", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        self._inbox.put(None)
        self._writer.join()
        self._reader.close()

    @property
    def num_damaged(self) -> int:
        """Rows found not to match their checksum, each counted once; they count as never answered."""
        return len(self._damaged)

    def find(self, key: str) -> LedgerRow | None:
        """The row of a request; None where there is none, or it is damaged."""
        with self._errors():
            found = self._reader.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
        return None if found is None else self._verified(found)

    def rows(self) -> Iterator[LedgerRow]:
        """All rows that match their checksums, by key."""
        with self._errors():
            for found in self._reader.execute(f"{_SELECT} ORDER BY key"):
                row = self._verified(found)
                if row is not None:
                    yield row

    def note(self, name: str) -> str | None:
        """What was written down under ``name``."""
        with self._errors():
            found = self._reader.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def write_note(self, name: str, value: str) -> None:
        """Write ``value`` down under ``name``."""
        with self._errors(), self._reader:
            self._reader.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))

    async def record(self, row: LedgerRow) -> None:
        """Write a row; returns once it is committed.

        Raises:
            OutOfSpaceError: The disk is full.
            RunFailedError: The file cannot be written.
        """
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()

        def done(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(_settle, committed, error)

        self._inbox.put((row, done))
        await committed

    def record_all(self, rows: list[LedgerRow]) -> None:
        """Write many rows in one transaction, now.

        Raises:
            OutOfSpaceError: The disk is full.
            RunFailedError: The file cannot be written.
        """
        with self._errors(), self._reader:
            self._reader.executemany(_INSERT, [self._sealed(row) for row in rows])

    def _verified(self, found: tuple[Any, ...]) -> LedgerRow | None:
        *values, checksum = found
        if _checksum(tuple(values)) == checksum:
            return _from_values(tuple(values))
        self._damaged.add(str(values[_COLUMNS.index("key")]))
        return None

    @staticmethod
    def _sealed(row: LedgerRow) -> tuple[Any, ...]:
        values = _to_values(row)
        return (*values, _checksum(values))

    def _open(self) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(self.path, timeout=60.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _check(self) -> None:
        if (found := self._reader.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        version = int(self._reader.execute("PRAGMA user_version").fetchone()[0])
        if version not in {0, _FORMAT_VERSION}:
            message = f"{self.path} has the format version {version}, and this program reads {_FORMAT_VERSION}: choose another --out"
            raise UnusableOutputError(message)
        with self._reader:
            self._reader.executescript(_TABLES)
            self._reader.execute(f"PRAGMA user_version={_FORMAT_VERSION}")

    def _write_all(self) -> None:
        """What the writer thread does until it gets None."""
        connection: sqlite3.Connection | None = None
        ended = False
        while not ended:
            group = [self._inbox.get()]
            while len(group) < _LARGEST_GROUP and not self._inbox.empty():
                group.append(self._inbox.get())
            ended = None in group
            waiting = [entry for entry in group if entry is not None]
            failure: BaseException | None = None
            try:
                with self._errors():
                    connection = connection or self._open()
                    with connection:
                        connection.executemany(_INSERT, [self._sealed(row) for row, _ in waiting])
            except Exception as error:  # noqa: BLE001 - whoever waits for the commit must hear of it, whatever it is
                failure = error
            for _, done in waiting:
                done(failure)
        if connection is not None:
            connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn sqlite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._named(error) from error

    def _named(self, error: sqlite3.Error) -> LmdissectError:
        name = getattr(error, "sqlite_errorname", "")
        reason = " ".join(str(error).split())
        if name in _FULL:
            return OutOfSpaceError(
                f"disk full while writing {self.path} ({reason}): free some space and run the same command again; answers that were counted are kept"
            )
        if name in _DAMAGED or (not name and type(error) is sqlite3.DatabaseError):
            return DamagedArtifactError(
                f"{self.path} is damaged ({reason}): put back a copy, or mend it with `sqlite3 ledger.sqlite .recover`; deleting it pays for every answer again"
            )
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            return UnusableOutputError(f"cannot write {self.path}: {reason}; choose another --out")
        return RunFailedError(f"{self.path}: {reason} ({name}): run the same command again; answers that were counted are kept")


def _settle(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
