"""A scores artifact that is killed, interrupted, damaged or asked for again: the outcome is the one of an uninterrupted run, or an error."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from killed_runs import ENVIRONMENT
from lmdissect.errors import DamagedArtifactError, InterruptedRunError, NonFiniteScoreError, StaleArtifactError, UnreadableInputError
from lmdissect.formats.scores import read_scores
from lmdissect.interrupts import StopRequest
from lmdissect.models import ResolvedModel, resolve_model
from lmdissect.progress import LineProgress, Progress, SilentProgress
from lmdissect.records import ProbeSet, ProbeText
from lmdissect.scoring import ScoringConfig, ScoringSummary, score_probe_set
from score_tables import SCORE_FILES, assert_same_scores
from tiny_models import SENTENCES, save_tiny_llama

CONFIG = ScoringConfig(batch_tokens=64, device="cpu", dtype="float32")  # small batches: many chunks
NUM_KILLED_RUNS = int(os.environ.get("LMDISSECT_KILLED_RUNS", "4"))


def _probe_set() -> ProbeSet:
    texts = [
        ProbeText(f"d{number}", variant, f"{sentence} {variant} {number}")
        for number in range(12)
        for variant, sentence in zip(("original", "casual", "paraphrase"), SENTENCES[number % 8 :], strict=False)
    ]
    return ProbeSet(texts=tuple(texts), factors={"casual": "style", "paraphrase": "control"}, source="a test")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ResolvedModel:
    return resolve_model(str(model_folder))


@pytest.fixture(scope="module")
def uninterrupted(model: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "scores"
    score_probe_set(model, _probe_set(), CONFIG, folder)
    return folder


class _StopAfter(LineProgress):
    """Asks to stop once so many chunks are on disk."""

    def __init__(self, folder: Path, num_chunks: int, stop: StopRequest) -> None:
        super().__init__(StringIO(), interval_s=0.0)
        self.chunks, self.num_chunks, self.stop = folder / "chunks", num_chunks, stop

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> object:  # type: ignore[override]
        task = super().task(name, total, unit, done=done)
        watched = self

        class _Task:
            def __enter__(self) -> Self:
                task.__enter__()
                return self

            def __exit__(self, *error: object) -> None:
                task.__exit__(*error)  # type: ignore[arg-type]

            def advance(self, amount: int) -> None:
                task.advance(amount)
                if len(list(watched.chunks.glob("*.parquet"))) >= watched.num_chunks - 1:
                    watched.stop.asked = True

        return _Task()


def _stop_after(model: ResolvedModel, folder: Path, num_chunks: int) -> None:
    stop = StopRequest()
    progress: Progress = _StopAfter(folder, num_chunks, stop)  # type: ignore[assignment]
    with pytest.raises(InterruptedRunError, match=rf"stopped after chunk {num_chunks} of \d+; run the same command again") as caught:
        score_probe_set(model, _probe_set(), CONFIG, folder, progress=progress, stop=stop)
    assert caught.value.exit_code == 130


def _said(model: ResolvedModel, folder: Path, probe_set: ProbeSet | None = None, config: ScoringConfig = CONFIG) -> tuple[ScoringSummary, str]:
    stream = StringIO()
    summary = score_probe_set(model, probe_set or _probe_set(), config, folder, progress=LineProgress(stream))
    return summary, stream.getvalue()


def test_artifact_is_what_read_scores_reads(uninterrupted: Path) -> None:
    scores = read_scores(uninterrupted)
    probe_set = _probe_set()
    assert list(zip(scores.document_ids, scores.variants, scores.texts, strict=True)) == [
        (text.document_id, text.variant, text.text) for text in probe_set.texts
    ]
    assert scores.factors == probe_set.factors
    assert scores.manifest.details["batch_invariance"]["passed"] is True
    assert scores.manifest.details["batch_invariance"]["num_texts"] == 4
    assert scores.manifest.details["prefix_ids"] == [0]
    assert scores.manifest.config["bos"] == "auto"
    for row in range(len(scores.texts)):
        tokens = scores.token_logprob_nats[scores.tokens(row)]
        assert len(tokens) == scores.num_tokens[row] == scores.num_scored[row]
        assert float(tokens.sum(dtype=np.float64)) == pytest.approx(scores.logprob_nats[row], abs=1e-9)


def test_a_second_run_is_bitwise_the_first(model: ResolvedModel, uninterrupted: Path, tmp_path: Path) -> None:
    score_probe_set(model, _probe_set(), CONFIG, tmp_path / "again")
    assert_same_scores(tmp_path / "again", uninterrupted)


def test_finished_scores_are_reused_and_say_so(model: ResolvedModel, tmp_path: Path) -> None:
    first, _ = _said(model, tmp_path / "scores")
    stamp = (tmp_path / "scores" / "token_scores.parquet").stat().st_mtime_ns
    second, said = _said(model, tmp_path / "scores")
    assert (first.reused, second.reused) == (False, True)
    assert replace(second, reused=False) == first
    assert "reused" in said
    assert (tmp_path / "scores" / "token_scores.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("num_chunks", [1, 3])
def test_interrupted_and_resumed_is_uninterrupted(model: ResolvedModel, uninterrupted: Path, tmp_path: Path, num_chunks: int) -> None:
    folder = tmp_path / "scores"
    _stop_after(model, folder, num_chunks)
    assert len(list((folder / "chunks").glob("*.parquet"))) == num_chunks
    with pytest.raises(UnreadableInputError, match="not finished"):
        read_scores(folder)
    _, said = _said(model, folder)
    assert f"going on, {num_chunks} of" in said
    assert_same_scores(folder, uninterrupted)


def test_a_damaged_chunk_is_made_again(model: ResolvedModel, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    _stop_after(model, folder, 3)
    victim = sorted((folder / "chunks").glob("*.parquet"))[1]
    _flip_byte(victim)
    _, said = _said(model, folder)
    assert "going on, 2 of" in said
    assert_same_scores(folder, uninterrupted)


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("name", SCORE_FILES)
def test_a_flipped_byte_in_a_finished_file_is_found_and_redone(model: ResolvedModel, uninterrupted: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "scores"
    score_probe_set(model, _probe_set(), CONFIG, folder)
    _flip_byte(folder / name)
    with pytest.raises(DamagedArtifactError, match=name):
        read_scores(folder)
    summary, said = _said(model, folder)
    assert not summary.reused
    assert f"{name} is missing or damaged" in said
    assert_same_scores(folder, uninterrupted)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": 5}, r"max_tokens: null there, 5 here"),
        ({"bos": "never"}, r"bos: \"auto\" there, \"never\" here"),
        ({"batch_tokens": 65}, r"batch_tokens: 64 there, 65 here"),
        ({"dtype": "bfloat16"}, r"dtype: \"float32\" there, \"bfloat16\" here"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_by_name(model: ResolvedModel, tmp_path: Path, change: dict[str, object], named: str, finished: bool) -> None:
    folder = tmp_path / "scores"
    if finished:
        score_probe_set(model, _probe_set(), CONFIG, folder)
    else:
        _stop_after(model, folder, 1)
    before = {path.name: path.read_bytes() for path in folder.rglob("*.parquet")}
    with pytest.raises(StaleArtifactError, match=named) as caught:
        score_probe_set(model, _probe_set(), CONFIG.model_copy(update=change), folder)
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in folder.rglob("*.parquet")} == before


def test_other_weights_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    weights = save_tiny_llama(tmp_path / "llama", seed=0) / "model.safetensors"
    score_probe_set(resolve_model(str(tmp_path / "llama")), _probe_set(), CONFIG, tmp_path / "scores")
    tensors = load_file(weights)
    tensors["model.norm.weight"][3] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(StaleArtifactError, match=r"model\.weights"):
        score_probe_set(resolve_model(str(tmp_path / "llama")), _probe_set(), CONFIG, tmp_path / "scores")


def _with_text(texts: Sequence[ProbeText], text: str) -> tuple[ProbeText, ...]:
    return (*texts[:-1], replace(texts[-1], text=text))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda probes: replace(probes, texts=_with_text(probes.texts, "another text")), "texts: "),
        (lambda probes: replace(probes, texts=probes.texts[:-1]), "texts: "),
        (lambda probes: replace(probes, factors={**probes.factors, "casual": "formality"}), "labels: "),
        (lambda probes: replace(probes, metadata={"d0": {"keywords": ["drug"]}}), "labels: "),
        (lambda probes: replace(probes, generators={"casual": "somebody else"}), "labels: "),
        (lambda probes: replace(probes, prompt_hashes={"casual": "another prompt"}), "labels: "),
    ],
    ids=["text", "fewer", "factor", "key terms", "writer", "prompt"],
)
def test_another_probe_set_is_refused(model: ResolvedModel, uninterrupted: Path, change: object, named: str) -> None:
    with pytest.raises(StaleArtifactError, match=rf"\({named}[^;]*\): choose"):
        score_probe_set(model, change(_probe_set()), CONFIG, uninterrupted)  # type: ignore[operator]


def test_a_text_without_finite_scores_stops_the_run_and_keeps_what_was_done(tmp_path: Path) -> None:
    weights = save_tiny_llama(tmp_path / "llama", seed=0) / "model.safetensors"
    tilde = json.loads((tmp_path / "llama" / "tokenizer.json").read_text())["model"]["vocab"]["~"]
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"][tilde] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    probe_set = _probe_set()
    broken = ProbeText("the broken one", "original", "~ ~")  # the shortest: it comes last
    probe_set = replace(probe_set, texts=(*probe_set.texts, broken))
    with pytest.raises(NonFiniteScoreError, match=r"document the broken one \(original\)") as caught:
        score_probe_set(resolve_model(str(tmp_path / "llama")), probe_set, CONFIG, tmp_path / "scores")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "scores" / "manifest.json").exists()
    kept = [text for path in (tmp_path / "scores" / "chunks").glob("*.parquet") for text in pq.read_table(path)["text"].to_pylist()]
    assert len(kept) > 10
    assert len(probe_set.texts) - 1 not in kept


def test_counts_are_in_the_manifest(model: ResolvedModel, tmp_path: Path) -> None:
    texts = ("same text", "same text", "", " ".join(SENTENCES), "x")
    probe_set = ProbeSet(tuple(ProbeText(f"d{number}", "original", text) for number, text in enumerate(texts)), {}, "a test")
    config = ScoringConfig(window_tokens=100, device="cpu", dtype="float32")
    summary = score_probe_set(model, probe_set, config, tmp_path / "scores", progress=SilentProgress())
    counts = read_scores(tmp_path / "scores").manifest.counts
    assert (counts["texts"], counts["distinct_texts"], counts["unscored_texts"], counts["windowed_texts"]) == (5, 4, 1, 1)
    assert counts["truncated_texts"] == 0
    assert counts["scored_tokens"] == summary.num_scored_tokens
    limited = score_probe_set(model, probe_set, ScoringConfig(max_tokens=3, device="cpu"), tmp_path / "limited")
    assert limited.num_truncated == int(read_scores(tmp_path / "limited").truncated.sum()) == 3


# Real processes that really die. One process imports what is heavy, then forks the ones that score.

_COMMON = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from lmdissect.errors import LmdissectError
from lmdissect.interrupts import listen_for_interrupt
from lmdissect.models import resolve_model
from lmdissect.progress import SilentProgress
from lmdissect.records import ProbeSet, ProbeText
from lmdissect.scoring import ScoringConfig, score_probe_set

request = json.loads(sys.stdin.readline())
probe_set = ProbeSet(tuple(ProbeText(*row) for row in request["texts"]), request["factors"], "a test")
config = ScoringConfig.model_validate(request["config"])
model = resolve_model(request["model"])
"""

