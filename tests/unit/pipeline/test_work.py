"""What is said of a node whose folder holds something else."""

from pathlib import Path

import pytest

from lmdissect.errors import StaleArtifactError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.status import curve_folder
from lmdissect.pipeline.work import run_node
from lmdissect.progress import Progress


@pytest.mark.parametrize("measure", [None, {"probes": {"p": {}}}])
def test_everything_that_has_to_go_is_named(tmp_path: Path, measure: dict[str, object] | None) -> None:
    node = Graph().add("finetune", "a run", {"measure": measure}, depends_on={}, needs=(), store=tmp_path / "a: b")
    there = curve_folder(node.folder) / "p"

    def refuse(_node: Node, _progress: Progress, _stop: StopRequest) -> None:
        message = f"{there} holds the curve of another run (shift: 1 there, 2 here): choose another folder, or delete that one first"
        raise StaleArtifactError(message, there)

    outcome = run_node(node, work=refuse)
    folders = [node.folder, *([str(curve_folder(node.folder))] if measure else [])]
    assert outcome.message.startswith(f"{there} was begun on another machine, or by hand: delete {' and '.join(folders)} and run again (")
    assert "shift: 1 there, 2 here" in outcome.message
