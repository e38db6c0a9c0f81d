"""The main job through the command line, on tiny real models and real files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lmdissect.formats.scores import read_scores
from lmdissect_cli import CliOutcome
from tiny_models import save_tiny_gpt2, save_tiny_llama, save_tiny_lora

Run = Callable[..., CliOutcome]

TEXTS = {
    "original": "Patient {n} received 5 mg of the drug on day {n} and the fever was gone after {n} days.",
    "paraphrase": "On day {n} patient {n} was given the drug, 5 mg, and {n} days later there was no fever.",
    "casual": "So patient {n} got like 5 mg on day {n}, and guess what, no fever after {n} days!",
    "counterfactual": "Patient {n} received 9 mg of the drug on day {n} and the fever was worse after {n} days.",
    "nonbiomedical": "Engine {n} received 5 ml of the oil on day {n} and the noise was gone after {n} days.",
    "nonbiomedical_casual": "So engine {n} got like 5 ml of oil on day {n}, and guess what, no noise after {n} days!",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_llama(folder / "base", seed=0)
    return {
        "base": base,
        "tuned": save_tiny_llama(folder / "tuned", seed=1),
        "adapter": save_tiny_lora(base, folder / "adapter", seed=2, zero=False),
        "zero": save_tiny_lora(base, folder / "zero", seed=2, zero=True),
        "gpt2": save_tiny_gpt2(folder / "gpt2", seed=3),
    }


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    rows = [{"document_id": str(n), "variant": variant, "text": text.format(n=n)} for n in range(12) for variant, text in TEXTS.items()]
    rows = [row for row in rows if (row["document_id"], row["variant"]) != ("3", "counterfactual")]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _arguments(models: dict[str, Path], tuned: str, probes: Path, out: Path, *more: str) -> tuple[str, ...]:
    """A comparison of the base with one of the other models."""
    return ("compare", "--base", str(models["base"]), "--tuned", str(models[tuned]), "--probes", str(probes), "--out", str(out), *more)


def test_compare_writes_everything_and_reuses_it(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = _arguments(models, "tuned", probes, out, "--draws", "500")
    first = run_cli(*arguments)
    assert first.code == 0, first.err
    assert "report.html" in first.out
    for name in (
        "report.html",
        "shifts.csv",
        "shifts.parquet",
        "manifest.json",
        "tables.tex",
        "scores/base/manifest.json",
        "scores/tuned/token_scores.parquet",
    ):
        assert (out / name).is_file(), name
    assert {path.suffix for path in (out / "figures").iterdir()} == {".png", ".svg", ".pdf"}
    rows = pq.read_table(out / "shifts.parquet").to_pylist()
    assert {(row["variant"], row["reference"]) for row in rows if row["normalization"] == "token"} == {
        *((variant, "original") for variant in TEXTS if variant != "original"),
        *((variant, "control") for variant in TEXTS if variant not in {"original", "paraphrase"}),
    }
    assert {row["num_documents"] for row in rows if row["variant"] == "counterfactual"} == {11}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    second = run_cli(*arguments)
    assert second.code == 0
    assert second.err.count("reused") >= 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_comparisons_share_the_scores_of_their_base(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    for name in ("tuned", "adapter"):
        outcome = run_cli(*_arguments(models, name, probes, tmp_path / name, "--draws", "200", "--scores", str(tmp_path / "scores")))
        assert outcome.code == 0, outcome.err
        assert not (tmp_path / name / "scores").exists()
    assert "reused" in outcome.err
    assert f"base {models['base']}, tuned {models['adapter']}" in outcome.out
    assert len(list((tmp_path / "scores").iterdir())) == 3
    refused = run_cli(*_arguments(models, "tuned", probes, tmp_path / "tuned", "--scores", str(tmp_path / "scores"), "--limit", "5"))
    assert refused.code == 2
    assert "holds a comparison of other scores" in refused.err
    assert len(list((tmp_path / "scores").iterdir())) == 3  # said before anything was scored


def test_identical_models_give_exactly_zero(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run_cli(*_arguments(models, "zero", probes, out, "--draws", "200"))
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(out / "shifts.parquet").to_pylist()
    assert rows
    assert all(
        row["estimate"] == row["ci_low"] == row["ci_high"] == row["gain"] == 0.0 and row["p_value"] == 1.0 and row["share"] is None for row in rows
    )
    unavailable = json.loads((out / "manifest.json").read_text())["details"]["unavailable"]
    assert any(row["table"] == "shifts.share" and "covers 0" in row["reason"] for row in unavailable)


def test_other_settings_never_meet_old_scores(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = _arguments(models, "tuned", probes, out, "--draws", "200")
    assert run_cli(*arguments).code == 0
    refused = run_cli(*arguments, "--max-tokens", "8")
    assert refused.code == 2
    assert "max_tokens: null there, 8 here" in refused.err


def test_retrained_model_in_the_same_folder_is_noticed(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(models["tuned"], tuned)
    arguments = ("score", "--model", str(tuned), "--probes", str(probes), "--out", str(tmp_path / "scores"))
    assert run_cli(*arguments).code == 0
    shutil.rmtree(tuned)
    save_tiny_llama(tuned, seed=9)
    refused = run_cli(*arguments)
    assert refused.code == 2
    assert "model.weights" in refused.err


def test_stage_by_stage_equals_compare(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    reference = f"{models['base']}+{models['adapter']}"
    for name, model in (("base", str(models["base"])), ("tuned", reference)):
        assert run_cli("score", "--model", model, "--probes", str(probes), "--out", str(tmp_path / name)).code == 0
    shifted = run_cli(
        "shift", "--base", str(tmp_path / "base"), "--tuned", str(tmp_path / "tuned"), "--out", str(tmp_path / "shift"), "--draws", "300"
    )
    assert shifted.code == 0, shifted.err
    assert run_cli("report", str(tmp_path / "shift")).code == 0
    compared = run_cli(
        "compare",
        "--base",
        str(models["base"]),
        "--tuned",
        str(models["adapter"]),
        "--probes",
        str(probes),
        "--out",
        str(tmp_path / "all"),
        "--draws",
        "300",
    )
    assert compared.code == 0, compared.err
    one, other = (pq.read_table(tmp_path / name / "shifts.parquet").drop_columns(["tuned_model"]) for name in ("shift", "all"))
    assert one.equals(other)
    assert "verified" in run_cli("show", str(tmp_path / "all")).out


def test_other_tokenizers_give_bytes_only(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=4, vocab_size=300)
    base_tokens = read_tokenizer(models["base"])
    if read_tokenizer(other) == base_tokens:
        pytest.fail("the two tiny models must have different tokenizers for this test")
    out = tmp_path / "out"
    outcome = run_cli("compare", "--base", str(models["base"]), "--tuned", str(other), "--probes", str(probes), "--out", str(out), "--draws", "200")
    assert outcome.code == 0, outcome.err
    assert {row["normalization"] for row in pq.read_table(out / "shifts.parquet").to_pylist()} == {"byte"}
    assert "tokenizers differ" in (out / "manifest.json").read_text()
    assert "nats per byte" in outcome.out


def read_tokenizer(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer.json").read_text())["model"])


def test_finetune_then_compare_on_gpt2(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"Patient {n} received {n} mg of the drug and slept for {n} hours.\n" for n in range(40)), encoding="utf-8")
    tuned = tmp_path / "tuned"
    trained = run_cli(
        "finetune", "--model", str(models["gpt2"]), "--corpus", str(corpus), "--out", str(tuned), "--batch-size", "8", "--learning-rate", "1e-2",
        "--lora-rank", "2", "--held-out", "4", "--max-tokens", "40", "--device", "cpu",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "held-out loss" in trained.out
    out = tmp_path / "out"
    outcome = run_cli(
        "compare", "--base", str(models["gpt2"]), "--tuned", str(tuned), "--probes", str(probes), "--out", str(out), "--draws", "200", "--corpus", str(corpus),
        "--limit", "6",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert len(set(read_scores(out / "scores" / "tuned").document_ids)) == 6
    details = json.loads((out / "manifest.json").read_text())["details"]
    assert details["checks"]["no probe document in the training corpus"]["passed"]


def test_probe_in_the_corpus_is_reported(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(TEXTS["original"].format(n=5) + "\nSomething else entirely stands on this line.\n", encoding="utf-8")
    out = tmp_path / "out"
    outcome = run_cli(
        "compare", "--base", str(models["base"]), "--tuned", str(models["tuned"]), "--probes", str(probes), "--out", str(out), "--draws", "200",
        "--corpus", str(corpus),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    check = json.loads((out / "manifest.json").read_text())["details"]["checks"]["no probe document in the training corpus"]
    assert not check["passed"]
    assert "5" in check["text"]


def test_no_document_with_both_texts_is_nothing_to_do(run_cli: Run, models: dict[str, Path], tmp_path: Path) -> None:
    probes = tmp_path / "p.jsonl"
    probes.write_text(
        '{"document_id": "1", "variant": "original", "text": "Iron is stored."}\n{"document_id": "2", "variant": "casual", "text": "Iron, yeah."}\n'
    )
    outcome = run_cli(
        "compare", "--base", str(models["base"]), "--tuned", str(models["tuned"]), "--probes", str(probes), "--out", str(tmp_path / "out")
    )
    assert outcome.code == 2
    assert "no document has both an original and a variant" in outcome.err


def test_real_published_probes_read_and_score(run_cli: Run, models: dict[str, Path], shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "probes"
    outcome = run_cli(
        "compare", "--base", str(models["base"]), "--tuned", str(models["tuned"]), "--probes", str(folder / "pubmed_derived.json.gz"), "--control",
        str(folder / "pubmed_keyword.json.gz"), "--limit", "8", "--max-tokens", "48", "--out", str(tmp_path / "out"), "--draws", "200",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(tmp_path / "out" / "shifts.parquet").to_pylist()
    assert {row["variant"] for row in rows} == {"casual", "counterfactual", "paraphrase"}


def test_the_number_of_threads_is_set_and_recorded(run_cli: Run, models: dict[str, Path], probes: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        outcome = run_cli("score", "--model", str(models["base"]), "--probes", str(probes), "--threads", "1", "--out", str(tmp_path / "out"))
    finally:
        torch.set_num_threads(before)
    assert outcome.code == 0, outcome.err
    assert read_scores(tmp_path / "out").manifest.details["num_threads"] == 1
