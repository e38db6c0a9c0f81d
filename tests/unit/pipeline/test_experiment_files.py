"""The experiment files that are shipped: each is read, laid out and planned without the network, the small ones on the real data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.inputs import Inputs
from lmdissect_cli import CliOutcome

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("capacity", "data_size", "first_tokens", "forgetting", "independence", "lr_grid", "mixing", "position")
FILES = [ROOT / "experiments" / size / f"{name}.yaml" for size in ("paper", "small") for name in NAMES]


def lay_out(name: str, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(ROOT)
    path = ROOT / "experiments" / f"{name}.yaml"
    return build_study(read_experiment(path), str(path), Inputs(lenient=True))


def runs(study: Study) -> set[str]:
    """Keys of the finetuning runs."""
    return {study.node(nodes, "finetune").key for nodes in study.points}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_says_what_it_asks_under_its_own_name(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.name == f"{path.parent.name}-{path.stem}"
    assert len(experiment.description) > 100
    assert experiment.store == f"runs/{path.parent.name}"


def test_no_file_of_the_eight_is_missing_or_unknown() -> None:
    assert sorted(path for size in ("paper", "small") for path in ROOT.glob(f"experiments/{size}/*")) == sorted(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_is_planned_offline(path: Path, run_cli: Callable[..., CliOutcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = run_cli("plan", str(path), "--no-calibrate")
    assert outcome.code == 0, outcome.err
    assert read_experiment(path).name in outcome.out


def test_the_paper_files_have_the_settings_that_the_paper_states(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in FILES[:8]:
        settings = read_experiment(path).finetune
        assert (settings.batch_size, settings.epochs, settings.warmup_fraction, settings.clip_norm) == (64, 1, 0.1, 1.0), path
        assert settings.max_tokens == 1024, path
    rates = {
        (nodes.point.settings.models.base, nodes.point.settings.finetune.lora is not None): nodes.point.settings.finetune.learning_rate
        for nodes in lay_out("paper/data_size", monkeypatch).points
    }
    assert rates == {
        ("openai-community/gpt2-xl", False): 1e-4,
        ("meta-llama/Llama-2-7b-hf", False): 3e-6,
        ("meta-llama/Llama-2-7b-hf", True): 1e-4,
        ("meta-llama/Llama-2-13b-hf", False): 3e-6,
        ("meta-llama/Llama-2-13b-hf", True): 1e-4,
    }


def test_the_papers_adapters_are_the_original_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data_size", "forgetting", "position", "mixing", "lr_grid"):
        adapters = [
            nodes.point.settings.finetune.lora for nodes in lay_out(f"paper/{name}", monkeypatch).points if nodes.point.settings.finetune.lora
        ]
        assert adapters
        for lora in adapters:
            assert (lora.rank, lora.scale_numerator, lora.dropout) == (8, 16, 0)
            assert lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("other", "shared"), [("forgetting", 60), ("position", 15), ("capacity", 6), ("mixing", 6), ("first_tokens", 3), ("lr_grid", 5)]
)
def test_the_paper_files_share_runs_with_data_size(other: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(runs(lay_out("paper/data_size", monkeypatch)) & runs(lay_out(f"paper/{other}", monkeypatch))) == shared


@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize(
    ("other", "shared"), [("forgetting", 9), ("position", 3), ("capacity", 1), ("mixing", 1), ("first_tokens", 1), ("lr_grid", 1)]
)
def test_the_small_files_share_runs_with_data_size(other: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(runs(lay_out("small/data_size", monkeypatch)) & runs(lay_out(f"small/{other}", monkeypatch))) == shared


@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize("name", NAMES)
def test_the_small_files_find_all_their_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "experiments" / "small" / f"{name}.yaml"
    inputs = Inputs(lenient=True)
    build_study(read_experiment(path), str(path), inputs)
    assert inputs.problems == {}


def test_the_page_names_every_file() -> None:
    text = (ROOT / "docs" / "paper-experiments.md").read_text(encoding="utf-8")
    assert all(f"`{name}.yaml`" in text for name in NAMES)
