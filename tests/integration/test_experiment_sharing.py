"""What experiments and points share, and that one's failure or name for a thing is not the other's."""

import csv
import io
from pathlib import Path

import pytest

from experiment_world import make_world, write_experiment
from lmdissect.corpus import sample_documents, split_held_out
from lmdissect.pipeline.executors import InlineExecutor
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.run import ExperimentSummary, run_experiment
from lmdissect.progress import LineProgress
from lmdissect.records import Document


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def run(file: Path, *changes: str) -> ExperimentSummary:
    return run_experiment(read_experiment(file, changes), str(file), lambda _: InlineExecutor(), progress=LineProgress(io.StringIO()))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_experiments_may_call_a_probe_set_differently(world: Path, tmp_path: Path) -> None:
    corpus = {"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 6, "on_overlap": "exclude_training"}
    run(write_experiment(world, tmp_path, "one", corpus=corpus))
    summary = run(write_experiment(world, tmp_path, "two", corpus=corpus, probes={"q": {"path": str(world / "probes.jsonl")}}))
    assert (summary.num_made, summary.failures) == (0, ())
    assert [(row["probes"], row["corpus_documents_left_out"]) for row in rows(tmp_path / "two" / "overlap.csv")] == [("q", "0")]


def test_a_point_that_cannot_be_drawn_takes_no_probes_from_the_others(world: Path, tmp_path: Path) -> None:
    corpus = {"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 6, "on_overlap": "exclude_probes"}
    summary = run(write_experiment(world, tmp_path, corpus=corpus, grid={"corpus.size": [4, 1000]}))
    assert "corpus.size is 1000" in summary.failures[0].reason
    assert [row["finished"] for row in rows(tmp_path / "study" / "points.csv")] == ["true", "false"]
    assert {row["corpus.size"] for row in rows(tmp_path / "study" / "shifts.csv")} == {"4"}


def test_a_point_that_refuses_leaves_the_run_to_the_one_that_does_not(world: Path, tmp_path: Path) -> None:
    corpus = {"probe_set": str(world / "probes.jsonl"), "variant": "casual", "size": 2, "validation": 1}
    summary = run(write_experiment(world, tmp_path, corpus=corpus, grid={"corpus.on_overlap": ["refuse", "exclude_probes"]}))
    assert "documents of the probe set p are among" in summary.failures[0].reason
    found = {row["corpus.on_overlap"]: row["finished"] for row in rows(tmp_path / "study" / "points.csv")}
    assert found == {"refuse": "false", "exclude_probes": "true"}
    assert {row["corpus.on_overlap"] for row in rows(tmp_path / "study" / "shifts.csv")} == {"exclude_probes"}


def test_trials_on_probes_are_refused(world: Path, tmp_path: Path) -> None:
    """The point's own documents hold none of these probes; those that its learning rate would be chosen on do."""
    corpus = {"probe_set": str(world / "other_probes.jsonl"), "variant": "casual", "size": 1, "validation": 1}
    pool, _ = split_held_out([Document(f"p{number}", "") for number in range(20, 26)], 1, 0)
    last = sample_documents(pool, 5, 0)[-1].document_id
    lines = (world / "other_probes.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "probes.jsonl").write_text("".join(f"{line}\n" for line in lines if f'"{last}"' in line), encoding="utf-8")
    finetune = {"max_tokens": 40, "device": "cpu", "learning_rate": {"grid": [1e-3, 1e-2], "size": 5}}
    summary = run(write_experiment(world, tmp_path, corpus=corpus, probes={"p": {"path": str(tmp_path / "probes.jsonl")}}, finetune=finetune))
    reasons = {failure.node.kind: failure.reason for failure in summary.failures}
    assert f"1 documents of the probe set p are among the 6 documents of the corpus ({last})" in reasons["overlap"]
    assert set(reasons) == {"overlap", "trial", "rate", "finetune", "score", "shift"}
    assert [row["probe_documents_found"] for row in rows(tmp_path / "study" / "overlap.csv")] == ["0"]
