"""Which record of an id counts: revised citations, deletions, ids seen before. In passes over slices of the ids, so that memory stays bounded.

- PubMed's citations: a `DeleteCitation` takes back that version of the citation in its own file and all files before; of what is left the highest
  version wins, then the last file, then the last place in it. A citation that lost its abstract in a revision is gone: no older one takes its place.
- Other records: the first one counts; the same id later is set aside.
- A citation comes before another record with its PMID as id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from lmdissect.corpus.parts import DELETED

__all__ = ["Part", "Verdicts", "find_winners"]

_MAX_SLICE_ROWS = 4_000_000  # of about 60 bytes while they are sorted
_COLUMNS = ["key_high", "key_low", "version", "fate"]


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part, in the order in which parts count.

    Attributes:
        path: Its Parquet file.
        is_pubmed: Whether its records are citations with versions.
    """

    path: Path
    is_pubmed: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the merge decides of each row of each part.

    Attributes:
        wins: Per part, whether the row is the one that counts of its id; deletions never are.
        repeats: Per part, whether the row is set aside for an id that is taken.
        num_superseded: Citations of which a later version or file has another.
        num_deleted: Citations that a file takes back.
    """

    wins: list[npt.NDArray[np.bool_]]
    repeats: list[npt.NDArray[np.bool_]]
    num_superseded: int
    num_deleted: int


def find_winners(parts: Sequence[Part], *, max_slice_rows: int = _MAX_SLICE_ROWS) -> Verdicts:
    """Decide of all records of all parts.

    Args:
        parts: In the order in which they count.
        max_slice_rows: About how many rows are held in memory at once.
    """
    sizes = [pq.ParquetFile(part.path).metadata.num_rows for part in parts]
    wins = [np.zeros(size, bool) for size in sizes]
    repeats = [np.zeros(size, bool) for size in sizes]
    num_slices = sum(sizes) // max_slice_rows + 1
    num_superseded = num_deleted = 0
    for number in range(num_slices):
        rows = _slice_rows(parts, number, num_slices)
        won, dead = _judge(rows)
        lost = ~won & ~dead & (rows["fate"] != DELETED)
        for index in range(len(parts)):
            here = rows["part"] == index
            wins[index][rows["row"][here & won]] = True
            repeats[index][rows["row"][here & lost & ~rows["is_pubmed"]]] = True
        num_superseded += int((lost & rows["is_pubmed"]).sum())
        num_deleted += int(dead.sum())
    return Verdicts(wins, repeats, num_superseded, num_deleted)


_Rows = dict[str, npt.NDArray[np.generic]]


def _slice_rows(parts: Sequence[Part], number: int, num_slices: int) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of all parts whose id falls into one slice, column by column."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in (*_COLUMNS, "part", "row", "is_pubmed")}
    for index, part in enumerate(parts):
        start = 0
        for batch in pq.ParquetFile(part.path).iter_batches(batch_size=1 << 16, columns=_COLUMNS):
            columns = {name: batch.column(name).fill_null(0).to_numpy(zero_copy_only=False) for name in _COLUMNS}
            chosen = columns["key_high"] % np.uint64(num_slices) == number
            count = int(chosen.sum())
            for name in _COLUMNS:
                found[name].append(columns[name][chosen])
            found["row"].append(start + np.flatnonzero(chosen))
            found["part"].append(np.full(count, index))
            found["is_pubmed"].append(np.full(count, part.is_pubmed))
            start += batch.num_rows
    return {name: np.concatenate(columns) if columns else np.empty(0, np.int64) for name, columns in found.items()}


def _judge(rows: dict[str, npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which rows win and which were taken back."""
    num_rows = len(rows["row"])
    won, dead = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    if not num_rows:
        return won, dead
    is_pubmed, fate = rows["is_pubmed"].astype(bool), rows["fate"]
    version = np.where(is_pubmed, rows["version"], 0)
    by_version = np.lexsort((version, rows["key_low"], rows["key_high"]))
    same = _same_as_before(rows["key_high"], rows["key_low"], version, order=by_version)
    starts = np.flatnonzero(~same)
    last_deletion = np.maximum.reduceat(np.where(fate == DELETED, rows["part"], -1)[by_version], starts)
    dead[by_version] = rows["part"][by_version] <= np.repeat(last_deletion, np.diff(np.append(starts, num_rows)))
    dead &= is_pubmed & (fate != DELETED)
    alive = ~dead & (fate != DELETED)
    later = np.where(is_pubmed, 1, -1)  # the last citation counts, but the first of other records
    ranked = np.lexsort((rows["row"] * later, rows["part"] * later, version, alive, rows["key_low"], rows["key_high"]))
    is_last = np.append(~_same_as_before(rows["key_high"], rows["key_low"], order=ranked)[1:], True)
    won[ranked] = is_last
    return won & alive, dead


def _same_as_before(*columns: npt.NDArray[np.int64], order: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether a row, in this order, agrees with the one before in all columns."""
    same = np.ones(len(order), bool)
    same[0] = False
    for column in columns:
        ordered = column[order]
        same[1:] &= ordered[1:] == ordered[:-1]
    return same
