"""Measured speeds: of which model, over which tokens; and a plan that fetches nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from experiment_world import make_world, write_experiment
from lmdissect.finetune import FinetuneConfig
from lmdissect.pipeline import inputs as pipeline_inputs
from lmdissect.pipeline.experiment import ModelSettings, read_experiment
from lmdissect.pipeline.inputs import Inputs
from lmdissect.pipeline.plan import Plan, make_plan
from lmdissect.pipeline.speeds import SpeedGauge, cpus_are_busy, measure_scoring, measure_training
from lmdissect.records import Document, ProbeSet
from lmdissect.scoring import ScoringConfig
from tiny_models import SENTENCES, save_tiny_llama

DOCUMENTS = [Document(f"d{number}", text) for number, text in enumerate(SENTENCES)]


def announce() -> None:
    """What a plan says before it measures; nothing here."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def plan(file: Path, *changes: str) -> Plan:
    return make_plan(read_experiment(file, changes), str(file), calibrate=False)


def test_tokens_left_out_of_the_loss_take_as_long(world: Path, tmp_path: Path) -> None:
    models = ModelSettings(base=str(world / "base"))
    config = FinetuneConfig(max_tokens=40, device="cpu", skip_first_tokens=200)
    speed = measure_training(models, "fingerprint", config, DOCUMENTS, SpeedGauge(tmp_path, 1, announce))
    assert speed is not None, "no token of it counts in the loss, and it was measured all the same"
    other = config.model_copy(update={"skip_first_tokens": 8, "skip_token_classes": ("number",)})
    assert measure_training(models, "fingerprint", other, DOCUMENTS, SpeedGauge(tmp_path, 1, None)) == speed


def test_a_speed_is_of_a_model_and_not_of_its_name(tmp_path: Path) -> None:
    models, config = ModelSettings(base=str(tmp_path / "base")), ScoringConfig(max_tokens=16, device="cpu")
    store = tmp_path / "store"
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        save_tiny_llama(tmp_path / "base", seed=seed)
        identity = Inputs().model(models)["fingerprint"]
        assert measure_scoring(models, identity, config, DOCUMENTS, SpeedGauge(store, 1, None)) is None, "nothing is known of this one"
        measured = measure_scoring(models, identity, config, DOCUMENTS, SpeedGauge(store, 1, announce))
        assert measure_scoring(models, identity, config, DOCUMENTS, SpeedGauge(store, 1, None)) == measured


def test_a_speed_taken_beside_other_work_says_so_until_it_is_measured_anew(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_experiment(world, tmp_path)
    monkeypatch.setattr(os, "getloadavg", lambda: (float(os.cpu_count() or 1), 0.0, 0.0))
    busy = make_plan(read_experiment(file, ()), str(file))
    assert any("other work" in problem for problem in busy.problems.values())
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert any("--calibrate" in problem for problem in make_plan(read_experiment(file, ()), str(file)).problems.values()), (
        "the old speed is still used"
    )
    assert make_plan(read_experiment(file, ()), str(file), calibrate=True).problems == {}
    assert plan(file).problems == {}, "what was measured anew is kept"


@pytest.mark.parametrize(("load", "threads", "is_busy"), [(0.3, 4, False), (0.9, 4, True), (2.5, 1, False), (3.9, 1, True), (3.0, 64, True)])
def test_cpus_are_busy_where_fewer_are_idle_than_threads(load: float, threads: int, is_busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert cpus_are_busy(threads) is is_busy


def test_a_plan_reads_no_probe_set_from_the_hub(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = pipeline_inputs.read_probe_set
    asked: list[str] = []

    def note(path: str, **more: object) -> ProbeSet:
        asked.append(path)
        return read(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline_inputs, "read_probe_set", note)
    corpus = {"probe_set": "someone/published_set", "variant": "casual", "size": 3, "validation": 1}
    file = write_experiment(world, tmp_path, corpus=corpus, finetune={"learning_rate": {"grid": [1e-3], "size": 2}, "device": "cpu"})
    problems = plan(file).problems
    assert set(asked) == {str(world / "probes.jsonl")}
    assert any("planning fetches nothing" in problem for problem in problems.values())


def test_documents_mixed_in_and_measured_probes_are_in_the_plan(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path)
    alone = plan(file).total("finetune").tokens
    long = tmp_path / "long.jsonl"
    rows = [{"id": f"l{number}", "text": f"{' '.join(SENTENCES)} {number}"} for number in range(20)]
    long.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mixed = plan(file, f"corpus.mix={{files: [{long}], share: 0.5}}").total("finetune").tokens
    measured = plan(file, "measure={probes: [p], steps: log, limit: 3}").total("finetune").tokens
    assert alone is not None
    assert mixed is not None
    assert measured is not None
    assert mixed - alone == 8 * 42, "eight documents of 40 tokens with BOS and EOS"
    scored = plan(file).total("score").tokens
    assert scored is not None
    assert measured - alone == pytest.approx(3 * scored / 2 * 3 / 8, rel=0.1), (
        "steps 0, 1 and 2, each 3 of the 8 documents that base and tuned are scored on"
    )
