"""Progress of long work: a bar with rate and ETA on a terminal, a line now and then in a pipe, nothing when asked to be silent.

Stages take a `Progress` and know nothing of how it is shown. Rates use the monotonic clock. Whatever a message quotes (an id, a reason, a file's name) is
shown without its control characters: a document must not be able to steer the terminal.
"""

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

__all__ = ["LineProgress", "Progress", "SilentProgress", "Task", "TerminalProgress", "choose_progress"]


class Task(Protocol):
    """One countable piece of work."""

    def advance(self, amount: int) -> None:
        """Report ``amount`` more units done."""

    def note(self, text: str) -> None:
        """What to show beside rate and ETA from now on: costs, records set aside."""

    def __enter__(self) -> Self:
        """Start the clock."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop, finished or not."""


class Progress(Protocol):
    """Where stages report to."""

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        """A new task of ``total`` units of which ``done`` are already finished (resumed work)."""

    def say(self, message: str) -> None:
        """One line for the user."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class SilentProgress:
    """Shows nothing: the default of the library."""

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:  # noqa: ARG002 - the Protocol's signature
        """A task that shows nothing."""
        return _SilentTask()

    def say(self, message: str) -> None:
        """Nothing."""


class _LineTask:
    def __init__(self, stream: TextIO, name: str, total: int, unit: str, done: int, interval_s: float) -> None:
        self._stream, self._name, self._total, self._unit = stream, _harmless(name), total, unit
        self._done_before = done
        self._done = done
        self._interval_s = interval_s
        self._note = ""
        self._printed = done
        self._started_s = self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        self._started_s = self._last_s = time.monotonic()
        return self

    def advance(self, amount: int) -> None:
        self._done += amount
        if time.monotonic() - self._last_s >= self._interval_s:
            self._print()

    def note(self, text: str) -> None:
        self._note = f", {_harmless(text)}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._done != self._printed or error is not None:
            self._print()

    def _print(self) -> None:
        self._last_s = time.monotonic()
        self._printed = self._done
        elapsed_s = max(self._last_s - self._started_s, 1e-9)
        rate = (self._done - self._done_before) / elapsed_s
        eta_s = (self._total - self._done) / rate if rate > 0 else float("inf")
        eta = f", ETA {format_duration(eta_s)}" if 0 < eta_s < float("inf") else ""
        line = f"{self._name}: {self._done}/{self._total} {self._unit}, {format_rate(rate)} {self._unit}/s{eta}{self._note}"
        print(line, file=self._stream, flush=True)


class LineProgress:
    """Plain lines, at most one every ``interval_s`` seconds and one at the end of a task: for pipes and logs."""

    def __init__(self, stream: TextIO | None = None, *, interval_s: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval_s = interval_s

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        """A task that prints lines."""
        return _LineTask(self._stream, name, total, unit, done, self._interval_s)

    def say(self, message: str) -> None:
        """Print one line."""
        print(_harmless(message), file=self._stream, flush=True)


class _TerminalTask:
    def __init__(self, stream: TextIO, name: str, total: int, unit: str, done: int) -> None:
        from rich.console import Console  # noqa: PLC0415 - rich is slow to load and `import lmdissect` must be light
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),  # names hold what users call their files
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[eta]}"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._done_before = self._done = done
        self._total, self._unit = total, unit
        self._started_s = time.monotonic()
        self._task = self._bar.add_task(_harmless(name), total=total, completed=done, rate="", eta="", note="")

    def __enter__(self) -> Self:
        self._started_s = time.monotonic()
        self._bar.start()
        return self

    def advance(self, amount: int) -> None:
        self._done += amount
        rate = (self._done - self._done_before) / max(time.monotonic() - self._started_s, 1e-9)
        eta = f"ETA {format_duration((self._total - self._done) / rate)}" if rate > 0 else ""
        self._bar.update(self._task, advance=amount, rate=f"{format_rate(rate)} {self._unit}/s", eta=eta)

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=_harmless(text))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()


class TerminalProgress:
    """A bar with rate, ETA and elapsed time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        """A task with a bar."""
        return _TerminalTask(self._stream, name, total, unit, done)

    def say(self, message: str) -> None:
        """Print one line."""
        print(_harmless(message), file=self._stream, flush=True)


def choose_progress(stream: TextIO | None = None) -> Progress:
    """A bar where ``stream`` (standard error by default) is a terminal, plain lines elsewhere."""
    target = stream if stream is not None else sys.stderr
    return TerminalProgress(target) if target.isatty() else LineProgress(target)


def _harmless(text: str) -> str:
    """``text`` on one line, its control characters written out."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " if character.isspace() else f"\\u{ord(character):04x}" for character in text)


def format_rate(rate: float) -> str:
    """Whole numbers from 10 on, two digits below: slow work is not shown at 0 per second."""
    whole_from = 10
    return f"{rate:.0f}" if rate >= whole_from else f"{rate:.2g}"


def format_duration(seconds: float) -> str:
    """``75`` as ``1m15s``: two units at most."""
    whole = round(max(seconds, 0.0))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"
