"""The experiment file: what it may say, and the one line that a mistake in it gets."""

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.pipeline.experiment import (
    CorpusSettings,
    Experiment,
    FinetuneSettings,
    LearningRateGrid,
    MeasureSettings,
    MixSettings,
    ModelSettings,
    ProbeSettings,
    parse_experiment,
    read_experiment,
)
from lmdissect.pipeline.points import expand_points

REPOSITORY = Path(__file__).resolve().parents[3]
SMALLEST: dict[str, Any] = {
    "name": "study",
    "models": {"base": "owner/name"},
    "corpus": {"files": ["corpus.jsonl"], "size": 10},
    "probes": {"pubmed": {"path": "probes.jsonl"}},
}


def with_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest experiment with some dotted settings replaced."""
    settings: dict[str, Any] = json.loads(json.dumps(SMALLEST))
    for field, value in changes.items():
        section = settings
        *sections, last = field.split("/")
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return settings


def test_the_smallest_file_has_documented_defaults() -> None:
    experiment = parse_experiment(SMALLEST, "e.yaml")
    assert experiment.out_folder == Path("runs/study")
    assert experiment.store == "runs/store"
    assert experiment.seeds == (0,)
    assert experiment.corpus.on_overlap == "refuse"
    assert experiment.finetune.batch_size == 64
    assert len(expand_points(experiment, "e.yaml")) == 1


@pytest.mark.parametrize(
    "model", [Experiment, ModelSettings, CorpusSettings, MixSettings, ProbeSettings, FinetuneSettings, LearningRateGrid, MeasureSettings]
)
def test_every_setting_says_what_it_is(model: type[BaseModel]) -> None:
    sections = {"models", "corpus", "probes", "finetune", "scoring", "shift"}
    for name, field in model.model_fields.items():
        assert field.description or name in sections, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune/lerning_rate": 1e-4}, ["e.yaml: finetune.lerning_rate: no such setting; did you mean learning_rate?"]),
        ({"finetune/lora": {"rnk": 8}}, ["finetune.lora.rnk: no such setting; did you mean rank?"]),
        ({"finetune/learning_rate": {"gird": [1e-4]}}, ["finetune.learning_rate.gird", "did you mean grid?"]),
        ({"probes/pubmed": {"path": "p", "limt": 3}}, ["probes.pubmed.limt", "did you mean limit?"]),
        ({"corpus/mix": {"files": ["w"], "share": 0.5, "shar": 1}}, ["corpus.mix.shar", "did you mean share?"]),
        ({"sedes": [1]}, ["e.yaml: sedes: no such setting; did you mean seeds?"]),
        ({"corpus": {"files": ["a"], "sise": 3}}, ["corpus.sise", "did you mean size?"]),
        ({"corpus/size": 0}, ["corpus.size", "given: 0"]),
        ({"corpus/size": "many"}, ["corpus.size", "'many'"]),
        ({"corpus": {"size": 3}}, ["corpus: give either files or probe_set"]),
        ({"corpus/variant": "casual"}, ["variant and control belong to probe_set"]),
        ({"corpus/mix": {"files": ["w"], "share": 1.0}}, ["corpus.mix.share"]),
        ({"finetune/learning_rate": -1}, ["finetune.learning_rate"]),
        ({"finetune/learning_rate": {"grid": []}}, ["finetune.learning_rate.grid"]),
        ({"finetune/learning_rate": {"grid": [1e-4, 0.0001]}}, ["the same rate twice"]),
        ({"finetune/learning_rate": {"grid": [1e-4]}, "corpus/validation": 0}, ["validation loss", "corpus.validation is 0"]),
        ({"finetune/seed": 3}, ["finetune.seed", "seeds: [...]"]),
        ({"seeds": [1, 1]}, ["the same seed twice"]),
        ({"seeds": []}, ["seeds"]),
        ({"probes": {}}, ["probes"]),
        ({"name": "../up"}, ["name"]),
        ({"name": "a" * 101}, ["name", "100 characters"]),
        ({"store": "runs/study"}, ["out: runs/study is the store"]),
        ({"out": "runs/../runs/store"}, ["is the store"]),
        ({"probes": {"../../evil": {"path": "p"}}}, ["probes: '../../evil' is no name of a probe set"]),
        ({"probes": {"a.b": {"path": "p"}}}, ["probes: 'a.b' is no name of a probe set"]),
        ({"probes": {"": {"path": "p"}}}, ["probes: '' is no name of a probe set"]),
        ({"probes": {1: {"path": "p"}}}, ["probes: the name 1 is no text: put it in quotes"]),
        ({"seeds": [2**32]}, ["seeds.0", "4294967295"]),
        ({"finetune/learning_rate": float("inf")}, ["finetune.learning_rate: inf is no finite number"]),
        ({"finetune/learning_rate": "1e400"}, ["finetune.learning_rate", "finite number"]),
        ({"finetune/lora": {"rank": 1, "alpha": float("nan")}}, ["finetune.lora.alpha: nan is no finite number"]),
        ({"grid": {"finetune.learning_rate": [1e-4, float("inf")]}}, ["grid.finetune.learning_rate: inf is no finite number"]),
        ({"grid": {"corpus.mix": [{"files": ["w"], "share": float("nan")}]}}, ["grid.corpus.mix.share: nan is no finite number"]),
        ({"grid": {"corpus.size": [dt.date(2024, 1, 1)]}}, ["grid.corpus.size", "is a date"]),
        ({"grid": {"corpus.files": [{"a", "b"}]}}, ["grid.corpus.files", "is a set"]),
        ({"grid": {"models.base": [b"x"]}}, ["grid.models.base", "is a bytes"]),
        ({"store": "a\0b"}, ["store: 'a\\x00b' holds a zero byte"]),
        ({"out": "a\0b"}, ["out: 'a\\x00b' holds a zero byte"]),
        ({"corpus/size": True}, ["corpus.size: a number is needed, and not true"]),
        ({"finetune/batch_size": True}, ["finetune.batch_size: a number is needed, and not true"]),
        ({"finetune/learning_rate": {"grid": [True]}}, ["finetune.learning_rate.grid: a number is needed, and not true"]),
        ({"seeds": [False]}, ["seeds: a number is needed, and not false"]),
        ({"measure": {"probes": ["pubmde"]}}, ["measure.probes: there is no probe set 'pubmde'; did you mean pubmed?"]),
        ({"analysis": ["corpus.size"]}, ["analysis: 'corpus.size' is not varied"]),
        ({"grid": []}, ["grid: the list is empty"]),
        ({"grid": {"corpus.size": []}}, ["grid: corpus.size has no value"]),
        ({"grid": {"corpus.size": 5}}, ["e.yaml: grid.corpus.size: a list is needed (given: 5)"]),
        ({"grid": [{}, {"corpus.size": 5}]}, ["e.yaml: grid.1.corpus.size: a list is needed (given: 5)"]),
        ({"grid": 8}, ["e.yaml: grid: a list is needed (given: 8)"]),
        ({"models": "owner/name"}, ["models: settings by name are needed"]),
        ({"grid": {"corpus.sise": [5]}}, ["grid: 'corpus.sise' is no setting; did you mean corpus.size?"]),
        ({"grid": {"probes.other.limit": [5]}}, ["'probes.other.limit' is no setting"]),
        ({"grid": {"seeds": [[1]]}}, ["'seeds' cannot be varied; use seeds"]),
        ({"grid": {"finetune.seed": [1, 2]}}, ["finetune.seed cannot be varied here: use seeds"]),
        ({"grid": {"store": ["a", "b"]}}, ["'store' cannot be varied"]),
        ({"grid": {"finetune.lora": [None], "finetune.lora.rank": [3]}}, ["finetune.lora.rank lies inside finetune.lora"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(changes: Mapping[str, Any], words: list[str]) -> None:
    with pytest.raises(UserInputError) as caught:
        parse_experiment(with_changes(changes), "e.yaml")
    message = str(caught.value)
    assert message.startswith("e.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": {"corpus.size": [5, "many"]}}, ["grid (corpus.size=many)", "corpus.size"]),
        ({"grid": {"corpus.size": [5, True]}}, ["grid (corpus.size=true)", "a number is needed, and not true"]),
        ({"grid": [{"finetune.lora.alpha": [None]}, {"corpus.size": [10]}], "finetune/lora": {"rank": 4}}, ["the same point twice"]),
        ({"grid": [{"finetune.lora": [{"rank": 8}]}, {"finetune.lora": [None]}, {"finetune.lora.rank": [8]}]}, ["the same point twice"]),
        ({"grid": {"finetune.lora.rank": [0]}}, ["grid (finetune.lora.rank=0)", "finetune.lora.rank"]),
        ({"grid": {"corpus.size": [5, 6, 5]}}, ["the same point twice", "size=5"]),
        ({"grid": [{"corpus.size": [5, 6]}, {"corpus.size": [6], "finetune.epochs": [1]}]}, ["the same point twice"]),
        ({"grid": {"finetune.lora.rank": [None], "finetune.batch_size": [8, 8.0]}}, ["the same point twice"]),
    ],
)
def test_an_impossible_grid_is_refused_before_anything_runs(changes: Mapping[str, Any], words: list[str]) -> None:
    experiment = parse_experiment(with_changes(changes), "e.yaml")
    with pytest.raises(UserInputError) as caught:
        expand_points(experiment, "e.yaml")
    for word in words:
        assert word in str(caught.value)


def write(tmp_path: Path, settings: object) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_set_replaces_settings_of_any_depth(tmp_path: Path) -> None:
    changes = ["corpus.size=3", "finetune.lora={rank: 4}", "finetune.lora.alpha=16", "grid.corpus.size=[1, 2]", "seeds=[5]", "probes.pubmed.limit=7"]
    experiment = read_experiment(write(tmp_path, SMALLEST), changes)
    assert experiment.corpus.size == 3
    assert experiment.finetune.lora is not None
    assert (experiment.finetune.lora.rank, experiment.finetune.lora.alpha) == (4, 16)
    assert experiment.grid == ({"corpus.size": (1, 2)},)
    assert experiment.seeds == (5,)
    assert experiment.probes["pubmed"].limit == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("corpus.size", "is not FIELD=VALUE"),
        ("corpus.sise=3", "corpus.sise: no such setting; did you mean size?"),
        ("name.first=3", "name is a str in the file"),
        ("corpus.size=[", "its value is not YAML"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(UserInputError) as caught:
        read_experiment(write(tmp_path, SMALLEST), [change])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [("- a\n", "it holds a list"), ("a: [", "cannot be read as YAML"), ("a: &x 1\nb: *x\n", "aliases"), ("a: 1\na: 2\n", "stands twice")],
)
def test_a_file_that_is_no_experiment(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "e.yaml").write_text(content)
    with pytest.raises(UnreadableInputError) as caught:
        read_experiment(tmp_path / "e.yaml")
    assert words in str(caught.value)
    with pytest.raises(UnreadableInputError, match="no such file"):
        read_experiment(tmp_path / "none.yaml")


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(SMALLEST) + "finetune: {learning_rate: 5e-5}\ngrid: {finetune.epochs: [1e0, 2]}\n")
    experiment = read_experiment(path)
    assert experiment.finetune.learning_rate == 5e-5
    assert [point.fields["finetune.epochs"] for point in expand_points(experiment, "e")] == [1.0, 2.0]


def test_the_schema_is_json_and_names_every_section() -> None:
    schema = json.loads(json.dumps(Experiment.model_json_schema()))
    assert {"name", "corpus", "probes", "models", "finetune", "grid", "seeds", "analysis", "measure"} <= set(schema["properties"])
    assert "learning_rate" in schema["$defs"]["FinetuneSettings"]["properties"]


@pytest.mark.parametrize(
    ("analysis", "fields"),
    [(None, ("corpus.size", "finetune.lora.rank")), (["data_size"], ("corpus.size",)), (["rank", "corpus.size"], ("finetune.lora.rank", "corpus.size")), ([], ())],
)  # fmt: skip
def test_analysis_takes_fields_and_short_names(analysis: list[str] | None, fields: tuple[str, ...]) -> None:
    changes = {"grid": {"corpus.size": [1, 2], "finetune.lora.rank": [1]}, "analysis": analysis}
    assert parse_experiment(with_changes(changes), "e").analysed_fields() == fields


STUDIES = sorted(path for folder in ("paper", "small") for path in (REPOSITORY / "experiments" / folder).glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_experiments_of_the_repository_are_valid(path: Path) -> None:
    experiment = read_experiment(path)
    points = expand_points(experiment, str(path))
    assert points
    assert len({point.label for point in points}) == len(points)
