"""The callback in real training runs: plain Trainer, PEFT, our own finetuning, killed and resumed runs, two processes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from killed_runs import ENVIRONMENT
from live_training import SCORING, SHIFT, KilledError, KillingCallback, make_probes, make_trainer
from lmdissect.errors import InterruptedRunError, NonFiniteScoreError, NothingToDoError, StaleArtifactError, UnreadableInputError, UserInputError
from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
from lmdissect.formats.scores import read_scores
from lmdissect.formats.shift_tables import read_shift_tables
from lmdissect.integrations import ShiftCallback, read_curve
from lmdissect.interrupts import StopRequest
from lmdissect.models import load_tokenizer, resolve_model
from lmdissect.progress import LineProgress, SilentProgress
from lmdissect.records import Document, ProbeSet
from lmdissect.scoring import score_probe_set
from lmdissect.shifts import measure_shifts
from tiny_models import SENTENCES, save_tiny_gpt2, save_tiny_llama

CURVES = [f"{name}.{kind}" for name in ("curve", "curve_gains", "curve_fact_tokens") for kind in ("csv", "parquet")]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with dropout."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "gpt2", seed=0, bos=True)


def _callback(out: Path, probes: Any = None, **options: Any) -> ShiftCallback:
    return ShiftCallback(
        make_probes() if probes is None else probes, out, **{"scoring": SCORING, "shift": SHIFT, "progress": SilentProgress(), **options}
    )


def _estimates(out: Path, step: int) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    return {
        (row["variant"], row["reference"], row["normalization"]): (row["estimate"], row["ci_low"], row["ci_high"])
        for row in read_curve(out)
        if row["step"] == step
    }


@pytest.fixture(scope="module")
def uninterrupted(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    make_trainer(gpt2, folder / "run", callbacks=[_callback(folder / "curve")]).train()
    return folder


def _losses(trainer: Any) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_training_is_bit_for_bit_what_it_is_without(gpt2: Path, tmp_path: Path) -> None:
    plain = make_trainer(gpt2, tmp_path / "plain", save_strategy="no", drawing=True)
    plain.train()
    for number, attached in enumerate((False, True)):
        measured = make_trainer(gpt2, tmp_path / f"measured{number}", save_strategy="no", drawing=True)
        callback = _callback(tmp_path / f"curve{number}", steps=2)
        if attached:
            callback.attach(measured)
        else:
            measured.add_callback(callback)
        measured.train()
        assert _losses(measured) == _losses(plain)
        assert len(set(_losses(plain))) == 6
        for (name, here), there in zip(measured.model.named_parameters(), plain.model.parameters(), strict=True):
            assert torch.equal(here, there), name
        assert {row["step"] for row in read_curve(tmp_path / f"curve{number}")} == {0, 2, 4, 6}


def test_the_curve_is_what_a_comparison_of_saved_models_gives(gpt2: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert sorted({row["step"] for row in read_curve(uninterrupted / "curve")}) == [0, 1, 2, 4, 6]
    saved = {"base": gpt2, "tuned": uninterrupted / "run" / "checkpoint-4"}
    for name, folder in saved.items():
        score_probe_set(resolve_model(str(folder)), make_probes(), SCORING, tmp_path / name)
    summary = measure_shifts(tmp_path / "base", tmp_path / "tuned", SHIFT, tmp_path / "shifts")
    expected = {(row.variant, row.reference, row.normalization): (row.estimate, row.ci_low, row.ci_high) for row in summary.shifts}
    assert _estimates(uninterrupted / "curve", 4) == expected
    assert len(expected) == 9  # casual and paraphrase against the original, casual against the control, three normalizations
    assert any(abs(estimate) > 1e-3 for estimate, _, _ in expected.values())


def test_step_0_is_the_base_of_all_and_has_moved_nowhere(uninterrupted: Path) -> None:
    assert set(_estimates(uninterrupted / "curve", 0).values()) == {(0.0, 0.0, 0.0)}
    rows = read_curve(uninterrupted / "curve")
    assert {row["base_model"] for row in rows} == {rows[0]["tuned_model"]}
    assert rows[0]["tuned_model"].endswith("gpt2 at step 0")


def test_a_row_says_how_far_training_was(uninterrupted: Path, gpt2: Path, tmp_path: Path) -> None:
    rows = {row["step"]: row for row in read_curve(uninterrupted / "curve")}
    logged = {
        row["step"]: row["loss"]
        for row in json.loads((uninterrupted / "run" / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
        if "loss" in row
    }
    assert rows[0]["train_loss_nats"] is None
    assert {step: rows[step]["train_loss_nats"] for step in (1, 2, 4, 6)} == {step: logged[step] for step in (1, 2, 4, 6)}
    assert rows[4]["num_trained_documents"] is None
    assert rows[4]["num_trained_tokens"] is None
    table = read_scores(uninterrupted / "curve" / "steps" / "000004" / "scores")
    originals = [row for (_, variant), row in table.rows.items() if variant == "original"]
    assert rows[4]["original_loss_nats"] == pytest.approx(-table.logprob_nats[originals].sum() / table.num_scored[originals].sum())
    callback = _callback(tmp_path / "curve", steps=[3], documents_per_step=[2, 2, 2, 2, 1, 2])
    make_trainer(gpt2, tmp_path / "run", callbacks=[callback], include_num_input_tokens_seen="all", logging_steps=4, save_strategy="no").train()
    told = {row["step"]: row for row in read_curve(tmp_path / "curve")}
    assert {step: row["num_trained_documents"] for step, row in told.items()} == {0: 0, 3: 6, 6: 11}
    assert 0 == told[0]["num_trained_tokens"] < told[3]["num_trained_tokens"] < told[6]["num_trained_tokens"]
    assert told[3]["train_loss_nats"] == pytest.approx(sum(logged[step] for step in (1, 2, 3, 4)) / 4, abs=1e-6)  # the mean that was logged at step 4


def test_every_step_can_be_reported(uninterrupted: Path, run_cli: Callable[..., Any]) -> None:
    assert run_cli("report", str(uninterrupted / "curve" / "steps" / "000004")).code == 0
    assert (uninterrupted / "curve" / "steps" / "000004" / "report.html").is_file()
    for kind in ("png", "svg"):
        assert (uninterrupted / "curve" / f"curve.{kind}").stat().st_size > 1000


def _same_curves(folder: Path, expected: Path) -> None:
    for name in CURVES:
        assert (folder / "curve" / name).read_bytes() == (expected / "curve" / name).read_bytes(), name


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_and_resumed_run_measures_nothing_twice(gpt2: Path, uninterrupted: Path, tmp_path: Path, killed_at: int) -> None:
    with pytest.raises(KilledError):
        make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "curve"), KillingCallback(killed_at)]).train()
    scores = {path.parent.parent.name: path for path in (tmp_path / "curve").glob("steps/*/scores/manifest.json")}
    stamps = {name: path.stat().st_mtime_ns for name, path in scores.items()}
    assert sorted(stamps) == ["000000", "000001", "000002", "000004"][: 3 if killed_at == 3 else 4]
    said = StringIO()
    resumed = _callback(tmp_path / "curve", progress=LineProgress(said))
    make_trainer(gpt2, tmp_path / "run", callbacks=[resumed]).train(resume_from_checkpoint=True)
    assert {name: path.stat().st_mtime_ns for name, path in scores.items()} == stamps
    assert f"going on, {len(stamps)} steps were measured before" in said.getvalue()
    _same_curves(tmp_path, uninterrupted)


def test_a_run_resumed_at_its_end_adds_no_point(gpt2: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """The Trainer then makes one step too many."""
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    trainer = make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "curve")])
    trainer.train(resume_from_checkpoint=True)
    _same_curves(tmp_path, uninterrupted)


def test_a_run_that_begins_again_takes_over_steps_with_equal_weights(gpt2: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint. Step 2 was measured by an attempt that took another course: that one is measured anew."""
    with pytest.raises(KilledError):
        make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "curve"), KillingCallback(3)], save_strategy="no").train()
    steps = tmp_path / "curve" / "steps"
    shutil.rmtree(steps / "000002")
    shutil.copytree(steps / "000001", steps / "000002")
    stamp = (steps / "000001" / "scores" / "manifest.json").stat().st_mtime_ns
    said = StringIO()
    make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "curve", progress=LineProgress(said))]).train()
    assert (steps / "000001" / "scores" / "manifest.json").stat().st_mtime_ns == stamp
    assert said.getvalue().count("measured anew") == 1
    assert "000002: an earlier attempt came here with other weights" in said.getvalue()
    _same_curves(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("options", "arguments", "named"),
    [
        ({}, {"learning_rate": 5e-3}, r"learning_rate: 0\.01 there, 0\.005 here"),
        ({}, {"max_steps": 7}, "max_steps: 6 there, 7 here"),
        ({"limit": 4}, {}, "probes: "),
        ({"writers": {"casual": "somebody"}}, {}, "labels: "),
        ({"scoring": SCORING.model_copy(update={"max_tokens": 9})}, {}, "scoring: "),
    ],
)
def test_the_folder_of_another_run_is_refused_before_the_first_step(
    gpt2: Path, uninterrupted: Path, tmp_path: Path, options: dict[str, Any], arguments: dict[str, Any], named: str
) -> None:
    shutil.copytree(uninterrupted / "curve", tmp_path / "curve")
    trainer = make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "curve", **options)], **arguments)
    with pytest.raises(StaleArtifactError, match=named):
        trainer.train()
    assert trainer.state.global_step == 0
    for name in CURVES:
        assert (tmp_path / "curve" / name).read_bytes() == (uninterrupted / "curve" / name).read_bytes()


