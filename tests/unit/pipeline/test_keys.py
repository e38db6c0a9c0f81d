"""What the key of a node depends on, and what not: equal work has equal keys, and other work has others."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from experiment_world import make_world, write_experiment
from lmdissect.errors import UserInputError
from lmdissect.pipeline import graph
from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.inputs import Inputs
from lmdissect.store import open_artifact, read_json, write_json

Keys = dict[str, str]
ALL = {"documents", "overlap p", "finetune", "base p", "tuned p", "shift p"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "world")


def lay_out(world: Path, *changes: str, lenient: bool = False, **settings: Any) -> Study:
    file = write_experiment(world, world.parent / "study", **settings)
    return build_study(read_experiment(file, changes), str(file), Inputs(lenient=lenient))


def keys(world: Path, *changes: str, **settings: Any) -> Keys:
    """Keys of the only point, by role."""
    return dict(lay_out(world, *changes, **settings).points[0].nodes)


def corpus(world: Path, **settings: Any) -> dict[str, Any]:
    return {"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 6, **settings}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    assert set(before) == set(after)
    return {role for role in before if before[role] != after[role]}


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", lambda content: content.update(normalizer={"type": "Lowercase"})),
        ("tokenizer_config.json", lambda content: content.update({"eos_token": "<s>"})),
        ("config.json", lambda content: content.update(rms_norm_eps=1e-3)),
    ],
)
def test_a_model_edited_in_place_is_another_one(world: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    before = keys(world)
    edit_json(world / "base" / name, change)
    assert changed(before, keys(world)) == {"finetune", "base p", "tuned p", "shift p"}


def test_how_a_corpus_file_is_read_is_part_of_it(world: Path) -> None:
    before = keys(world)
    shutil.copy(world / "corpus.jsonl", world / "corpus.txt")
    assert changed(before, keys(world, corpus=corpus(world, files=[str(world / "corpus.txt")]))) == ALL - {"base p"}
    shutil.copy(world / "corpus.jsonl", world / "moved.jsonl")
    assert changed(before, keys(world, corpus=corpus(world, files=[str(world / "moved.jsonl")]))) == set(), "a name alone is nothing"


def test_a_corpus_folder_is_its_documents_and_not_the_day_it_was_made(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    with open_artifact(folder, stage="corpus", config={"split": []}, inputs={}) as artifact:
        (folder / "data").mkdir()
        artifact.write_table("data/documents-00000.parquet", pa.table({"text": ["one"]}))
        artifact.finish(counts={}, details={})
    before = Inputs().files([str(folder)])
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "finished_at": "another day", "wall_s": 7.0})
    assert Inputs().files([str(folder)]) == before
    manifest["files"]["data/documents-00000.parquet"]["sha256"] = "another"
    write_json(folder / "manifest.json", manifest)
    assert Inputs().files([str(folder)]) != before


@pytest.mark.parametrize("policy", ["refuse", "exclude_training", "exclude_probes"])
def test_who_wrote_the_probes_changes_scores_and_no_training(world: Path, policy: str) -> None:
    settings = corpus(world, on_overlap=policy)
    assert changed(keys(world, corpus=settings), keys(world, "probes.p.default_writer=someone", corpus=settings)) == {"base p", "tuned p", "shift p"}


def test_the_name_of_a_probe_set_changes_nothing(world: Path) -> None:
    settings = corpus(world, on_overlap="exclude_training")
    one = lay_out(world, corpus=settings)
    other = lay_out(world, corpus=settings, probes={"q": {"path": str(world / "probes.jsonl")}})
    assert list(one.points[0].nodes.values()) == list(other.points[0].nodes.values())
    assert [node.settings["exclude"].keys() for node in (one.node(one.points[0], "documents"), other.node(other.points[0], "documents"))] == [
        {one.points[0].content["content of"]["probes"]["p"]["texts"]}
    ] * 2


def test_other_texts_of_a_probe_set_do_not_change_what_is_trained_on(world: Path) -> None:
    settings = {"probe_set": str(world / "other_probes.jsonl"), "variant": "casual", "size": 3, "validation": 1}
    before = keys(world, corpus=settings)
    path = world / "other_probes.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("Patient", "The patient"), encoding="utf-8")
    assert changed(before, keys(world, corpus=settings)) == set()
    path.write_text(whole.replace("guess what", "you know"), encoding="utf-8")
    assert changed(before, keys(world, corpus=settings)) == ALL - {"base p"}


def test_a_variant_that_is_not_there_is_refused_before_anything_runs(world: Path) -> None:
    settings = {"probe_set": str(world / "other_probes.jsonl"), "variant": "rap", "size": 3, "validation": 1}
    with pytest.raises(UserInputError, match="no variant 'rap' to train on"):
        lay_out(world, corpus=settings)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lora": {"rank": 8}}, {"lora": {"rank": 8, "alpha": 16}}),
        ({"lora": {"rank": 8, "targets": ["q_proj", "v_proj"]}}, {"lora": {"rank": 8, "targets": ["v_proj", "q_proj"]}}),
        ({"learning_rate": None}, {"learning_rate": 5e-5}),
        ({"learning_rate": None, "lora": {"rank": 8}}, {"learning_rate": 2e-4, "lora": {"rank": 8, "alpha": 16.0}}),
        (
            {"learning_rate": {"grid": [1e-3, 1e-2], "size": 8}, "lora": {"rank": 8}},
            {"learning_rate": {"grid": [1e-2, 1e-3], "size": 8}, "lora": {"rank": 8, "alpha": 16}},
        ),
    ],
)
def test_a_default_written_out_is_the_same_run(world: Path, one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = lay_out(world, finetune=one), lay_out(world, finetune=other)
    assert first.points[0].nodes == second.points[0].nodes
    for role in ("finetune", "rate"):
        if role in first.points[0].nodes:
            node, same = first.node(first.points[0], role), second.node(second.points[0], role)
            assert node.settings == same.settings, "a run begun under one is gone on with under the other"


def test_the_statistics_of_a_curve_are_part_of_the_run_that_makes_it(world: Path) -> None:
    assert changed(keys(world), keys(world, "shift.level=0.8")) == {"shift p"}
    measure = {"probes": ["p"], "steps": "log", "limit": 3}
    assert changed(keys(world, measure=measure), keys(world, "shift.level=0.8", measure=measure)) == {"finetune", "tuned p", "shift p"}


def test_another_format_version_is_another_node(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(world)
    monkeypatch.setattr(graph, "SCHEMA_VERSION", graph.SCHEMA_VERSION + 1)
    assert changed(before, keys(world)) == ALL


# --- whose probes are left out, and who waits for which look ---


def test_documents_that_cannot_be_drawn_leave_no_probe_out(world: Path) -> None:
    settings = corpus(world, on_overlap="exclude_probes")
    alone = lay_out(world, corpus=settings, grid={"corpus.size": [4]})
    beside = lay_out(world, corpus=settings, grid={"corpus.size": [4, 1000]})
    assert beside.points[0].nodes == alone.points[0].nodes
    assert lay_out(world, corpus=settings, grid={"corpus.size": [4, 54]}).points[0].nodes != alone.points[0].nodes, "54 + 6 are all there are"
    mix = {"files": [str(world / "web.jsonl")], "share": 0.5}
    mixed = lay_out(world, corpus={**settings, "mix": mix}, grid=[{"corpus.size": [40]}, {"corpus.size": [4], "corpus.mix": [None]}])
    assert mixed.points[1].nodes == alone.points[0].nodes, "30 web documents are no half of 80"


def test_a_refusal_takes_no_run_from_a_point_that_did_not_ask_for_it(world: Path) -> None:
    study = lay_out(world, grid={"corpus.on_overlap": ["refuse", "exclude_probes"]})
    refusing, excluding = study.points
    assert refusing.nodes["finetune"] == excluding.nodes["finetune"]
    check = refusing.nodes["overlap p"]
    assert check not in study.node(refusing, "finetune").needs
    assert {role for role in ("tuned p", "shift p") if check in study.node(refusing, role).needs} == {"tuned p", "shift p"}
    assert not any(check in study.node(excluding, role).needs for role in excluding.nodes)
    alone = lay_out(world)
    assert alone.points[0].nodes["overlap p"] in alone.node(alone.points[0], "finetune").needs, "nothing is trained for a point that is refused"


@pytest.mark.parametrize("policy", ["refuse", "exclude_probes"])
def test_probes_are_looked_for_among_the_documents_of_trials_too(world: Path, policy: str) -> None:
    finetune = {"learning_rate": {"grid": [1e-3, 1e-2], "size": 20}}
    study = lay_out(world, corpus=corpus(world, on_overlap=policy), finetune=finetune)
    point = study.points[0]
    check = point.nodes["trial overlap p"]
    assert check != point.nodes["overlap p"]
    assert study.node(point, "trial overlap p").needs != study.node(point, "overlap p").needs
    assert all(check in trial.needs for trial in study.graph.nodes.values() if trial.kind == "trial")
    assert check in study.node(point, "tuned p").needs
