"""One source read into one part: a Parquet file with its documents, and one with what was set aside. Parts are the unit of resume.

Besides the columns of a corpus a part holds, for every record, what the merge needs to know without its text:

    place          where the record stands in its source
    fate           `FATES`: whether it is a document, and if not, which rule says so
    key_high, _low 128 bits of a hash of its id
    sample_rank    first 64 bits of its seeded rank
    signature      its MinHash, 128 x uint32, where near-duplicates are to be found
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lmdissect.corpus.citation import Citation, DeletedCitation
from lmdissect.corpus.config import CorpusConfig
from lmdissect.corpus.documents import DOCUMENT_FIELDS, DOCUMENT_SCHEMA, CorpusDocument, citation_document, row_document
from lmdissect.corpus.hub import read_hub_rows
from lmdissect.corpus.pubmed import read_citations
from lmdissect.corpus.rows import read_rows
from lmdissect.corpus.sources import Source
from lmdissect.corpus.table_file import TableFile
from lmdissect.records import RejectedRecord
from lmdissect.shingles import NUM_PERMUTATIONS, minhash, normalize_text, word_shingles
from lmdissect.store import seeded_rank

__all__ = ["DELETED", "FATES", "INDEX_SCHEMA", "KEPT", "REJECTED_SCHEMA", "write_part"]

FATES = ("kept", "deleted", "without abstract", "language not wanted", "language not known", "too short", "too long", "no match", "excluded")
"""What becomes of a record by itself; the order is that of the stored numbers, and of the rules."""

KEPT, DELETED = FATES.index("kept"), FATES.index("deleted")

INDEX_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("fate", pa.int8()),
        ("key_high", pa.uint64()),
        ("key_low", pa.uint64()),
        ("sample_rank", pa.uint64()),
        ("signature", pa.binary(4 * NUM_PERMUTATIONS)),
    ]
)
PART_SCHEMA = pa.schema([*DOCUMENT_SCHEMA, *INDEX_SCHEMA])
REJECTED_SCHEMA = pa.schema([("source", pa.string()), ("record", pa.string()), ("reason", pa.string())])

_RANK_CHARS = 16

_PlacedRecord = tuple[str, CorpusDocument | DeletedCitation | RejectedRecord]


def write_part(source: Source, config: CorpusConfig, paths: tuple[Path, Path], on_read: Callable[[int], None]) -> None:
    """Read one source and store its part.

    Args:
        source: What to read.
        config: Rules that a document must keep to.
        paths: Folder and numbers of the two files: ``(folder / "000004", folder / "000005")``; each file's name gets the hash of its content.
        on_read: Told now and then how many more bytes of the source were read.

    Raises:
        UnreadableInputError: The source cannot be read at all.
        OutOfSpaceError: The disk is full.
        UnusableOutputError: The folder cannot be written.
    """
    rules = _Rules(config)
    with TableFile(paths[0], PART_SCHEMA, named_by_hash=True) as documents, TableFile(paths[1], REJECTED_SCHEMA, named_by_hash=True) as rejected:
        for place, record in _records(source, config, on_read):
            if isinstance(record, RejectedRecord):
                rejected.add(asdict(record))
            elif isinstance(record, DeletedCitation):
                documents.add(_deletion_row(record, place, source.label))
            else:
                documents.add(_document_row(record, place, source.label, rules), len(record.text))


def _records(source: Source, config: CorpusConfig, on_read: Callable[[int], None]) -> Iterator[_PlacedRecord]:
    if source.kind == "pubmed":
        for entry in read_citations(Path(source.location), on_read=on_read):
            if isinstance(entry, Citation):
                yield f"PMID {entry.pmid}", citation_document(entry, with_title=config.with_title, with_labels=config.with_labels)
            else:
                yield "", entry
        return
    rows = read_hub_rows(source.location) if source.kind == "hub" else read_rows(Path(source.location), DOCUMENT_FIELDS, on_read=on_read)
    for place, record in rows:
        found = row_document(record)
        yield place, RejectedRecord(source.location, place, found) if isinstance(found, str) else found


class _Rules:
    """What a document must keep to by itself."""

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        self._match = re.compile(config.match) if config.match is not None else None
        self._exclude = re.compile(config.exclude) if config.exclude is not None else None

    def fate(self, document: CorpusDocument) -> str:
        """The first rule of `FATES` that the document breaks, or ``kept``."""
        return next((name for name, is_broken in self._broken(document) if is_broken), "kept")

    def _broken(self, document: CorpusDocument) -> Iterator[tuple[str, bool]]:
        """Each rule with whether it is broken; a rule is looked at only if those before it hold."""
        config, text = self.config, document.text
        yield "without abstract", not text
        if config.languages:
            yield "language not known", document.languages is None
            yield "language not wanted", not set(config.languages).intersection(document.languages or ())
        yield "too short", config.min_chars is not None and len(text) < config.min_chars
        yield "too long", config.max_chars is not None and len(text) > config.max_chars
        yield "no match", self._match is not None and self._match.search(text) is None
        yield "excluded", self._exclude is not None and self._exclude.search(text) is not None


def _document_row(document: CorpusDocument, place: str, label: str, rules: _Rules) -> dict[str, Any]:
    fate = rules.fate(document)
    row: dict[str, Any] = {name: getattr(document, name) for name in DOCUMENT_SCHEMA.names if name != "source"}
    if fate != "kept":
        row = {"document_id": document.document_id, "version": document.version}
    elif rules.config.drop_near_duplicates is not None:
        row["signature"] = minhash(word_shingles(normalize_text(document.text))).hashvalues.astype("<u4").tobytes()
    rank = int(seeded_rank(document.document_id, rules.config.seed, "sample")[:_RANK_CHARS], 16)
    return {**row, "source": label, "place": place, "fate": FATES.index(fate), "sample_rank": rank, **_key(document.document_id)}


def _deletion_row(deleted: DeletedCitation, place: str, label: str) -> dict[str, Any]:
    document_id = str(deleted.pmid)
    shared = {"document_id": document_id, "version": deleted.version, "source": label, "place": place}
    return {**shared, "fate": DELETED, "sample_rank": 0, **_key(document_id)}


def _key(document_id: str) -> dict[str, int]:
    digest = hashlib.blake2b(document_id.encode(), digest_size=16).digest()
    high, low = np.frombuffer(digest, "<u8").tolist()
    return {"key_high": high, "key_low": low}