def test_a_folder_with_other_peoples_files_is_refused(gpt2: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StaleArtifactError, match="holds no curve"):
        make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path)]).train()


def test_a_run_resumed_without_step_0_needs_a_base(gpt2: Path, uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    with pytest.raises(UserInputError, match=r"goes on from step 4, and .* has no measurement of step 0"):
        make_trainer(gpt2, tmp_path / "run", callbacks=[_callback(tmp_path / "late")]).train(resume_from_checkpoint=True)
    score_probe_set(resolve_model(str(gpt2)), make_probes(), SCORING, tmp_path / "base")
    late = _callback(tmp_path / "curve", base=tmp_path / "base")
    make_trainer(gpt2, tmp_path / "run", callbacks=[late]).train(resume_from_checkpoint=True)
    assert sorted({row["step"] for row in read_curve(tmp_path / "curve")}) == [6]
    assert _estimates(tmp_path / "curve", 6) == _estimates(uninterrupted / "curve", 6)


class _Recorder(TrainerCallback):
    """A tracker."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_kwargs: Any) -> None:
        self.rows.append({**(logs or {}), "step": state.global_step})


def test_trackers_get_the_numbers_of_an_attached_callback(llama: Path, tmp_path: Path) -> None:
    tracker = _Recorder()
    trainer = make_trainer(llama, tmp_path / "run", callbacks=[tracker], save_strategy="no")
    callback = _callback(tmp_path / "curve")
    assert callback.attach(trainer) is callback
    assert callback.attach(trainer) is callback  # a second time adds nothing
    trainer.train()
    rows = {row["step"]: row for row in tracker.rows if "gain" in row}
    assert sorted(rows) == [0, 1, 2, 4, 6]
    for step, row in rows.items():
        found = _estimates(tmp_path / "curve", step)
        assert (row["shift/casual"], row["shift/casual_low"], row["shift/casual_high"]) == found["casual", "original", "token"]
        assert row["net_shift/casual"] == found["casual", "control", "token"][0]
        assert row["measuring/seconds"] > 0
        assert 0 < row["measuring/share_of_time"] <= 1
    gains = {
        row["step"]: row for row in read_curve(tmp_path / "curve", "curve_gains") if (row["variant"], row["normalization"]) == ("original", "token")
    }
    assert (rows[4]["gain"], rows[4]["gain_low"]) == (gains[4]["estimate"], gains[4]["ci_low"])
    assert [row["step"] for row in tracker.rows if "loss" in row] == [1, 2, 3, 4, 5, 6]  # the trainer's own turn is not taken
    assert [row["step"] for row in trainer.state.log_history if "gain" in row] == [0, 1, 2, 4, 6]


def test_without_attaching_the_numbers_are_in_the_files_and_said(llama: Path, tmp_path: Path) -> None:
    tracker, said = _Recorder(), StringIO()
    callback = _callback(tmp_path / "curve", progress=LineProgress(said))
    make_trainer(llama, tmp_path / "run", callbacks=[tracker, callback], save_strategy="no").train()
    assert not any("gain" in row for row in tracker.rows)
    lines = said.getvalue().splitlines()
    assert lines[0].endswith("curve: 24 texts are scored at steps 0, 1, 2, 4, 6")
    assert [line.split(",")[0] for line in lines[1:-1]] == [f"step {step}" for step in (0, 1, 2, 4, 6)]
    assert "casual +0.0000 [+0.0000, +0.0000]" in lines[1]
    assert "of the time so far)" in lines[4]
    assert lines[-1].startswith("measured 5 steps in ")
    assert "of this training's time" in lines[-1]


class _Blocking(TrainerCallback):
    """Keeps a file from being written between two steps, as a full disk does."""

    def __init__(self, path: Path, first: int, last: int) -> None:
        self._path, self._first, self._last = path, first, last

    def on_step_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if state.global_step == self._first:
            (self._path / "in the way").mkdir(parents=True)
        if state.global_step == self._last:
            shutil.rmtree(self._path)


@pytest.mark.parametrize(("last", "told"), [(5, "see failed_steps.json"), (99, "and failed_steps.json could not be written")])
def test_training_goes_on_where_that_cannot_be_written_down_either(llama: Path, tmp_path: Path, last: int, told: str) -> None:
    said = StringIO()
    callback = _callback(tmp_path / "curve", progress=LineProgress(said))
    blocking = _Blocking(tmp_path / "curve" / "failed_steps.json", 3, last)
    trainer = make_trainer(llama, tmp_path / "run", callbacks=[_Spoiling(), blocking, callback], save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 6
    assert f"2 steps could not be measured ({told})" in said.getvalue()
    if last == 5:
        assert sorted(json.loads((tmp_path / "curve" / "failed_steps.json").read_text())) == ["4", "6"]


class _Spoiling(TrainerCallback):
    """Breaks the weights after a step, as a learning rate that is too high does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_kwargs: Any) -> None:
        if state.global_step == 3:
            with torch.no_grad():
                next(iter(model.parameters())).fill_(float("nan"))


