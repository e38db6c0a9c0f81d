"""Which runs a study is made of: found, named, and listed where they cannot take part."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmdissect.errors import LmdissectError, NothingToDoError
from lmdissect.pipeline.comparisons import COMPARISONS
from lmdissect.pipeline.experiment import parse_experiment
from lmdissect.pipeline.gathering import gather_runs
from lmdissect.pipeline.graph import artifact_folder
from lmdissect.pipeline.points import expand_points
from lmdissect.pipeline.study import choose_explorer, make_study
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
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
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
    assert [(run.experiment, run.point, run.probes) for run in runs] == [(COMPARISONS, "tuned", "a test (a)"), (COMPARISONS, "tuned", "a test (b)")]
    assert all(run.base_scores is not None and run.tuned_scores is not None for run in runs)


def test_scores_that_took_the_place_of_those_that_were_measured_are_not_read(tmp_path: Path) -> None:
    folder = _comparison(tmp_path)
    place = folder / "scores" / "tuned"
    shutil.rmtree(place)
    save_scores(place, documents_from_gains({"original": [0.4, 0.5], "casual": [0.1, 0.2]})[1], model="tuned", weights="others")
    (run,) = gather_runs([folder]).runs
    assert (run.base_scores, run.tuned_scores) == (folder / "scores" / "base", None)


def test_a_demo_is_its_two_comparisons(tmp_path: Path) -> None:
    for part in ("biomedical", "general"):
        _comparison(tmp_path / "demo" / part)
    (tmp_path / "demo" / "tuned").mkdir()
    assert [run.shift_folder.name for run in gather_runs([tmp_path / "demo"]).runs] == ["biomedical", "general"]


@pytest.mark.parametrize(
    ("variant", "generators", "natural"),
    [("plain", {}, True), ("plain", {"plain": "gpt-4"}, False), ("casual", {}, False), ("casual", {"casual": "people"}, True)],
)
def test_natural_pairs_are_known_by_variant_and_writer(tmp_path: Path, variant: str, generators: dict[str, str], natural: bool) -> None:
    (run,) = gather_runs([_comparison(tmp_path / "a", variant=variant, generators=generators)]).runs
    assert run.natural is natural


def _bad_folders(folder: Path) -> dict[str, Path]:
    """Folders that hold no finished run, by what is said of them."""
    cut = _comparison(folder / "cut")
    (cut / MANIFEST).write_text((cut / MANIFEST).read_text(encoding="utf-8")[:100], encoding="utf-8")
    (folder / "empty").mkdir()
    write_json(folder / "begun" / "points.json", {})
    write_json(folder / "stopped" / "started.json", {"stage": "shift"})
    write_json(folder / "lacking" / MANIFEST, {"experiment": {}, "nodes": []})
    write_json(folder / "odd" / MANIFEST, {"experiment": 1, "nodes": 1})
    other = _comparison(folder / "made") / "scores" / "base"
    return {
        "no such folder": folder / "none",
        "holds no run and no comparison": folder / "empty",
        "its run is not finished": folder / "begun",
        "its work is not finished": folder / "stopped",
        "cannot be read as JSON": cut,
        "name: missing": folder / "lacking",
        "odd": folder / "odd",
        "an artifact of the stage 'score'": other,
    }


def test_a_folder_that_cannot_be_used_is_listed_and_the_rest_is_gathered(tmp_path: Path) -> None:
    bad = _bad_folders(tmp_path)
    gathered = gather_runs([*bad.values(), _comparison(tmp_path / "good")])
    assert [run.shift_folder.name for run in gathered.runs] == ["good"]
    assert [gap.experiment for gap in gathered.gaps] == [str(folder) for folder in bad.values()]
    for reason, gap in zip(bad, gathered.gaps, strict=True):
        assert reason in gap.reason
        assert gap.table == "runs"


@pytest.mark.parametrize("reason", ["no such folder", "holds no run and no comparison", "its run is not finished", "cannot be read as JSON"])
def test_where_the_only_folder_cannot_be_used_its_reason_is_the_error(tmp_path: Path, reason: str) -> None:
    with pytest.raises(LmdissectError, match=reason):
        make_study([_bad_folders(tmp_path)[reason]], tmp_path / "study", config=CONFIG)
    assert not (tmp_path / "study").exists()


def test_half_a_demo_is_the_other_half(tmp_path: Path) -> None:
    for part in ("biomedical", "general"):
        _comparison(tmp_path / "demo" / part)
    (tmp_path / "demo" / "biomedical" / MANIFEST).unlink()
    gathered = gather_runs([tmp_path / "demo"])
    assert [run.shift_folder.name for run in gathered.runs] == ["general"]
    assert [gap.experiment for gap in gathered.gaps] == [str(tmp_path / "demo" / "biomedical")]


def test_a_point_that_its_grid_does_not_have_is_listed(tmp_path: Path) -> None:
    out = _experiment(tmp_path)
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    manifest["nodes"][0]["point"] = "size=9 seed=0"
    write_json(out / MANIFEST, manifest)
    gathered = gather_runs([out])
    assert len(gathered.runs) == 3
    assert "'size=9 seed=0' is not one of its grid" in gathered.gaps[0].reason


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
