"""Is it the requests, or is it the server? What a run has seen of its server, when that ends the run, and which ends the next run must not trust.

Nothing that a server did to many requests in a row is held against them for ever: a rejection is final where others were answered, a request that was
given up is asked again by the next run, and so is everything that met a 403, which may be about the key. What is doubted is written down when the doubt
arises, because a run may be killed at any moment; it is taken back when the request was asked again.
"""

import json
import time
from collections.abc import Iterable

from lmdissect.errors import LmdissectError, RunFailedError
from lmdissect.rewrite.config import RewriteConfig
from lmdissect.rewrite.generator import ForbiddenError, Generator, RequestFaultError
from lmdissect.rewrite.ledger import Ledger, LedgerRow
from lmdissect.rewrite.outcomes import REJECTIONS, Outcome

__all__ = ["ServerHealth"]

_REFUSED_CONNECTIONS = 2
_FAULTS_IN_A_ROW = 10
_GIVEN_UP_IN_A_ROW = 10
_REJECTED_IN_A_ROW = 10
_REJECTED_AFTER_ANSWERS = 100
_SILENCE_S = 120.0
"""A server that answered less than so many seconds ago is not down, whatever a few documents do to it."""
_HICCUP_S = 10.0
"""Faults that cost nothing and come within so many seconds may pass."""


