"""Documents and recipes in, one named outcome for every pair out.

    OUT/.lock             held by the one process that writes
    OUT/ledger.sqlite     every request and what came of it; the only thing that is precious
    OUT/outcomes.parquet  one row per (document, recipe), made anew from the ledger by every run, however it ends
    OUT/manifest.json     settings, counts, costs; written last, by a run that came to its end

A later run with more documents or more recipes takes every answer that is there. Answers to other settings stay in the ledger, and are not used.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lmdissect.errors import InterruptedRunError, LmdissectError, NothingToDoError, RunFailedError, UnusableOutputError
from lmdissect.interrupts import StopRequest
from lmdissect.language import load_identifier
from lmdissect.progress import Progress, SilentProgress, Task
from lmdissect.recipes import Recipe
from lmdissect.records import Document
from lmdissect.rewrite.asking import AskedTask, Asker, RewriteOutcome, RewriteTask, dialect_note
from lmdissect.rewrite.config import RewriteConfig
from lmdissect.rewrite.generator import Generator
from lmdissect.rewrite.ledger import LEDGER_FILE, Ledger
from lmdissect.rewrite.limiter import AdaptiveLimiter
from lmdissect.rewrite.outcomes import Outcome
from lmdissect.rewrite.prices import Budget, BudgetReachedError, Price, find_price
from lmdissect.rewrite.summary import RewriteSummary, write_outcomes, write_summary
from lmdissect.store import lock_folder, output_folder

__all__ = ["AskedQuestions", "RewriteWork", "ask_questions", "open_work", "outcomes_as_they_stand", "rewrite_documents"]

_POLL_S = 0.1
_WORKERS_PER_SLOT = 2
"""Workers that wait out a fault hold no slot; others use it meanwhile."""


@dataclass(frozen=True, slots=True)
class RewriteWork:
    """A folder that is open for rewriting: everything a run, a dry run and a batch file need."""

    folder: Path
    documents: Sequence[Document]
    recipes: Sequence[Recipe]
    generator: Generator
    config: RewriteConfig
    price: Price | None
    ledger: Ledger
    tasks: Sequence[AskedTask] = field(default_factory=list)

    def asker(self, limiter: AdaptiveLimiter | None = None) -> Asker:
        """Something that asks, with the money that the folder has cost so far.

        Raises:
            UserInputError: There is a limit on costs, and the price is not known.
        """
        limits = limiter or AdaptiveLimiter(1, 1)
        return Asker(self.generator, self.config, self.ledger, limits, Budget(self.price, self.config.max_cost_usd, self._spent_usd()))

    def _spent_usd(self) -> float:
        """What all rows of the ledger cost, by the writer's price; rows of other writers by theirs, where it is known."""
        total_usd = 0.0
        for row in self.ledger.rows():
            own = (row.model, row.location) == (self.generator.name, self.generator.location)
            price = self.price if own else find_price(row.model, row.location)
            if price is not None:
                total_usd += price.cost_usd(row.answer.input_tokens or 0, row.answer.output_tokens or 0) + row.worst_cost_usd
        return total_usd


@dataclass(frozen=True, slots=True)
class AskedQuestions:
    """What became of questions.

    Attributes:
        outcomes: One for every document of every question, in their order.
        has_answered: Whether the writer has answered any question that the ledger holds, of these or of earlier ones.
    """

    outcomes: Sequence[RewriteOutcome]
    has_answered: bool


@contextmanager
def open_work(
    documents: Sequence[Document], recipes: Sequence[Recipe], generator: Generator, config: RewriteConfig, out: Path, *, price: Price | None = None
) -> Iterator[RewriteWork]:
    """Lock ``out`` and open its ledger.

    Raises:
        NothingToDoError: No document or no recipe.
        OutputLockedError: Another process writes there.
        UnusableOutputError: It cannot be written, or holds something else.
        DamagedArtifactError: The ledger is damaged.
    """
    if not documents or not recipes:
        message = f"nothing to rewrite: {len(documents)} documents, {len(recipes)} recipes"
        raise NothingToDoError(message)
    with _open_ledger(generator, config, out) as ledger:
        yield RewriteWork(out, documents, recipes, generator, config, price, ledger, _tasks(documents, recipes))


