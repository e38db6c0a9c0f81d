"""Documents for training and for checks: from corpus folders of ours, and from JSONL, CSV, Parquet and text files directly.

DIR           a folder that `lmdissect corpus` made; with splits, DIR#train names the one to read and DIR#all reads all
.jsonl[.gz]   one object a line: `text`, and an id in `document_id`, else `id`, else `pmid` (which is kept beside the others too)
.csv .tsv .parquet   the same as columns
.txt[.gz]     one document a line

A document without an id of its own is named by its file and its line or row. Of files of the same name as many folders are told as tell them apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmdissect.corpus.documents import ID_FIELDS, given_id, text_fault
from lmdissect.corpus.folder import corpus_shards
from lmdissect.corpus.rows import read_rows, row_format
from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import Document, RejectedRecord

__all__ = ["distinct_labels", "read_corpus"]

_FIELDS = frozenset({*ID_FIELDS, "text"})
_CITATIONS = (".xml", ".xml.gz")


def read_corpus(paths: Sequence[Path]) -> tuple[list[Document], list[RejectedRecord]]:
    """Documents of all files and corpus folders, in order, and the records that were set aside.

    A record without usable text, with an id seen before, or that cannot be parsed is set aside with its file, line and reason. A gzip file that
    breaks off gives what stands before the break, and one rejected record for the rest.

    Raises:
        UnreadableInputError: A file is missing or of a kind that is not read here, or a folder is no corpus or has no such split.
        DamagedArtifactError: A file of a corpus folder is missing or changed.
        NothingToDoError: No document is left.
    """
    documents: list[Document] = []
    rejected: list[RejectedRecord] = []
    seen: set[str] = set()
    for source, label, where, record in _records(paths):
        found = _document(record, f"{label}:{where.rpartition(' ')[2]}")
        if isinstance(found, Document) and found.document_id in seen:
            found = f"id '{found.document_id}' seen before"
        if isinstance(found, str):
            rejected.append(RejectedRecord(source, where, found))
            continue
        seen.add(found.document_id)
        documents.append(found)
    if not documents:
        message = (
            f"no usable document in {', '.join(map(str, paths))} ({len(rejected)} set aside; first: {rejected[0].reason if rejected else 'empty'})"
        )
        raise NothingToDoError(message)
    return documents, rejected


def distinct_labels(paths: Sequence[Path]) -> list[str]:
    """Each file's name, with as many of its folders as tell it apart from the other files."""
    return [_label(path, paths) for path in paths]


def _records(paths: Sequence[Path]) -> Iterator[tuple[str, str, str, object]]:
    """Source, label, place and content of each record of all files."""
    for path, label in zip(paths, distinct_labels(paths), strict=True):
        shards = corpus_shards(path)
        if shards is None and not path.is_file():
            message = f"{path}: no such corpus file"
            raise UnreadableInputError(message)
        if shards is None and path.name.lower().endswith(_CITATIONS) and row_format(path) is None:
            message = f"{path}: citations have versions and deletions, and are read once: lmdissect corpus {path} --out DIR, then give DIR"
            raise UnreadableInputError(message)
        for shard in shards if shards is not None else [path]:
            for where, record in read_rows(shard, _FIELDS):
                yield str(shard), label, where, record


def _document(record: object, name: str) -> Document | str:
    """The document, named ``name`` where it has no id, or the reason why there is none."""
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, Mapping):
        return "not an object with a 'text' field"
    text = record.get("text")
    document_id, pmid = given_id(record, ID_FIELDS) or name, given_id(record, ("pmid",))
    fault = text_fault(text, document_id, pmid)
    return fault if fault is not None else Document(document_id, str(text), (pmid,) if pmid is not None and pmid != document_id else ())


def _label(path: Path, paths: Sequence[Path]) -> str:
    num_parts = 1
    while num_parts < len(path.parts) and any(other.parts[-num_parts:] == path.parts[-num_parts:] for other in paths if other != path):
        num_parts += 1
    return "/".join(path.parts[-num_parts:])