def test_training_goes_on_where_a_step_cannot_be_measured(llama: Path, tmp_path: Path) -> None:
    said = StringIO()
    callback = _callback(tmp_path / "curve", progress=LineProgress(said))
    trainer = make_trainer(llama, tmp_path / "run", callbacks=[_Spoiling(), callback], save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 6
    assert sorted({row["step"] for row in read_curve(tmp_path / "curve")}) == [0, 1, 2]
    failed = json.loads((tmp_path / "curve" / "failed_steps.json").read_text())
    assert sorted(failed) == ["4", "6"]
    assert "NaN or infinite log-probability" in failed["4"]
    assert "step 4 could not be measured, training goes on: document " in said.getvalue()
    assert "2 steps could not be measured (see failed_steps.json)" in said.getvalue()
    assert all(module.training for module in trainer.model.modules())


def test_it_stops_where_that_is_wanted(llama: Path, tmp_path: Path) -> None:
    callback = _callback(tmp_path / "curve", on_error="raise")
    with pytest.raises(NonFiniteScoreError, match="step 4 could not be measured: document "):
        make_trainer(llama, tmp_path / "run", callbacks=[_Spoiling(), callback], save_strategy="no").train()


def test_a_base_that_cannot_be_measured_stops_before_the_first_step(llama: Path, tmp_path: Path) -> None:
    trainer = make_trainer(llama, tmp_path / "run", callbacks=[_callback(tmp_path / "curve")], save_strategy="no")
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NonFiniteScoreError, match="step 0 could not be measured"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_run_that_is_stopped_early_is_measured_where_it_ends(llama: Path, tmp_path: Path) -> None:
    class Stopping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 5

    make_trainer(llama, tmp_path / "run", callbacks=[Stopping(), _callback(tmp_path / "curve")], save_strategy="no").train()
    assert sorted({row["step"] for row in read_curve(tmp_path / "curve")}) == [0, 1, 2, 4, 5]


def test_a_trainer_without_a_tokenizer_is_refused(llama: Path, tmp_path: Path) -> None:
    trainer = make_trainer(llama, tmp_path / "run", callbacks=[_callback(tmp_path / "curve")])
    trainer.callback_handler.processing_class = None
    with pytest.raises(UserInputError, match=r"ShiftCallback\(\.\.\., tokenizer=\.\.\.\)"):
        trainer.train()


class TestBadInputIsRefusedWhenTheCallbackIsMade:
    def test_no_probe_set(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableInputError):
            ShiftCallback(tmp_path / "nowhere.jsonl", tmp_path / "curve")

    def test_no_pairs(self, tmp_path: Path) -> None:
        originals = tuple(text for text in make_probes().texts if text.variant == "original")
        with pytest.raises(NothingToDoError, match="no document has both"):
            _callback(tmp_path / "curve", ProbeSet(originals, {}, "a test"))

    @pytest.mark.parametrize("steps", [0, -3, "linear", [1, -2], True, 2.5, [1.5]])
    def test_odd_steps(self, tmp_path: Path, steps: Any) -> None:
        with pytest.raises(UserInputError, match="steps="):
            _callback(tmp_path / "curve", steps=steps)

    def test_a_variant_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserInputError, match=r"no variant 'rap' .it has casual, paraphrase"):
            _callback(tmp_path / "curve", writers={"rap": "somebody"})

    def test_factors_of_a_set_that_was_read(self, tmp_path: Path) -> None:
        with pytest.raises(UserInputError, match="give factors and control to read_probe_set"):
            _callback(tmp_path / "curve", factors={"casual": "style"})

    def test_no_base(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableInputError, match="no such folder"):
            _callback(tmp_path / "curve", base=tmp_path / "nowhere")

    def test_nothing_is_written(self, tmp_path: Path) -> None:
        _callback(tmp_path / "curve")
        assert list(tmp_path.iterdir()) == []


