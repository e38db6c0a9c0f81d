"""What of a node is there: finished, begun, or nothing."""

from pathlib import Path
from typing import Literal, TypeAlias

from lmdissect.errors import DamagedArtifactError, UnreadableInputError
from lmdissect.pipeline.graph import Node
from lmdissect.store import read_manifest

__all__ = ["NodeState", "curve_folder", "node_state"]

NodeState: TypeAlias = Literal["done", "partial", "missing"]

_CURVE_SUFFIX = "-curve"


def curve_folder(node_folder: str) -> Path:
    """Where a finetuning node puts what it measures on its way, beside its artifact: a subfolder for each probe set."""
    return Path(f"{node_folder}{_CURVE_SUFFIX}")


def node_state(node: Node) -> NodeState:
    """Whether a node's artifact is there. Files are compared by size here; whoever reads them verifies their hashes."""
    folder = Path(node.folder)
    if not _finished(folder):
        return "partial" if (folder / "started.json").exists() or (folder / "manifest.json").exists() else "missing"
    measured = (node.settings.get("measure") or {}).get("probes", {})
    if not all((curve_folder(node.folder) / name / "curve.parquet").is_file() for name in measured):
        return "partial"
    return "done"


def _finished(folder: Path) -> bool:
    try:
        files = read_manifest(folder).files
    except (UnreadableInputError, DamagedArtifactError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == record.size_bytes for name, record in files.items())
