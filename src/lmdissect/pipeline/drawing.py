"""What a point trains on: documents drawn, mixed, kept apart from probes, and written down; and the look for probes among them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.corpus import mix_documents, read_corpus, sample_documents, split_held_out
from lmdissect.errors import UserInputError
from lmdissect.pipeline.experiment import CorpusSettings, ProbeSettings
from lmdissect.pipeline.inputs import read_probes, read_training_documents
from lmdissect.probes import OverlapReport, find_overlap
from lmdissect.records import Document, ProbeSet
from lmdissect.store import open_artifact, read_artifact, read_table
from lmdissect.wording import format_count

__all__ = [
    "DOCUMENTS_STAGE",
    "OVERLAP_STAGE",
    "DrawnDocuments",
    "draw_documents",
    "excluded_probes",
    "look_for_probes",
    "read_documents",
    "without_documents",
]

DOCUMENTS_STAGE = "documents"
OVERLAP_STAGE = "overlap"

_TRAINING = "training.parquet"
_VALIDATION = "validation.parquet"
_MATCHES = "matches.parquet"
_NAMED = 5
_DOCUMENT_SCHEMA = pa.schema([("document_id", pa.string()), ("text", pa.string()), ("other_ids", pa.list_(pa.string())), ("mixed_in", pa.bool_())])
_MATCH_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("variant", pa.string()),
        ("corpus_id", pa.string()),
        ("kind", pa.string()),
        ("similarity", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class DrawnDocuments:
    """What a point trains on.

    Attributes:
        training: Documents of the first corpus in the order drawn, then those mixed in.
        validation: Documents that no point trains on.
    """

    training: tuple[Document, ...]
    validation: tuple[Document, ...]


def draw_documents(settings: Mapping[str, Any], key: str, folder: Path) -> None:
    """Draw the documents of a `documents` node and write them down: training.parquet, validation.parquet.

    Validation documents are split off the first corpus by a hash of their ids, before anything is drawn.

    Args:
        settings: Of the node. Probe sets to keep out stand by the hash of their texts, and so do the documents left out in the artifact's details: another
            experiment may share the artifact and call the set otherwise.
        key: Of the node.
        folder: Where its artifact goes.

    Raises:
        UserInputError: The corpus is smaller than the size asked for, or the second one too small for its share.
        LmdissectError: A corpus or probe set cannot be read.
    """
    corpus = CorpusSettings.model_validate(settings["corpus"])
    draw = {name: settings[name] for name in ("size", "draw_seed", "split_seed", "validation")}
    config = {**draw, "variant": corpus.variant, "mix_share": corpus.mix.share if corpus.mix else 0.0}
    with open_artifact(folder, stage=DOCUMENTS_STAGE, config=config, inputs={"node": key, "source": settings["source"]}) as artifact:
        if artifact.finished is not None:
            return
        pool, rejected = read_training_documents(corpus)
        pool, validation = split_held_out(pool, corpus.validation, settings["split_seed"])
        probe_sets = {texts: read_probes(ProbeSettings.model_validate(value)) for texts, value in settings["exclude"].items()}
        seed = settings["draw_seed"]
        first, left_out = _draw_clean(lambda left: _sample(left, corpus, seed, len(pool) - len(left)), pool, probe_sets)
        mixed: list[Document] = []
        if corpus.mix is not None:
            share = corpus.mix.share
            others, more_rejected = read_corpus([Path(name) for name in corpus.mix.files])
            rejected = [*rejected, *more_rejected]
            mixed, others_left_out = _draw_clean(lambda left: mix_documents(first, left, share, seed)[len(first) :], others, probe_sets)
            left_out |= others_left_out
        tainted = _found_in(validation, probe_sets)
        kept = [document for document in validation if document.document_id not in tainted]
        artifact.write_table(_TRAINING, _document_table(first, mixed))
        artifact.write_table(_VALIDATION, _document_table(kept, []))
        counts = {
            "training": len(first) + len(mixed),
            "mixed_in": len(mixed),
            "validation": len(kept),
            "corpus": len(pool) + len(validation),
            "left_out": len(left_out),
            "validation_left_out": len(validation) - len(kept),
            "rejected_records": len(rejected),
        }
        details = {
            "left_out": {texts: sorted(document for document, found in left_out.items() if texts in found) for texts in probe_sets},
            "rejected": [[record.source, record.record, record.reason] for record in rejected[:1000]],
        }
        artifact.finish(counts=counts, details=details, files=[_TRAINING, _VALIDATION])


def _sample(pool: Sequence[Document], corpus: CorpusSettings, seed: int, num_left_out: int) -> list[Document]:
    if corpus.size > len(pool):
        source = corpus.probe_set or ", ".join(corpus.files)
        others = f", and {num_left_out} hold probes" if num_left_out else ""
        message = (
            f"corpus.size is {corpus.size}, and {source} has {format_count(len(pool), 'document')} to train on "
            f"({corpus.validation} more are kept out for validation{others}): lower the size, or add files"
        )
        raise UserInputError(message)
    return sample_documents(pool, corpus.size, seed)


def _draw_clean(
    draw: Callable[[Sequence[Document]], list[Document]], pool: Sequence[Document], probe_sets: Mapping[str, ProbeSet]
) -> tuple[list[Document], dict[str, set[str]]]:
    """Draw until nothing drawn holds a probe; what is left out, and for which probe sets (by their hash). Smaller draws stay inside larger ones."""
    left = list(pool)
    checked: set[str] = set()
    left_out: dict[str, set[str]] = {}
    while True:
        drawn = draw(left)
        found = _found_in([document for document in drawn if document.document_id not in checked], probe_sets)
        if not found:
            return drawn, left_out
        left_out |= found
        checked.update(document.document_id for document in drawn)
        left = [document for document in left if document.document_id not in found]


def _found_in(documents: Sequence[Document], probe_sets: Mapping[str, ProbeSet]) -> dict[str, set[str]]:
    """Documents that hold a probe, with the hashes of the probe sets."""
    found: dict[str, set[str]] = {}
    if documents:
        for texts, probe_set in probe_sets.items():
            for match in find_overlap(probe_set, documents).matches:
                found.setdefault(match.corpus_id, set()).add(texts)
    return found


def _document_table(first: Sequence[Document], mixed: Sequence[Document]) -> pa.Table:
    documents = [*first, *mixed]
    return pa.table(
        {
            "document_id": [document.document_id for document in documents],
            "text": [document.text for document in documents],
            "other_ids": [list(document.other_ids) for document in documents],
            "mixed_in": [False] * len(first) + [True] * len(mixed),
        },
        schema=_DOCUMENT_SCHEMA,
    )


def read_documents(folder: Path) -> DrawnDocuments:
    """Read what `draw_documents` wrote.

    Raises:
        UnreadableInputError: Nothing finished is there.
        DamagedArtifactError: A file is missing or changed.
    """
    read_artifact(folder, DOCUMENTS_STAGE)
    return DrawnDocuments(*(_documents(folder / name) for name in (_TRAINING, _VALIDATION)))


def _documents(path: Path) -> tuple[Document, ...]:
    table = read_table(path)
    columns = (table[name].to_pylist() for name in ("document_id", "text", "other_ids"))
    return tuple(Document(document_id, text, tuple(others)) for document_id, text, others in zip(*columns, strict=True))


def look_for_probes(settings: Mapping[str, Any], key: str, folder: Path) -> None:
    """Look for the probes of an `overlap` node among the documents of a point, training and validation, and write down what was found.

    Raises:
        UserInputError: Some are there, and the policy is to refuse them.
    """
    probes = ProbeSettings.model_validate(settings["probes"])
    with open_artifact(folder, stage=OVERLAP_STAGE, config={"policy": settings["policy"]}, inputs={"node": key}) as artifact:
        if artifact.finished is not None:
            return
        drawn = read_documents(Path(settings["documents"]))
        documents = [*drawn.training, *drawn.validation]
        report = find_overlap(read_probes(probes), documents)
        found = report.document_ids()
        if found and settings["policy"] == "refuse":
            named = f"{', '.join(found[:_NAMED])}{' …' if len(found) > _NAMED else ''}"
            message = (
                f"{len(found)} documents of the probe set {settings['name']} are among the {len(documents)} documents of the corpus ({named}): set "
                "corpus.on_overlap to exclude_training or exclude_probes, or take other probes"
            )
            raise UserInputError(message)
        artifact.write_table(_MATCHES, _match_table(report))
        counts = {"probe_documents": len(found), "corpus_documents": len(documents), "matches": len(report.matches)}
        artifact.finish(counts=counts, details={"document_ids": list(found), "threshold": report.threshold}, files=[_MATCHES])


def _match_table(report: OverlapReport) -> pa.Table:
    rows = [{name: getattr(match, name) for name in _MATCH_SCHEMA.names} for match in report.matches]
    return pa.Table.from_pylist(rows, schema=_MATCH_SCHEMA)


def excluded_probes(folders: Sequence[str]) -> set[str]:
    """Probe documents that any of these `overlap` artifacts found."""
    return {document for folder in folders for document in read_artifact(Path(folder), OVERLAP_STAGE).details["document_ids"]}


def without_documents(probe_set: ProbeSet, documents: set[str]) -> ProbeSet:
    """The probe set without some of its documents."""
    texts = tuple(text for text in probe_set.texts if text.document_id not in documents)
    return replace(probe_set, texts=texts)
