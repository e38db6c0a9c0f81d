"""Checkpoints that are whole or not used: a mark is written last, when everything else is on the disk, and holds the hash of every file."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError
from lmdissect.store import hash_file, read_json, sync_path, write_json

__all__ = ["SHARDED", "Checkpoint", "find_checkpoint", "mark_complete"]

_MARK = "complete.json"
_HASHING_THREADS = 2  # of the large files there are two: weights and optimiser
SHARDED = frozenset({"fsdp", "deepspeed"})
"""Distributions in which each process holds a part of a model, of its gradients or of the optimiser, and writes it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a whole checkpoint says of itself.

    Attributes:
        key: Key of the artifact whose run it belongs to.
        step: Optimiser steps done.
        micro_batch_tokens: Tokens of one forward pass at that time; memory may have forced them down.
        recompute: Whether activations were computed again in the backward pass.
        num_processes: Processes that wrote it.
        distribution: How accelerate spread the work over them, in its words: no, multi_gpu, multi_cpu, fsdp, deepspeed.
        held_out_before: Loss of the held-out documents under the base, nats per token; None where none were measured.
    """

    key: str
    step: int
    micro_batch_tokens: int
    recompute: bool
    num_processes: int
    distribution: str
    held_out_before: float | None

    @property
    def name(self) -> str:
        """Name of its folder, which the Trainer gives it."""
        return f"checkpoint-{self.step}"

    @property
    def sharded(self) -> bool:
        """Whether each process wrote a part."""
        return self.distribution in SHARDED


def find_checkpoint(folder: Path, key: str, say: Callable[[str], None]) -> Checkpoint | None:
    """The last whole checkpoint in ``folder`` of the run with this key.

    All that cannot be used is removed, or it would count among those that are kept: half-written ones in silence, damaged ones and those of another run
    with a line. Older ones are only looked at where the newer ones are of no use.

    Args:
        folder: Where the checkpoints are.
        key: Key of the artifact that is being made.
        say: Told of what is removed.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        if not (path / _MARK).is_file():
            shutil.rmtree(path, ignore_errors=True)
            continue
        checkpoint, fault = _read(path, key)
        if checkpoint is not None:
            return checkpoint
        say(f"{path} is not used and removed: {fault}")
        shutil.rmtree(path, ignore_errors=True)
    return None


def mark_complete(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the mark of the checkpoint in ``folder``, after all its files have reached the disk; meanwhile they are hashed."""
    there = folder / checkpoint.name
    entries = sorted(there.rglob("*"))
    files = [path for path in entries if path.is_file() and path.name != _MARK]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        records = pool.map(_file_record, files)
        for path in (*entries, there):
            sync_path(path)
        named = {path.relative_to(there).as_posix(): record for path, record in zip(files, records, strict=True)}
    write_json(there / _MARK, {**asdict(checkpoint), "files": named})


def _step_of(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _read(path: Path, key: str) -> tuple[Checkpoint | None, str]:
    """The checkpoint in ``path``, or why it cannot be used."""
    try:
        stored: dict[str, Any] = read_json(path / _MARK)
        files: dict[str, dict[str, Any]] = stored.pop("files")
        checkpoint = Checkpoint(**stored)
    except (DamagedArtifactError, AttributeError, KeyError, TypeError):
        return None, f"its {_MARK} cannot be understood"
    if checkpoint.key != key:
        return None, "it belongs to a run with other settings or inputs"
    broken = next((name for name, record in files.items() if not _is_intact(path / name, record)), None)
    return (checkpoint, "") if broken is None else (None, f"its {broken} is missing or damaged")


def _is_intact(path: Path, record: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == record["size_bytes"] and _file_record(path) == record
    except OSError:
        return False


def _file_record(path: Path) -> dict[str, Any]:
    return {"size_bytes": path.stat().st_size, "sha256": hash_file(path)}
