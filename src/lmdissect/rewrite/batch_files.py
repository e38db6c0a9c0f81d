"""Request files of the OpenAI Batch API, and the files that come back.

Export writes one line for every request that the ledger does not answer: ``custom_id`` is the request's key, ``body`` the very body that would be sent.
Import takes the answers into the ledger. Both can be repeated: what is there already is left alone. A request whose answer was no rewrite is in the next
export with its next seed. The ledger remembers what was exported and has not come back: a second export of that is counted, as it would be paid twice.
It remembers the hashes of the files, too: an export replaces and deletes files of its own alone, and a file of the same name may hold paid answers.
"""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmdissect.errors import NothingToDoError, UnreadableInputError, UnusableOutputError, UserInputError
from lmdissect.records import RejectedRecord
from lmdissect.rewrite.asking import AskedTask, begin_row
from lmdissect.rewrite.endpoint import CHAT_PATH
from lmdissect.rewrite.generator import RewriteRequest
from lmdissect.rewrite.ledger import LedgerRow
from lmdissect.rewrite.outcomes import REJECTIONS, Outcome, RawAnswer
from lmdissect.rewrite.responses import Trouble, read_completion_object, read_error, read_trouble
from lmdissect.rewrite.run import RewriteWork
from lmdissect.store import hash_file, write_bytes

__all__ = ["BatchExport", "BatchImport", "export_batch", "import_batch"]

_MOST_REQUESTS = 50_000
_MOST_BYTES = 190_000_000
"""What one file may hold: the API's limits are 50,000 requests and 200 MB."""
_OK = 200
_PENDING_NOTE = "in an exported batch file, and not come back"
_FILES_NOTE = "hashes of exported batch files"


@dataclass(frozen=True, slots=True)
class BatchExport:
    """What was written.

    Attributes:
        files: The files.
        num_requests: Requests in them.
        num_pending: How many of those were in an earlier export, and no line of a batch's output has come back for them: whoever runs both pays twice.
    """

    files: tuple[Path, ...]
    num_requests: int
    num_pending: int = 0


@dataclass(slots=True)
class BatchImport:
    """What was in a batch's output.

    Attributes:
        num_taken: Answers that are in the ledger now.
        num_known: Answers that it had already.
        num_faults: Lines without an answer (expired, server error): their requests are in the next export.
        rejected: Lines that are set aside.
    """

    num_taken: int = 0
    num_known: int = 0
    num_faults: int = 0
    rejected: list[RejectedRecord] = field(default_factory=list)


def export_batch(work: RewriteWork, path: Path) -> BatchExport:
    """Write what has to be asked next to ``path`` (and ``-2``, ``-3``, where one file may not hold it all).

    Parts of an earlier, larger export are deleted: their requests would be paid for again.

    Raises:
        UnusableOutputError: A file is in the way that no export of this folder wrote; nothing was written or deleted.
        UserInputError: The generator is no server.
        NothingToDoError: The ledger answers everything.
    """
    if work.generator.is_free:
        message = "--batch-export: only requests to a server can be put into a batch: give --model and --base-url, not --generator"
        raise UserInputError(message)
    asker = work.asker()
    requests: dict[str, RewriteRequest] = {}
    for task in work.tasks:
        _, request = asker.as_it_stands(task)
        if request is not None:
            requests.setdefault(request.key, request)
    if not requests:
        message = f"nothing to export: the ledger in {work.folder} has an outcome for everything; run without --batch-export to write the probe set"
        raise NothingToDoError(message)
    hashes = [hashlib.sha256(content).hexdigest() for content in _parts(requests)]
    files = [_part_path(path, number) for number in range(1, len(hashes) + 1)]
    stale = _later_parts(path, len(files))
    own = set(json.loads(work.ledger.note(_FILES_NOTE) or "[]"))
    _check_ours([*files, *stale], own)
    work.ledger.write_note(_FILES_NOTE, json.dumps(sorted(own.union(hashes))))  # before the files: what a killed export wrote is known
    for part, content in zip(files, _parts(requests), strict=True):
        write_bytes(part, content)
    for part in stale:
        part.unlink()
    pending = _pending(work)
    work.ledger.write_note(_PENDING_NOTE, json.dumps(sorted(pending | requests.keys())))
    return BatchExport(tuple(files), len(requests), len(pending & requests.keys()))


