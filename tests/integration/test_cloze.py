"""Cloze scoring from probe set to table, with real (tiny) models: numbers against float64 by another way, resume, the command."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmdissect.errors import NothingToDoError, UserInputError
from lmdissect.formats.cloze_terms import read_cloze
from lmdissect.formats.scores import read_scores
from lmdissect.pipeline.cloze import ClozeRequest, measure_cloze
from lmdissect.pipeline.cloze_terms import ClozeConfig
from lmdissect.probes import read_probe_set
from lmdissect.results import open_results
from lmdissect.scoring import ScoringConfig
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.cloze import score_term
from lmdissect_cli import CliOutcome
from tiny_models import save_tiny_gpt2, save_tiny_llama

DRUGS = ("aspirin", "insulin", "heparin", "codeine", "quinine", "digoxin")


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    """Six documents with a changed name, a changed number and a key term."""
    rows = []
    for number, drug in enumerate(DRUGS):
        other = DRUGS[(number + 1) % len(DRUGS)].upper()
        rows += [
            {"document_id": f"d{number}", "variant": "original", "text": f"We gave {drug} to {number + 3}0 mice ({drug}-fed)."},
            {"document_id": f"d{number}", "variant": "counterfactual", "text": f"We gave {other} to {number + 3}5 mice ({drug}-fed)."},
        ]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def request(base: Path, tuned: Sequence[Path], probes: Path, **fields: object) -> ClozeRequest:
    values = {
        "scoring": ScoringConfig(device="cpu"),
        "shift": ShiftConfig(num_draws=100),
        "cloze": ClozeConfig(num_candidates=4),
        "probe_set": read_probe_set(str(probes)),
        **fields,
    }
    return ClozeRequest(base=str(base), tuned=[str(path) for path in tuned], **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("save", "bos"), [(save_tiny_llama, True), (save_tiny_gpt2, False)])
def test_numbers_are_those_of_whole_texts(tmp_path: Path, probes: Path, save: Callable[..., Path], bos: bool) -> None:
    """Contrast and rank of a term are differences of whole texts' log-probabilities, computed here in float64 by transformers alone."""
    base, tuned = save(tmp_path / "base", seed=0), save(tmp_path / "tuned", seed=1)
    measure_cloze(request(base, [tuned], probes), tmp_path / "out")
    _, terms, rows = read_cloze(tmp_path / "out")
    assert len(terms) == 12
    found: dict[str, list[float]] = {}
    for name, folder in (("base", base), ("tuned", tuned)):
        table, nats_of = read_scores(tmp_path / "out" / "scores" / name), whole_text_nats(folder, bos=bos)
        for term in terms:
            scored = score_term(table, term)
            assert scored is not None
            expected = np.array([nats_of(term.context + text) for text in term.candidates.values()])
            assert scored.logprob_C - scored.logprob_C[0] == pytest.approx(expected - expected[0], abs=1e-4)
            found.setdefault(term.document_id, []).append((1 if name == "tuned" else -1) * (expected[0] - expected[1]))
    row = next(row for row in rows if row["is_headline"] and row["selection"] == "changed")
    assert row["estimate"] == pytest.approx(np.mean([sum(values) / 2 for values in found.values()]), abs=1e-4)
    assert row["num_documents"] == 6


def whole_text_nats(folder: Path, *, bos: bool) -> Callable[[str], float]:
    """What gives log p of all tokens of a text (after the first, where nothing stands before it), in float64."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float64)

    def nats_of(text: str) -> float:
        ids = tokenizer(text, add_special_tokens=bos, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        return float(logprobs.gather(1, ids[0, 1:, None]).sum())

    return nats_of


def test_a_model_against_itself_gives_exactly_nothing(tmp_path: Path, probes: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0)
    rows = measure_cloze(request(base, [base], probes), tmp_path / "out").rows
    assert rows
    assert {row["estimate"] for row in rows} == {0.0}


def test_again_nothing_is_done_and_seeds_are_pooled(tmp_path: Path, probes: Path) -> None:
    base, *tuned = (save_tiny_llama(tmp_path / f"model{seed}", seed=seed) for seed in range(3))
    first = measure_cloze(request(base, tuned, probes), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    again = measure_cloze(request(base, tuned, probes), tmp_path / "out")
    assert not first.reused
    assert again.reused
    assert again.rows == first.rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == before
    assert {row["num_seeds"] for row in first.rows} == {2}
    results = open_results(tmp_path / "out")
    assert results.kind == "cloze"
    assert len(results.terms) == first.num_terms


def test_what_cannot_be_asked(tmp_path: Path, probes: Path) -> None:
    base = tmp_path / "no-model"
    with pytest.raises(UserInputError, match="max_tokens 8 would cut the terms off"):
        measure_cloze(request(base, [base], probes, scoring=ScoringConfig(max_tokens=8)), tmp_path / "out")
    bare = tmp_path / "bare.jsonl"
    rows = [{"document_id": "a", "variant": variant, "text": f"some {variant} text"} for variant in ("original", "casual")]
    bare.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(NothingToDoError, match="no term to ask about"):
        measure_cloze(request(base, [base], bare), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(tmp_path: Path, probes: Path, run_cli: Callable[..., CliOutcome]) -> None:
    base, tuned = save_tiny_llama(tmp_path / "base", seed=0), save_tiny_llama(tmp_path / "tuned", seed=1)
    options = ("--base", base, "--tuned", tuned, "--probes", probes, "--out", tmp_path / "out", "--draws", 100, "--candidates", 4, "--device", "cpu")
    outcome = run_cli("cloze", *map(str, options))
    assert outcome.code == 0, outcome.err
    assert "ranks among 4 candidates" in outcome.out
    assert "counterfactual  changed    contrast       all" in outcome.out
    assert f"cloze: {tmp_path / 'out'}" in outcome.out
    other = run_cli("cloze", *map(str, options), "--terms", "1")
    assert other.code == 2
    assert "made with other settings" in other.err
