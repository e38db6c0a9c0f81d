"""The first Ctrl-C asks, the second one stops, and nothing stays behind."""

import signal
import threading
from collections.abc import Iterator

import pytest

from lmdissect.interrupts import StopRequest, listen_for_interrupt


@pytest.fixture(autouse=True)
def plain_handler() -> Iterator[None]:
    """Python's own handler, whatever the shell that started the tests has set."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_the_first_interrupt_only_asks() -> None:
    with listen_for_interrupt() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop
        assert stop.asked


def test_the_second_interrupt_stops_at_once() -> None:
    with listen_for_interrupt() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop


def test_the_handler_before_is_back_afterwards() -> None:
    with listen_for_interrupt():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError), listen_for_interrupt():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_inner_listener_leaves_the_outer_one_at_work() -> None:
    with listen_for_interrupt() as outer:
        with listen_for_interrupt() as inner:
            signal.raise_signal(signal.SIGINT)
        assert inner
        assert not outer
        signal.raise_signal(signal.SIGINT)
        assert outer


def test_other_threads_get_a_request_that_is_never_set() -> None:
    found: list[bool] = []

    def work() -> None:
        with listen_for_interrupt() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_request_can_be_set_by_hand() -> None:
    stop = StopRequest()
    stop.asked = True
    assert stop
