"""Parts -> the documents of a corpus: one record of each id, near-duplicates dropped, a sample drawn, and each document in its split."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmdissect.corpus.config import CorpusConfig
from lmdissect.corpus.documents import DOCUMENT_SCHEMA
from lmdissect.corpus.folder import WHOLE
from lmdissect.corpus.near_duplicates import Signatures, find_near_duplicates
from lmdissect.corpus.parts import DELETED, FATES, KEPT
from lmdissect.corpus.table_file import TableFile
from lmdissect.corpus.winners import Part, find_winners
from lmdissect.progress import Progress
from lmdissect.records import RejectedRecord
from lmdissect.shingles import NUM_PERMUTATIONS
from lmdissect.store import seeded_rank

__all__ = ["NEAR_DUPLICATE_SCHEMA", "Selection", "repeated_records", "select_documents", "split_of", "write_shards"]

NEAR_DUPLICATE_SCHEMA = pa.schema([("document_id", pa.string()), ("kept_id", pa.string()), ("similarity", pa.float32())])

_SHARD_DOCUMENTS = 100_000
_SHARD_CHARS = 256 << 20
_READ_ROWS = 2048
_NO_SPLIT = "in no split"
_RANK_CHARS = 16
_RANK_BITS = 64

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of which part become documents.

    Attributes:
        masks: Per part.
        repeats: Per part, rows that are set aside for an id that is taken.
        counts: Records by what became of them, documents left out among them.
        near_duplicates: Ids that were dropped, the id they are like, and the similarity.
    """

    masks: list[Mask]
    repeats: list[Mask]
    counts: Counter[str]
    near_duplicates: list[tuple[str, str, float]]


def select_documents(parts: Sequence[Part], config: CorpusConfig) -> Selection:
    """Decide which records become documents: one of each id, then the rules for a document by itself, near-duplicates, and the sample."""
    verdicts = find_winners(parts)
    counts = Counter({"superseded": verdicts.num_superseded, "deleted": verdicts.num_deleted})
    masks: list[Mask] = []
    for part, wins in zip(parts, verdicts.wins, strict=True):
        fates = _column(part, "fate")
        counts.update({name: int((wins & (fates == number)).sum()) for number, name in enumerate(FATES) if number not in {KEPT, DELETED}})
        counts["deletions"] += int((fates == DELETED).sum())
        masks.append(wins & (fates == KEPT))
    near_duplicates = _drop_near_duplicates(parts, masks, config.drop_near_duplicates) if config.drop_near_duplicates is not None else []
    counts["near-duplicate"] = len(near_duplicates)
    if config.num_documents is not None:
        counts["not in the sample"] = _sample(parts, masks, config.num_documents)
    return Selection(masks, verdicts.repeats, counts, near_duplicates)


def split_of(document_id: str, splits: Mapping[str, float], seed: int) -> str | None:
    """The split of a document: where the seeded hash of its id falls among the shares. None where the shares leave room and it falls there."""
    if not splits:
        return WHOLE
    place = int(seeded_rank(document_id, seed, "split")[:_RANK_CHARS], 16) / 2**_RANK_BITS
    bounds = list(accumulate(splits.values()))
    if abs(bounds[-1] - 1) < 1e-9:
        bounds[-1] = 1.0
    index = bisect_right(bounds, place)
    return list(splits)[index] if index < len(bounds) else None


def write_shards(parts: Sequence[Part], selection: Selection, config: CorpusConfig, folder: Path, progress: Progress) -> Counter[str]:
    """Write the documents of all splits into ``folder``, in the order of the parts.

    A shard ends at 100,000 documents or 256 million characters.

    Returns:
        Documents by split, and those ``in no split`` and ``not English`` (kept all the same).
    """
    counts: Counter[str] = Counter()
    with progress.task("writing", sum(int(mask.sum()) for mask in selection.masks), "documents") as task:
        shards = {name: _Shards(folder, name) for name in config.split or (WHOLE,)}
        try:
            for part, mask in zip(parts, selection.masks, strict=True):
                for batch in _batches(part, mask, DOCUMENT_SCHEMA.names):
                    names = [split_of(document_id, config.split, config.seed) for document_id in batch.column("document_id").to_pylist()]
                    counts.update(name if name is not None else _NO_SPLIT for name in names)
                    counts["not English"] += _num_not_english(batch)
                    for name, writer in shards.items():
                        writer.add(batch.filter(pa.array([entry == name for entry in names])))
                    task.advance(batch.num_rows)
        except BaseException as error:
            for writer in shards.values():
                writer.drop(error)
            raise
        for writer in shards.values():
            writer.close()
    return counts


def repeated_records(parts: Sequence[Part], selection: Selection) -> Iterator[RejectedRecord]:
    """Records that are set aside because another record has their id."""
    for part, mask in zip(parts, selection.repeats, strict=True):
        for batch in _batches(part, mask, ["source", "place", "document_id"]):
            for source, place, document_id in zip(*(batch.column(name).to_pylist() for name in ("source", "place", "document_id")), strict=True):
                yield RejectedRecord(source, place, f"id seen before ('{document_id}')")


