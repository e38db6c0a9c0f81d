"""The calibration end to end: exact scores through memory and disk, trained models, the page, resuming."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from lmdissect.calibration import (
    PLANTS,
    CalibrationConfig,
    Grammar,
    Job,
    Rewriter,
    base_world,
    draw_probes,
    make_score_table,
    plant_world,
    probe_set_of,
)
from lmdissect.calibration.grammar import BOS
from lmdissect.errors import InterruptedRunError
from lmdissect.formats.calibration_tables import read_calibration_tables
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.calibrating import CalibrationSummary, calibrate
from lmdissect.pipeline.trials import compare_with_disk, estimate_rows, exact_shift, simulate_trials
from lmdissect.progress import SilentProgress, Task
from lmdissect_cli import CliOutcome

TINY = CalibrationConfig(
    num_draws=100,
    num_probe_sets=3,
    num_documents=30,
    power_documents=(10,),
    num_power_sets=2,
    slip_rates=(0.0, 0.5),
    num_slip_sets=2,
    num_seeds=1,
    num_truth_documents=100,
    pretraining_steps=3,
    training_documents=32,
)


def test_memory_and_disk_give_the_same_shifts(tmp_path: Path) -> None:
    assert compare_with_disk(TINY, tmp_path) < 1e-7


def test_a_planted_topic_shows_in_topic_alone() -> None:
    base = base_world(Grammar())
    tuned = plant_world(base, PLANTS["topic"])
    draw = draw_probes(base, Rewriter(), 2000, np.random.default_rng(3))
    config = TINY.model_copy(update={"num_draws": 500})
    rows = estimate_rows(make_score_table(base, draw, "base"), make_score_table(tuned, draw, "tuned"), config, 0)
    found = {row.variant: row for row in rows if row.normalization == "token" and row.reference == "original"}
    truth = exact_shift(PLANTS["topic"], "nontopic", "original", "token", 0.0)
    assert found["nontopic"].estimate == pytest.approx(truth, rel=0.05)
    for variant in ("restyled", "counterfactual", "paraphrase"):
        assert abs(found[variant].estimate) < 0.06 * truth


def test_equal_worlds_have_shifts_of_exactly_zero() -> None:
    job = Job("oracle", "nothing", PLANTS["nothing"], None, 0.0, 20, 0, 1)
    rows = list(simulate_trials(job, TINY))
    assert rows
    assert all(row["estimate"] == row["ci_low"] == row["ci_high"] == 0.0 and row["p_value"] == 1.0 for row in rows)


@pytest.mark.slow
def test_intervals_of_exact_scores_hold_the_truth_as_often_as_they_say() -> None:
    """300 probe sets: 95 % within four standard errors of that rate (1.26 points)."""
    job = Job("oracle", "topic_style", PLANTS["topic_style"], None, 0.0, 200, 0, 300)
    rows = [row for row in simulate_trials(job, CalibrationConfig()) if row["normalization"] == "token"]
    for variant, reference in {(row["variant"], row["reference"]) for row in rows}:
        chosen = [row for row in rows if (row["variant"], row["reference"]) == (variant, reference)]
        held = np.mean([row["ci_low"] <= row["truth"] <= row["ci_high"] for row in chosen])
        assert 0.90 <= held <= 0.995
        if chosen[0]["truth"] == 0.0:
            assert np.mean([row["p_value"] < 0.05 for row in chosen]) <= 0.10


@dataclass
class StopAfter(SilentProgress):
    """Sets the stop request after a number of pieces, as Ctrl-C would."""

    stop: StopRequest
    pieces: int
    advanced: list[int] = field(default_factory=list)

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        inner, outer = super().task(name, total, unit, done=done), self

        class Counting(type(inner)):  # type: ignore[misc]
            def advance(self, amount: int) -> None:
                if unit != "steps":
                    outer.advanced.append(amount)
                outer.stop.asked = len(outer.advanced) >= outer.pieces

        return Counting()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSummary:
    """A calibration that nothing interrupted."""
    return calibrate(TINY, tmp_path_factory.mktemp("calibration") / "whole")


@pytest.mark.slow
def test_a_calibration_stopped_twice_is_the_one_that_was_not(whole: CalibrationSummary, tmp_path: Path) -> None:
    """Once among simulated probe sets, once among trained models; then it finishes, is reused, and its tables are those of an uninterrupted one."""
    for pieces in (5, 20):
        stop = StopRequest()
        with pytest.raises(InterruptedRunError, match="pieces are kept"):
            calibrate(TINY, tmp_path / "cut", progress=StopAfter(stop, pieces), stop=stop)
    resumed = calibrate(TINY, tmp_path / "cut")
    assert not resumed.reused
    assert calibrate(TINY, tmp_path / "cut").reused
    here, there = (read_calibration_tables(folder)[1] for folder in (whole.folder, resumed.folder))
    assert here == there
    assert not (resumed.folder / "work").exists()


@pytest.mark.slow
def test_the_page_is_self_contained_and_says_what_was_measured(run_cli: Callable[..., CliOutcome], whole: CalibrationSummary) -> None:
    page = (whole.folder / "calibration.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=['\"]?[^'\"#]", page)
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "small run" in page
    _, tables = read_calibration_tables(whole.folder)
    for goal in tables["goals"]:
        assert goal["goal"].replace("'", "&#39;") in page
    for name in ("recovery", "coverage", "leak", "power", "slips"):
        assert f'id="figure-{name}"' in page
        assert all((whole.folder / "figures" / f"{name}.{kind}").stat().st_size > 500 for kind in ("png", "svg", "pdf"))
    outcome = run_cli("calibrate", "--out", str(whole.folder), "--quick")
    assert outcome.code == 2
    assert "was made with other settings" in outcome.err


@pytest.mark.slow
def test_the_tiny_model_has_the_worlds_tokens_and_its_quick_scores_are_the_scoring_stages(tmp_path: Path) -> None:
    from lmdissect.models import load_model, resolve_model
    from lmdissect.models.tokenization import TextTokenizer
    from lmdissect.pipeline.trained_world import document_scores, pretrain_base
    from lmdissect.scoring import ScoringConfig, score_texts

    world = base_world(Grammar())
    model = load_model(resolve_model(str(pretrain_base(world, 5, 0, tmp_path / "base", SilentProgress()))))
    draw = draw_probes(world, Rewriter(), 12, np.random.default_rng(1))
    tokenizer = TextTokenizer(model.tokenizer)
    assert tokenizer.prefix_ids == (Grammar().vocabulary.index(BOS),)
    original = draw.texts["original"]
    texts = [text.text for text in probe_set_of(world, draw).texts if text.variant == "original"]
    quick = document_scores(model, replace(draw, texts={"original": original}), world.grammar)["original"]
    for text, ids, count, total, scored in zip(
        texts,
        world.grammar.token_ids(original),
        world.grammar.num_tokens(original.num_sentences),
        quick,
        score_texts(model, texts, ScoringConfig(device="cpu")),
        strict=True,
    ):
        assert tokenizer.tokenize(text).token_id.tolist() == ids[:count].tolist()
        assert scored.total_logprob_nats == pytest.approx(total, abs=1e-3)
        assert scored.num_scored == count
