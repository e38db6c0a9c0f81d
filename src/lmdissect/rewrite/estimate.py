"""What a run will take, before a request is sent: requests, tokens, money, time, each low, expected and high."""

import statistics
from dataclasses import dataclass

from lmdissect.rewrite.asking import AskedTask
from lmdissect.rewrite.generator import RewriteRequest
from lmdissect.rewrite.prices import Price
from lmdissect.rewrite.run import RewriteWork

__all__ = ["Estimate", "Range", "estimate_run"]

_BYTES_PER_TOKEN = (5.0, 4.0, 3.0)
"""Few tokens, as expected, many: English is near 4."""
_LENGTH_RATIO = (0.7, 1.0)
"""Length of a rewrite as a share of its document: low, expected. High is the token limit."""
_ASKED_AGAIN = 0.05
"""Share of rewrites that are asked for a second time, where the ledger knows no better."""
_FIRST_TOKEN_S = 1.0
_TOKENS_PER_S = 50.0
"""How fast a server writes, where the ledger knows no better."""
_FEWEST_LATENCIES = 10


@dataclass(frozen=True, slots=True)
class Range:
    """Low: every answer is usable and short. Expected. High: every attempt is used, up to the token limit."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_rewrites: Outcomes that are wanted.
        num_known: Those that the ledger has.
        requests: Requests to send, faults and 429 aside.
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens of the answers.
        cost_usd: US dollars; None where the price is not known.
        price: The price; None likewise.
        wall_s: Seconds, with as many requests in flight as at the start.
        latency_is_measured: Whether seconds of an answer were taken from the ledger; else they are a guess.
    """

    num_rewrites: int
    num_known: int
    requests: Range
    input_tokens: Range
    output_tokens: Range
    cost_usd: Range | None
    price: Price | None
    wall_s: Range
    latency_is_measured: bool


def estimate_run(work: RewriteWork) -> Estimate:
    """Estimate what `rewrite_documents` would do now; nothing is sent."""
    asker = work.asker()
    missing: list[tuple[AskedTask, RewriteRequest]] = []
    num_known = 0
    for task in work.tasks:
        outcomes, request = asker.as_it_stands(task)
        if request is None:
            num_known += len(outcomes)
        else:
            missing.append((task, request))
    low, expected, high = 1.0, 1.0 + _ASKED_AGAIN, float(work.config.attempts)
    prompt_bytes = sum(sum(len(text.encode()) for _, text in request.prompt.messages) for _, request in missing)
    document_bytes = sum(len(task.text.encode()) for task, _ in missing)
    limits = sum(request.max_output_tokens for _, request in missing)
    requests = Range(low * len(missing), expected * len(missing), high * len(missing))
    inputs = Range(*(factor * prompt_bytes / per_token for factor, per_token in zip((low, expected, high), _BYTES_PER_TOKEN, strict=True)))
    outputs = Range(
        low * min(limits, _LENGTH_RATIO[0] * document_bytes / _BYTES_PER_TOKEN[0]),
        expected * min(limits, _LENGTH_RATIO[1] * document_bytes / _BYTES_PER_TOKEN[1]),
        high * limits,
    )
    latency_s = _measured_latency_s(work)
    return Estimate(
        num_rewrites=len(work.documents) * len(work.recipes),
        num_known=num_known,
        requests=requests,
        input_tokens=inputs,
        output_tokens=outputs,
        cost_usd=None if work.price is None else Range(*(_cost_usd(work.price, inputs, outputs, name) for name in ("low", "expected", "high"))),
        price=work.price,
        wall_s=Range(*(_wall_s(work, requests, outputs, latency_s, name) for name in ("low", "expected", "high"))),
        latency_is_measured=latency_s is not None,
    )


def _cost_usd(price: Price, inputs: Range, outputs: Range, name: str) -> float:
    return price.cost_usd(getattr(inputs, name), getattr(outputs, name))


def _wall_s(work: RewriteWork, requests: Range, outputs: Range, latency_s: float | None, name: str) -> float:
    most = work.config.concurrency if work.generator.max_concurrency is None else min(work.config.concurrency, work.generator.max_concurrency)
    number: float = getattr(requests, name)
    busy_s = number * latency_s if latency_s is not None else number * _FIRST_TOKEN_S + getattr(outputs, name) / _TOKENS_PER_S
    return busy_s / most


def _measured_latency_s(work: RewriteWork) -> float | None:
    """Median seconds of an answer of this writer; None where the ledger has too few."""
    writer = (work.generator.name, work.generator.location)
    found = [row.latency_s for row in work.ledger.rows() if (row.model, row.location) == writer and row.answer.problem is None]
    return statistics.median(found) if len(found) >= _FEWEST_LATENCIES else None