class _Shards:
    """Shards of one split, one after the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._num_shards = 0
        self._open: TableFile | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if self._open is None:
            self._open = TableFile(self._folder / f"{self._name}-{self._num_shards:05d}.parquet", DOCUMENT_SCHEMA).__enter__()
            self._num_shards += 1
        self._open.add_batch(batch, pc.sum(pc.utf8_length(batch.column("text"))).as_py() or 0)
        if self._open.num_rows >= _SHARD_DOCUMENTS or self._open.num_chars >= _SHARD_CHARS:
            self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None)
            self._open = None

    def drop(self, error: BaseException) -> None:
        if self._open is not None:
            self._open.__exit__(type(error))
            self._open = None


def _num_not_english(batch: pa.RecordBatch) -> int:
    return sum(languages is not None and "eng" not in languages and "en" not in languages for languages in batch.column("languages").to_pylist())


def _column(part: Part, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(pq.read_table(part.path, columns=[name]).column(name).to_numpy())


def _batches(part: Part, mask: Mask, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Chosen rows of a part; row groups without any are not read."""
    file = pq.ParquetFile(part.path)
    start = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        chosen = mask[start : start + size]
        start += size
        if not chosen.any():
            continue
        done = 0
        for batch in file.iter_batches(batch_size=_READ_ROWS, row_groups=[group], columns=list(columns)):
            yield batch.filter(pa.array(chosen[done : done + batch.num_rows]))
            done += batch.num_rows


def _sample(parts: Sequence[Part], masks: list[Mask], num_documents: int) -> int:
    """Leave the ``num_documents`` chosen rows of smallest rank in the masks; how many were taken out."""
    smallest = np.empty(0, np.uint64)
    for part, mask in zip(parts, masks, strict=True):
        smallest = np.concatenate([smallest, _ranks(part)[mask]])
        if len(smallest) > num_documents:
            smallest = np.partition(smallest, num_documents - 1)[:num_documents]
    if not len(smallest):
        return 0
    limit = smallest.max()
    num_before = sum(int(mask.sum()) for mask in masks)
    masks[:] = [mask & (_ranks(part) <= limit) for part, mask in zip(parts, masks, strict=True)]
    return num_before - sum(int(mask.sum()) for mask in masks)


def _ranks(part: Part) -> npt.NDArray[np.uint64]:
    return np.asarray(pq.read_table(part.path, columns=["sample_rank"]).column("sample_rank").to_numpy(), np.uint64)


def _drop_near_duplicates(parts: Sequence[Part], masks: list[Mask], threshold: float) -> list[tuple[str, str, float]]:
    """Take near-duplicates out of the masks; their ids, the ids they are like, and the similarities."""
    signatures = _signatures(parts, masks)
    found = find_near_duplicates(signatures, threshold, lambda indices: _values(parts, signatures, indices, "text"))
    ids = _values(parts, signatures, sorted({index for match in found for index in (match.dropped, match.kept)}), "document_id")
    for match in found:
        part, row = signatures.locations[match.dropped]
        masks[part][row] = False
    return [(ids[match.dropped], ids[match.kept], match.similarity) for match in found]


def _signatures(parts: Sequence[Part], masks: Sequence[Mask]) -> Signatures:
    values: list[npt.NDArray[np.uint32]] = [np.empty((0, NUM_PERMUTATIONS), np.uint32)]
    locations: list[npt.NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    ranks: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    for number, (part, mask) in enumerate(zip(parts, masks, strict=True)):
        for batch in _batches(part, mask, ["signature", "sample_rank"]):
            packed = b"".join(batch.column("signature").to_pylist())
            values.append(np.frombuffer(packed, "<u4").reshape(-1, NUM_PERMUTATIONS))
            ranks.append(batch.column("sample_rank").to_numpy())
        rows = np.flatnonzero(mask)
        locations.append(np.stack([np.full(len(rows), number), rows], axis=1))
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return Signatures(np.concatenate(values)[order], np.concatenate(locations)[order])


def _values(parts: Sequence[Part], signatures: Signatures, indices: Sequence[int], column: str) -> dict[int, str]:
    """Values of one column for some documents, by their index among the signatures."""
    by_location = {tuple(signatures.locations[index].tolist()): index for index in indices}
    found: dict[int, str] = {}
    for number, part in enumerate(parts):
        rows = sorted(row for where, row in by_location if where == number)
        if not rows:
            continue
        mask = np.zeros(pq.ParquetFile(part.path).metadata.num_rows, bool)
        mask[rows] = True
        values = (value for batch in _batches(part, mask, [column]) for value in batch.column(column).to_pylist())
        found.update({by_location[number, row]: value for row, value in zip(rows, values, strict=True)})
    return found
