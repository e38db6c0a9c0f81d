"""One rewrite, from its prompt to its outcome: look into the ledger, ask, wait, ask again, give it a name."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lmdissect.errors import LmdissectError, RunFailedError
from lmdissect.recipes import Recipe
from lmdissect.rewrite.config import RewriteConfig
from lmdissect.rewrite.generator import AtCapacityError, DialectChangedError, ForbiddenError, Generator, RequestFaultError, RewriteRequest
from lmdissect.rewrite.judging import JudgedAnswer, judge_answer
from lmdissect.rewrite.ledger import Ledger, LedgerRow
from lmdissect.rewrite.limiter import AdaptiveLimiter, LimiterClosedError, fault_wait_s
from lmdissect.rewrite.outcomes import ASKED_AGAIN, REJECTIONS, Outcome, RawAnswer
from lmdissect.rewrite.prices import Budget, BudgetReachedError
from lmdissect.rewrite.prompt import Prompt, write_prompt
from lmdissect.rewrite.server_health import ServerHealth

__all__ = ["AskedTask", "Asker", "RewriteOutcome", "RewriteTask", "begin_row", "dialect_note", "output_limit"]

_SHORTEST_LIMIT = 256
_LIMIT_STEP = 64
_TOKENS_PER_BYTE = 0.75
"""English has about 0.25: room for three times the document, or for as much in a script that takes more tokens."""
_DETAIL_CHARS = 300


@dataclass(frozen=True, slots=True)
class RewriteTask:
    """A text and the recipe to follow; several documents may have the same text, and then share one rewrite."""

    document_ids: tuple[str, ...]
    text: str
    recipe: Recipe

    @property
    def variant(self) -> str:
        """The variant that is asked for."""
        return self.recipe.variant

    @property
    def factor(self) -> str:
        """The factor it changes."""
        return self.recipe.factor

    def prompt(self, *, structured: bool) -> Prompt:
        """What is asked."""
        return write_prompt(self.recipe, self.text, structured=structured)

    def judge(self, answer: RawAnswer, prompt: Prompt, *, structured: bool, lenient: bool) -> JudgedAnswer:
        """What an answer is."""
        return judge_answer(answer, prompt, self.recipe, structured=structured, lenient=lenient)


class AskedTask(Protocol):
    """Something to ask a generator about: a rewrite, or a question of an audit."""

    @property
    def document_ids(self) -> tuple[str, ...]:
        """Documents that share the answer."""

    @property
    def text(self) -> str:
        """The text it is about; its length limits the answer's."""

    @property
    def variant(self) -> str:
        """What the ledger calls it."""

    @property
    def factor(self) -> str:
        """What the outcomes file it under."""

    def prompt(self, *, structured: bool) -> Prompt:
        """What is asked."""

    def judge(self, answer: RawAnswer, prompt: Prompt, *, structured: bool, lenient: bool) -> JudgedAnswer:
        """What an answer is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteOutcome:
    """What became of one (document, recipe).

    Attributes:
        document_id: The document.
        variant: The variant.
        factor: Factor it changes.
        outcome: Its end, by name.
        text: The rewrite; None unless ``ok``.
        attempts: Requests that were answered or given up for it.
        removed: What was taken off the answer.
        detail: What was seen or said, shortened.
        key: Key of the last of its requests in the ledger; None where nothing was asked.
        answered_by: The model as the server named it.
        input_tokens: Tokens of all its prompts, as far as the server said.
        output_tokens: Tokens of all its answers, likewise.
        cost_usd: What its requests cost, in US dollars; None where the price is not known.
    """

    document_id: str
    variant: str
    factor: str
    outcome: Outcome
    text: str | None = None
    attempts: int = 0
    removed: tuple[str, ...] = ()
    detail: str | None = None
    key: str | None = None
    answered_by: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


def output_limit(text: str, config: RewriteConfig) -> int:
    """Token limit of the answer for a document: the user's, or three quarters of its bytes (at least 256), in steps of 64."""
    if config.max_output_tokens is not None:
        return config.max_output_tokens
    return max(_SHORTEST_LIMIT, -(-int(len(text.encode()) * _TOKENS_PER_BYTE) // _LIMIT_STEP) * _LIMIT_STEP)


def begin_row(request: RewriteRequest, task: AskedTask, model: str, earlier: LedgerRow | None) -> LedgerRow:
    """The ledger row of a request that was not tried yet; what an ``earlier`` row of it may have cost stays counted."""
    return LedgerRow(
        key=request.key,
        document_id=task.document_ids[0],
        variant=task.variant,
        attempt=request.attempt,
        location=request.location,
        model=model,
        structured=request.structured,
        answer=RawAnswer(),
        tries=0,
        capacity_refusals=0,
        latency_s=0.0,
        worst_cost_usd=earlier.worst_cost_usd if earlier is not None else 0.0,
    )


def dialect_note(generator: Generator, config: RewriteConfig) -> str:
    """Name of the ledger's note on what was learned about a server."""
    return f"dialect of {generator.name} at {generator.location} (structured {config.structured})"


class Asker:
    """Asks for rewrites and names their outcomes.

    Attributes:
        num_sent: Requests sent in this run, every try counted.
        num_capacity_refusals: How many of them met a server at capacity (429).
        halted: Why no more requests are sent; None while they are.
        health: What was seen of the server.
    """

    def __init__(self, generator: Generator, config: RewriteConfig, ledger: Ledger, limiter: AdaptiveLimiter, budget: Budget) -> None:
        self.num_sent = 0
        self.num_capacity_refusals = 0
        self.halted: Exception | None = None
        self.health = ServerHealth(generator, config, ledger)
        self._generator = generator
        self._config = config
        self._ledger = ledger
        self._limiter = limiter
        self._budget = budget
        self._noted = ledger.note(dialect_note(generator, config))
        self._under_way: dict[str, asyncio.Task[LedgerRow]] = {}
        self._ending = asyncio.Event()
        self._alone = asyncio.Lock()

    @property
    def spent_usd(self) -> float | None:
        """What everything in the ledger cost, in US dollars; None where the price is not known."""
        return None if self._budget.price is None else self._budget.spent_usd

    def halt(self, reason: Exception) -> None:
        """Send no more requests; those in flight come home."""
        if self.halted is None:
            self.halted = reason
            self._ending.set()
            self._limiter.close()

    def known(self, task: AskedTask) -> list[RewriteOutcome] | None:
        """Outcomes of a task that the ledger alone decides; None where something has to be asked."""
        outcomes, request = self.as_it_stands(task)
        return outcomes if request is None else None

    def as_it_stands(self, task: AskedTask) -> tuple[list[RewriteOutcome], RewriteRequest | None]:
        """Outcomes of a task by what the ledger holds now, and the request that has to be asked next; None where there is nothing left to ask."""
        rows: list[LedgerRow] = []
        judged = JudgedAnswer(Outcome.NOT_ASKED)
        for attempt in range(self._config.attempts):
            request = self.request(task, attempt)
            row = self._ledger.find(request.key)
            if row is None:
                return self._outcomes(task, rows, judged), request
            rows.append(row)
            judged = self._judge(row, request, task)
            if not self.health.is_settled(row):
                return self._outcomes(task, rows, judged), request
            if judged.outcome not in ASKED_AGAIN:
                break
        return self._outcomes(task, rows, judged), None

    async def settle(self, task: AskedTask) -> list[RewriteOutcome]:
        """Ask until there is an outcome: one for every document of the task.

        Raises:
            LmdissectError: The ledger cannot be written.
        """
        rows: list[LedgerRow] = []
        judged = JudgedAnswer(Outcome.NOT_ASKED)
        try:
            for attempt in range(self._config.attempts):
                request, row = await self._answered(task, attempt)
                await asyncio.sleep(0)  # whoever waited for the slot sends first: judging costs time that the server can use
                rows.append(row)
                judged = self._judge(row, request, task)
                if judged.outcome not in ASKED_AGAIN:
                    break
        except LimiterClosedError:
            pass  # the run is ending: what is known so far stands, and a later run goes on from it
        except BudgetReachedError as reached:
            self.halt(reached)
        return self._outcomes(task, rows, judged)

    def request(self, task: AskedTask, attempt: int) -> RewriteRequest:
        """The request of attempt number ``attempt``, as things are known of the server now."""
        prompt = task.prompt(structured=self._generator.structured)
        return self._generator.request(
            prompt, attempt=attempt, seed=self._config.request_seed(attempt), max_output_tokens=output_limit(task.text, self._config)
        )

    async def _answered(self, task: AskedTask, attempt: int) -> tuple[RewriteRequest, LedgerRow]:
        """The request and its row, asked for where the ledger has none."""
        while True:
            request = self.request(task, attempt)
            row = self._ledger.find(request.key)
            if row is not None and self.health.is_settled(row):
                return request, row
            asking = self._under_way.get(request.key)
            try:
                if asking is not None:  # an equal request of another task is in flight: one answer for both
                    return request, await asking
                asking = self._under_way[request.key] = asyncio.ensure_future(self._ask(request, task, row))
                try:
                    return request, await asking
                finally:
                    del self._under_way[request.key]
            except DialectChangedError:
                continue

    async def _ask(self, request: RewriteRequest, task: AskedTask, earlier: LedgerRow | None) -> LedgerRow:
        """Send a request until there is an answer or it is given up; the row is committed when this returns."""
        row = begin_row(request, task, self._generator.name, earlier)
        num_faults = 0
        refused_since_s: float | None = None
        while True:
            async with self._budget.reserved(self._budget.worst_usd(request)), self._limiter.slot() as sent_at_s:
                try:
                    answer = await self._send(request, earlier)
                except AtCapacityError as busy:
                    row = replace(row, tries=row.tries + 1, capacity_refusals=row.capacity_refusals + 1)
                    refused_since_s = sent_at_s if refused_since_s is None else refused_since_s
                    if not (self._is_refused_alone(refused_since_s, earlier) or self._ends_at_capacity(sent_at_s, busy)):
                        continue
                    said = f"at capacity (429) for this request for {self._config.patience_s:g} s, while others were answered, before or meanwhile"
                    row = replace(row, answer=RawAnswer(problem=Outcome.SERVER_ERROR, detail=said))
                    await self._ledger.record(row)
                    return row
                except RequestFaultError as fault:
                    num_faults += 1
                    refused_since_s = None
                    answer = RawAnswer(problem=fault.outcome, detail=fault.detail)
                    row = self._tried(row, request, answer, sent_at_s, may_be_billed=fault.may_be_billed)
                    if self._gives_up(fault, num_faults, earlier):
                        row = self._kept(row, earlier)
                        await self._ledger.record(row)
                        return row
                    if fault.may_be_billed:
                        await self._ledger.record(self._kept(row, earlier))  # should the run end while this one waits, what it may have cost is known
                else:
                    self._limiter.succeeded()
                    row = self._tried(row, request, answer, sent_at_s, may_be_billed=answer.problem not in REJECTIONS)
                    await self._ledger.record(row)  # the slot is held until then: what a kill loses is never more than what is in flight
                    self._halt_for(self.health.saw_response(row, earlier))
                    return row
            await self._wait(fault_wait_s(self._config.seed, request.key, num_faults))

    async def _send(self, request: RewriteRequest, earlier: LedgerRow | None) -> RawAnswer:
        """Send once; one request after the other until the first answer of the run, so that what ends the run there is asked of few."""
        if not self.health.has_answered:
            async with self._alone:
                if self.halted is not None:
                    raise LimiterClosedError
                if not self.health.has_answered:
                    return await self._send_now(request, earlier)
        return await self._send_now(request, earlier)

    async def _send_now(self, request: RewriteRequest, earlier: LedgerRow | None) -> RawAnswer:
        self.num_sent += 1
        try:
            answer = await self._generator.send(request)
        except DialectChangedError as changed:
            self.num_sent -= not changed.was_sent
            raise
        except ForbiddenError as error:
            self._halt_for(self.health.saw_forbidden(error, earlier))
            answer = RawAnswer(problem=Outcome.FORBIDDEN, detail=error.detail)
        except LmdissectError as error:  # nothing more can be had from this server
            self.halt(error)
            raise LimiterClosedError from error
        if answer.problem not in REJECTIONS:
            self.health.saw_answer()  # before the row is written: another request may meet its 403 while it is
        dialect = self._generator.dialect()
        if dialect is not None and dialect != self._noted:
            self._ledger.write_note(dialect_note(self._generator, self._config), dialect)
            self._noted = dialect
        return answer

    def _halt_for(self, reason: LmdissectError | None) -> None:
        if reason is not None:
            self.halt(reason)

    def finish(self) -> None:
        """Write down what the next run has to ask for again; halts a run that failed after all."""
        self._halt_for(self.health.finish())

    def _is_refused_alone(self, refused_since_s: float, earlier: LedgerRow | None) -> bool:
        """Whether a request has met nothing but 429 for as long as the patience lasts, and the server answers others.

        One that was given up in an earlier run is given up again as soon as the run would end for it.
        """
        is_known = self.health.is_its_own_trouble(earlier)
        refused_for_s = time.monotonic() - refused_since_s
        if max(refused_for_s, self._limiter.refused_for_s if is_known else 0.0) <= self._config.patience_s:
            return False
        return is_known or self.health.has_answered_since(refused_since_s)

    def _tried(self, row: LedgerRow, request: RewriteRequest, answer: RawAnswer, sent_at_s: float, *, may_be_billed: bool) -> LedgerRow:
        """``row`` after one more try, its cost counted: by the tokens the server names, or the most it can be where it names none."""
        price, cost_usd, worst_usd = self._budget.price, 0.0, 0.0
        if price is not None and may_be_billed:
            if answer.input_tokens is not None and answer.output_tokens is not None:
                cost_usd = price.cost_usd(answer.input_tokens, answer.output_tokens)
            else:
                worst_usd = self._budget.worst_usd(request)
        self._budget.spend(cost_usd + worst_usd)
        return replace(row, answer=answer, tries=row.tries + 1, latency_s=time.monotonic() - sent_at_s, worst_cost_usd=row.worst_cost_usd + worst_usd)

    def _ends_at_capacity(self, sent_at_s: float, busy: AtCapacityError) -> bool:
        """Whether a 429 is the end of its request: it ended the run, and was perhaps about this request alone. The next run knows it then."""
        self.health.saw_capacity()
        self.num_capacity_refusals += 1
        self._limiter.refused(sent_at_s, busy.retry_after_s)
        patience_s = self._config.patience_s
        if busy.retry_after_s is not None and busy.retry_after_s > patience_s:
            message = (
                f"{self._generator.location} asks to wait {busy.retry_after_s:.0f} s (429): run the same command again after that; answers are kept"
            )
            self.halt(RunFailedError(message))
        elif self._limiter.refused_for_s > patience_s:
            message = (
                f"{self._generator.location} has been at capacity (429) for {patience_s:.0f} s: run the same command again later; answers are kept"
            )
            self.halt(RunFailedError(message))
            return self.health.has_ever_answered()
        return False

    def _gives_up(self, fault: RequestFaultError, num_faults: int, earlier: LedgerRow | None) -> bool:
        """Whether a request is not sent again after a fault; halts the run where the server, and not the request, is the trouble."""
        is_given_up, reason = self.health.saw_fault(fault, num_faults, earlier)
        self._halt_for(reason)
        return is_given_up

    def _kept(self, row: LedgerRow, earlier: LedgerRow | None) -> LedgerRow:
        """``row`` as it is written down: one that was given up before keeps the tries that it was given up after, so that it stays known as such."""
        if earlier is None or not self.health.is_its_own_trouble(earlier) or row.tries > earlier.tries:
            return row
        return replace(row, tries=earlier.tries, capacity_refusals=earlier.capacity_refusals)

    async def _wait(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), wait_s)
        except TimeoutError:
            return
        raise LimiterClosedError

    def _judge(self, row: LedgerRow, request: RewriteRequest, task: AskedTask) -> JudgedAnswer:
        return task.judge(row.answer, request.prompt, structured=row.structured, lenient=self._config.structured == "auto")

    def _outcomes(self, task: AskedTask, rows: Sequence[LedgerRow], judged: JudgedAnswer) -> list[RewriteOutcome]:
        """One outcome for every document of the task; tokens and costs stand at the first of them."""
        price = self._budget.price
        input_tokens, output_tokens = (sum(row.answer.input_tokens or 0 for row in rows), sum(row.answer.output_tokens or 0 for row in rows))
        first = RewriteOutcome(
            document_id=task.document_ids[0],
            variant=task.variant,
            factor=task.factor,
            outcome=judged.outcome,
            text=judged.text,
            attempts=len(rows),
            removed=judged.removed,
            detail=None if judged.detail is None else judged.detail[:_DETAIL_CHARS],
            key=rows[-1].key if rows else None,
            answered_by=rows[-1].answer.answered_by if rows else None,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=None if price is None else price.cost_usd(input_tokens, output_tokens) + sum(row.worst_cost_usd for row in rows),
        )
        free = None if price is None else 0.0
        return [first, *(replace(first, document_id=other, input_tokens=0, output_tokens=0, cost_usd=free) for other in task.document_ids[1:])]
