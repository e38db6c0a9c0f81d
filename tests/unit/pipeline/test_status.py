"""What of a node is there."""

from pathlib import Path

from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.status import curve_folder, node_state
from lmdissect.store import open_artifact, write_text


def make(node: Node, *, finish: bool) -> Path:
    folder = Path(node.folder)
    with open_artifact(folder, stage="finetune", config={}, inputs={}) as artifact:
        write_text(folder / "content.txt", "whole")
        if finish:
            artifact.finish(counts={}, details={})
    return folder


def node(store: Path, **settings: object) -> Node:
    return Graph().add("finetune", "a run", settings, depends_on=dict(settings), needs=(), store=store)


def test_a_node_is_missing_then_begun_then_done(tmp_path: Path) -> None:
    one = node(tmp_path)
    assert node_state(one) == "missing"
    make(one, finish=False)
    assert node_state(one) == "partial"
    folder = make(one, finish=True)
    assert node_state(one) == "done"
    write_text(folder / "content.txt", "cut")
    assert node_state(one) == "partial"
    (folder / "content.txt").unlink()
    assert node_state(one) == "partial"


def test_a_run_that_measures_is_done_with_its_curves(tmp_path: Path) -> None:
    one = node(tmp_path, measure={"probes": {"p": {}, "q": {}}})
    make(one, finish=True)
    for name in ("p", "q"):
        assert node_state(one) == "partial"
        write_text(curve_folder(one.folder) / name / "curve.parquet", "x")
    assert node_state(one) == "done"


def test_a_key_is_of_content_alone_and_a_shared_node_waits_for_what_all_want(tmp_path: Path) -> None:
    graph = Graph()
    first = graph.add("overlap", "one look", {"at": "a"}, depends_on={}, needs=(), store=tmp_path)
    second = graph.add("overlap", "another", {"at": "b"}, depends_on={"x": 1}, needs=(), store=tmp_path)
    third = graph.add("documents", "drawn", {}, depends_on={"z": 1}, needs=(), store=tmp_path)
    one = graph.add("finetune", "run", {"path": "a"}, depends_on={"y": 2}, needs=[third.key, first.key], store=tmp_path)
    other = graph.add("finetune", "the same run", {"path": "b"}, depends_on={"y": 2}, needs=[second.key, third.key], store=tmp_path)
    assert (one.key, one.label, one.settings) == (other.key, other.label, other.settings)
    assert other.needs == (third.key,)
    assert Node.from_json(other.to_json()) == other
