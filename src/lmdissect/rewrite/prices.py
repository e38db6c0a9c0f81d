"""What rewrites cost: prices from a snapshot that ships with genai-prices, or from the user; an unknown price is unknown, never 0."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

from lmdissect.errors import UserInputError
from lmdissect.rewrite.generator import Generator, RewriteRequest

__all__ = ["FREE", "Budget", "BudgetReachedError", "Price", "find_price", "generator_price", "worst_input_tokens"]

_MILLION = 1_000_000
_TOKENS_PER_TURN = 16
"""Room for what a chat template puts around one turn."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model.

    Attributes:
        input_usd: US dollars for a million tokens of prompt.
        output_usd: US dollars for a million tokens of answer.
        source: Where the numbers are from, in words.
    """

    input_usd: float
    output_usd: float
    source: str

    def cost_usd(self, input_tokens: float, output_tokens: float) -> float:
        """US dollars for so many tokens."""
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / _MILLION


FREE = Price(0.0, 0.0, "nobody is paid")


def generator_price(generator: Generator, given: Sequence[float] | None = None) -> Price | None:
    """Price of what ``generator`` writes; None where it is not known.

    Args:
        generator: The writer.
        given: The user's own (input, output) in US dollars for a million tokens; wins.
    """
    if generator.is_free:
        return FREE
    if given is not None:
        return Price(given[0], given[1], "given with --price")
    return find_price(generator.name, generator.location)


@cache
def find_price(model: str, base_url: str) -> Price | None:
    """Price of ``model`` at the provider behind ``base_url`` in the snapshot of genai-prices; None where it holds none."""
    import importlib.metadata  # noqa: PLC0415 - beside its one use

    from genai_prices import Usage, calc_price  # noqa: PLC0415 - slow to load

    tokens = 1000
    try:
        found = calc_price(Usage(input_tokens=tokens, output_tokens=tokens), model, provider_api_url=base_url)
    except LookupError:
        return None
    version = importlib.metadata.version("genai-prices")
    scale = _MILLION / tokens
    return Price(float(found.input_price) * scale, float(found.output_price) * scale, f"genai-prices {version}, {found.provider.id} {found.model.id}")


def worst_input_tokens(request: RewriteRequest) -> int:
    """More tokens than the prompt can have: a token covers at least one byte."""
    text_bytes = sum(len(text.encode()) for _, text in request.prompt.messages)
    return text_bytes + _TOKENS_PER_TURN * len(request.prompt.messages)


class BudgetReachedError(Exception):
    """The next request could pass the limit."""


class Budget:
    """Money spent, and money that requests in flight may still cost.

    Attributes:
        spent_usd: What is surely or possibly spent, in US dollars.
        price: Price of the writer; None where it is unknown.
    """

    def __init__(self, price: Price | None, max_usd: float | None, spent_usd: float) -> None:
        if max_usd is not None and price is None:
            message = "--max-cost: the price of this model is not known; give it with --price INPUT,OUTPUT (US dollars for a million tokens)"
            raise UserInputError(message)
        self.price = price
        self.spent_usd = spent_usd
        self._max_usd = max_usd
        self._reserved_usd = 0.0
        self._changed = asyncio.Event()

    def worst_usd(self, request: RewriteRequest) -> float:
        """The most that one sending of ``request`` can cost."""
        return 0.0 if self.price is None else self.price.cost_usd(worst_input_tokens(request), request.max_output_tokens)

    @asynccontextmanager
    async def reserved(self, amount_usd: float) -> AsyncIterator[None]:
        """Hold ``amount_usd`` while a request is in flight; waits while others in flight may turn out to be cheaper than feared.

        Raises:
            BudgetReachedError: Even with nothing in flight it could pass the limit.
        """
        while self._max_usd is not None and self.spent_usd + self._reserved_usd + amount_usd > self._max_usd:
            if self._reserved_usd <= 0.0:
                raise BudgetReachedError
            self._changed.clear()
            await self._changed.wait()
        self._reserved_usd += amount_usd
        try:
            yield
        finally:
            self._reserved_usd -= amount_usd
            if abs(self._reserved_usd) < 1e-12:
                self._reserved_usd = 0.0
            self._changed.set()

    def spend(self, amount_usd: float) -> None:
        """Count money as spent."""
        self.spent_usd += amount_usd
