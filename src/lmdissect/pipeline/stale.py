"""What the points of an experiment were made of when it was last run, so that `plan` can say which setting has changed since."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError
from lmdissect.pipeline.build import PointNodes, Study
from lmdissect.store import read_json, write_json
from lmdissect.store.fingerprint import canonical_json

__all__ = ["Staleness", "changed_fields", "changes_of_points", "note_points", "read_points"]

_FILE = "points.json"
_SHOWN_CHARS = 40

Staleness = Mapping[str, Any]
"""What points.json holds: for every point its nodes and what they were made of."""


def note_points(study: Study, out: Path) -> None:
    """Write down what every point is made of: OUT/points.json."""
    content = {nodes.point.identity: {"nodes": dict(nodes.nodes), "content": nodes.content} for nodes in study.points}
    write_json(out / _FILE, content)


def read_points(out: Path) -> Staleness:
    """What `note_points` wrote last; nothing where there is none."""
    path = out / _FILE
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except DamagedArtifactError:
        return {}
    return found if isinstance(found, dict) else {}


def changed_fields(nodes: PointNodes, role: str, earlier: Staleness) -> list[str]:
    """Fields that differ between what a point's node was at the last run and what it is now: ``corpus.size: 100 then, 200 now``.

    Empty where the point was not run before, or this node of it is the same.
    """
    there = earlier.get(nodes.point.identity)
    if there is None or there["nodes"].get(role) in {None, nodes.nodes[role]}:
        return []
    return _differing(there["content"], nodes.content, "")


def changes_of_points(study: Study, missing: Container[str], earlier: Staleness) -> dict[str, int]:
    """What has changed at points whose nodes are missing for it: number of points by change, as `changed_fields` words it.

    Args:
        study: The experiment.
        missing: Keys of the missing nodes.
        earlier: What `read_points` found.
    """
    changes: dict[str, int] = {}
    for nodes in study.points:
        for line in dict.fromkeys(line for role, key in nodes.nodes.items() if key in missing for line in changed_fields(nodes, role, earlier)):
            changes[line] = changes.get(line, 0) + 1
    return changes


def _differing(there: object, here: object, name: str) -> list[str]:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = dict.fromkeys([*there, *here])
        return [line for key in keys for line in _differing(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))]
    one, other = canonical_json(there), canonical_json(list(here) if isinstance(here, tuple) else here)
    return [] if one == other else [f"{name}: {_short(one)} then, {_short(other)} now"]


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