@contextmanager
def _open_ledger(generator: Generator, config: RewriteConfig, out: Path) -> Iterator[Ledger]:
    output_folder(out)
    if not (out / LEDGER_FILE).exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        message = f"{out} is not empty and holds no ledger of ours ({LEDGER_FILE}): choose a new or empty --out folder"
        raise UnusableOutputError(message)
    with lock_folder(out), Ledger(out) as ledger:
        generator.recall(ledger.note(dialect_note(generator, config)))
        yield ledger


def rewrite_documents(
    documents: Sequence[Document],
    recipes: Sequence[Recipe],
    generator: Generator,
    config: RewriteConfig,
    out: Path,
    *,
    price: Price | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> RewriteSummary:
    """Ask ``generator`` for every recipe of every document that the ledger in ``out`` does not answer already.

    Call it again with the same arguments to go on after whatever ended it; nothing that was answered is asked again.

    Args:
        documents: Originals; ids are unique.
        recipes: What to write of each.
        generator: Who writes.
        config: How.
        out: Folder of the ledger and the outcomes.
        price: Price of the writer; None where it is not known.
        progress: Where to report to.
        stop: Looked at all the time; once it is set nothing more is sent, and what is in flight comes home.

    Raises:
        InterruptedRunError: ``stop`` was set before everything had an outcome.
        RunFailedError: The server went away, has no quota left, or the limit on costs was reached; the disk is full.
        UserInputError: Wrong key, wrong model, or a folder that cannot be used.
    """
    shown = progress or SilentProgress()
    with open_work(documents, recipes, generator, config, out, price=price) as work:
        (out / "manifest.json").unlink(missing_ok=True)  # what is in the folder is unfinished from here on
        outcomes, asker = _settle(work, shown, stop, name="rewriting", unit="rewrites")
        if asker.halted is not None:
            write_outcomes(work, outcomes)  # without a manifest: unfinished, and yet everything that is known
        _say_why_it_ended(asker.halted, outcomes, config)
        return write_summary(work, outcomes, asker)


def ask_questions(
    questions: Sequence[AskedTask],
    generator: Generator,
    config: RewriteConfig,
    out: Path,
    *,
    price: Price | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> AskedQuestions:
    """Ask ``generator`` what the ledger in ``out`` does not answer already; as `rewrite_documents`, for anything that is no rewrite.

    Raises:
        LmdissectError: As `rewrite_documents`.
    """
    shown = progress or SilentProgress()
    with _open_ledger(generator, config, out) as ledger:
        work = RewriteWork(out, (), (), generator, config, price, ledger, questions)
        outcomes, asker = _settle(work, shown, stop, name="asking", unit="questions")
        _say_why_it_ended(asker.halted, outcomes, config)
        return AskedQuestions(outcomes, asker.health.has_ever_answered())


def _settle(work: RewriteWork, progress: Progress, stop: StopRequest | None, *, name: str, unit: str) -> tuple[list[RewriteOutcome], Asker]:
    """An outcome for every document of every task, and the asker, which knows what ended the run early.

    Raises:
        LmdissectError: The ledger cannot be written.
    """
    limiter = AdaptiveLimiter(*_slots(work.generator, work.config), seed=work.config.seed)
    asker = work.asker(limiter)
    outcomes = asyncio.run(_settle_all(work, asker, limiter, progress, stop, name=name, unit=unit))
    if (num_refused := asker.health.num_refused_last) and asker.halted is None:
        progress.say(
            f"{work.generator.location} refused the last {num_refused} requests (403): if the key is no longer good, set it right;"
            " the same command asks them again"
        )
    if work.ledger.num_damaged:
        progress.say(f"{work.ledger.path}: {work.ledger.num_damaged} rows did not match their checksums and were asked for again")
    return outcomes, asker


def outcomes_as_they_stand(work: RewriteWork) -> RewriteSummary:
    """Write outcomes by what the ledger holds, without asking anything: what is missing is ``not_asked``."""
    (work.folder / "manifest.json").unlink(missing_ok=True)
    asker = work.asker()
    return write_summary(work, [outcome for task in work.tasks for outcome in asker.as_it_stands(task)[0]], asker)


def _slots(generator: Generator, config: RewriteConfig) -> tuple[int, int]:
    most = config.max_concurrency if generator.max_concurrency is None else min(generator.max_concurrency, config.max_concurrency)
    return min(config.concurrency, most), most


def _tasks(documents: Sequence[Document], recipes: Sequence[Recipe]) -> list[RewriteTask]:
    """Every text with every recipe, document by document, so that what an ended run has is whole pairs."""
    by_text: dict[str, list[str]] = {}
    for document in documents:
        by_text.setdefault(document.text, []).append(document.document_id)
    return [RewriteTask(tuple(ids), text, recipe) for text, ids in by_text.items() for recipe in recipes]


async def _settle_all(
    work: RewriteWork, asker: Asker, limiter: AdaptiveLimiter, progress: Progress, stop: StopRequest | None, *, name: str, unit: str
) -> list[RewriteOutcome]:
    settled: dict[int, list[RewriteOutcome]] = {}
    if next(work.ledger.rows(), None) is not None:
        settled = {index: known for index, task in enumerate(work.tasks) if (known := asker.known(task)) is not None}
    remaining = iter([index for index in range(len(work.tasks)) if index not in settled])
    num_done = sum(len(known) for known in settled.values())
    total = sum(len(task.document_ids) for task in work.tasks)
    with progress.task(name, total, unit, done=num_done) as bar:
        tally = _Tally(bar, asker, limiter, settled)

        async def work_off() -> None:
            for index in remaining:  # one iterator for all workers: each takes the next task
                if asker.halted is not None:
                    return
                settled[index] = await asker.settle(work.tasks[index])
                tally.add(settled[index])

        asyncio.get_running_loop().run_in_executor(None, load_identifier)  # judging the first answer would hold up the second
        watcher = asyncio.create_task(_watch(asker, stop))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_WORKERS_PER_SLOT * _slots(work.generator, work.config)[1]):
                    group.create_task(work_off())
        except BaseExceptionGroup as errors:
            raise next((error for error in errors.exceptions if isinstance(error, LmdissectError)), errors.exceptions[0]) from errors
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            await work.generator.close()
    asker.finish()
    empty = [_not_asked(task) for task in work.tasks]
    return [outcome for index in range(len(work.tasks)) for outcome in settled.get(index, empty[index])]


class _Tally:
    """What the progress says beside the rate."""

    def __init__(self, bar: Task, asker: Asker, limiter: AdaptiveLimiter, settled: dict[int, list[RewriteOutcome]]) -> None:
        self._bar, self._asker, self._limiter = bar, asker, limiter
        outcomes = [outcome for known in settled.values() for outcome in known]
        self._num_ok = sum(outcome.outcome is Outcome.OK for outcome in outcomes)
        self._num_aside = len(outcomes) - self._num_ok

    def add(self, outcomes: Sequence[RewriteOutcome]) -> None:
        """Count the outcomes of one task and move the bar."""
        num_ok = sum(outcome.outcome is Outcome.OK for outcome in outcomes)
        self._num_ok += num_ok
        self._num_aside += sum(outcome.outcome not in {Outcome.OK, Outcome.NOT_ASKED} for outcome in outcomes)
        spent_usd = self._asker.spent_usd
        cost = "cost unknown" if spent_usd is None else f"${spent_usd:.2f}"
        self._bar.note(f"{self._num_aside} set aside, {cost}, {self._limiter.in_flight} in flight")
        self._bar.advance(sum(outcome.outcome is not Outcome.NOT_ASKED for outcome in outcomes))


async def _watch(asker: Asker, stop: StopRequest | None) -> None:
    while True:
        if stop:
            asker.halt(InterruptedRunError("stopped"))
            return
        await asyncio.sleep(_POLL_S)


def _not_asked(task: AskedTask) -> list[RewriteOutcome]:
    return [
        RewriteOutcome(document_id=document_id, variant=task.variant, factor=task.factor, outcome=Outcome.NOT_ASKED)
        for document_id in task.document_ids
    ]


def _say_why_it_ended(halted: Exception | None, outcomes: Sequence[RewriteOutcome], config: RewriteConfig) -> None:
    """Raise what ended the run early, if anything did.

    Raises:
        InterruptedRunError: The user asked for it.
        RunFailedError: The limit on costs was reached, or as the server had it.
        UserInputError: As the server had it.
    """
    if halted is None:
        return
    num_settled = sum(outcome.outcome is not Outcome.NOT_ASKED for outcome in outcomes)
    state = f"{num_settled} of {len(outcomes)} rewrites have an outcome"
    if isinstance(halted, InterruptedRunError):
        message = f"stopped: {state}; run the same command again to go on, nothing is asked twice"
        raise InterruptedRunError(message)
    if isinstance(halted, BudgetReachedError):
        message = (
            f"--max-cost {config.max_cost_usd:g}: the next request could pass it ({state}); run again with a higher one to go on, or with a --limit"
        )
        raise RunFailedError(message)
    raise halted
