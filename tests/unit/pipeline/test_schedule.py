"""The order in which nodes run, and what a failure takes with it."""

import io
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from lmdissect.errors import InterruptedRunError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.build import Study
from lmdissect.pipeline.experiment import parse_experiment
from lmdissect.pipeline.graph import Graph, Node, NodeKind, NodeOutcome
from lmdissect.pipeline.schedule import ScheduleSummary, run_nodes
from lmdissect.progress import LineProgress


class Recorder:
    """An executor that does nothing and remembers what it was given; outcomes are as told."""

    def __init__(self, outcomes: dict[str, NodeOutcome] | None = None, *, capacity: int = 1, stop_after: int | None = None) -> None:
        self.capacity = capacity
        self.ran: list[str] = []
        self.stop = StopRequest()
        self.stopped = False
        self._outcomes = outcomes or {}
        self._stop_after = stop_after

    def submit(self, node: Node) -> Future[NodeOutcome]:
        self.ran.append(node.label)
        if self._stop_after is not None and len(self.ran) >= self._stop_after:
            self.stop.asked = True
        future: Future[NodeOutcome] = Future()
        future.set_result(self._outcomes.get(node.label, NodeOutcome(node.key, "done", wall_s=1.0)))
        return future

    def ask_to_stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


def study(tmp_path: Path, nodes: list[tuple[NodeKind, str, list[str]]]) -> Study:
    """Nodes as (kind, label, labels of needs)."""
    graph = Graph()
    keys: dict[str, str] = {}
    for kind, label, needs in nodes:
        keys[label] = graph.add(kind, label, {}, depends_on={"label": label}, needs=[keys[name] for name in needs], store=tmp_path).key
    settings: dict[str, Any] = {
        "name": "s",
        "models": {"base": "a/b"},
        "corpus": {"files": ["c"], "size": 1},
        "probes": {"p": {"path": "p"}},
    }
    return Study(parse_experiment(settings, "e"), (), graph)


CHAIN: list[tuple[NodeKind, str, list[str]]] = [
    ("documents", "draw 1", []),
    ("finetune", "tune 1", ["draw 1"]),
    ("score", "base", []),
    ("score", "tuned 1", ["tune 1"]),
    ("shift", "shift 1", ["base", "tuned 1"]),
    ("documents", "draw 2", []),
    ("finetune", "tune 2", ["draw 2"]),
    ("score", "tuned 2", ["tune 2"]),
    ("shift", "shift 2", ["base", "tuned 2"]),
]


def run(made: Study, executor: Recorder, said: io.StringIO | None = None) -> ScheduleSummary:
    progress = LineProgress(said or io.StringIO())
    return run_nodes(made, list(made.graph.nodes.values()), executor, progress=progress, stop=executor.stop)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_nodes_run_after_what_they_need_and_points_finish_early(tmp_path: Path, capacity: int) -> None:
    made, executor = study(tmp_path, CHAIN), Recorder(capacity=capacity)
    summary = run(made, executor)
    assert not summary.failures
    assert sorted(executor.ran) == sorted(label for _, label, _ in CHAIN)
    for _, label, needs in CHAIN:
        assert all(executor.ran.index(need) < executor.ran.index(label) for need in needs)
    assert executor.ran[:2] == ["draw 1", "draw 2"], "what is cheap and may fail comes first"
    if capacity == 1:
        assert executor.ran.index("shift 1") < executor.ran.index("tune 2")


def test_a_failure_takes_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    made = study(tmp_path, CHAIN)
    said = io.StringIO()
    failed = {"tune 1": NodeOutcome("", "failed", "the loss became nan", "NonFiniteLossError", 1)}
    summary = run(made, Recorder(failed), said)
    reasons = {failure.node.label: (failure.reason, failure.ran) for failure in summary.failures.values()}
    assert set(reasons) == {"tune 1", "tuned 1", "shift 1"}
    assert reasons["tune 1"] == ("the loss became nan", True)
    assert reasons["shift 1"][1] is False
    assert "which failed" in reasons["shift 1"][0]
    assert len(summary.done) == len(CHAIN) - 3
    assert "finetune: tune 1: FAILED: the loss became nan" in said.getvalue()


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    full = {"draw 2": NodeOutcome("", "failed", "disk full while writing x", "OutOfSpaceError", 1)}
    summary = run(study(tmp_path, CHAIN), executor := Recorder(full))
    assert executor.ran == ["draw 1", "draw 2"]
    assert {failure.reason for failure in summary.failures.values()} == {"disk full while writing x", "not begun: the disk is full"}


def test_a_stop_is_passed_on_and_ends_with_130(tmp_path: Path) -> None:
    executor = Recorder(stop_after=3)
    with pytest.raises(InterruptedRunError, match="with 3 of 9 pieces of work done; run the same command again"):
        run(study(tmp_path, CHAIN), executor)
    assert executor.stopped


def test_the_time_left_is_said_at_the_pace_of_what_was_done(tmp_path: Path) -> None:
    made, said = study(tmp_path, CHAIN), io.StringIO()
    nodes = list(made.graph.nodes.values())
    costs = {node.key: 10.0 if node.kind == "finetune" else 0.0 for node in nodes}
    run_nodes(made, nodes, Recorder(), costs=costs, progress=LineProgress(said), stop=StopRequest())
    lines = said.getvalue().splitlines()
    assert lines[0].endswith("; 8 left")
    assert lines[2] == "[3/9] finetune: tune 1: 1s; 6 left, about 1s"
    assert lines[-1] == "[9/9] shift: shift 2: 1s"
