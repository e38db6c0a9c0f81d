"""Fixtures shared by all tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lmdissect_cli import CliOutcome, run_main

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real probes, abstracts and web text. It is not part of the project: absent on a user's machine, required in CI."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {SHARED_DATA}")
        pytest.skip("needs the research data collection beside the checkout (shared/data), which is not distributed")
    return SHARED_DATA


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliOutcome]:
    """Run `lmdissect ARGUMENTS...` in this process."""
    return lambda *arguments: run_main(arguments, capsys, monkeypatch)