def _check_ours(paths: Iterable[Path], own: Collection[str]) -> None:
    """Check that files which would be replaced or deleted are as an export wrote them.

    Raises:
        UnusableOutputError: One is not.
    """
    for path in paths:
        if path.exists() and not (path.is_file() and hash_file(path) in own):
            message = (
                f"--batch-export: {path} is in the way, and no export of this folder wrote it (answers that were downloaded?):"
                " move it away, or choose another name"
            )
            raise UnusableOutputError(message)


def _later_parts(path: Path, num_parts: int) -> list[Path]:
    """What stands where further parts of an export would."""
    there = (_part_path(path, number) for number in itertools.count(num_parts + 1))
    return list(itertools.takewhile(lambda part: part.exists(), there))


def _part_path(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _pending(work: RewriteWork) -> set[str]:
    return set(json.loads(work.ledger.note(_PENDING_NOTE) or "[]"))


def _parts(requests: dict[str, RewriteRequest]) -> Iterator[bytes]:
    lines: list[bytes] = []
    size_bytes = 0
    for key, request in requests.items():
        head = json.dumps({"custom_id": key, "method": "POST", "url": f"/v1{CHAT_PATH}"})[:-1].encode()
        line = head + b', "body": ' + request.body + b"}\n"
        if lines and (len(lines) == _MOST_REQUESTS or size_bytes + len(line) > _MOST_BYTES):
            yield b"".join(lines)
            lines, size_bytes = [], 0
        lines.append(line)
        size_bytes += len(line)
    yield b"".join(lines)


def import_batch(work: RewriteWork, path: Path) -> BatchImport:
    """Take the answers in ``path`` (a batch's output or error file) into the ledger.

    Lines that answer no request of this command line are set aside: another model, another setting, another document.

    Raises:
        UnreadableInputError: The file cannot be read.
    """
    expected = _expected(work)
    found = BatchImport()
    rows: dict[str, LedgerRow] = {}
    for place, content in _lines(path):
        key = content.get("custom_id") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(key, str):
            found.rejected.append(RejectedRecord(str(path), place, f"no line of a batch's output: {content}"[:200]))
        elif key not in expected:
            found.rejected.append(RejectedRecord(str(path), place, "answers no request of this command line (another model, setting or document?)"))
        elif _is_answered(work, rows, key):
            found.num_known += 1
        else:
            task, request = expected[key]
            begun = begin_row(request, task, work.generator.name, rows.get(key) or work.ledger.find(key))
            rows[key] = replace(begun, answer=_answer(content), tries=1)
    work.ledger.record_all(list(rows.values()))
    if (pending := _pending(work)) & rows.keys():
        work.ledger.write_note(_PENDING_NOTE, json.dumps(sorted(pending - rows.keys())))
    found.num_faults = sum(row.answer.is_fault for row in rows.values())
    found.num_taken = len(rows) - found.num_faults
    return found


def _expected(work: RewriteWork) -> dict[str, tuple[AskedTask, RewriteRequest]]:
    """Every request that the command line could have exported."""
    asker = work.asker()
    table: dict[str, tuple[AskedTask, RewriteRequest]] = {}
    for task in work.tasks:
        for attempt in range(work.config.attempts):
            request = asker.request(task, attempt)
            table.setdefault(request.key, (task, request))
    return table


def _is_answered(work: RewriteWork, rows: dict[str, LedgerRow], key: str) -> bool:
    row = rows.get(key) or work.ledger.find(key)
    return row is not None and not row.answer.is_fault and row.answer.problem not in REJECTIONS  # what was rejected may be exported again


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); give the output file of a batch"
        raise UnreadableInputError(message) from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"line {number}", f"not JSON ({error})"


def _answer(content: dict[str, Any]) -> RawAnswer:
    response = content.get("response")
    if not isinstance(response, dict):
        code, _, said = read_error(content)
        return RawAnswer(problem=Outcome.SERVER_ERROR, detail=f"batch: {code} {said}".strip())
    status, body = response.get("status_code"), response.get("body")
    if status == _OK:
        return read_completion_object(body)
    code, _, said = read_error(body)
    shown = f"batch: HTTP {status}: {said}"
    match read_trouble(status if isinstance(status, int) else 500, code):
        case Trouble.BAD_REQUEST:
            return RawAnswer(problem=Outcome.BAD_REQUEST, detail=shown)
        case Trouble.FILTERED:
            return RawAnswer(problem=Outcome.CONTENT_FILTER, detail=shown)
    return RawAnswer(problem=Outcome.SERVER_ERROR, detail=shown)