class ServerHealth:
    """What a run has seen of its server.

    Attributes:
        num_refused_last: Requests that met a 403 and no answer to any request after it, in this run.
    """

    def __init__(self, generator: Generator, config: RewriteConfig, ledger: Ledger) -> None:
        self.num_refused_last = 0
        self._generator = generator
        self._config = config
        self._ledger = ledger
        self._in_contact = False
        self._answered_at_s: float | None = None  # monotonic; of the last answer in this run
        self._answered_before: bool | None = None
        self._faults_in_a_row = 0
        self._first_fault_at_s = 0.0
        self._given_up_in_a_row = 0
        self._rejected_in_a_row: list[str] = []
        self._wrong_key: ForbiddenError | None = None
        self._doubt_note = f"rejected by {generator.name} at {generator.location} when nothing else was answered"
        self._doubted: set[str] = set(json.loads(ledger.note(self._doubt_note) or "[]"))
        self._rejected_again: set[str] = set()

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered a request in this run."""
        return self._answered_at_s is not None

    def has_answered_since(self, moment_s: float) -> bool:
        """Whether the server has answered a request in this run after a moment (monotonic, s)."""
        return self._answered_at_s is not None and self._answered_at_s > moment_s

    def has_ever_answered(self) -> bool:
        """Whether this writer has answered a request, in this run or an earlier one."""
        if self.has_answered:
            return True
        if self._answered_before is None:
            writer = (self._generator.name, self._generator.location)
            self._answered_before = any((row.model, row.location) == writer and row.answer.problem is None for row in self._ledger.rows())
        return self._answered_before

    def is_settled(self, row: LedgerRow) -> bool:
        """Whether a row is what became of its request: no fault, no 403, and no rejection from a time when the server rejected everything."""
        if row.answer.is_fault or row.answer.problem is Outcome.FORBIDDEN:
            return False
        return not (row.answer.problem in REJECTIONS and row.key in self._doubted)

    def is_its_own_trouble(self, earlier: LedgerRow | None) -> bool:
        """Whether a request was given up in an earlier run, and the server has answered others: it says nothing about the server any more.

        A row of a run that ended before the request was given up has fewer faults than that takes.
        """
        if earlier is None or not earlier.answer.is_fault:
            return False
        num_faults = earlier.tries - earlier.capacity_refusals
        return (num_faults > self._config.fault_retries or num_faults == 0) and self.has_ever_answered()

    def saw_answer(self) -> None:
        """The server has answered a request."""
        self._answered_at_s = time.monotonic()
        self.num_refused_last = 0

    def saw_forbidden(self, error: ForbiddenError, earlier: LedgerRow | None) -> LmdissectError | None:
        """A request met a 403; gives what ends the run. A request that met one in an earlier run stops no second one: the next may be answered."""
        self.num_refused_last += 1
        if self.has_answered:
            return None
        if earlier is None or earlier.answer.problem is not Outcome.FORBIDDEN:
            return error
        self._wrong_key = error
        return None

    def saw_capacity(self) -> None:
        """A request met a 429: the server is there."""
        self._in_contact, self._given_up_in_a_row, self._faults_in_a_row = True, 0, 0

    def saw_response(self, row: LedgerRow, earlier: LedgerRow | None) -> LmdissectError | None:
        """A request has its end, an answer or a rejection; gives what ends the run."""
        self._in_contact, self._given_up_in_a_row, self._faults_in_a_row = True, 0, 0
        if row.answer.problem not in REJECTIONS:
            self._rejected_in_a_row.clear()
            self._doubted.discard(row.key)
            return None
        if row.key in self._doubted or (earlier is not None and earlier.answer.problem is Outcome.FORBIDDEN):
            self._rejected_again.add(row.key)
            if self.has_ever_answered():
                return None  # it stops no second run
        self._rejected_in_a_row.append(row.key)
        if not self.has_answered:
            self._rejected_again.add(row.key)  # doubted until the server answers others in this run
            self._doubt([row.key])
        if not self._rejects_everything:
            return None
        self._rejected_again.difference_update(self._rejected_in_a_row)  # an answer that is in flight does not settle them
        self._doubt(self._rejected_in_a_row)
        message = (
            f"{self._generator.location} rejected {len(self._rejected_in_a_row)} requests in a row ({row.answer.detail}):"
            " check the settings and run the same command again; they are asked again then"
        )
        return RunFailedError(message)

    def saw_fault(self, fault: RequestFaultError, num_faults: int, earlier: LedgerRow | None) -> tuple[bool, LmdissectError | None]:
        """A request met its ``num_faults``-th fault of this run; gives whether it is given up, and what ends the run."""
        where = self._generator.location
        if fault.refused and not self._in_contact and num_faults >= _REFUSED_CONNECTIONS:
            message = f"no server can be reached at {where} ({fault.detail}): check --base-url, and that the server runs"
            return True, RunFailedError(message)
        is_known = self.is_its_own_trouble(earlier)
        down = f"{where} does not answer any more ({fault.outcome}: {fault.detail}): run the same command again later; answers are kept"
        if not is_known and self._never_began(fault):
            return True, RunFailedError(down)
        if num_faults <= self._config.fault_retries and not (is_known and not self.has_answered):
            return False, None
        self._given_up_in_a_row += not is_known
        is_silent = self._answered_at_s is None or time.monotonic() - self._answered_at_s > _SILENCE_S
        is_down = fault.refused or (self._given_up_in_a_row >= _GIVEN_UP_IN_A_ROW and is_silent)
        return True, RunFailedError(down) if is_down else None

    def finish(self) -> LmdissectError | None:
        """Write down which rejections the next run has to ask for again; gives what this one failed of after all.

        A doubt ends where the request was asked again in this run, and others were answered in it.
        """
        if self.has_answered and not self._rejects_everything:
            self._doubted -= self._rejected_again
        self._write_doubts()
        return self._wrong_key if not self.has_ever_answered() else None

    @property
    def _rejects_everything(self) -> bool:
        """Whether the server has rejected so many requests in a row that it is not about them: ten at the start, a hundred once it has answered."""
        return len(self._rejected_in_a_row) >= (_REJECTED_AFTER_ANSWERS if self.has_answered else _REJECTED_IN_A_ROW)

    def _never_began(self, fault: RequestFaultError) -> bool:
        """Whether nothing but faults has come in this run, of whichever requests: ten in a row, unless they are free and quick."""
        if self.has_answered:
            return False
        now_s = time.monotonic()
        if not self._faults_in_a_row:
            self._first_fault_at_s = now_s
        self._faults_in_a_row += 1
        return self._faults_in_a_row >= _FAULTS_IN_A_ROW and (fault.may_be_billed or now_s - self._first_fault_at_s > _HICCUP_S)

    def _doubt(self, keys: Iterable[str]) -> None:
        self._doubted.update(keys)
        self._write_doubts()

    def _write_doubts(self) -> None:
        left = json.dumps(sorted(self._doubted))
        if left != (self._ledger.note(self._doubt_note) or "[]"):
            self._ledger.write_note(self._doubt_note, left)
