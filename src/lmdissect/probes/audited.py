"""What an audit adds to a probe folder: a verdict on every variant text, and the splits that are left when the rejected ones are gone.

    audit.parquet          columns document_id, variant, accepted, reasons (list of strings), measures (map of name to number)
    accepted/*.parquet     the splits of data/ without the rejected texts; what datasets.load_dataset opens from then on
    probes.yaml            names these files with their hashes, what decided, and a summary for every variant

`data/` is never touched: what was written, and perhaps paid for, stays. `probes.yaml` is renamed into place last; until then the folder is, for every command
of ours, the unaudited one it was before. The card is renamed just before it: killed between the two, the folder counts as unaudited, while
`datasets.load_dataset` opens `accepted/` already, which is complete by then. The next audit mends that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmdissect.errors import DamagedArtifactError
from lmdissect.factors import ORIGINAL
from lmdissect.probes.audit_form import check_audit_form
from lmdissect.probes.card import write_card
from lmdissect.probes.collection import Collection
from lmdissect.probes.description import AuditEntry, ProbesFile, changed_files, data_file, read_description, recorded_files, write_description
from lmdissect.probes.folder import add_probe_folder, describe_texts, verify_probe_folder
from lmdissect.records import AuditResult, Verdict
from lmdissect.store import hash_file, lock_folder, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_audit", "rejected_texts", "write_audit"]

_AUDIT_FILE = "audit.parquet"


def write_audit(folder: Path, audit: AuditResult) -> None:
    """Keep the outcome of an audit in the probe folder; an earlier one is replaced.

    Args:
        folder: A folder that `write_probe_set` wrote.
        audit: Verdicts on its texts; a text without a verdict counts as accepted. Settings and summaries as `AuditResult` describes them.

    Raises:
        UnreadableInputError: The folder is damaged or not ours.
        OutputLockedError: Another process is writing the folder.
        OutOfSpaceError: The disk is full.
    """
    with lock_folder(folder):
        probes = read_description(folder)
        if probes.audit is not None:  # perhaps a damaged one; from here on, and until the new audit is complete, the folder counts as unaudited
            probes = _without_audit(probes)
            _write_card(folder, probes, audited=False)
            write_description(folder, probes)
        verify_probe_folder(folder)
        rejected = {(verdict.document_id, verdict.variant) for verdict in audit.verdicts if not verdict.accepted}
        names = [_write_accepted(folder, split, variant, rejected) for variant, split in _splits(probes).items()]
        write_table(folder / _AUDIT_FILE, _verdict_table(audit))
        entry = AuditEntry(files={name: hash_file(folder / name) for name in (*names, _AUDIT_FILE)}, settings=dict(audit.settings))
        variants = [
            variant.model_copy(update={"audit": dict(audit.summaries[variant.variant]) if variant.variant in audit.summaries else None})
            for variant in probes.variants
        ]
        probes = probes.model_copy(update={"variants": variants, "audit": entry})
        _write_card(folder, probes, audited=True)
        write_description(folder, probes)


def read_audit(folder: Path) -> AuditResult | None:
    """The audit that a probe folder holds; None where there is none.

    Raises:
        UnreadableInputError: `probes.yaml` cannot be understood.
        DamagedArtifactError: A file of the audit is missing or changed, `audit.parquet` has other columns than ours, or settings and summaries are not of our
            form; a new audit cures it.
    """
    probes = read_description(folder)
    if probes.audit is None:
        return None
    if damaged := changed_files(folder, {_AUDIT_FILE: "", **probes.audit.files}):
        message = f"{folder}: {', '.join(damaged)} missing or changed since the audit: run lmdissect audit {folder} again"
        raise DamagedArtifactError(message)
    check_audit_form(folder, probes)
    table = _read_verdicts(folder)
    summaries = {entry.variant: entry.audit for entry in probes.variants if entry.audit is not None}
    return AuditResult(tuple(map(_verdict, table.to_pylist())), summaries, probes.audit.settings)


def _read_verdicts(folder: Path) -> "pa.Table":
    """Table of `audit.parquet`, in the form that `write_audit` gives it."""
    import pyarrow.compute as pc  # noqa: PLC0415 - slow to load

    try:
        table = read_table(folder / _AUDIT_FILE)
    except DamagedArtifactError as error:
        message = f"{folder / _AUDIT_FILE} cannot be read as Parquet: run lmdissect audit {folder} again"
        raise DamagedArtifactError(message) from error
    wanted, found = ([(field.name, field.type) for field in schema] for schema in (_verdict_table(AuditResult((), {}, {})).schema, table.schema))
    if found != wanted or any(column.null_count for column in table.columns) or pc.list_flatten(table.column("reasons")).null_count:
        columns = ", ".join(f"{name} ({kind})" for name, kind in wanted)
        message = f"{folder / _AUDIT_FILE} has not the columns {columns}, without gaps: run lmdissect audit {folder} again"
        raise DamagedArtifactError(message)
    return table


def rejected_texts(folder: Path) -> set[tuple[str, str]]:
    """Texts that the folder's audit rejected, as (document id, variant); none where there was no audit."""
    audit = read_audit(folder)
    return set() if audit is None else {(verdict.document_id, verdict.variant) for verdict in audit.verdicts if not verdict.accepted}


def _verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(row["document_id"], row["variant"], accepted=row["accepted"], reasons=tuple(row["reasons"]), measures=dict(row["measures"]))


def _without_audit(probes: ProbesFile) -> ProbesFile:
    variants = [entry.model_copy(update={"audit": None}) for entry in probes.variants]
    return probes.model_copy(update={"variants": variants, "audit": None})


def _splits(probes: ProbesFile) -> dict[str, str]:
    return {entry.variant: entry.split for entry in probes.variants}


def _write_accepted(folder: Path, split: str, variant: str, rejected: set[tuple[str, str]]) -> str:
    """Write the accepted texts of one split (perhaps none; of the originals all)."""
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    table = read_table(folder / data_file(split))
    kept = [variant == ORIGINAL or (document_id, variant) not in rejected for document_id in table.column("document_id").to_pylist()]
    name = f"accepted/{split}.parquet"
    write_table(folder / name, table.filter(pa.array(kept, pa.bool_())))
    return name


def _verdict_table(audit: AuditResult) -> "pa.Table":
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    verdicts = audit.verdicts
    return pa.table(
        {
            "document_id": pa.array([verdict.document_id for verdict in verdicts], pa.string()),
            "variant": pa.array([verdict.variant for verdict in verdicts], pa.string()),
            "accepted": pa.array([verdict.accepted for verdict in verdicts], pa.bool_()),
            "reasons": pa.array([list(verdict.reasons) for verdict in verdicts], pa.list_(pa.string())),
            "measures": pa.array([sorted(verdict.measures.items()) for verdict in verdicts], pa.map_(pa.string(), pa.float64())),
        }
    )


def _write_card(folder: Path, probes: ProbesFile, *, audited: bool) -> None:
    """The card of the folder as ``probes`` describes it; its table counts the texts as they were written."""
    collection = Collection()
    add_probe_folder(collection, folder, probes)
    write_card(folder / "README.md", describe_texts(collection, probes, probes.source, {}), _splits(probes), recorded_files(probes), audited=audited)
