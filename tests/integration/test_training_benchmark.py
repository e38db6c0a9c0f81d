"""The training benchmark in short: a tiny model, every tool, one round."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "training.py"


def run_benchmark(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(BENCHMARK), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_tool_learns_the_same_tokens(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    said = run_benchmark("--cases", "tiny", "--documents", "12", "--batch", "4", "--rounds", "1", "--out", str(page))
    rows = [line for line in said.splitlines() if line.startswith("round 1")]
    assert [row.split()[3] for row in rows] == ["ours", "trainer", "trl-packed", "trl-padded"]
    for row in rows:
        words = row.replace(",", "").split()
        assert words[-6] == "3", row  # steps
        assert words[-4] == words[-2], row  # tokens seen, of those there are
    losses = [float(row.split("held-out ")[1].split()[0]) for row in rows]
    assert max(losses) - min(losses) < 0.02
    text = page.read_text(encoding="utf-8")
    assert text.count("\n| ") == 5
    assert "logits of a row's second document move by" in text


def test_a_quick_look_writes_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(options_of("--rounds", "1"))["out"] is None
    assert json.loads(options_of("--documents", "8"))["out"] is None
    assert json.loads(options_of())["out"].endswith("docs/benchmarks-training.md")
    assert json.loads(options_of("--device", "cuda"))["out"].endswith("docs/benchmarks-training-cuda.md")


def options_of(*arguments: str) -> Any:
    program = "import json, training; print(json.dumps(vars(training.parse_options()), default=str))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=BENCHMARK.parent, check=True, capture_output=True, text=True)
    return done.stdout
