"""Atomic files: written to a temporary name in the same folder, fsynced, renamed. A reader sees the old file or the new one, never half."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.errors import DamagedArtifactError, LmdissectError, OutOfSpaceError, UnusableOutputError

__all__ = [
    "output_folder",
    "output_guard",
    "read_json",
    "read_table",
    "replace_folder",
    "sync_path",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How writers in Rust (safetensors, tokenizers) name the operating system's error; they do not raise an OSError."""


_TORCH_WRITER = re.compile(r"inline_container|PytorchStreamWriter|iostream error")
"""What torch.save says when it could not write; it tells no number."""
_NEARLY_FULL_BYTES = 64_000_000  # it writes in large pieces, so some room may be left


@contextmanager
def output_guard(path: Path) -> Iterator[None]:
    """Turn the operating system's write errors on ``path`` into ours.

    Raises:
        OutOfSpaceError: The disk or quota is full.
        UnusableOutputError: The path cannot be written.
    """
    try:
        yield
    except LmdissectError:
        raise
    except OSError as error:
        raise _write_error(path, error, error.errno) from error
    except Exception as error:
        if (number := _OS_ERROR.search(str(error))) is not None:
            raise _write_error(path, error, int(number[1])) from error
        if _TORCH_WRITER.search(str(error)) and _free_bytes(path) < _NEARLY_FULL_BYTES:
            raise _write_error(path, error, errno.ENOSPC) from error
        raise


def _write_error(path: Path, error: Exception, number: int | None) -> LmdissectError:
    if number in _FULL:
        return OutOfSpaceError(
            f"disk full while writing {path} ({_free_bytes(path)} bytes free): free some space and run the same command again; finished work is kept"
        )
    reason = os.strerror(number) if number else " ".join(str(error).split())
    return UnusableOutputError(f"cannot write {path}: {reason}; choose another --out")


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        if folder.exists():
            return shutil.disk_usage(folder).free
    return 0


def output_folder(path: Path) -> Path:
    """Create the folder ``path`` (and its parents) and check that it can be written.

    Raises:
        UnusableOutputError: It is a file, or it cannot be created or written.
        OutOfSpaceError: The disk is full.
    """
    with output_guard(path):
        path.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path)
        os.close(handle)
        Path(name).unlink(missing_ok=True)
    return path


def _write_through(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary neighbour of ``path``, fsync it, rename it over ``path``, fsync the folder."""
    with output_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            fill(temporary)
            temporary.chmod(0o644)
            sync_path(temporary)
            temporary.replace(path)
            sync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Return once the content of the file or folder ``path`` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    _write_through(path, lambda temporary: _write_all(temporary, content))


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically; NaN is refused, a lone surrogate becomes its JSON escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write ``table`` to ``path`` as Parquet (zstd), atomically."""
    _write_through(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def replace_folder(temporary: Path, path: Path) -> None:
    """Move the finished folder ``temporary`` to ``path``, where nothing or an older version may stand."""
    with output_guard(path):
        temporary.chmod(0o755)  # mkdtemp makes it for its owner alone
        for entry in (*temporary.rglob("*"), temporary):
            sync_path(entry)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
            path.rename(old / path.name)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        sync_path(path.parent)


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is whatever it is; callers validate
    """Read JSON that this package wrote.

    Raises:
        DamagedArtifactError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        message = f"{path} cannot be read as JSON ({error}): delete its folder and run the command that made it again"
        raise DamagedArtifactError(message) from error


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file that this package wrote.

    Raises:
        DamagedArtifactError: The file is missing or not Parquet.
    """
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        message = f"{path} cannot be read as Parquet ({error}): delete its folder and run the command that made it again"
        raise DamagedArtifactError(message) from error
