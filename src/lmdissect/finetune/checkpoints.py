"""Checkpoints that are whole or not there: a mark is written last, when everything else is on the disk."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmdissect.store import read_json, write_json

__all__ = ["Checkpoint", "find_checkpoint", "mark_complete"]

_MARK = "complete.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a whole checkpoint says of itself.

    Attributes:
        step: Optimiser steps done.
        micro_batch_tokens: Tokens of one forward pass at that time; memory may have forced them down.
        recompute: Whether activations were computed again in the backward pass.
        num_processes: Processes that wrote it.
        sharded: Whether each of them wrote a part.
    """

    step: int
    micro_batch_tokens: int
    recompute: bool
    num_processes: int
    sharded: bool

    @property
    def name(self) -> str:
        """Name of its folder, which the Trainer gives it."""
        return f"checkpoint-{self.step}"


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint in ``folder``. Half-written ones are removed, or they would count among those that are kept."""
    whole: list[Checkpoint] = []
    for path in folder.glob("checkpoint-*"):
        if (path / _MARK).is_file():
            stored: dict[str, Any] = read_json(path / _MARK)
            whole.append(Checkpoint(**stored))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=lambda checkpoint: checkpoint.step, default=None)


def mark_complete(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the mark of the checkpoint in ``folder``, after all its files have reached the disk."""
    there = folder / checkpoint.name
    for path in (*there.rglob("*"), there):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    write_json(there / _MARK, asdict(checkpoint))
