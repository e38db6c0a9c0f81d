"""Documents for training and for checks: from corpus folders of ours, and from JSONL, CSV, Parquet and text files directly.

DIR           a folder that `lmdissect corpus` made; with splits, DIR#train names the one to read and DIR#all reads all
.jsonl[.gz]   one object a line: `text`, and an id in `document_id`, else `id`, else `pmid` (which is kept beside the others too)
.csv .tsv .parquet   the same as columns
.txt[.gz]     one document a line

A document without such an id has a hash of its `url` and `timestamp` as id, or else of its text: neither the name of its file nor what else is read
moves it between samples and splits. So a text without an id counts once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmdissect.corpus.documents import ID_FIELDS, given_id, is_encodable, own_id, text_fault, text_id
from lmdissect.corpus.folder import corpus_shards
from lmdissect.corpus.rows import read_rows, row_format
from lmdissect.errors import NothingToDoError, UnreadableInputError
from lmdissect.records import Document, RejectedRecord

__all__ = ["check_name", "distinct_labels", "read_corpus"]

_FIELDS = frozenset({*ID_FIELDS, "text", "url", "timestamp"})
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
    for source, where, record in _records(paths):
        found = _document(record)
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


def check_name(path: Path) -> None:
    """Refuse a name that could not be written down in what is made.

    Raises:
        UnreadableInputError: It is not UTF-8.
    """
    if not is_encodable(str(path)):
        message = f"{str(path).encode(errors='backslashreplace').decode()}: its name is not UTF-8; rename it"
        raise UnreadableInputError(message)


def distinct_labels(paths: Sequence[Path]) -> list[str]:
    """Each file's name, with as many of its folders as tell it apart from the other files."""
    return [_label(path, paths) for path in paths]


def _records(paths: Sequence[Path]) -> Iterator[tuple[str, str, object]]:
    """Source, place and content of each record of all files."""
    for path in paths:
        check_name(path)
        shards = corpus_shards(path)
        if shards is None and not path.is_file():
            message = f"{path}: no such corpus file"
            raise UnreadableInputError(message)
        if shards is None and path.name.lower().endswith(_CITATIONS) and row_format(path) is None:
            message = f"{path}: citations have versions and deletions, and are read once: lmdissect corpus {path} --out DIR, then give DIR"
            raise UnreadableInputError(message)
        for shard in shards if shards is not None else [path]:
            for where, record in read_rows(shard, _FIELDS):
                yield str(shard), where, record


def _document(record: object) -> Document | str:
    """The document, or the reason why there is none."""
    if isinstance(record, ValueError):
        return str(record)
    if not isinstance(record, Mapping):
        return "not an object with a 'text' field"
    text = record.get("text")
    document_id, pmid = own_id(record), given_id(record, ("pmid",))
    if (fault := text_fault(text, document_id, pmid)) is not None:
        return fault
    return Document(document_id or text_id(str(text)), str(text), (pmid,) if pmid is not None and pmid != document_id else ())


def _label(path: Path, paths: Sequence[Path]) -> str:
    num_parts = 1
    while num_parts < len(path.parts) and any(other.parts[-num_parts:] == path.parts[-num_parts:] for other in paths if other != path):
        num_parts += 1
    return "/".join(path.parts[-num_parts:])
