"""Whole experiments on tiny real models, in this process: what is made, what is shared, what is said, and what a failure leaves."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment_world import make_world, write_experiment
from lmdissect.errors import UserInputError
from lmdissect.pipeline.executors import InlineExecutor
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.plan import Plan, make_plan, plan_lines
from lmdissect.pipeline.run import ExperimentSummary, run_experiment
from lmdissect.progress import LineProgress
from lmdissect.store import read_table
from lmdissect_cli import CliOutcome

Run = Callable[..., CliOutcome]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def run(file: Path, *changes: str, said: io.StringIO | None = None) -> ExperimentSummary:
    progress = LineProgress(said or io.StringIO())
    return run_experiment(read_experiment(file, changes), str(file), lambda _: InlineExecutor(), progress=progress)


def plan(file: Path, *changes: str) -> Plan:
    return make_plan(read_experiment(file, changes), str(file), calibrate=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table_bytes(out: Path) -> dict[str, bytes]:
    """Every table and figure; the manifest has durations and is none."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.suffix in {".csv", ".parquet", ".png", ".svg"}}


def stamps(folder: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


GRID = {"corpus.size": [4, 8], "finetune.lora.rank": [2, None]}
RATES = {"batch_size": 4, "max_tokens": 40, "device": "cpu", "learning_rate": {"grid": [1e-3, 1e-2, 1e30], "size": 8}}


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of four points with a chosen learning rate, run once; its file."""
    file = write_experiment(world, tmp_path_factory.mktemp("finished"), grid=GRID, finetune=RATES)
    summary = run(file)
    assert not summary.failures
    shutil.copy(file.parent / "study" / "manifest.json", file.parent / "manifest-of-the-first-run.json")  # other tests damage the one in place
    return file


def test_every_point_has_its_rows_and_the_curves_are_drawn(finished: Path) -> None:
    out = finished.parent / "study"
    points = rows(out / "points.csv")
    assert [(row["corpus.size"], row["finetune.lora.rank"], row["seed"]) for row in points] == [
        ("4", "2", "0"), ("4", "", "0"), ("8", "2", "0"), ("8", "", "0"),
    ]  # fmt: skip
    assert {row["finished"] for row in points} == {"true"}
    assert [row["training_documents"] for row in points] == ["4", "4", "8", "8"]
    assert {row["learning_rate"] for row in points} <= {"0.001", "0.01"}
    assert all(float(row["validation_loss_after_nats"]) < float(row["validation_loss_before_nats"]) for row in points)
    shifts = rows(out / "shifts.csv")
    assert len(shifts) == 4 * 5 * 2, "points x rows of a set with a control x per token and per byte; texts that are cut have none per document"
    assert {row["probes"] for row in shifts} == {"p"}
    assert "tuned_model" not in shifts[0]
    losses = rows(out / "losses.csv")
    assert len({row["base_loss_nats"] for row in losses if row["variant"] == "original"}) == 1, "one base for all"
    assert {path.name for path in (out / "figures").iterdir()} == {f"{field}-p.{kind}" for field in GRID for kind in ("png", "svg")}
    assert rows(out / "failed.csv") == []
    assert [row["probe_documents_found"] for row in rows(out / "overlap.csv")] == ["0"] * 4


def test_a_rate_that_fails_is_kept_and_the_rest_is_chosen_from(finished: Path) -> None:
    found = rows(finished.parent / "study" / "rates.csv")
    assert len(found) == 6, "three rates for adapters and for all weights"
    for row in found:
        assert bool(row["failed"]) == (row["learning_rate"] == "1e+30")
        assert bool(row["validation_loss_nats"]) != bool(row["failed"])
    assert sum(row["chosen"] == "true" for row in found) == 2


def test_run_again_does_nothing(finished: Path) -> None:
    before = stamps(finished.parent)
    summary = run(finished)
    assert summary.reused
    assert summary.num_made == 0
    assert stamps(finished.parent) == before
    assert set(plan(finished).states.values()) == {"done"}
    assert plan_lines(plan(finished))[-1] == "nothing to do: everything is there"


@pytest.mark.parametrize("damage", ["manifest.json", "shifts.csv"])
def test_tables_that_were_lost_are_written_again_the_same(finished: Path, damage: str) -> None:
    out = finished.parent / "study"
    before = table_bytes(out)
    (out / damage).unlink()
    summary = run(finished)
    assert not summary.reused
    assert summary.num_made == 0
    assert table_bytes(out) == before


@pytest.mark.slow
def test_a_file_of_the_store_that_was_lost_is_made_again(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path)
    run(file)
    before = table_bytes(tmp_path / "study")
    tuned = tmp_path / "store" / rows(tmp_path / "study" / "points.csv")[0]["model"]
    (tuned / "model.safetensors").unlink()
    planned = plan(file)
    assert [state for key, state in planned.states.items() if planned.study.graph.nodes[key].kind == "finetune"] == ["partial"]
    said = io.StringIO()
    assert run(file, said=said).num_made == 1
    assert "finetune" in said.getvalue()
    assert table_bytes(tmp_path / "study") == before


@pytest.mark.slow
def test_what_changed_since_the_last_run_is_named(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"corpus.size": [4, 8]})
    run(file)
    lines = plan_lines(plan(file, "finetune.max_tokens=30", "scoring.max_tokens=16"))
    assert "stale: finetune.max_tokens: 40 then, 30 now (2 points)" in lines
    assert "stale: scoring.max_tokens: 32 then, 16 now (2 points)" in lines
    states = plan(file, "shift.num_draws=300").states
    assert sorted(set(states.values())) == ["done", "stale"]
    assert sum(state == "stale" for state in states.values()) == 2
    assert "missing" in set(plan(file, "grid.corpus.size=[4, 8, 12]").states.values())


@pytest.mark.slow
def test_a_run_says_what_changed_since_the_last_one(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, seeds=[0, 1])
    run(file, said=(first := io.StringIO()))
    assert "changed since" not in first.getvalue()
    run(file, "shift.level=0.8", said=(again := io.StringIO()))
    assert "changed since the last run: shift.level: 0.95 then, 0.8 now (2 points)" in again.getvalue()


@pytest.mark.slow
def test_points_whose_values_look_alike_stay_apart(world: Path, tmp_path: Path) -> None:
    web = tmp_path / "web_text_with_a_name_that_is_longer_than_any_label_may_be.jsonl"
    web.write_bytes((world / "web.jsonl").read_bytes())
    mixes = [{"files": [str(web)], "share": share} for share in (0.2, 0.6)]
    file = write_experiment(world, tmp_path, grid={"corpus.mix": mixes})
    summary = run(file)
    out = tmp_path / "study"
    assert [json.loads(row["corpus.mix"]) for row in rows(out / "points.csv")] == mixes
    assert len({row["corpus.mix"] for row in rows(out / "shifts.csv")}) == 2
    assert len(json.loads((out / "points.json").read_text())) == 2
    assert [line.split()[0] for line in summary.lines[2:4]] == ["share=0.2", "share=0.6"]


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["write_table", "_stale_files"])
def test_killed_among_the_tables_of_another_grid_no_file_of_the_first_stays(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    file = write_experiment(
        world, tmp_path, grid={"corpus.size": [4, 8]}, corpus={"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 4}
    )
    run(file)
    out = tmp_path / "study"
    assert (out / "figures" / "corpus.size-p.png").exists()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"lmdissect.pipeline.tables.{killed_at}", killed)
        with pytest.raises(KeyboardInterrupt):
            run(file, "grid={finetune.epochs: [1, 2]}")
    assert not (out / "manifest.json").exists()
    run(file, "grid={}")
    manifest = json.loads((out / "manifest.json").read_text())
    assert {name for name in table_bytes(out) if not name.startswith("study/")} == set(manifest["files"])  # the study has a manifest of its own
    tables = json.loads((out / "study" / "manifest.json").read_text())["files"]
    assert {name for name in table_bytes(out / "study") if not name.startswith("figures/")} <= set(tables)
    nodes = {path.relative_to(tmp_path / "store").parent.as_posix() for path in (tmp_path / "store").glob("*/*/manifest.json")}
    assert set(manifest["seconds"]) == nodes


def test_a_changed_corpus_is_noticed(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes((world / "corpus.jsonl").read_bytes())
    file = write_experiment(world, tmp_path, corpus={"files": [str(corpus)], "size": 4, "validation": 2})
    run(file)
    with corpus.open("a", encoding="utf-8") as stream:
        stream.write('{"id": "new", "text": "One more document stands here."}\n')
    assert any("content of.corpus.files" in line for line in plan_lines(plan(file)))


@pytest.mark.slow
def test_experiments_with_one_store_share_their_runs(world: Path, tmp_path: Path) -> None:
    first = write_experiment(world, tmp_path, "first", grid={"corpus.size": [4, 8]})
    probes = {"p": {"path": str(world / "probes.jsonl")}, "q": {"path": str(world / "other_probes.jsonl")}}
    second = write_experiment(world, tmp_path, "second", probes=probes, grid={"corpus.size": [8]})
    run(first)
    said = io.StringIO()
    summary = run(second, said=said)
    assert summary.num_made == 4, "a look for the other probes, two scorings of them, and their shift"
    assert "finetune:" not in said.getvalue()


def test_a_failing_point_leaves_the_others(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"finetune.learning_rate": [1e-2, 1e30]})
    summary = run(file)
    assert len([failure for failure in summary.failures if failure.ran]) == 1
    points = rows(tmp_path / "study" / "points.csv")
    assert [row["finished"] for row in points] == ["true", "false"]
    assert {row["finetune.learning_rate"] for row in rows(tmp_path / "study" / "shifts.csv")} == {"0.01"}
    failed = rows(tmp_path / "study" / "failed.csv")
    assert failed[0]["kind"] == "finetune"
    assert "nan" in failed[0]["reason"]
    assert failed[0]["log"].startswith("logs/finetune-")
    assert {row["kind"] for row in failed[1:]} == {"score", "shift"}
    again = run(file)
    assert not again.reused
    assert again.num_made == 0
    assert len(again.failures) == len(summary.failures)


def test_a_size_beyond_the_corpus_fails_its_point_alone(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"corpus.size": [4, 1000]})
    assert any("more than there are: the corpus has 60 documents" in line for line in plan_lines(plan(file)))
    summary = run(file)
    assert "corpus.size is 1000, and" in summary.failures[0].reason
    assert [row["finished"] for row in rows(tmp_path / "study" / "points.csv")] == ["true", "false"]


def test_a_grid_that_asks_for_more_than_there_is_is_planned_to_fail(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"corpus.mix": [{"files": [str(world / "web.jsonl")], "share": share} for share in (0.9, 0.5)]})
    lines = plan_lines(plan(file))
    assert [line for line in lines if "more than there are" in line] == [
        "not known: 8 documents + 90% mixed in, draw 0: more than there are: the second corpus has 30 documents, and 72 are to be mixed in"
    ]
    variant = {"corpus": {"probe_set": str(world / "probes.jsonl"), "variant": "original", "size": 2}}
    file = write_experiment(world, tmp_path, "variant", **variant, grid={"corpus.variant": ["casual", "casul"]})
    assert any("has no variant 'casul' to train on" in line for line in plan_lines(plan(file)))


@pytest.mark.parametrize("policy", ["refuse", "exclude_training", "exclude_probes"])
def test_probes_among_the_documents(world: Path, tmp_path: Path, policy: str) -> None:
    corpus = {"probe_set": str(world / "probes.jsonl"), "variant": "casual", "size": 3, "validation": 1, "on_overlap": policy}
    file = write_experiment(world, tmp_path, corpus=corpus, grid={"corpus.size": [2, 3]})
    summary = run(file)
    if policy != "exclude_probes":
        words = "documents of the probe set p are among" if policy == "refuse" else "more are kept out for validation, and"
        assert words in summary.failures[0].reason
        assert not (tmp_path / "study" / "shifts.csv").exists()
        return
    assert not summary.failures
    shifts = rows(tmp_path / "study" / "shifts.csv")
    assert {row["num_documents"] for row in shifts} == {"4"}, "8 probes without the 3 + 1 of the largest point, at every point"
    assert [row["probe_documents_found"] for row in rows(tmp_path / "study" / "overlap.csv")] == ["3", "4"]


@pytest.mark.slow
def test_a_curve_while_training_lands_in_the_tables(world: Path, tmp_path: Path) -> None:
    measure = {"probes": ["p"], "steps": "log", "limit": 3}
    file = write_experiment(world, tmp_path, measure=measure, grid={"corpus.size": [8, 12]})
    summary = run(file)
    assert not summary.failures
    curve = rows(tmp_path / "study" / "curve.csv")
    assert {(row["corpus.size"], row["step"]) for row in curve} == {*(("8", step) for step in "012"), *(("12", step) for step in "0123")}
    assert {row["num_documents"] for row in curve} == {"3"}
    assert run(file).reused
    shutil.rmtree(next((tmp_path / "store" / "finetune").glob("*-curve")))
    failures = run(file).failures
    assert "delete" in failures[0].reason
    assert "what was measured while training is gone" in failures[0].reason


@pytest.mark.slow
def test_seeds_train_apart_and_redraw_draws_apart(world: Path, tmp_path: Path) -> None:
    corpus = {"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 4, "redraw": True}
    file = write_experiment(world, tmp_path, corpus=corpus, seeds=[0, 1])
    run(file)
    drawn = [path for path in (tmp_path / "store" / "documents").iterdir() if path.is_dir()]
    ids = [set(read_table(path / "training.parquet")["document_id"].to_pylist()) for path in drawn]
    assert len(ids) == 2
    assert ids[0] != ids[1]
    held_out = [read_table(path / "validation.parquet")["document_id"].to_pylist() for path in drawn]
    assert held_out[0] == held_out[1]
    fixed = write_experiment(world, tmp_path, "fixed", corpus={**corpus, "redraw": False}, seeds=[0, 1])
    run(fixed)
    losses = {row["validation_loss_after_nats"] for row in rows(tmp_path / "fixed" / "points.csv")}
    assert len(losses) == 2, "another order of the same documents"


def test_inputs_that_are_not_there_are_refused_before_anything_runs(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path)
    for change, words in (
        ("corpus.files=[nowhere.jsonl]", "nowhere.jsonl: no such corpus file (paths are relative to the folder the command is run in)"),
        ("models.base=no/such/folder/x", "no/such/folder/x"),
        ("probes.p.path=none.jsonl", "none.jsonl"),
        ("probes.p.factors={rap: style}", "'rap'"),
    ):
        with pytest.raises(UserInputError) as caught:
            run(file, change)
        assert words in str(caught.value)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "study").exists()


def test_a_folder_of_somebody_else_is_not_written_into(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("mine")
    with pytest.raises(UserInputError, match="is not empty and holds no experiment"):
        run(file)


def test_the_manifest_says_how_long_every_node_took(finished: Path) -> None:
    manifest = json.loads((finished.parent / "manifest-of-the-first-run.json").read_text())
    nodes = {path.relative_to(finished.parent / "store").parent.as_posix() for path in (finished.parent / "store").glob("*/*/manifest.json")}
    assert set(manifest["seconds"]) == nodes
    assert all(seconds >= 0 for seconds in manifest["seconds"].values())
