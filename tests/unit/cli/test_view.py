"""`lmdissect view` as a process: says where it serves, and Ctrl-C ends it cleanly."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmdissect.pipeline.viewing import ViewServer
from lmdissect_cli import CliOutcome
from study_world import Tables, build_scores, build_study, make_texts, only_tables
from unit.report.shift_artifact import build_shift_artifact


def test_ctrl_c_ends_the_server_cleanly(tmp_path: Path) -> None:
    build_shift_artifact(tmp_path)
    build_scores(tmp_path / "scores", make_texts(2, num_words=5))
    command = [sys.executable, "-m", "lmdissect", "view", str(tmp_path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+/\S+/) \(Ctrl-C ends it\)", line)
        assert found, line
        with urllib.request.urlopen(found.group(1) + "runs.json", timeout=20) as answer:  # noqa: S310 - our own address
            assert answer.read() == b'[{"label": "models/base to runs/tuned"}]'
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_folder_that_is_no_study_is_a_line_and_exit_code_2(tmp_path: Path, run_cli: Callable[..., CliOutcome]) -> None:
    outcome = run_cli("view", str(tmp_path), "--no-browser")
    assert outcome.code == 2
    assert str(tmp_path) in outcome.err
    assert outcome.err.count("\n") == 1


def test_runs_that_cannot_be_shown_are_named(tmp_path: Path, run_cli: Callable[..., CliOutcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a table quotes is printed without control characters."""

    def change(tables: Tables, details: dict[str, Any]) -> None:
        only_tables("statements")(tables, details)
        del tables["runs"][1:]
        tables["runs"][0].update(point="size=\x1b[2J", shift_folder="../gone")

    study = build_study(tmp_path / "study", change)
    monkeypatch.setattr(ViewServer, "serve", lambda _: None)
    outcome = run_cli("view", str(study), "--no-browser")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith(r"no texts of size: size=\u001b[2J, seed 0 (pubmed): nothing finished in ")
    assert f"nothing finished in {(tmp_path / 'gone').resolve()}: put it back" in line
