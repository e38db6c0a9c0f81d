"""How many requests are in flight: fewer when the server is at capacity, one more after every run of successes.

Capacity and faults are two mechanisms. A refusal for capacity (429) says that there are too many requests: the limit is cut to three quarters, once for a
burst, and everybody waits. A fault (5xx, timeout, reset) says nothing about the number: that one request waits and is sent again, see `fault_wait_s`.
A burst is everything that was refused of what was sent before the last cut.
Source: the rule (x 0.75 once a burst, + 1 after 25 successes, Retry-After honoured) is that of inspect_ai and NeMo Data Designer.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lmdissect.store import hash_text

__all__ = ["AdaptiveLimiter", "LimiterClosedError", "fault_wait_s", "jitter"]

_CUT = 0.75
_SUCCESSES_PER_STEP = 25
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 30.0
_FIRST_FAULT_WAIT_S = 0.5
_LONGEST_FAULT_WAIT_S = 30.0
_SHARE_DIVISOR = 0xFFFFFFFF


def jitter(*parts: object) -> float:
    """A number in [0.5, 1] drawn by a hash of ``parts``: waiting times that differ, and are the same in every run."""
    return 0.5 + 0.5 * int(hash_text(":".join(map(str, parts)))[:8], 16) / _SHARE_DIVISOR


def fault_wait_s(seed: int, key: str, num_faults: int) -> float:
    """Seconds until a request that met its ``num_faults``-th fault is sent again: doubling from half a second, at most 30, with jitter."""
    return min(_LONGEST_FAULT_WAIT_S, _FIRST_FAULT_WAIT_S * math.pow(2.0, num_faults - 1)) * jitter(seed, key, num_faults)


class LimiterClosedError(Exception):
    """No more slots are given: the run is ending."""


class AdaptiveLimiter:
    """Slots for requests in flight, used from one event loop.

    Attributes:
        limit: Requests that may be in flight now (its whole part).
        num_cuts: How often the limit was cut.
    """

    def __init__(self, start: int, maximum: int, *, seed: int = 0) -> None:
        self.limit = float(start)
        self.num_cuts = 0
        self._maximum = maximum
        self._seed = seed
        self._in_flight = 0
        self._successes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until_s = 0.0
        self._cut_at_s = -math.inf
        self._cuts_without_success = 0
        self._last_success_s = time.monotonic()
        self._wake: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Slots taken now."""
        return self._in_flight

    @property
    def refused_for_s(self) -> float:
        """Seconds of nothing but refusals: since the last success, where there was a refusal since then; else 0."""
        return time.monotonic() - self._last_success_s if self._cuts_without_success else 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a slot and hold it; gives the moment (monotonic, s) at which it was taken, which `refused` wants back.

        Raises:
            LimiterClosedError: No more slots are given.
        """
        if self._closed:
            raise LimiterClosedError
        if self._waiting or not self._is_open():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._let_in()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self._in_flight += 1
        try:
            yield time.monotonic()
        finally:
            self._leave()

    def close(self) -> None:
        """Give no more slots, and say so to everybody who waits for one; slots that are held stay held."""
        self._closed = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(LimiterClosedError())

    def succeeded(self) -> None:
        """A response came that is no refusal for capacity."""
        self._last_success_s = time.monotonic()
        self._cuts_without_success = 0
        self._successes += 1
        if self._successes >= _SUCCESSES_PER_STEP:
            self._successes = 0
            self.limit = min(float(self._maximum), self.limit + 1.0)
            self._let_in()

    def refused(self, sent_at_s: float, retry_after_s: float | None) -> None:
        """The server was at capacity for a request that took its slot at ``sent_at_s``."""
        now_s = time.monotonic()
        if sent_at_s >= self._cut_at_s:
            if not self._cuts_without_success:
                self._last_success_s = max(self._last_success_s, sent_at_s)  # idle time before is no refusal
            self._cut_at_s = now_s
            self._cuts_without_success += 1
            self.num_cuts += 1
            self._successes = 0
            self.limit = max(1.0, self.limit * _CUT)
            doubled_s = _FIRST_PAUSE_S * math.pow(2.0, min(self._cuts_without_success - 1, 20))
            self._pause(now_s + min(_LONGEST_PAUSE_S, doubled_s) * jitter(self._seed, self.num_cuts))
        if retry_after_s is not None:
            self._pause(now_s + retry_after_s)

    def _pause(self, until_s: float) -> None:
        self._paused_until_s = max(self._paused_until_s, until_s)

    def _is_open(self) -> bool:
        return self._in_flight < int(self.limit) and time.monotonic() >= self._paused_until_s

    def _leave(self) -> None:
        self._in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._is_open():
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
        wait_s = self._paused_until_s - time.monotonic()
        if self._waiting and wait_s > 0 and self._wake is None:
            self._wake = asyncio.get_running_loop().call_later(wait_s, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._let_in()
