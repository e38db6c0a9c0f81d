"""Files -> a corpus: every source is read into a part, side by side; then the parts are merged into shards.

    OUT/data/SPLIT-00000.parquet     documents (`documents-00000.parquet` without splits)
    OUT/set_aside.parquet            every record that was set aside: source, record, reason
    OUT/near_duplicates.parquet      where asked for: what was dropped, the document it is like, and how much
    OUT/manifest.json                written last

A run that is killed goes on with the sources that are not read yet; the merge, which only copies, is made again.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lmdissect.corpus.config import CorpusConfig
from lmdissect.corpus.folder import DATA, STAGE
from lmdissect.corpus.merge import NEAR_DUPLICATE_SCHEMA, Selection, repeated_records, select_documents, write_shards
from lmdissect.corpus.parts import REJECTED_SCHEMA
from lmdissect.corpus.pool import PartTask, default_workers, write_parts
from lmdissect.corpus.sources import Source, find_sources
from lmdissect.corpus.table_file import TableFile
from lmdissect.corpus.winners import Part
from lmdissect.errors import InterruptedRunError, NothingToDoError, UnreadableInputError
from lmdissect.interrupts import StopRequest
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import RejectedRecord
from lmdissect.store import ArtifactFolder, open_artifact, output_guard, replace_folder

__all__ = ["SET_ASIDE", "CorpusSummary", "build_corpus"]

SET_ASIDE = "set_aside.parquet"
_NEAR_DUPLICATES = "near_duplicates.parquet"
_MAX_NAMED = 1000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What was made.

    Attributes:
        folder: Where the corpus is.
        reused: Whether it was there already, made from the same files with the same settings.
        counts: ``documents``, ``records``, ``set aside``, each reason for which records were left out, ``deletions`` (that files ask for), ``not
            English`` (kept all the same), and documents by split (``split train``).
        rejected: The first 1000 records that were set aside; all of them are in `set_aside.parquet`.
    """

    folder: Path
    reused: bool
    counts: dict[str, int]
    rejected: tuple[RejectedRecord, ...]


