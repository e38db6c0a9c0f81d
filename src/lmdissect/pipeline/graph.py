"""An experiment as a graph of nodes: pieces of work with a content key, each making one artifact in the store.

    documents   what a point trains on, and the validation documents
    overlap     which probe documents are among them, and what is done about it
    trial       one learning rate of a grid: its validation loss, or why it failed
    rate        the learning rate that the trials speak for
    finetune    a tuned model
    score       one model's scores of one probe set
    shift       what moved between base and tuned model

The key of a node is a hash of everything its outcome depends on: settings, hashes of input files, fingerprints of models, and the keys of the nodes it
takes its input from. Its artifact lies in STORE/<kind>/<first 16 digits of the key>, so experiments with one store share what they have in common.

A node holds all that its work needs, as JSON. Another process, or another machine with the same files, can run it (`lmdissect.pipeline.work.run_node`)
in the folder that the run was started in: paths are as the user wrote them, relative to there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lmdissect.store import fingerprint
from lmdissect.store.artifact import SCHEMA_VERSION

__all__ = ["KINDS", "Graph", "Node", "NodeKind", "NodeOutcome", "NodeStatus", "artifact_folder", "node_key"]

NodeKind: TypeAlias = Literal["documents", "overlap", "trial", "rate", "finetune", "score", "shift"]
"""What a node makes."""

KINDS: tuple[NodeKind, ...] = ("documents", "overlap", "trial", "rate", "finetune", "score", "shift")
"""All kinds, in the order in which they are shown; a node needs only nodes of its own or an earlier kind."""

NodeStatus: TypeAlias = Literal["done", "failed", "interrupted"]

_FOLDER_DIGITS = 16
_NODE_VERSION = 2
"""Raised when what a node makes changes beside formats and formulas, which have a version of their own: an older store is not taken for a new one."""


def node_key(kind: NodeKind, depends_on: Mapping[str, Any]) -> str:
    """Key (hex) of a node: hash of its kind, the versions, and everything its outcome depends on, in canonical JSON types."""
    return fingerprint({"versions": [SCHEMA_VERSION, _NODE_VERSION], "kind": kind, "depends_on": dict(depends_on)})


def artifact_folder(store: Path, kind: NodeKind, key: str) -> Path:
    """Where the artifact of a node lies."""
    return store / kind / key[:_FOLDER_DIGITS]


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work.

    Attributes:
        key: Hash of everything the outcome depends on.
        kind: What it makes.
        label: What to call it in front of the user.
        settings: All its work needs, in JSON types.
        needs: Keys of the nodes that must be done first.
        folder: Where its artifact goes.
    """

    key: str
    kind: NodeKind
    label: str
    settings: dict[str, Any]
    needs: tuple[str, ...]
    folder: str

    @property
    def name(self) -> str:
        """Kind and the beginning of the key: the name of its log and the path of its artifact inside the store."""
        return f"{self.kind}/{self.key[:_FOLDER_DIGITS]}"

    @property
    def log_name(self) -> str:
        """File name of its log."""
        return f"{self.name.replace('/', '-')}.log"

    def to_json(self) -> dict[str, Any]:
        """The node in JSON types."""
        return {**asdict(self), "needs": list(self.needs)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Node":
        """The node that `to_json` wrote."""
        return cls(**{**value, "needs": tuple(value["needs"])})


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """What became of a node.

    Attributes:
        key: The node's key.
        status: ``done``, ``failed``, or ``interrupted`` (the user asked to stop; what was begun is kept).
        message: One line: why it failed, or what there is to know.
        error: Name of the exception, empty where it is done.
        exit_code: 0, or what a command that failed like this exits with.
        wall_s: How long it took this time.
    """

    key: str
    status: NodeStatus
    message: str = ""
    error: str = ""
    exit_code: int = 0
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The outcome in JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NodeOutcome":
        """The outcome that `to_json` wrote."""
        return cls(**value)


@dataclass(slots=True)
class Graph:
    """Nodes by key, in the order in which they were first asked for."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def add(
        self, kind: NodeKind, label: str, settings: Mapping[str, Any], *, depends_on: Mapping[str, Any], needs: Sequence[str], store: Path
    ) -> Node:
        """The node of these settings: the one that is there already, or a new one.

        Two points that share a node may each want other nodes done before it: checks whether its own probes are among the documents. It then waits for
        what both want, and for nothing else: a check that fails is no reason to take the node from a point that never asked for it.

        Args:
            kind: What it makes.
            label: What to call it.
            settings: All its work needs.
            depends_on: What its outcome depends on; makes the key.
            needs: Keys of nodes that must be done first.
            store: Folder of all artifacts.
        """
        key = node_key(kind, depends_on)
        known = self.nodes.get(key)
        waits = tuple(dict.fromkeys(key for key in (known.needs if known else needs) if key in needs))
        folder = str(artifact_folder(store, kind, key))
        node = Node(key, kind, known.label if known else label, known.settings if known else dict(settings), waits, folder)
        self.nodes[key] = node
        return node
