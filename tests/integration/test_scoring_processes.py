"""Scoring by two processes under torchrun: the artifact of one process, bit for bit, also after one of the two was killed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from score_tables import assert_same_scores
from tiny_models import SENTENCES, save_tiny_llama, save_tiny_lora

pytestmark = pytest.mark.slow
OPTIONS = ["--batch-tokens", "64", "--device", "cpu", "--dtype", "float32"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def _run(arguments: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    rows = [
        {"document_id": f"d{number}", "variant": variant, "text": f"{sentence} {variant} {number}"}
        for number in range(12)
        for variant, sentence in zip(("original", "casual", "paraphrase"), SENTENCES[number % 8 :], strict=False)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lora(base, tmp_path_factory.mktemp("models") / "lora", seed=1)


@pytest.fixture(scope="module")
def alone(base: Path, adapter: Path, probes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "compare"
    done = _run(["-m", "lmdissect", "compare", "--base", base, "--tuned", adapter, "--probes", probes, "--out", folder, "--draws", 100, *OPTIONS])
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_compare_as_one_does(base: Path, adapter: Path, probes: Path, alone: Path, tmp_path: Path) -> None:
    request = ["compare", "--base", base, "--tuned", adapter, "--probes", probes, "--out", tmp_path / "out", "--draws", 100, *OPTIONS]
    done = _run([*TORCHRUN, "-m", "lmdissect", *request])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # one process speaks
    for name in ("base", "tuned"):
        assert_same_scores(tmp_path / "out" / "scores" / name, alone / "scores" / name)
    assert (tmp_path / "out" / "shifts.csv").read_bytes() == (alone / "shifts.csv").read_bytes()
    assert (tmp_path / "out" / "report.html").is_file()
    again = _run(["-m", "lmdissect", *request])
    assert again.returncode == 0
    assert again.stderr.count("reused") == 3  # two scores and the shifts


_KILLED = """
import json, os, signal, sys
from pathlib import Path
from lmdissect.models import resolve_model
from lmdissect.models.processes import process_rank
from lmdissect.probes import read_probe_set
from lmdissect.scoring import ScoringConfig, score_probe_set, chunks

request = json.loads(sys.argv[1])

class Killing(chunks.JoinedArtifact):
    def write_chunk(self, number, table):
        path = super().write_chunk(number, table)
        os.kill(os.getpid(), signal.SIGKILL)

def join(*arguments, **named):
    joined = score.join_artifact_before(*arguments, **named)
    return Killing(joined.folder, joined.finished)

from lmdissect.scoring import score
score.join_artifact_before, score.join_artifact = score.join_artifact, join
config = ScoringConfig(batch_tokens=64, device="cpu", dtype="float32")
score_probe_set(resolve_model(request["model"]), read_probe_set(request["probes"]), config, Path(request["out"]))
"""


def test_a_killed_process_ends_the_run_and_the_next_run_goes_on(base: Path, probes: Path, alone: Path, tmp_path: Path) -> None:
    """The second process dies once its first chunk is on disk. One process finishes what the two have begun."""
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(_KILLED, encoding="utf-8")
    done = _run([*TORCHRUN, script, json.dumps({"model": str(base), "probes": str(probes), "out": str(out)})])
    assert done.returncode != 0
    assert "Signal 9" in done.stderr or "SIGKILL" in done.stderr
    numbers = sorted(int(path.name[:6]) for path in (out / "chunks").glob("[0-9]*.parquet"))
    assert 1 in numbers
    assert 3 not in numbers
    done = _run(["-m", "lmdissect", "score", "--model", base, "--probes", probes, "--out", out, *OPTIONS])
    assert done.returncode == 0, done.stderr
    assert f"going on, {len(numbers)} of" in done.stderr
    assert_same_scores(out, alone / "scores" / "base")


def test_an_error_of_the_first_process_is_the_error_of_all(base: Path, probes: Path, alone: Path) -> None:
    """Other settings in the same folder: every process ends with the same line, none hangs."""
    done = _run([*TORCHRUN, "-m", "lmdissect", "score", "--model", base, "--probes", probes, "--out", alone / "scores" / "base", "--device", "cpu"])
    assert done.returncode != 0
    assert done.stderr.count("was made with other settings (batch_tokens: 64 there, 1024 here)") == 2
    assert "exitcode  : 2" in done.stderr
