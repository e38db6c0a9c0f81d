"""Rows that are there once they are said to be, and rows that are not what they were."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from lmdissect.errors import DamagedArtifactError, OutOfSpaceError, UnusableOutputError
from lmdissect.rewrite.ledger import LEDGER_FILE, Ledger, LedgerRow
from lmdissect.rewrite.outcomes import Outcome, RawAnswer

ROW = LedgerRow(
    key="k",
    document_id="d1",
    variant="casual",
    attempt=1,
    location="http://127.0.0.1/v1",
    model="m",
    structured=True,
    answer=RawAnswer(text="Ein Text mit Ümlaut.", finish_reason="stop", answered_by="m-1", input_tokens=3, output_tokens=4),
    tries=2,
    capacity_refusals=1,
    latency_s=0.25,
    worst_cost_usd=0.5,
)


def _record(folder: Path, *rows: LedgerRow) -> None:
    async def run(ledger: Ledger) -> None:
        await asyncio.gather(*(ledger.record(row) for row in rows))

    with Ledger(folder) as ledger:
        asyncio.run(run(ledger))


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    fault = replace(ROW, key="f", answer=RawAnswer(problem=Outcome.TIMEOUT, detail="late"))
    _record(tmp_path, ROW, fault)
    with Ledger(tmp_path) as ledger:
        assert ledger.find("k") == ROW
        assert ledger.find("f") == fault
        assert ledger.find("other") is None
        assert list(ledger.rows()) == [fault, ROW]


def test_an_answer_replaces_a_fault(tmp_path: Path) -> None:
    _record(tmp_path, replace(ROW, answer=RawAnswer(problem=Outcome.SERVER_ERROR)))
    _record(tmp_path, ROW)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows()) == [ROW]


def test_what_record_returned_from_is_committed(tmp_path: Path) -> None:
    async def run(ledger: Ledger) -> None:
        for number in range(5):
            await ledger.record(replace(ROW, key=str(number)))
            other = sqlite3.connect(tmp_path / LEDGER_FILE)  # another reader sees committed rows alone
            assert other.execute("SELECT count(*) FROM requests").fetchone() == (number + 1,)
            other.close()

    with Ledger(tmp_path) as ledger:
        asyncio.run(run(ledger))


def test_many_rows_at_once_share_commits(tmp_path: Path) -> None:
    rows = [replace(ROW, key=f"{number:04d}") for number in range(2000)]
    _record(tmp_path, *rows)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows()) == rows


def test_a_changed_row_is_found_and_does_not_count(tmp_path: Path) -> None:
    _record(tmp_path, ROW, replace(ROW, key="whole"))
    connection = sqlite3.connect(tmp_path / LEDGER_FILE)
    with connection:
        connection.execute("UPDATE requests SET text = 'another text' WHERE key = 'k'")
    connection.close()
    with Ledger(tmp_path) as ledger:
        assert ledger.find("k") is None
        assert [row.key for row in ledger.rows()] == ["whole"]
        assert ledger.find("k") is None
        assert ledger.num_damaged == 1


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    _record(tmp_path, *(replace(ROW, key=f"{number:04d}") for number in range(400)))
    path = tmp_path / LEDGER_FILE
    content = bytearray(path.read_bytes())
    content[5000 : len(content) - 5000] = b"\x00" * (len(content) - 10000)
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match=r"ledger\.sqlite is damaged .*\.recover"):
        Ledger(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_text("not a database, and long enough to be looked at " * 100)
    with pytest.raises(DamagedArtifactError, match="damaged"):
        Ledger(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / LEDGER_FILE)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(UnusableOutputError, match="format version 99"):
        Ledger(tmp_path)


def test_a_full_disk_is_said_and_the_rows_before_it_are_kept(tmp_path: Path) -> None:
    """sqlite's own limit on pages gives the error that a full disk gives (SQLITE_FULL), through the same path."""
    _record(tmp_path, ROW)
    with Ledger(tmp_path) as ledger:
        pages = ledger._reader.execute("PRAGMA page_count").fetchone()[0]
        ledger._reader.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(OutOfSpaceError, match=r"disk full while writing .*ledger\.sqlite"):
            ledger.record_all([replace(ROW, key=str(number), answer=RawAnswer(text="x" * 5000)) for number in range(50)])
        assert list(ledger.rows()) == [ROW]


def test_notes(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert ledger.note("a") is None
        ledger.write_note("a", "1")
        ledger.write_note("a", "2")
    with Ledger(tmp_path) as ledger:
        assert ledger.note("a") == "2"
