"""Finished pieces of an artifact that is being made. Several processes may add some at the same time: each piece appears by one rename.

A chunk's name carries its number and the hash of its content, so a damaged one is known from its name alone. A temporary file may belong to a process
that is writing it now, so none is removed here; all of them go with the folder when the artifact is finished.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.store.files import write_bytes
from lmdissect.store.fingerprint import hash_file

__all__ = ["CHUNKS", "find_chunks", "store_chunk"]

CHUNKS = "chunks"
"""Name of the folder inside an artifact's."""

_HASH_CHARS = 16


def find_chunks(folder: Path) -> tuple[dict[int, Path], list[Path]]:
    """Chunks of the artifact in ``folder``: intact ones by number, and those whose content is not what their name says."""
    intact: dict[int, Path] = {}
    damaged: list[Path] = []
    for path in sorted((folder / CHUNKS).glob("*.parquet")):
        if path.name.startswith("."):
            continue
        number, _, digest = path.stem.partition("-")
        try:
            found = hash_file(path)[:_HASH_CHARS]
        except FileNotFoundError:  # the process that holds the lock has removed it since
            continue
        if found == digest:
            intact[int(number)] = path
        else:
            damaged.append(path)
    return intact, damaged


def store_chunk(folder: Path, number: int, table: pa.Table) -> Path:
    """Store one finished piece of work; after this returns it survives a kill."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    path = folder / CHUNKS / f"{number:06d}-{hashlib.sha256(content).hexdigest()[:_HASH_CHARS]}.parquet"
    write_bytes(path, content)
    return path
