"""Which runs a study is made of: found, named, and listed where they cannot take part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.formats.cloze_terms import term_table
from lmdissect.formats.study_tables import SCHEMAS, write_study_table
from lmdissect.pipeline.experiment import parse_experiment
from lmdissect.pipeline.graph import artifact_folder
from lmdissect.pipeline.points import expand_points
from lmdissect.pipeline.study import COMPARISONS, choose_explorer, gather_runs, make_study
from lmdissect.pipeline.tables import MANIFEST
from lmdissect.records import StudyRun
from lmdissect.shifts import measure_shifts
from lmdissect.store import open_artifact, write_json
from score_tables import documents_from_gains, save_scores
from study_runs import CONFIG

GAINS = {"original": [0.3, 0.5], "casual": [0.1, 0.2]}


def _settings(**others: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "store": "store",
        "models": {"base": "base"},
        "corpus": {"files": ["data/abstracts.jsonl"], "size": 8},
        "probes": {"p": {"path": "probes.jsonl"}},
        "grid": [{"corpus.size": [8, 16]}],
        "seeds": [0, 1],
        **others,
    }


def _experiment(folder: Path, *, failed: tuple[int, ...] = (), settings: dict[str, Any] | None = None) -> Path:
    """The output folder of a finished run, its artifacts made from numbers; points whose number is in ``failed`` have no scores and no shifts."""
    experiment = parse_experiment(settings or _settings(), "tiny.yaml")
    nodes, failures = [], []
    for number, point in enumerate(expand_points(experiment, "tiny.yaml")):
        roles = ("documents", "finetune", "base p", "tuned p", "shift p")
        keys = {role: f"{number:02d}{role.partition(' ')[0]}".ljust(20, "0") for role in roles} | {"base p": "base".ljust(20, "0")}
        nodes.append({"point": point.label, **keys})
        place = {role: artifact_folder(folder / "store", _kind(role), key) for role, key in keys.items()}
        with open_artifact(place["documents"], stage="documents", config={}, inputs={"n": number}) as artifact:
            artifact.finish(counts={"training": 8 * (1 + number // 2)}, details={})
        if number in failed:
            failures.append({"node": f"finetune/{keys['finetune'][:16]}", "reason": "loss became NaN"})
            continue
        with open_artifact(place["finetune"], stage="finetune", config={}, inputs={"n": number}) as artifact:
            artifact.finish(counts={}, details={"num_target_tokens": 100 * (1 + number)})
        base, tuned = documents_from_gains({variant: [gain + 0.01 * number for gain in gains] for variant, gains in GAINS.items()})
        if not place["base p"].exists():
            save_scores(place["base p"], base)
        save_scores(place["tuned p"], tuned, model=f"tuned{number}")
        measure_shifts(place["base p"], place["tuned p"], CONFIG, place["shift p"])
    out = folder / "runs" / experiment.name
    write_json(out / MANIFEST, {"experiment": experiment.model_dump(mode="json"), "nodes": nodes, "failures": failures})
    return out


def _kind(role: str) -> Any:
    return {"base": "score", "tuned": "score"}.get(role.partition(" ")[0], role.partition(" ")[0])


def test_runs_of_an_experiment_wherever_the_command_is_run(tmp_path: Path) -> None:
    gathered = gather_runs([_experiment(tmp_path)])
    assert gathered.gaps == []
    assert [(run.point, run.seed, run.fields, run.probes) for run in gathered.runs] == [
        (f"size={size}", seed, {"corpus.size": size}, "p") for size in (8, 16) for seed in (0, 1)
    ]
    first, last = gathered.runs[0], gathered.runs[-1]
    assert (first.experiment, first.training_documents, first.num_target_tokens, first.training_corpus) == ("tiny", 8, 100, "abstracts")
    assert (last.training_documents, last.num_target_tokens) == (16, 400)
    assert first.base_scores == last.base_scores is not None
    assert not first.natural


def test_a_failed_run_is_listed_with_its_reason_and_the_rest_stays(tmp_path: Path) -> None:
    gathered = gather_runs([_experiment(tmp_path, failed=(1,))])
    assert len(gathered.runs) == 3
    (gap,) = gathered.gaps
    assert (gap.table, gap.experiment, gap.point, gap.probes) == ("runs", "tiny", "size=8", "p")
    assert "seed 1" in gap.reason
    assert "loss became NaN" in gap.reason


def test_the_same_folder_counts_once_and_another_experiment_again(tmp_path: Path) -> None:
    out = _experiment(tmp_path)
    again = tmp_path / "runs" / "again"
    manifest = __import__("json").loads((out / MANIFEST).read_text(encoding="utf-8"))
    manifest["experiment"]["name"] = "again"
    write_json(again / MANIFEST, manifest)
    assert len(gather_runs([out, out]).runs) == 4
    both = gather_runs([out, again]).runs
    assert [run.experiment for run in both] == ["tiny"] * 4 + ["again"] * 4
    assert both[0].shift_folder.resolve() == both[4].shift_folder.resolve()


def test_training_on_a_probe_set_is_named_by_its_variant(tmp_path: Path) -> None:
    corpus = {"probe_set": "data/pubmed_derived.json.gz", "size": 8, "validation": 0}
    out = _experiment(tmp_path, settings=_settings(corpus=corpus, grid=[{"corpus.variant": ["original", "casual"]}], seeds=[0]))
    assert [run.training_corpus for run in gather_runs([out]).runs] == ["pubmed_derived: original", "pubmed_derived: casual"]


def _comparison(folder: Path, *, variant: str = "casual", generators: dict[str, str] | None = None, scores: Path | None = None) -> Path:
    base, tuned = documents_from_gains({"original": [0.3, 0.5], variant: [0.1, 0.2]})
    place = scores or folder / "scores" / "x"
    tables = [save_scores(place.parent / name, texts, model=name, generators=generators) for name, texts in (("base", base), ("tuned", tuned))]
    assert tables
    measure_shifts(place.parent / "base", place.parent / "tuned", CONFIG, folder)
    return folder


def test_comparisons_make_one_experiment(tmp_path: Path) -> None:
    folders = [_comparison(tmp_path / name) for name in ("a", "b")]
    runs = gather_runs(folders).runs
    assert [(run.experiment, run.point, run.probes) for run in runs] == [(COMPARISONS, "tuned", "a test"), (COMPARISONS, "tuned", "a test (2)")]
    assert all(run.base_scores is not None and run.tuned_scores is not None for run in runs)


def test_a_demo_is_its_two_comparisons(tmp_path: Path) -> None:
    for part in ("biomedical", "general"):
        _comparison(tmp_path / "demo" / part)
    (tmp_path / "demo" / "tuned").mkdir()
    assert [run.shift_folder.name for run in gather_runs([tmp_path / "demo"]).runs] == ["biomedical", "general"]


def _cloze(folder: Path, point: str) -> Path:
    labels = {"experiment": "cloze", "point": point, "probes": "data/probes.jsonl"}
    row = {**labels, "variant": "counterfactual", "selection": "number", "measure": "contrast", "is_headline": True, "estimate": 0.1}
    config = {"cloze": {}, **labels}
    with open_artifact(folder, stage="cloze", config=config, inputs={"n": 1}) as artifact:
        artifact.write_table("terms.parquet", term_table([]))
        files = ["terms.parquet", *write_study_table(artifact, "cloze", pa.Table.from_pylist([row], schema=SCHEMAS["cloze"]))]
        artifact.finish(counts={}, details={"unavailable": [{"variant": "rap", "reason": "no terms"}]}, files=files)
    return folder


@pytest.mark.parametrize(("models", "point"), [("tuned0, tuned1", "size=8"), ("tuned1, tuned2", "tuned1, tuned2"), ("other", "other")])
def test_cloze_rows_take_the_name_of_the_point_that_has_their_models(tmp_path: Path, models: str, point: str) -> None:
    folders = [_experiment(tmp_path), _cloze(tmp_path / "cloze", models)]
    gathered = gather_runs(folders)
    assert [gap.reason for gap in gathered.gaps] == ["no terms"]
    (row,) = gathered.cloze
    assert (row["point"], row["probes"]) == (point, "probes")


@pytest.mark.parametrize(
    ("variant", "generators", "natural"),
    [("plain", {}, True), ("plain", {"plain": "gpt-4"}, False), ("casual", {}, False), ("casual", {"casual": "people"}, True)],
)
def test_natural_pairs_are_known_by_variant_and_writer(tmp_path: Path, variant: str, generators: dict[str, str], natural: bool) -> None:
    (run,) = gather_runs([_comparison(tmp_path / "a", variant=variant, generators=generators)]).runs
    assert run.natural is natural


def test_folders_that_are_no_runs_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="no such folder"):
        gather_runs([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableInputError, match="holds no run and no comparison"):
        gather_runs([tmp_path / "empty"])
    write_json(tmp_path / "begun" / "points.json", {})
    with pytest.raises(UnreadableInputError, match="not finished"):
        gather_runs([tmp_path / "begun"])


def test_nothing_finished_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match="no finished run"):
        make_study([_experiment(tmp_path, failed=(0, 1, 2, 3))], tmp_path / "study", config=CONFIG)


def test_the_explorer_shows_the_run_trained_on_most(tmp_path: Path) -> None:
    runs: list[StudyRun] = gather_runs([_experiment(tmp_path)]).runs
    chosen = choose_explorer(runs)
    assert chosen is not None
    assert chosen.tuned_scores == runs[-1].tuned_scores
    assert "size=16, seed 1" in chosen.label
    assert choose_explorer([replace(run, base_scores=None) for run in runs]) is None
