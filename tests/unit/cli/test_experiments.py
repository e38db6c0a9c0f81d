"""`lmdissect plan` and `run` on the command line: what is printed, and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment_world import make_world, write_experiment
from lmdissect_cli import CliOutcome

Run = Callable[..., CliOutcome]
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_help_has_an_example(run_cli: Run, verb: str) -> None:
    outcome = run_cli(verb, "--help")
    assert outcome.code == 0
    assert "Example: lmdissect" in outcome.out.replace("\n", " ")


def test_the_schema_is_json(run_cli: Run) -> None:
    schema = json.loads(run_cli("plan", "--schema").out)
    assert schema["properties"]["corpus"]


def test_a_plan_shows_kinds_totals_and_what_is_missing(run_cli: Run, world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, description="What a study asks.", grid={"corpus.size": [4, 8]})
    planned = run_cli("plan", str(file), "--no-calibrate")
    assert planned.code == 0, planned.err
    assert "What a study asks." in planned.out
    assert re.search(r"finetune +0 +0 +0 +2 ", planned.out)
    assert re.search(r"score +0 +0 +0 +3 ", planned.out), "the base is scored once"
    assert "missing: finetune size=4 seed=0" in planned.out
    assert "time not known" in planned.out
    assert not (tmp_path / "study").exists()
    assert run_cli("run", str(file), "--dry-run", "--no-calibrate").out == planned.out


def test_a_plan_measures_this_machine_once(run_cli: Run, world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"finetune.lora.rank": [2, None]})
    first = run_cli("plan", str(file), "--threads", "1", "--price-per-hour", "3600")
    assert first.code == 0, first.err
    assert first.err.count("measuring the speed of this machine") == 3, "adapters, all weights, scoring"
    assert "time not known" not in first.out
    assert "at 3600 an hour" in first.out
    second = run_cli("plan", str(file), "--threads", "1", "--json")
    assert "measuring" not in second.err
    plan = json.loads(second.out)
    assert plan["total"]["wall_s"] > 0
    assert {node["state"] for node in plan["nodes"]} == {"missing"}
    assert [point["fields"] for point in plan["points"]] == [{"finetune.lora.rank": 2}, {"finetune.lora.rank": None}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan",), "give an experiment file"),
        (("plan", "none.yaml"), "none.yaml: no such file"),
        (("plan", "{file}", "--set", "corpus.sise=3"), "did you mean size?"),
        (("run", "{file}", "--set", "grid.corpus.size=[]"), "grid: corpus.size has no value"),
        (("run", "{file}", "--executor", "slurm"), "choose local or ray"),
        (("run", "{file}", "--address", "auto"), "--address belongs to --executor ray"),
        (("run", "{file}", "--set", "models.base=wheel:none-such"), "none-such"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(run_cli: Run, world: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    file = write_experiment(world, tmp_path)
    outcome = run_cli(*(argument.format(file=file) for argument in arguments))
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert outcome.err.startswith("lmdissect: ")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments" / "paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_paper_s_experiments_plan_without_models_and_data(run_cli: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    outcome = run_cli("plan", str(path), "--teraflops", "150")
    assert outcome.code == 0, outcome.err
    assert "not known: model " in outcome.out
    assert re.search(r"left to do: .* FLOPs, about \d+h", outcome.out), outcome.out
