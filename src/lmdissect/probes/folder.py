"""Our own form of a probe set: a folder that `datasets.load_dataset` opens too.

    README.md            dataset card; its header lists one split per variant, `original` first
    probes.yaml          schema version, fingerprint, and for every variant its file with hash, factor, prompt hash, generator and audit summary
    import_report.json   where the set came from, counts, and every record that was set aside
    data/*.parquet       columns document_id, text; `original` also keywords, answer where they are known

Written under a temporary name and renamed as a whole: the folder is there complete, or not at all.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmdissect.errors import StaleArtifactError, UnreadableInputError, UnusableOutputError
from lmdissect.factors import ORIGINAL, sort_variants
from lmdissect.probes.card import write_card
from lmdissect.probes.collection import Collection, quoted
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.probes.rows import read_rows
from lmdissect.records import ProbeSet, RejectedRecord
from lmdissect.store import fingerprint, hash_file, output_folder, output_guard, replace_folder, write_json, write_table, write_text

__all__ = ["PROBES_FILE", "ProbesFile", "VariantEntry", "count_reasons", "import_report", "read_probe_folder", "write_probe_set"]

PROBES_FILE = "probes.yaml"
_REPORT_FILE = "import_report.json"
_SCHEMA_VERSION: Literal[1] = 1
_RESERVED_SPLITS = frozenset({"all"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantEntry(_Frozen):
    """What `probes.yaml` says of one variant; null where it is not known."""

    variant: str
    split: str = Field(pattern=r"^\w+$", description="name of the split, and of its file data/SPLIT.parquet")
    sha256: str = Field(description="hash of that file")
    num_texts: int
    factor: str | None = Field(description="factor the variant changes; null for the original")
    prompt_hash: str | None
    generator: str | None = Field(description="who wrote it")
    audit: dict[str, Any] | None


class ProbesFile(_Frozen):
    """Content of `probes.yaml`."""

    schema_version: Literal[1]
    fingerprint: str = Field(description="hash of texts, pairing and factors")
    content_hash: str = Field(description="hash of everything that is stored but the import report")
    source: str
    variants: list[VariantEntry]


def write_probe_set(probe_set: ProbeSet, folder: Path) -> Literal["written", "reused"]:
    """Write ``probe_set`` to ``folder``, or leave what is there when it is the same set, intact.

    Returns:
        ``"reused"`` where the folder already held this very set; ``"written"`` otherwise (a damaged copy is written anew).

    Raises:
        UnusableOutputError: The folder cannot be written, or holds something that is not a probe set of ours.
        StaleArtifactError: The folder holds another probe set.
        OutOfSpaceError: The disk is full.
    """
    folder = folder.resolve()
    content_hash = _content_hash(probe_set)
    if _holds(folder, content_hash):
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


def _holds(folder: Path, content_hash: str) -> bool:
    """Whether the set is there already; False where nothing, or a damaged copy of it, is in the way.

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
        there = _read_probes_file(folder)
    except UnreadableInputError as error:
        message = f"{folder} holds a {PROBES_FILE} that cannot be understood: choose another --out, or delete that folder first"
        raise UnusableOutputError(message) from error
    if there.content_hash != content_hash:
        message = f"{folder} holds another probe set (from {quoted(there.source)}): choose another --out, or delete that folder first"
        raise StaleArtifactError(message)
    return not _damaged(folder, there)


def _content_hash(probe_set: ProbeSet) -> str:
    return fingerprint(
        {
            "schema_version": _SCHEMA_VERSION,
            "probes": probe_fingerprint(probe_set),
            "generators": dict(probe_set.generators),
            "prompt_hashes": dict(probe_set.prompt_hashes),
            "audits": {name: dict(audit) for name, audit in probe_set.audits.items()},
            "metadata": {document_id: dict(fields) for document_id, fields in probe_set.metadata.items()},
        }
    )


def _fill(folder: Path, probe_set: ProbeSet, content_hash: str) -> None:
    import yaml  # noqa: PLC0415 - only needed here

    table = probe_set.by_variant()
    entries: list[VariantEntry] = []
    splits = _split_names(sort_variants(table, probe_set.factors))
    for variant, split in splits.items():
        path = _data_file(folder, split)
        _write_split(path, table[variant], probe_set.metadata if variant == ORIGINAL else {})
        entries.append(
            VariantEntry(
                variant=variant,
                split=split,
                sha256=hash_file(path),
                num_texts=len(table[variant]),
                factor=probe_set.factors.get(variant),
                prompt_hash=probe_set.prompt_hashes.get(variant),
                generator=probe_set.generators.get(variant),
                audit=dict(probe_set.audits[variant]) if variant in probe_set.audits else None,
            )
        )
    probes = ProbesFile(
        schema_version=_SCHEMA_VERSION,
        fingerprint=probe_fingerprint(probe_set),
        content_hash=content_hash,
        source=probe_set.source,
        variants=entries,
    )
    write_json(folder / _REPORT_FILE, import_report(probe_set))
    write_card(folder / "README.md", probe_set, splits)
    write_text(folder / PROBES_FILE, yaml.safe_dump(probes.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=150))


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


def _data_file(folder: Path, split: str) -> Path:
    return folder / "data" / f"{split}.parquet"


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


def _read_probes_file(folder: Path) -> ProbesFile:
    import yaml  # noqa: PLC0415 - only needed here

    path = folder / PROBES_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > _SCHEMA_VERSION:
            message = f"{path} was written by a newer version of lmdissect (schema {version}): update lmdissect"
            raise UnreadableInputError(message)
        return ProbesFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{path}: {where or 'content'}: {first['msg']}; mend it, or delete it to read the folder by its README.md"
        raise UnreadableInputError(message) from error
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        message = f"{path} cannot be read ({' '.join(str(error).split())}); mend it, or delete it to read the folder by its README.md"
        raise UnreadableInputError(message) from error


def _damaged(folder: Path, probes: ProbesFile) -> list[str]:
    """Names of data files that are missing or not as they were written."""
    paths = {_data_file(folder, entry.split): entry.sha256 for entry in probes.variants}
    return [f"data/{path.name}" for path, sha256 in paths.items() if not path.is_file() or hash_file(path) != sha256]


def read_probe_folder(collection: Collection, folder: Path) -> ProbesFile:
    """Take the texts of a folder that `write_probe_set` wrote, verified against the hashes it recorded.

    Raises:
        UnreadableInputError: `probes.yaml` cannot be understood, or a data file is missing or changed.
    """
    probes = _read_probes_file(folder)
    if damaged := _damaged(folder, probes):
        message = (
            f"{folder}: {', '.join(damaged)} missing or changed since the probe set was written: import it again"
            f" (or delete {PROBES_FILE} to read the folder as it stands)"
        )
        raise UnreadableInputError(message)
    for entry in probes.variants:
        _add_split(collection, _data_file(folder, entry.split), entry.variant)
    return probes


def _add_split(collection: Collection, path: Path, variant: str) -> None:
    source = str(path)
    for row in read_rows(path, collection.rejecter(source)):
        fields = row.fields
        taken = collection.add(source, row.place, fields.get("document_id"), variant, fields.get("text"))
        known = {name: fields[name] for name in ("keywords", "answer") if fields.get(name) is not None}
        if taken and known:
            collection.metadata[str(fields["document_id"])] = known
