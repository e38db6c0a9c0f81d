"""Run the command line in this process, as a user would."""

import signal
import sys
from dataclasses import dataclass

import pytest

from lmdissect.cli.main import main


@dataclass(frozen=True)
class CliOutcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def run_main(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CliOutcome:
    """Call `main` with ``arguments`` and put back the signal handler it sets."""
    monkeypatch.setattr(sys, "argv", ["lmdissect", *arguments])
    previous = signal.getsignal(signal.SIGINT)
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    finally:
        signal.signal(signal.SIGINT, previous)
    captured = capsys.readouterr()
    return CliOutcome(code, captured.out, captured.err)
