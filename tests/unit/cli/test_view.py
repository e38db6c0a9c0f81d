"""`lmdissect view` as a process: says where it serves, and Ctrl-C ends it cleanly."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lmdissect_cli import CliOutcome
from study_world import build_scores, make_texts
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
