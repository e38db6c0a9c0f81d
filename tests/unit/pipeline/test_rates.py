"""The choice of a learning rate: the least validation loss, failed trials kept as such."""

import math
import shutil
from pathlib import Path

import pytest

from lmdissect.errors import OutOfMemoryError, RunFailedError, StaleArtifactError
from lmdissect.finetune import FinetuneConfig
from lmdissect.models import resolve_model
from lmdissect.pipeline.rates import TRIAL_STAGE, choose_learning_rate, choose_rate, read_choice, run_trial
from lmdissect.records import Document
from lmdissect.store import open_artifact, read_manifest
from tiny_models import SENTENCES, save_tiny_llama

DOCUMENTS = [Document(f"d{number}", text[:60]) for number, text in enumerate(SENTENCES)]


def write_trial(folder: Path, rate: float, loss: float | None, failed: str | None = None) -> Path:
    with open_artifact(folder, stage=TRIAL_STAGE, config={"rate": rate}, inputs={}) as artifact:
        artifact.finish(counts={}, details={"learning_rate": rate, "validation_loss_nats": loss, "failed": failed}, files=[])
    return folder


def write_trials(folder: Path, losses: dict[float, float | None]) -> list[Path]:
    return [write_trial(folder / f"{rate:g}", rate, loss, None if loss is not None else "the loss became nan") for rate, loss in losses.items()]


@pytest.mark.parametrize(
    ("losses", "best", "at_edge"),
    [
        ({0.1: 3.0, 0.2: 2.0, 0.4: 2.5}, 0.2, False),
        ({0.4: 2.0, 0.1: 3.0, 0.2: 2.5}, 0.4, True),
        ({0.1: 2.0, 0.2: 2.5}, 0.1, True),
        ({0.1: 3.0, 0.2: 2.0, 0.4: None}, 0.2, False),
        ({0.1: 2.0, 0.2: 2.0, 0.05: 3.0}, 0.1, False),
        ({0.1: 2.0}, 0.1, False),
    ],
)
def test_the_least_loss_is_chosen(tmp_path: Path, losses: dict[float, float | None], best: float, at_edge: bool) -> None:
    choice = choose_rate(write_trials(tmp_path, losses), tmp_path / "choice")
    assert (choice.learning_rate, choice.at_edge) == (best, at_edge)
    assert choice.losses == losses
    assert (choice.warning() is not None) == at_edge
    assert read_choice(tmp_path / "choice") == choice


def test_a_model_that_a_killed_trial_left_is_dropped_with_the_choice(tmp_path: Path) -> None:
    trials = write_trials(tmp_path, {0.1: 3.0, 0.2: 2.0})
    (trials[0] / "run").mkdir()
    (trials[0] / "run" / "model.safetensors").write_bytes(b"large")
    choose_rate(trials, tmp_path / "choice")
    assert not (trials[0] / "run").exists()


def test_when_every_rate_failed_there_is_no_choice(tmp_path: Path) -> None:
    trials = write_trials(tmp_path, {0.1: None, 0.2: None})
    with pytest.raises(RunFailedError, match=r"every learning rate of the grid failed \(0\.1: the loss became nan; 0\.2: "):
        choose_rate(trials, tmp_path / "choice")
    assert not (tmp_path / "choice").exists()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


def config(**settings: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"batch_size": 4, "max_tokens": 40, "device": "cpu", **settings})


def test_a_rate_that_breaks_the_model_is_an_outcome_and_the_grid_goes_on(base: Path, tmp_path: Path) -> None:
    rates = [1e-3, 1e-2, 1e30]
    choice = choose_learning_rate(resolve_model(str(base)), DOCUMENTS[:7], DOCUMENTS[7:], config(), rates, tmp_path / "rates")
    assert choice.learning_rate == 1e-2
    assert not choice.at_edge
    assert choice.losses[1e30] is None
    assert "NaN or infinite" in choice.failures[1e30] or "nan" in choice.failures[1e30]
    losses = [choice.losses[rate] for rate in rates[:2]]
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    kept = {path.name for path in (tmp_path / "rates" / "rate-0.01").iterdir() if not path.name.startswith(".")}
    assert kept == {"manifest.json"}, "the tuned model of a trial is dropped"


def test_trials_are_made_once(base: Path, tmp_path: Path) -> None:
    model = resolve_model(str(base))
    run_trial(model, DOCUMENTS[:4], DOCUMENTS[7:], config(learning_rate=1e-2), tmp_path / "trial")
    before = read_manifest(tmp_path / "trial")
    run_trial(model, DOCUMENTS[:4], DOCUMENTS[7:], config(learning_rate=1e-2), tmp_path / "trial")
    assert read_manifest(tmp_path / "trial") == before
    assert before.details["base_loss_nats"] > before.details["validation_loss_nats"]


def test_a_trial_of_another_split_or_base_is_not_served(base: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(base, tmp_path / "base")
    run_trial(resolve_model(str(copied)), DOCUMENTS[:4], DOCUMENTS[4:], config(learning_rate=1e-2), tmp_path / "trial")
    with pytest.raises(StaleArtifactError, match=r"documents: .*held_out: "):
        run_trial(resolve_model(str(copied)), DOCUMENTS[:3], DOCUMENTS[3:], config(learning_rate=1e-2), tmp_path / "trial")
    shutil.rmtree(copied)
    save_tiny_llama(copied, seed=1)
    with pytest.raises(StaleArtifactError, match=r"base\.weights"):
        run_trial(resolve_model(str(copied)), DOCUMENTS[:4], DOCUMENTS[4:], config(learning_rate=1e-2), tmp_path / "trial")


def test_memory_that_ran_out_is_no_outcome_of_a_rate(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = resolve_model(str(base)), (DOCUMENTS[:4], DOCUMENTS[7:], config(learning_rate=1e-2), tmp_path / "trial")

    def fail(*_args: object, **_kwargs: object) -> None:
        message = "one document of 40 tokens does not fit in memory"
        raise OutOfMemoryError(message)

    with monkeypatch.context() as patch:
        patch.setattr("lmdissect.finetune.train.finetune", fail)
        with pytest.raises(OutOfMemoryError):
            run_trial(model, *arguments)
    assert not (tmp_path / "trial" / "manifest.json").exists()
    run_trial(model, *arguments)
    assert read_manifest(tmp_path / "trial").details["failed"] is None
