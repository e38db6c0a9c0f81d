"""Scoring shared on a Ray cluster, without one: helpers that never began are not waited for."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmdissect.pipeline import ray_executor, work
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.ray_executor import _Desk as Desk
from lmdissect.pipeline.ray_executor import _share_scoring as share_scoring
from lmdissect.progress import SilentProgress


class TaskCancelledError(Exception):
    """As Ray's."""


class Cluster:
    """What `_share_scoring` asks of Ray. Helpers whose number is in ``begins`` say that they have begun, the others wait for a slot for ever."""

    exceptions = types.SimpleNamespace(RayError=TaskCancelledError)

    def __init__(self, begins: set[int]) -> None:
        self.begins = begins
        self.cancelled: list[int] = []

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def remote(self, _function: Callable[..., str]) -> Any:
        def start(node_json: dict[str, Any], desk: Desk, index: int, _count: int) -> int:
            if index in self.begins:
                desk.shard_began(Node.from_json(node_json), index).touch()
            return index

        return types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(remote=start))

    def cancel(self, reference: int) -> None:
        self.cancelled.append(reference)

    def get(self, reference: int) -> str:
        if reference in self.cancelled:
            raise TaskCancelledError
        assert reference in self.begins, "waits for a helper that never began"
        return ""


@pytest.mark.parametrize("begins", [set(), {2}, {1, 2, 3}])
def test_helpers_that_never_began_are_taken_back(begins: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, scored = Cluster(begins), []
    monkeypatch.setattr(ray_executor, "import_ray", lambda: cluster)
    monkeypatch.setattr(ray_executor, "_num_chunks", lambda *_: 100)
    monkeypatch.setattr(work, "score_node", lambda *_, shard: scored.append(shard))
    node = Graph().add("score", "scores", {}, depends_on={}, needs=(), store=tmp_path)
    share_scoring(node, Desk(str(tmp_path), str(tmp_path), str(tmp_path), 1, 0, 4), SilentProgress(), None)  # type: ignore[arg-type]
    assert len(scored) == 1
    assert set(cluster.cancelled) == {1, 2, 3} - begins
