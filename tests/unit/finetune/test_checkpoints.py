"""Which checkpoint a run goes on from: the last one that is whole, of this run, and of the same processes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmdissect.errors import UserInputError
from lmdissect.finetune.checkpoints import Checkpoint, find_checkpoint, mark_complete
from lmdissect.finetune.trainer import _check_processes

KEY = "0123abcd"
FILES = {"model.safetensors": b"\1" * 5000, "optimizer.pt": b"\2" * 9000, "rng/rank_0.pth": b"\3" * 100}


def _checkpoint(step: int, **changes: Any) -> Checkpoint:
    made = Checkpoint(KEY, step, micro_batch_tokens=64, recompute=False, num_processes=1, distribution="no", held_out_before=3.25)
    return replace(made, **changes)


def _write(folder: Path, checkpoint: Checkpoint) -> Path:
    there = folder / checkpoint.name
    for name, content in FILES.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    mark_complete(folder, checkpoint)
    return there


def _find(folder: Path, key: str = KEY) -> tuple[Checkpoint | None, list[str]]:
    said: list[str] = []
    return find_checkpoint(folder, key, said.append), said


def test_the_last_one_is_found_as_it_was_marked(tmp_path: Path) -> None:
    assert _find(tmp_path) == (None, [])
    for step in (2, 10, 9):  # by number, neither by name nor by date
        _write(tmp_path, _checkpoint(step))
    assert _find(tmp_path) == (_checkpoint(10), [])


def _zeros(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes(len(content) - 50))


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("damage", [_zeros, _truncated, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_with_its_mark_is_removed_and_the_one_before_is_used(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    _write(tmp_path, _checkpoint(2))
    damaged = _write(tmp_path, _checkpoint(3))
    damage(damaged / name)
    assert _find(tmp_path) == (_checkpoint(2), [f"{damaged} is not used and removed: its {name} is missing or damaged"])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": 3, "files": {}}'])
def test_one_whose_mark_cannot_be_understood_is_not_used(tmp_path: Path, content: str) -> None:
    _write(tmp_path, _checkpoint(2))
    (_write(tmp_path, _checkpoint(3)) / "complete.json").write_text(content, encoding="utf-8")
    found, said = _find(tmp_path)
    assert found == _checkpoint(2)
    assert said == [f"{tmp_path / 'checkpoint-3'} is not used and removed: its complete.json cannot be understood"]


def test_those_of_another_run_are_removed(tmp_path: Path) -> None:
    for step in (2, 3):
        _write(tmp_path, _checkpoint(step))
    found, said = _find(tmp_path, "another")
    assert found is None
    assert [line.partition(" is not used")[2] for line in said] == [" and removed: it belongs to a run with other settings or inputs"] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrote", "now", "dropout", "reason"),
    [
        ((1, "no"), "no", True, None),
        ((1, "multi_cpu"), "no", True, None),
        ((2, "multi_gpu"), "no", False, None),
        ((2, "multi_gpu"), "no", True, r"written by 2 processes \(multi_gpu\), this is a run of 1 \(no\), and dropout is drawn by each of them"),
        ((2, "fsdp"), "no", False, "each of them holds a part of it"),
        ((2, "deepspeed"), "deepspeed", False, "each of them holds a part of it"),
        ((1, "no"), "fsdp", False, "each of them holds a part of it"),
        ((1, "deepspeed"), "fsdp", False, "each of them holds a part of it"),
    ],
)
def test_other_processes_are_refused_where_the_outcome_depends_on_them(
    tmp_path: Path, wrote: tuple[int, str], now: str, dropout: bool, reason: str | None
) -> None:
    run: Any = SimpleNamespace(checkpoints=tmp_path, trained=torch.nn.Dropout(0.1 if dropout else 0.0))
    written = _checkpoint(3, num_processes=wrote[0], distribution=wrote[1])
    if reason is None:
        _check_processes(written, run, now)
        return
    with pytest.raises(UserInputError, match=reason):
        _check_processes(written, run, now)