DOCUMENTS = [Document(f"t{number}", f"{sentence} And again: {sentence}") for number, sentence in enumerate(SENTENCES)]


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["full", "lora"])
def test_our_own_finetuning(llama: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    config = FinetuneConfig(learning_rate=1e-2, batch_size=2, device="cpu", lora=lora, max_tokens=64)
    resolved = resolve_model(str(llama))
    callback = _callback(tmp_path / "curve", tokenizer=load_tokenizer(resolved))
    documents = DOCUMENTS[:9]  # the last step has one
    with_callback = finetune(resolved, documents, config, tmp_path / "measured", callbacks=[callback])
    finetune(resolved, documents, config, tmp_path / "plain")
    weights = "model.safetensors" if lora is None else "adapter_model.safetensors"
    assert (tmp_path / "measured" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()
    last = with_callback.num_steps
    assert {row["step"]: row["num_trained_documents"] for row in read_curve(tmp_path / "curve")} == {0: 0, 1: 2, 2: 4, 4: 8, last: 9}
    score_probe_set(resolve_model(str(llama)), make_probes(), SCORING, tmp_path / "base")
    score_probe_set(resolve_model(str(tmp_path / "measured")), make_probes(), SCORING, tmp_path / "tuned")
    summary = measure_shifts(tmp_path / "base", tmp_path / "tuned", SHIFT, tmp_path / "shifts")
    found = _estimates(tmp_path / "curve", last)
    for row in summary.shifts:
        if row.normalization == "token":
            assert found[row.variant, row.reference, "token"][0] == pytest.approx(row.estimate, abs=2e-5)
    assert max(abs(estimate) for (_, _, unit), (estimate, _, _) in found.items() if unit == "token") > 1e-3


class _Asking(TrainerCallback):
    """Presses Ctrl-C after a step."""

    def __init__(self, step: int, stop: StopRequest) -> None:
        self._step, self._stop = step, stop

    def on_step_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        self._stop.asked = state.global_step == self._step - 1


def test_our_own_finetuning_stopped_and_resumed(llama: Path, tmp_path: Path) -> None:
    """The step at which the user stopped is no point of the curve: the resumed run ends with the curve of an uninterrupted one."""
    config = FinetuneConfig(learning_rate=1e-2, batch_size=2, device="cpu", max_tokens=64)
    resolved = resolve_model(str(llama))
    tokenizer = load_tokenizer(resolved)
    finetune(resolved, DOCUMENTS, config, tmp_path / "whole", callbacks=[_callback(tmp_path / "expected" / "curve", tokenizer=tokenizer)])
    stop = StopRequest()
    callbacks = [_Asking(3, stop), _callback(tmp_path / "curve", tokenizer=tokenizer, stop=stop)]
    with pytest.raises(InterruptedRunError):
        finetune(resolved, DOCUMENTS, config, tmp_path / "tuned", callbacks=callbacks, stop=stop)
    assert sorted({row["step"] for row in read_curve(tmp_path / "curve")}) == [0, 1, 2]
    finetune(resolved, DOCUMENTS, config, tmp_path / "tuned", callbacks=[_callback(tmp_path / "curve", tokenizer=tokenizer)])
    _same_curves(tmp_path, tmp_path / "expected")


_KILLED = """
import sys
from pathlib import Path
import numpy as np
from killed_runs import run_killed, run_whole
from live_training import SCORING, SHIFT, make_probes, make_trainer
from lmdissect.integrations import ShiftCallback
from transformers.models.gpt2 import modeling_gpt2  # slow to import: once, and before any fork

model, whole, folder, runs = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def train(out):
    callback = ShiftCallback(make_probes(), out / "curve", scoring=SCORING, shift=SHIFT, on_error="raise")
    trainer = make_trainer(model, out / "run", callbacks=[callback])
    checkpoints = sorted((out / "run").glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
    trainer.train(resume_from_checkpoint=str(checkpoints[-1].parent) if checkpoints else None)

whole_s = run_whole(lambda: train(whole))
rng = np.random.default_rng(5)
for number in range(runs):
    kills = run_killed(lambda: train(folder / str(number)), whole_s, rng, most_kills=6)
    print("kills", kills, flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_ends_with_the_same_curve(gpt2: Path, tmp_path: Path) -> None:
    runs = int(os.environ.get("LMDISSECT_KILLED_RUNS", "2"))
    command = [sys.executable, "-c", _KILLED, str(gpt2), str(tmp_path / "whole"), str(tmp_path), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("kills")]
    assert len(kills) == runs
    assert sum(kills) >= runs
    for number in range(runs):
        _same_curves(tmp_path / str(number), tmp_path / "whole")


_DISTRIBUTED = """
import sys
from pathlib import Path
from live_training import SCORING, SHIFT, make_probes, make_trainer
from lmdissect.integrations import ShiftCallback

model, folder = map(Path, sys.argv[1:])
callback = ShiftCallback(make_probes(), folder / "curve", scoring=SCORING, shift=SHIFT)
trainer = make_trainer(model, folder / "run", per_device_train_batch_size=1, ddp_backend="gloo", save_strategy="no")
callback.attach(trainer)
trainer.train()
sys.stdout.write(f"rank {trainer.args.process_index} ended at {trainer.state.global_step}\\n")  # one write: the other process writes too
"""


@pytest.mark.slow
def test_two_processes_measure_once(llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(_DISTRIBUTED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, llama, tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("rank")) == ["rank 0 ended at 6", "rank 1 ended at 6"]
    assert done.stderr.count("step 4, nats/token") == 1
    assert sorted({row["step"] for row in read_curve(tmp_path / "curve")}) == [0, 1, 2, 4, 6]
    _, tables = read_shift_tables(tmp_path / "curve" / "steps" / "000006")
    assert tables["shifts"]
