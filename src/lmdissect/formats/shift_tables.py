"""The shift artifact: everything a report is written from.

Every table is written as Parquet and, where a person may want it, as CSV. Estimates are never empty: a row that cannot be computed is left out and
listed in the manifest under `details.unavailable` with its reason.

    shifts            one row per variant x reference x normalization (columns of records.FactorShift)
    losses            variant, factor, num_documents, num_tokens, num_bytes, base_loss_nats, tuned_loss_nats (pooled, per token; null when the
                      tokenizers differ), base_nats_per_byte, tuned_nats_per_byte, base_perplexity, tuned_perplexity
    gains             variant, factor, normalization, num_documents, estimate, ci_low, ci_high, p_value: mean gain of that variant's texts
    position          variant, factor, document_set (all | fixed), bin_start, bin_end (exclusive), num_documents, base_contrast, tuned_contrast,
                      estimate, ci_low, ci_high (shift in the bin), gain, gain_ci_low, gain_ci_high (gain of the originals in the bin)
    cumulative        variant, factor, position (t), share, ci_low, ci_high, num_documents: part of the per-document shift made before position t
    fact_tokens       variant, selection (changed | number | named | key_term), statistic (mean | sum), num_documents, num_original_tokens,
                      num_variant_tokens, base_contrast, tuned_contrast, estimate, ci_low, ci_high, p_value
    interactions      variant, first_variant, second_variant, normalization, num_documents, estimate, ci_low, ci_high, p_value
    examples          document_id, variant, text, shift (of that document against its original, nats per token; null for originals),
                      char_start, char_end (list<int>), base_logprob_nats, tuned_logprob_nats (list<float>, null without context)
    documents         document_id, variant, normalization, base_value, tuned_value (v_m of that text: l/n, l/b or l), truncated (whether a token limit cut
                      it), kept_words (share of the original's words it keeps, null for originals), text_hash (first 16 digits of its SHA-256); one row
                      per text and normalization, where both values are numbers. Read by studies of many runs, by `read_document_values`

Intervals are at `details.level`. Units are nats per token, per byte or per document, as `normalization` says; position and fact tokens are nats per token.
`details` also holds: base_model, tuned_model, tokenizers_equal, num_draws, seed, variants (variant -> factor, num_documents, kept_words_median,
num_truncated (pairs with a text cut by a token limit, which per-document rows leave out), headline_reference, writer_against_control), dropped (list of {variant,
document_id, reason}), num_dropped, audits (variant -> summary of its audit, as records.AuditResult),
unavailable, checks (name -> {passed, text}), notes (sentences that every report must show).
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from lmdissect.errors import UnreadableInputError
from lmdissect.records import FactorShift
from lmdissect.store import ArtifactFolder, Manifest, read_artifact, read_table, write_bytes

__all__ = ["CSV_TABLES", "FORMAT_VERSION", "SCHEMAS", "STAGE", "TABLES", "read_document_values", "read_shift_tables", "write_shift_table"]

STAGE = "shift"

FORMAT_VERSION = 2
"""Part of the key of a shift artifact, and of the node that makes it: one without the table `documents` (version 1) is made again, not served."""

_DOCUMENTS = "documents"


def _schema(**columns: str) -> pa.Schema:
    kinds = {
        "s": pa.string(),
        "i": pa.int64(),
        "f": pa.float64(),
        "li": pa.list_(pa.int32()),
        "lf": pa.list_(pa.float32()),
        "b": pa.bool_(),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def _shift_schema() -> pa.Schema:
    kinds = {str: "s", int: "i", float: "f", float | None: "f"}
    return _schema(**{field.name: kinds[field.type] for field in fields(FactorShift)})  # type: ignore[index]


_INTERVAL = {"estimate": "f", "ci_low": "f", "ci_high": "f"}
SCHEMAS = {
    "shifts": _shift_schema(),
    "losses": _schema(
        variant="s",
        factor="s",
        num_documents="i",
        num_tokens="i",
        num_bytes="i",
        base_loss_nats="f",
        tuned_loss_nats="f",
        base_nats_per_byte="f",
        tuned_nats_per_byte="f",
        base_perplexity="f",
        tuned_perplexity="f",
    ),
    "gains": _schema(variant="s", factor="s", normalization="s", num_documents="i", **_INTERVAL, p_value="f"),
    "position": _schema(
        variant="s",
        factor="s",
        document_set="s",
        bin_start="i",
        bin_end="i",
        num_documents="i",
        base_contrast="f",
        tuned_contrast="f",
        **_INTERVAL,
        gain="f",
        gain_ci_low="f",
        gain_ci_high="f",
    ),
    "cumulative": _schema(variant="s", factor="s", position="i", share="f", ci_low="f", ci_high="f", num_documents="i"),
    "fact_tokens": _schema(
        variant="s",
        selection="s",
        statistic="s",
        num_documents="i",
        num_original_tokens="i",
        num_variant_tokens="i",
        base_contrast="f",
        tuned_contrast="f",
        **_INTERVAL,
        p_value="f",
    ),
    "interactions": _schema(variant="s", first_variant="s", second_variant="s", normalization="s", num_documents="i", **_INTERVAL, p_value="f"),
    "examples": _schema(
        document_id="s", variant="s", text="s", shift="f", char_start="li", char_end="li", base_logprob_nats="lf", tuned_logprob_nats="lf"
    ),
    _DOCUMENTS: _schema(
        document_id="s", variant="s", normalization="s", base_value="f", tuned_value="f", truncated="b", kept_words="f", text_hash="s"
    ),
}
"""Columns of every table."""

TABLES = tuple(SCHEMAS)
CSV_TABLES = frozenset(TABLES) - {"examples", _DOCUMENTS}


def write_shift_table(artifact: ArtifactFolder, name: str, table: pa.Table) -> list[str]:
    """Write table ``name`` into the artifact.

    Returns:
        Names of the files written.
    """
    artifact.write_table(f"{name}.parquet", table)
    if name not in CSV_TABLES:
        return [f"{name}.parquet"]
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    write_bytes(artifact.folder / f"{name}.csv", sink.getvalue().to_pybytes())
    return [f"{name}.parquet", f"{name}.csv"]


def read_shift_tables(folder: Path) -> tuple[Manifest, dict[str, list[dict[str, Any]]]]:
    """Manifest and all tables but `documents` (as lists of rows) of a shift artifact, verified.

    Raises:
        UnreadableInputError: No finished shifts there.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    return manifest, {name: read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES if name != _DOCUMENTS}


def read_document_values(folder: Path) -> tuple[Manifest, pa.Table]:
    """Manifest and table `documents` of a shift artifact, verified.

    Raises:
        UnreadableInputError: No finished shifts there, or of a version that did not write the table.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    if manifest.inputs.get("format_version") != FORMAT_VERSION:
        message = f"{folder} was made by another version, without what a study needs of every document: make it again with this program"
        raise UnreadableInputError(message)
    return manifest, read_table(folder / f"{_DOCUMENTS}.parquet")
