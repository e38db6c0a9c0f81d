"""From tiny finetuning runs to a study: three seeds at two sizes, natural pairs beside synthetic probes, curves while training; and what a failure leaves."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiment_world import make_world, write_experiment
from lmdissect.errors import InterruptedRunError
from lmdissect.formats.study_tables import read_study_tables
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.executors import InlineExecutor
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.run import STUDY, ExperimentSummary, run_experiment
from lmdissect.progress import LineProgress
from lmdissect.store import read_manifest
from lmdissect_cli import CliOutcome

Run = Callable[..., CliOutcome]
Tables = dict[str, list[dict[str, Any]]]


def _run(file: Path, *changes: str, said: io.StringIO | None = None) -> ExperimentSummary:
    progress = LineProgress(said or io.StringIO())
    return run_experiment(read_experiment(file, changes), str(file), lambda _: InlineExecutor(), progress=progress)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    pairs = [
        {"id": f"n{n}", "technical": f"The {n} patients received the drug.", "plain": f"So {n} people got the stuff, and they were fine."}
        for n in range(6)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentSummary]:
    """Sizes 4 and 8, seeds 0 to 2, two probe sets, measured while training."""
    file = write_experiment(
        world,
        tmp_path_factory.mktemp("finished"),
        "sizes",
        grid={"corpus.size": [4, 8]},
        seeds=[0, 1, 2],
        probes={"p": {"path": str(world / "probes.jsonl")}, "pairs": {"path": str(world / "pairs.jsonl")}},
        measure={"probes": ["p"], "steps": [1, 2], "limit": 6},
    )
    return file, _run(file)


@pytest.fixture
def tables(finished: tuple[Path, ExperimentSummary]) -> Tables:
    return read_study_tables(finished[1].out / STUDY)[1]


@pytest.mark.slow
def test_a_run_ends_in_a_study_with_every_analysis_it_can_feed(finished: tuple[Path, ExperimentSummary], tables: Tables) -> None:
    _, summary = finished
    assert summary.warnings == ()
    assert summary.report is not None
    assert summary.report.is_file()
    assert len(tables["runs"]) == 2 * 3 * 2
    assert {(row["point"], row["num_seeds"]) for row in tables["estimates"]} == {("size=4", 3), ("size=8", 3)}
    assert {(row["axis"], row["x"]) for row in tables["curves"]} >= {("corpus.size", 4.0), ("corpus.size", 8.0), ("step", 1.0), ("step", 2.0)}
    for name in ("seeds", "positions", "facts", "fingerprint", "moved_documents"):
        assert tables[name], name
    assert {(row["kind"], row["probes"]) for row in tables["natural"]} == {("natural", "pairs"), ("synthetic", "p")}
    assert {row["training_documents"] for row in tables["runs"]} == {4, 8}
    stated = {row["analysis"] for row in tables["statements"] if row["verdict"] == "not measured"}
    assert stated >= {"capacity", "independence", "interactions", "cloze", "forgotten"}, "no general texts, so what was forgotten is not measured"
    assert not stated & {"learned", "curves", "facts", "natural", "fingerprint"}


@pytest.mark.slow
def test_run_again_nothing_is_measured_again(finished: tuple[Path, ExperimentSummary], run_cli: Run) -> None:
    file, summary = finished
    before = read_manifest(summary.out / STUDY).finished_at
    said = io.StringIO()
    again = _run(file, said=said)
    assert again.reused
    assert again.report == summary.report
    assert read_manifest(summary.out / STUDY).finished_at == before
    assert "reused" in said.getvalue()
    assert f"report: {summary.report}" in run_cli("run", str(file)).out
    assert "report: " not in run_cli("run", str(file), "--no-study").out


@pytest.mark.slow
def test_a_damaged_study_does_not_cost_the_tables_and_is_made_again(finished: tuple[Path, ExperimentSummary]) -> None:
    file, summary = finished
    (summary.out / STUDY / "estimates.parquet").write_bytes(b"")
    assert _run(file).report == summary.report
    assert read_study_tables(summary.out / STUDY)[1]["estimates"]
    (summary.out / STUDY / "manifest.json").write_text("[]", encoding="utf-8")
    damaged = _run(file)
    assert damaged.reused
    assert damaged.report is None
    assert "study could not be made" in damaged.warnings[0]
    shutil.rmtree(summary.out / STUDY)
    assert _run(file).report == summary.report


@pytest.mark.slow
def test_a_stop_is_heard_while_the_study_is_made(finished: tuple[Path, ExperimentSummary]) -> None:
    file, summary = finished
    shutil.rmtree(summary.out / STUDY)
    stop = StopRequest()
    stop.asked = True
    with pytest.raises(InterruptedRunError, match="while the study was made"):
        run_experiment(read_experiment(file), str(file), lambda _: InlineExecutor(), stop=stop)
    assert _run(file).report == summary.report


@pytest.mark.slow
def test_several_experiments_make_one_study_on_the_command_line(
    finished: tuple[Path, ExperimentSummary], world: Path, tmp_path: Path, run_cli: Run
) -> None:
    _, summary = finished
    corpus = {"files": [str(world / "corpus.jsonl")], "size": 4, "validation": 6}
    other = write_experiment(world, tmp_path, "bad", corpus=corpus, grid={"finetune.learning_rate": [1e-2, 1e30]})
    failed = _run(other)
    assert failed.failures
    assert failed.report is not None, "one point is finished, and has a study"
    out = tmp_path / "both"
    outcome = run_cli("study", str(summary.out), str(failed.out), "--out", str(out), "--draws", "200")
    assert outcome.code == 0, outcome.err
    assert "report: " in outcome.out
    manifest, tables = read_study_tables(out)
    assert {row["experiment"] for row in tables["runs"]} == {"sizes", "bad"}
    (gap,) = [gap for gap in manifest.details["unavailable"] if gap["table"] == "runs"]
    assert gap["experiment"] == "bad"
    assert "seed 0: " in gap["reason"]
    assert "failed" in gap["reason"]
    again = run_cli("study", str(summary.out), "--out", str(out))
    assert again.code == 2
    assert "gone: bad, " in again.err
    assert "give --replace" in again.err
    assert {row["experiment"] for row in read_study_tables(out)[1]["runs"]} == {"sizes", "bad"}
    replaced = run_cli("study", str(summary.out), str(tmp_path / "none"), "--out", str(out), "--draws", "200", "--replace")
    assert replaced.code == 0, replaced.err
    assert f"left out: {tmp_path / 'none'}: no such folder" in replaced.err
    assert "study of 12 runs" in replaced.out
    assert "1 of 13 runs left out" in replaced.out
    assert {row["experiment"] for row in read_study_tables(out)[1]["runs"]} == {"sizes"}
