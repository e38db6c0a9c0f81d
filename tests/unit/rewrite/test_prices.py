"""Money: known, unknown, given, and never passed."""

import asyncio

import pytest

from lmdissect.errors import UserInputError
from lmdissect.rewrite import ChatEndpoint, ScriptedGenerator, generator_price
from lmdissect.rewrite.prices import FREE, Budget, BudgetReachedError, Price, find_price, worst_input_tokens
from lmdissect.rewrite.prompt import write_prompt
from rewriting import CASUAL

PRICE = Price(1.0, 2.0, "a test")


def test_the_snapshot_knows_openai_and_no_server_of_ones_own() -> None:
    price = find_price("gpt-4o", "https://api.openai.com/v1")
    assert price is not None
    assert price.input_usd > 0
    assert price.output_usd > price.input_usd
    assert "genai-prices" in price.source
    assert find_price("gpt-4o", "http://127.0.0.1:8000/v1") is None
    assert find_price("a model nobody sells", "https://api.openai.com/v1") is None


def test_who_is_paid() -> None:
    assert generator_price(ScriptedGenerator()) is FREE
    own = ChatEndpoint("m", base_url="http://127.0.0.1:1/v1")
    assert generator_price(own) is None
    assert generator_price(own, (1.0, 3.0)) == Price(1.0, 3.0, "given with --price")


def test_a_limit_without_a_price_is_refused() -> None:
    with pytest.raises(UserInputError, match="price of this model is not known"):
        Budget(None, 1.0, 0.0)


def test_no_token_is_longer_than_the_worst_case() -> None:
    request = ScriptedGenerator().request(write_prompt(CASUAL, "naïve café", structured=False), attempt=0, seed=1, max_output_tokens=7)
    assert worst_input_tokens(request) > sum(len(text.encode()) for _, text in request.prompt.messages)
    assert Budget(PRICE, None, 0.0).worst_usd(request) == PRICE.cost_usd(worst_input_tokens(request), 7)


def test_money_in_flight_counts_and_cheaper_ends_let_others_go_on() -> None:
    async def run() -> tuple[int, float]:
        budget = Budget(PRICE, 1.0, 0.0)
        paid = 0

        async def ask() -> None:
            nonlocal paid
            async with budget.reserved(0.4):
                await asyncio.sleep(0.001)
                budget.spend(0.1)
                paid += 1

        async def ask_for_ever() -> None:
            while True:
                await asyncio.gather(*(ask() for _ in range(3)))

        with pytest.raises(BudgetReachedError):
            await ask_for_ever()
        await asyncio.sleep(0.01)
        return paid, budget.spent_usd

    paid, spent_usd = asyncio.run(run())
    assert spent_usd <= 1.0
    assert paid >= 6
