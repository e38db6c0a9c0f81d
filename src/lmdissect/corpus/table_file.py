"""A Parquet file that is written in batches under a temporary name, and appears when it is complete."""

import os
import tempfile
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lmdissect.store import hash_file, output_guard

__all__ = ["TableFile"]

_BATCH_ROWS = 2048
_BATCH_CHARS = 16 << 20
_HASH_CHARS = 16


class TableFile:
    """One Parquet file (zstd) in the making: a context manager; on an error nothing is left behind.

    Attributes:
        num_rows: Rows added so far.
        num_chars: Characters added so far, as told by the caller.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, named_by_hash: bool = False) -> None:
        """Prepare a file.

        Args:
            path: Where it will stand.
            schema: Its columns.
            named_by_hash: Put the hash of its content into its name: ``000004`` becomes ``000004-HASH.parquet``, as chunks of an artifact are named.
        """
        self.num_rows = self.num_chars = 0
        self._path, self._schema, self._named_by_hash = path, schema, named_by_hash
        self._rows: list[dict[str, Any]] = []
        self._num_waiting_chars = 0

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            UnusableOutputError: The folder cannot be written.
            OutOfSpaceError: The disk is full.
        """
        with output_guard(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=".parquet", dir=self._path.parent)
            os.close(handle)
            self._temporary = Path(name)
            self._temporary.chmod(0o644)
            self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        return self

    def add(self, row: dict[str, Any], num_chars: int = 0) -> None:
        """Add one row; columns that it lacks are null. ``num_chars`` says how much memory it takes, roughly."""
        self._rows.append(row)
        self.num_rows += 1
        self.num_chars += num_chars
        self._num_waiting_chars += num_chars
        if len(self._rows) >= _BATCH_ROWS or self._num_waiting_chars >= _BATCH_CHARS:
            self._flush()

    def add_batch(self, batch: pa.RecordBatch, num_chars: int = 0) -> None:
        """Add many rows that have all columns."""
        self._flush()
        self.num_rows += batch.num_rows
        self.num_chars += num_chars
        with output_guard(self._path):
            self._writer.write_batch(batch)

    def _flush(self) -> None:
        if self._rows:
            columns = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in self._schema]
            with output_guard(self._path):
                self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
            self._rows, self._num_waiting_chars = [], 0

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Publish it, or drop it after an error."""
        try:
            with output_guard(self._path):
                if kind is None:
                    self._flush()
                self._writer.close()
                if kind is None:
                    self._publish()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _publish(self) -> None:
        _fsync(self._temporary)
        path = self._path
        if self._named_by_hash:
            path = path.with_name(f"{path.name}-{hash_file(self._temporary)[:_HASH_CHARS]}.parquet")
        self._temporary.replace(path)
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
