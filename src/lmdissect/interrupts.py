"""Ctrl-C that loses nothing: the first one lets the piece of work in hand finish, the second one stops at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "listen_for_interrupt"]


class StopRequest:
    """Whether the user asked to stop. Stages look at it between two pieces of work."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        """True once the user asked to stop."""
        return self.asked


@contextmanager
def listen_for_interrupt() -> Iterator[StopRequest]:
    """Turn the first SIGINT into a request; a second one does what it did before (KeyboardInterrupt, in a plain Python program).

    Outside the main thread, where signals cannot be caught, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked and callable(previous):
            previous(number, frame)
        if not request.asked:
            print("stopping after the piece of work in hand; Ctrl-C again stops at once", file=sys.stderr, flush=True)
        request.asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, previous)