_KILLED = (
    _COMMON
    + """
from killed_runs import run_killed, run_whole
from lmdissect.models import load_tokenizer
from transformers.models.llama import modeling_llama  # slow to import: once, and before any fork
load_tokenizer(model)

def score(name):
    score_probe_set(model, probe_set, config, Path(request["folder"]) / name)

whole_s = run_whole(lambda: score("whole"))
rng = np.random.default_rng(request["seed"])
for number in range(request["runs"]):
    kills = run_killed(lambda: score(str(number)), whole_s, rng, most_kills=8)  # each start costs the loading of the model
    print(json.dumps({"run": number, "kills": kills}), flush=True)
"""
)

_INTERRUPTED = (
    _COMMON
    + """
class Announcing(SilentProgress):
    def task(self, name, total, unit, *, done=0):
        task = super().task(name, total, unit, done=done)
        def advance(amount):
            print("advance", flush=True)
            time.sleep(0.02)
        task.advance = advance
        return task

try:
    with listen_for_interrupt() as stop:
        score_probe_set(model, probe_set, config, Path(request["folder"]), progress=Announcing(), stop=stop)
except LmdissectError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(error.exit_code)
"""
)


def _start(script: str, model_folder: Path, folder: Path, **more: object) -> "subprocess.Popen[str]":
    probe_set = _probe_set()
    request = {
        "texts": [[text.document_id, text.variant, text.text] for text in probe_set.texts],
        "factors": dict(probe_set.factors),
        "config": CONFIG.model_dump(mode="json"),
        "model": str(model_folder),
        "folder": str(folder),
        **more,
    }
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return process


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_is_uninterrupted(model_folder: Path, tmp_path: Path) -> None:
    process = _start(_KILLED, model_folder, tmp_path, seed=7, runs=NUM_KILLED_RUNS)
    output, _ = process.communicate(timeout=580)
    assert process.returncode == 0, output
    kills = [json.loads(line)["kills"] for line in output.splitlines()]
    assert len(kills) == NUM_KILLED_RUNS
    assert sum(kills) >= NUM_KILLED_RUNS
    for number in range(NUM_KILLED_RUNS):
        assert_same_scores(tmp_path / str(number), tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_finishes_the_chunk_and_exits_130(model: ResolvedModel, model_folder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    process = _start(_INTERRUPTED, model_folder, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "advance\n"
    process.send_signal(signal.SIGINT)
    output = process.stdout.read()
    assert process.wait(timeout=60) == 130
    assert "InterruptedRunError: stopped after chunk" in output
    finished = len(list((folder / "chunks").glob("[0-9]*.parquet")))
    assert finished >= 1
    assert not (folder / "manifest.json").exists()
    process.communicate()
    _, said = _said(model, folder)
    assert f"going on, {finished} of" in said
    assert_same_scores(folder, uninterrupted)
