"""Our own form of a probe set: a folder that `datasets.load_dataset` opens too.

    README.md            dataset card; its header lists one split per variant, `original` first
    probes.yaml          schema version, fingerprint, and for every variant its file with hash, factor, prompt hash, generator and audit summary
    import_report.json   where the set came from, counts, and every record that was set aside
    data/*.parquet       columns document_id, text; `original` also keywords, answer where they are known

Written under a temporary name and renamed as a whole: the folder is there complete, or not at all. What an audit adds is in `probes/audited.py`.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Literal

from lmdissect.errors import StaleArtifactError, UnreadableInputError, UnusableOutputError
from lmdissect.factors import ORIGINAL, resolve_factors, sort_variants
from lmdissect.probes.audit_form import usable_summaries
from lmdissect.probes.card import write_card
from lmdissect.probes.collection import Collection, quoted
from lmdissect.probes.description import (
    PROBES_FILE,
    ProbesFile,
    VariantEntry,
    damaged_files,
    data_file,
    read_description,
    recorded_files,
    write_description,
)
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.probes.rows import read_rows
from lmdissect.records import ProbeSet, RejectedRecord
from lmdissect.store import fingerprint, hash_file, output_folder, output_guard, replace_folder, write_json, write_table

__all__ = [
    "REPORT_FILE",
    "add_probe_folder",
    "count_reasons",
    "describe_texts",
    "hash_content",
    "import_report",
    "verify_probe_folder",
    "write_probe_set",
]

REPORT_FILE = "import_report.json"
_RESERVED_SPLITS = frozenset({"all"})


def write_probe_set(probe_set: ProbeSet, folder: Path, *, replace: bool = False) -> Literal["written", "reused"]:
    """Write ``probe_set`` to ``folder``, or leave what is there when it is the same set, intact.

    Audit summaries are not written: they belong to an audit that lies in the folder with its verdicts, and `write_audit` puts one there.

    Args:
        probe_set: The set.
        folder: Where to write it.
        replace: Put it in the place of another probe set of ours; otherwise that is an error.

    Returns:
        ``"reused"`` where the folder already held this very set; ``"written"`` otherwise (a damaged copy is written anew).

    Raises:
        UnusableOutputError: The folder cannot be written, or holds something that is not a probe set of ours.
        StaleArtifactError: The folder holds another probe set and ``replace`` is off.
        OutOfSpaceError: The disk is full.
    """
    folder = folder.resolve()
    content_hash = hash_content(probe_set)
    if _holds(folder, content_hash, replace=replace):
        return "reused"
    output_folder(folder.parent)
    with output_guard(folder):
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            _fill(temporary, probe_set, content_hash)
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return "written"


def _holds(folder: Path, content_hash: str, *, replace: bool) -> bool:
    """Whether the set is there already; False where nothing is in the way that must not be replaced.

    Raises:
        UnusableOutputError: Something that is not ours is in the way.
        StaleArtifactError: Another probe set is in the way.
    """
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file: choose another --out"
        raise UnusableOutputError(message)
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if not (folder / PROBES_FILE).is_file():
        message = f"{folder} is not empty and holds no probe set of ours (no {PROBES_FILE}): choose a new or empty --out folder"
        raise UnusableOutputError(message)
    try:
        there = read_description(folder)
    except UnreadableInputError as error:
        message = f"{folder} holds a {PROBES_FILE} that cannot be understood: choose another --out, or delete that folder first"
        raise UnusableOutputError(message) from error
    if there.content_hash != content_hash:
        if replace:
            return False
        message = f"{folder} holds another probe set (from {quoted(there.source)}): choose another --out, or delete that folder first"
        raise StaleArtifactError(message)
    return not damaged_files(folder, there)


def hash_content(probe_set: ProbeSet) -> str:
    """Hash of everything that is stored of a set but its source, its audit and what was set aside: decides whether a folder holds it already."""
    return fingerprint(
        {
            "schema_version": 1,
            "probes": probe_fingerprint(probe_set),
            "generators": dict(probe_set.generators),
            "prompt_hashes": dict(probe_set.prompt_hashes),
            "instruction_hashes": dict(probe_set.instruction_hashes),
            "licence": probe_set.licence,
            "audits": {},  # an audit may be made anew; the set stays the same one
            "metadata": {document_id: dict(fields) for document_id, fields in probe_set.metadata.items()},
        }
    )


def _fill(folder: Path, probe_set: ProbeSet, content_hash: str) -> None:
    table = probe_set.by_variant()
    entries: list[VariantEntry] = []
    splits = _split_names(sort_variants(table, probe_set.factors))
    for variant, split in splits.items():
        path = folder / data_file(split)
        _write_split(path, table[variant], probe_set.metadata if variant == ORIGINAL else {})
        entries.append(
            VariantEntry(
                variant=variant,
                split=split,
                sha256=hash_file(path),
                num_texts=len(table[variant]),
                factor=probe_set.factors.get(variant),
                prompt_hash=probe_set.prompt_hashes.get(variant),
                instruction_hash=probe_set.instruction_hashes.get(variant),
                generator=probe_set.generators.get(variant),
                audit=None,
            )
        )
    probes = ProbesFile(
        fingerprint=probe_fingerprint(probe_set),
        content_hash=content_hash,
        source=probe_set.source,
        licence=probe_set.licence,
        variants=entries,
    )
    write_json(folder / REPORT_FILE, import_report(probe_set))
    write_card(folder / "README.md", probe_set, splits, recorded_files(probes), audited=False)
    write_description(folder, probes)


def _split_names(variants: list[str]) -> dict[str, str]:
    """A split name (letters, digits, underscores) for every variant, no two of which differ in case only."""
    names: dict[str, str] = {}
    taken = {name.casefold() for name in _RESERVED_SPLITS}
    for variant in variants:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", variant)
        candidates = [plain, *(f"{plain}_{number}" for number in range(2, len(variants) + 3))]
        names[variant] = next(name for name in candidates if name.casefold() not in taken)
        taken.add(names[variant].casefold())
    return names


def _write_split(path: Path, texts: Mapping[str, str], metadata: Mapping[str, Mapping[str, object]]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    columns = {"document_id": pa.array(list(texts), pa.string()), "text": pa.array(list(texts.values()), pa.string())}
    for name, kind in (("keywords", pa.list_(pa.string())), ("answer", pa.string())):
        values = [metadata.get(document_id, {}).get(name) for document_id in texts]
        if any(value is not None for value in values):
            columns[name] = pa.array(values, kind)
    write_table(path, pa.table(columns))


def import_report(probe_set: ProbeSet) -> dict[str, object]:
    """Counts of what was taken and what was set aside, and every record of the latter, as JSON types."""
    return {
        "source": probe_set.source,
        "num_documents": len({text.document_id for text in probe_set.texts}),
        "num_texts": {variant: len(texts) for variant, texts in probe_set.by_variant().items()},
        "num_rejected": len(probe_set.rejected),
        "rejected_by_reason": count_reasons(probe_set.rejected),
        "rejected": [{"source": record.source, "record": record.record, "reason": record.reason} for record in probe_set.rejected],
    }


def count_reasons(rejected: Sequence[RejectedRecord]) -> dict[str, int]:
    """How many records were set aside for each reason (without what stands in brackets), most first."""
    return dict(Counter(record.reason.split(" (")[0] for record in rejected).most_common())


def verify_probe_folder(folder: Path, *, with_audit: bool = True) -> ProbesFile:
    """What `probes.yaml` says of a folder whose files are all as they were written.

    Args:
        folder: The folder.
        with_audit: Check the files of its audit too; whoever makes the audit anew needs `data/` alone.

    Raises:
        UnreadableInputError: `probes.yaml` cannot be understood, or a file is missing or changed.
    """
    probes = read_description(folder)
    if damaged := damaged_files(folder, probes, with_audit=with_audit):
        cure = "import it again" if any(name.startswith("data/") for name in damaged) else f"run lmdissect audit {folder} again"
        message = (
            f"{folder}: {', '.join(damaged)} missing or changed since the probe set was written: {cure}"
            f" (or delete {PROBES_FILE} to read the folder as it stands)"
        )
        raise UnreadableInputError(message)
    return probes


def add_probe_folder(collection: Collection, folder: Path, probes: ProbesFile, *, without: Container[tuple[str, str]] = ()) -> None:
    """Take the texts of a folder that `write_probe_set` wrote.

    Args:
        collection: Takes the texts.
        folder: The folder.
        probes: What `probes.yaml` says of it.
        without: Texts to leave out, as (document id, variant).
    """
    for entry in probes.variants:
        _add_split(collection, folder / data_file(entry.split), entry.variant, without)


def describe_texts(collection: Collection, probes: ProbesFile | None, source: str, factors: Mapping[str, str]) -> ProbeSet:
    """The texts of ``collection`` as a probe set, with what `probes.yaml` says of them where there is one.

    Args:
        collection: Texts and rejected records.
        probes: Content of `probes.yaml`, or None.
        source: Where the texts come from, in words.
        factors: The user's own mapping of variant to factor; wins.

    Raises:
        UserInputError: A variant has no factor.
    """
    texts = collection.texts
    entries = {entry.variant: entry for entry in probes.variants} if probes is not None else {}
    recorded = {name: entry.factor for name, entry in entries.items() if entry.factor is not None}
    return ProbeSet(
        texts=texts,
        factors=resolve_factors(dict.fromkeys(text.variant for text in texts), {**recorded, **factors}),
        source=source,
        rejected=tuple(collection.rejected),
        generators={name: entry.generator for name, entry in entries.items() if entry.generator is not None},
        prompt_hashes={name: entry.prompt_hash for name, entry in entries.items() if entry.prompt_hash is not None},
        instruction_hashes={name: entry.instruction_hash for name, entry in entries.items() if entry.instruction_hash is not None},
        audits=usable_summaries(probes) if probes is not None else {},
        licence=probes.licence if probes is not None else None,
        metadata=collection.metadata,
    )


def _add_split(collection: Collection, path: Path, variant: str, without: Container[tuple[str, str]]) -> None:
    source = str(path)
    for row in read_rows(path, collection.rejecter(source)):
        fields = row.fields
        if (fields.get("document_id"), variant) in without:
            continue
        taken = collection.add(source, row.place, fields.get("document_id"), variant, fields.get("text"))
        known = {name: fields[name] for name in ("keywords", "answer") if fields.get(name) is not None}
        if taken and known:
            collection.metadata[str(fields["document_id"])] = known