def build_corpus(
    sources: Sequence[str],
    config: CorpusConfig,
    out: Path,
    *,
    num_workers: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> CorpusSummary:
    """Make a corpus, or go on with one that was begun, or find it finished.

    Args:
        sources: Files, folders of other corpora, and hub datasets (``hub:OWNER/NAME[@REVISION][:[CONFIG/]SPLIT]``); their order has no meaning.
        config: What is kept, and how.
        out: Output folder.
        num_workers: Processes that read files side by side; default: one for each processor, fewer for little.
        strict: Make it an error if any record has to be set aside.
        progress: Where progress is shown.
        stop: Looked at between two sources.

    Raises:
        UnreadableInputError: A source is missing, of no known form or does not match its `.md5`; or records were set aside and ``strict`` is on.
        NothingToDoError: No document is left.
        InterruptedRunError: ``stop`` was set; what was read is kept.
        StaleArtifactError: ``out`` holds a corpus of other sources or settings.
        RunFailedError: A process died, or the disk is full.
    """
    shown = progress or SilentProgress()
    found = find_sources(sources, shown)
    inputs = {"sources": [{"label": source.label, "kind": source.kind, "sha256": source.sha256} for source in found]}
    with open_artifact(out, stage=STAGE, config=config.model_dump(mode="json"), inputs=inputs) as artifact:
        for line in artifact.describe_damage():
            shown.say(line)
        reused = artifact.finished is not None
        if not reused:
            processes = num_workers or default_workers(sum(source.size_bytes for source in found))
            listened = stop if stop is not None else StopRequest()  # a request that is not asked yet is false
            parts = _read_sources(artifact, found, config, processes, shown, listened)
            _merge(artifact, found, parts, config, shown, strict=strict)
        counts = artifact.finished.counts if artifact.finished is not None else {}
        rejected = tuple(_first_set_aside(artifact.folder))
        if strict and rejected:
            raise _strict_error(counts["set aside"], rejected[0])
        return CorpusSummary(artifact.folder, reused, counts, rejected)


def _read_sources(
    artifact: ArtifactFolder, sources: Sequence[Source], config: CorpusConfig, num_workers: int, progress: Progress, stop: StopRequest
) -> dict[int, Path]:
    """Parts of all sources by chunk number: 2 i for the documents of source i, 2 i + 1 for what was set aside."""
    chunks = artifact.chunks()
    tasks: list[PartTask] = []
    num_bytes_done = 0
    for number, source in enumerate(sources):
        if {2 * number, 2 * number + 1} <= chunks.keys():
            num_bytes_done += source.size_bytes
            continue
        for index in {2 * number, 2 * number + 1} & chunks.keys():
            chunks[index].unlink()
        folder = artifact.folder / "chunks"
        tasks.append(PartTask(source, config, (folder / f"{2 * number:06d}", folder / f"{2 * number + 1:06d}")))
    if done := len(sources) - len(tasks):
        progress.say(f"{done} of {len(sources)} sources were read before")
    total = sum(source.size_bytes for source in sources)
    with progress.task("reading", total // _MIB, "MiB", done=num_bytes_done // _MIB) as task:
        whole_mib = _WholeMebibytes(task.advance)
        num_finished = sum(1 for _ in write_parts(tasks, num_workers, stop, whole_mib.add))
    if num_finished < len(tasks):
        left = len(tasks) - num_finished
        message = f"stopped with {left} of {len(sources)} sources still to read; run the same command again to go on"
        raise InterruptedRunError(message)
    return artifact.chunks()


class _WholeMebibytes:
    """Bytes summed up, and passed on as whole MiB."""

    def __init__(self, advance: Any) -> None:  # noqa: ANN401 - the bound method of a Task
        self._advance = advance
        self._rest = 0

    def add(self, num_bytes: int) -> None:
        whole, self._rest = divmod(self._rest + num_bytes, _MIB)
        if whole:
            self._advance(whole)


def _merge(
    artifact: ArtifactFolder, sources: Sequence[Source], chunks: dict[int, Path], config: CorpusConfig, progress: Progress, *, strict: bool
) -> None:
    parts = [Part(chunks[2 * number], source.kind == "pubmed") for number, source in enumerate(sources)]
    rejected = [chunks[2 * number + 1] for number in range(len(sources))]
    selection = select_documents(parts, config)
    num_set_aside = _write_set_aside(artifact.folder / SET_ASIDE, parts, rejected, selection)
    if strict and num_set_aside:  # before the corpus is finished
        raise _strict_error(num_set_aside, _first_set_aside(artifact.folder)[0])
    num_documents = sum(int(mask.sum()) for mask in selection.masks)
    if not num_documents:
        raise _nothing_left(selection.counts, num_set_aside, artifact.folder)
    by_split = _write_data(artifact.folder, parts, selection, config, progress)
    if num_documents == by_split["in no split"]:
        raise _nothing_left(selection.counts + Counter({"in no split": num_documents}), num_set_aside, artifact.folder)
    files = [SET_ASIDE, *(f"{DATA}/{path.name}" for path in sorted((artifact.folder / DATA).iterdir()))]
    if config.drop_near_duplicates is not None:
        _write_near_duplicates(artifact.folder / _NEAR_DUPLICATES, selection)
        files.append(_NEAR_DUPLICATES)
    counts = {
        "documents": num_documents - by_split["in no split"],
        "records": _num_rows([*(part.path for part in parts), *rejected]) - selection.counts["deletions"],
        "set aside": num_set_aside,
        **{reason: count for reason, count in selection.counts.items() if count},
        **{name: by_split[name] for name in ("in no split", "not English") if by_split[name]},
        **{f"split {name}": by_split[name] for name in config.split},
    }
    details = {"sources": [asdict(source) for source in sources]}
    artifact.finish(counts=counts, details=details, files=files)


def _num_rows(paths: Sequence[Path]) -> int:
    return sum(pq.ParquetFile(path).metadata.num_rows for path in paths)


def _write_data(folder: Path, parts: Sequence[Part], selection: Selection, config: CorpusConfig, progress: Progress) -> Counter[str]:
    with output_guard(folder):
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    by_split = write_shards(parts, selection, config, temporary, progress)
    replace_folder(temporary, folder / DATA)
    return by_split


def _write_set_aside(path: Path, parts: Sequence[Part], rejected: Sequence[Path], selection: Selection) -> int:
    stored = (RejectedRecord(**row) for part in rejected for batch in pq.ParquetFile(part).iter_batches() for row in batch.to_pylist())
    with TableFile(path, REJECTED_SCHEMA) as table:
        for record in chain(stored, repeated_records(parts, selection)):
            table.add(asdict(record))
    return table.num_rows


def _write_near_duplicates(path: Path, selection: Selection) -> None:
    with TableFile(path, NEAR_DUPLICATE_SCHEMA) as table:
        for document_id, kept_id, similarity in selection.near_duplicates:
            table.add({"document_id": document_id, "kept_id": kept_id, "similarity": similarity})


def _first_set_aside(folder: Path) -> list[RejectedRecord]:
    rows: Iterator[dict[str, str]] = (row for batch in pq.ParquetFile(folder / SET_ASIDE).iter_batches() for row in batch.to_pylist())
    return [RejectedRecord(**row) for row in islice(rows, _MAX_NAMED)]


def _strict_error(num_set_aside: int, first: RejectedRecord) -> UnreadableInputError:
    return UnreadableInputError(
        f"{num_set_aside} records had to be set aside and --strict is on (first: {first.source}, {first.record}: {first.reason}):"
        " mend the input, or leave --strict out"
    )


def _nothing_left(counts: Counter[str], num_set_aside: int, folder: Path) -> NothingToDoError:
    reasons = [f"{count} {reason}" for reason, count in counts.most_common() if count]
    if num_set_aside:
        first = _first_set_aside(folder)[0]
        reasons.append(f"{num_set_aside} set aside (first: {first.source}, {first.record}: {first.reason})")
    return NothingToDoError(f"no document is left: {', '.join(reasons) or 'the sources are empty'}; check the sources and the rules")
