"""Progress as its reader sees it: lines in a pipe, a bar on a (real, pseudo) terminal, nothing when silent."""

import io
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from lmdissect.progress import LineProgress, SilentProgress, TerminalProgress, choose_progress, format_duration

LINE = re.compile(r"score: (\d+)/(\d+) texts, (\d+) texts/s(?:, ETA (\S+))?\n")


@contextmanager
def terminal(shown: list[str]) -> Iterator[TextIO]:
    """A stream that is a terminal; what was written to it is in ``shown`` afterwards."""
    master, slave = os.openpty()

    def read() -> None:
        try:
            while block := os.read(master, 65536):
                shown.append(block.decode())
        except OSError:  # how Linux says that the other end was closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream
    reader.join(timeout=10)
    os.close(master)


def test_line_has_count_rate_and_eta() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval_s=0).task("score", 100, "texts") as task:
        time.sleep(0.02)
        task.advance(1)
        first = LINE.fullmatch(stream.getvalue())
    assert first is not None
    assert first.group(1, 2) == ("1", "100")
    assert 0 < int(first[3]) <= 50
    assert first[4] is not None


def test_resumed_work_does_not_count_as_speed() -> None:
    stream = io.StringIO()
    before_s = time.monotonic()
    with LineProgress(stream, interval_s=0).task("score", 100_000, "texts", done=90_000) as task:
        time.sleep(0.05)
        task.advance(100)
        elapsed_s = time.monotonic() - before_s
        line = LINE.fullmatch(stream.getvalue())
    assert line is not None
    assert line.group(1, 2) == ("90100", "100000")
    assert 100 / elapsed_s - 1 <= int(line[3]) <= 100 / 0.05 + 1


def test_lines_are_rare_and_the_end_is_told() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval_s=3600).task("score", 50, "texts") as task:
        for _ in range(50):
            task.advance(1)
    lines = stream.getvalue().splitlines(keepends=True)
    assert len(lines) == 1
    found = LINE.fullmatch(lines[0])
    assert found is not None
    assert found.group(1, 2) == ("50", "50")
    assert found[4] is None, "finished work has no ETA"


def test_nothing_left_to_do_prints_nothing() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval_s=0).task("score", 50, "texts", done=50):
        pass
    assert stream.getvalue() == ""


def test_a_failed_task_says_how_far_it_came() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), LineProgress(stream, interval_s=3600).task("score", 50, "texts") as task:  # noqa: PT012
        task.advance(7)
        raise KeyError("x")
    assert stream.getvalue().startswith("score: 7/50 texts")


def test_say_is_one_line() -> None:
    stream = io.StringIO()
    LineProgress(stream).say("3 records set aside")
    assert stream.getvalue() == "3 records set aside\n"


def test_slow_work_has_a_rate_above_zero() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval_s=0).task("rewrite", 10, "texts") as task:
        time.sleep(2.1)
        task.advance(1)
    assert " 0 texts/s" not in stream.getvalue()


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    progress = SilentProgress()
    progress.say("hello")
    with progress.task("score", 10, "texts", done=3) as task:
        task.advance(7)
    assert capfd.readouterr() == ("", "")


def test_a_file_gets_lines() -> None:
    assert isinstance(choose_progress(io.StringIO()), LineProgress)


def test_standard_error_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    choose_progress().say("hello")
    assert capfd.readouterr() == ("", "hello\n")


def test_a_terminal_gets_a_bar_with_rate_and_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown: list[str] = []
    with terminal(shown) as stream:
        progress = choose_progress(stream)
        assert isinstance(progress, TerminalProgress)
        with progress.task("score", 1000, "texts", done=500) as task:
            time.sleep(0.05)
            task.advance(10)
        progress.say("done")
    text = "".join(shown)
    assert "510/1000 texts" in text
    assert re.search(r"ETA \d+", text)
    rates = [int(rate) for rate in re.findall(r"(\d+) texts/s", text)]
    assert rates
    assert all(0 < rate <= 10 / 0.05 + 1 for rate in rates), "old work must not count as speed"
    assert "done" in text


def test_brackets_in_a_name_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown: list[str] = []
    with terminal(shown) as stream, TerminalProgress(stream).task("score runs[bold]", 10, "texts") as task:
        task.advance(10)
    assert "score runs[bold]" in "".join(shown)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (75, "1m15s"), (3599.6, "1h00m"), (3661, "1h01m"), (360_000, "100h00m")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


HOSTILE = "document \x1b]0;owned\x07\x1b[2J is\nNaN"
HARMLESS = r"document \u001b]0;owned\u0007\u001b[2J is NaN"


def test_what_a_message_quotes_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=0.0)
    progress.say(f"left out: {HOSTILE}")
    with progress.task(HOSTILE, 2, "texts") as task:
        task.note(HOSTILE)
        task.advance(2)
    first, *others = stream.getvalue().splitlines()
    assert first == f"left out: {HARMLESS}"
    assert others
    assert all(line.startswith(f"{HARMLESS}: 2/2 texts") and line.endswith(HARMLESS) for line in others)


def test_nor_on_a_terminal() -> None:
    shown: list[str] = []
    with terminal(shown) as stream:
        progress = TerminalProgress(stream)
        progress.say(HOSTILE)
        with progress.task(HOSTILE, 1, "texts") as task:
            task.note(HOSTILE)
    assert "".join(shown).startswith(HARMLESS)
    assert "\x1b]0;" not in "".join(shown)
    assert "\x07" not in "".join(shown)
