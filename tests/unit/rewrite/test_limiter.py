"""Capacity: one cut for a burst, one more slot after 25 successes, everybody waits when told to."""

import asyncio
import time

import pytest

from lmdissect.rewrite.limiter import AdaptiveLimiter, LimiterClosedError, fault_wait_s, jitter


def test_never_more_in_flight_than_the_limit() -> None:
    async def run() -> int:
        limiter, most = AdaptiveLimiter(3, 3), 0

        async def work() -> None:
            nonlocal most
            async with limiter.slot():
                most = max(most, limiter.in_flight)
                await asyncio.sleep(0.001)
                limiter.succeeded()

        await asyncio.gather(*(work() for _ in range(20)))
        assert limiter.in_flight == 0
        return most

    assert asyncio.run(run()) == 3


def test_a_burst_cuts_once_and_a_later_refusal_again() -> None:
    limiter = AdaptiveLimiter(16, 64)
    sent_at_s = time.monotonic()
    for _ in range(10):
        limiter.refused(sent_at_s, None)
    assert (limiter.limit, limiter.num_cuts) == (12.0, 1)
    limiter.refused(time.monotonic(), None)
    assert (limiter.limit, limiter.num_cuts) == (9.0, 2)


def test_it_never_falls_below_one_and_climbs_by_one_after_25_successes() -> None:
    limiter = AdaptiveLimiter(2, 3)
    for _ in range(20):
        limiter.refused(time.monotonic(), None)
    assert limiter.limit == 1.0
    for expected, number in ((1.0, 24), (2.0, 1), (3.0, 25), (3.0, 100)):
        for _ in range(number):
            limiter.succeeded()
        assert limiter.limit == expected


@pytest.mark.parametrize("seconds", [0.2, 0.4])
def test_retry_after_holds_everybody(seconds: float) -> None:
    async def run() -> float:
        limiter = AdaptiveLimiter(8, 8)
        limiter.refused(time.monotonic(), seconds)
        started_s = time.monotonic()

        async def work() -> float:
            async with limiter.slot():
                return time.monotonic() - started_s

        return min(await asyncio.gather(*(work() for _ in range(4))))

    waited_s = asyncio.run(run())
    assert seconds - 0.01 <= waited_s < seconds + 0.5


def test_refusals_without_success_are_timed() -> None:
    limiter = AdaptiveLimiter(4, 4)
    assert limiter.refused_for_s == 0.0
    limiter.refused(time.monotonic(), None)
    time.sleep(0.02)
    assert 0.01 < limiter.refused_for_s < 1.0
    limiter.succeeded()
    assert limiter.refused_for_s == 0.0


def test_closing_wakes_those_who_wait_and_lets_no_one_in() -> None:
    async def run() -> list[str]:
        limiter, said = AdaptiveLimiter(1, 1), []

        async def work(name: str) -> None:
            try:
                async with limiter.slot():
                    await asyncio.sleep(0.05)
                    said.append(f"{name} done")
            except LimiterClosedError:
                said.append(f"{name} turned away")

        tasks = [asyncio.create_task(work(name)) for name in "ab"]
        await asyncio.sleep(0.01)
        limiter.close()
        await asyncio.gather(*tasks, work("c"))
        return sorted(said)

    assert asyncio.run(run()) == ["a done", "b turned away", "c turned away"]


def test_a_waiter_that_is_cancelled_takes_no_slot() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(1, 1)

        async def hold(seconds: float) -> None:
            async with limiter.slot():
                await asyncio.sleep(seconds)

        first, second, third = (asyncio.create_task(hold(0.03)) for _ in range(3))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(first, third)
        assert limiter.in_flight == 0

    asyncio.run(run())


def test_waits_double_and_differ() -> None:
    waits = [fault_wait_s(0, "key", number) for number in range(1, 9)]
    assert all(0.25 * 2**index <= wait <= 0.5 * 2**index for index, wait in enumerate(waits[:6]))
    assert max(waits) <= 30.0
    assert len({fault_wait_s(0, f"key{number}", 1) for number in range(50)}) == 50
    assert all(0.5 <= jitter(number) <= 1.0 for number in range(100))
