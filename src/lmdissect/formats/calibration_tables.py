"""The calibration artifact: what the instrument says in a world where the truth is known.

A *trial* is one estimate of one probe set, beside the truth; every other table counts trials. Parquet, and all but `trials` as CSV too.

    trials     part (oracle | power | slips | trained), plant, size, slips, number (of the probe set, or of the trained model), variant, factor, reference,
               normalization, num_documents, estimate, ci_low, ci_high, p_value, p_holm, truth, world_shift (what the world's exact likelihoods say; of a trained
               model the truth is another: its own shift on fresh documents), truth_se (of a truth that was measured; null for an exact one)
    recovery   mean estimate beside the truth: bias, its standard error, and both as a share of the planted size
    coverage   how many intervals hold the truth; below and above: shares of the intervals that lie wholly on one side of it
    leak       how often a shift whose truth is 0 is called one, at the raw p and at the one adjusted by Holm
    power      how often a planted shift is found, against the number of probe documents
    slips      a careless rewriter: how much of one factor's shift shows in the variants of the others
    trained    tiny transformers: share of the planted shift that was learned, coverage of the model's own shift
    goals      name, goal, measured, is_met (null where nothing was measured), sentence

Rates have Clopper-Pearson intervals (ci_low, ci_high) at 95 %. `num_exact` counts trials in which every document had exactly the same value and no test was needed.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from lmdissect.store import ArtifactFolder, Manifest, read_artifact, read_table, write_bytes

__all__ = ["SCHEMAS", "STAGE", "TABLES", "read_calibration_tables", "write_calibration_table"]

STAGE = "calibration"

_KINDS = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_()}
_ROW = {"plant": "s", "variant": "s", "factor": "s", "reference": "s", "normalization": "s", "num_documents": "i", "num_trials": "i"}
_RATE = {"rate": "f", "ci_low": "f", "ci_high": "f"}


def _schema(**columns: str) -> pa.Schema:
    return pa.schema([(name, _KINDS[kind]) for name, kind in columns.items()])


SCHEMAS = {
    "trials": _schema(
        part="s",
        plant="s",
        size="s",
        slips="f",
        number="i",
        variant="s",
        factor="s",
        reference="s",
        normalization="s",
        num_documents="i",
        estimate="f",
        ci_low="f",
        ci_high="f",
        p_value="f",
        p_holm="f",
        truth="f",
        world_shift="f",
        truth_se="f",
    ),
    "recovery": _schema(**_ROW, truth="f", mean_estimate="f", bias="f", bias_se="f", bias_share="f", bias_share_se="f"),
    "coverage": _schema(**_ROW, truth="f", **_RATE, below="f", above="f", mean_half_width="f", num_exact="i"),
    "leak": _schema(**_ROW, **_RATE, rate_holm="f", num_exact="i"),
    "power": _schema(size="s", **_ROW, truth="f", document_sd="f", needed_documents="f", **_RATE, coverage="f", mean_half_width="f"),
    "slips": _schema(slips="f", **_ROW, planted="f", truth="f", mean_estimate="f", **_RATE, coverage="f"),
    "trained": _schema(**_ROW, world_shift="f", mean_truth="f", sd_truth="f", learned="f", mean_estimate="f", rate="f", ci_low="f", ci_high="f"),
    "goals": _schema(name="s", goal="s", measured="s", is_met="b", sentence="s"),
}
"""Columns of every table."""

TABLES = tuple(SCHEMAS)


def write_calibration_table(artifact: ArtifactFolder, name: str, rows: list[dict[str, Any]] | pa.Table) -> list[str]:
    """Write table ``name`` into the artifact.

    Returns:
        Names of the files written.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=SCHEMAS[name])
    artifact.write_table(f"{name}.parquet", table)
    if name == "trials":
        return [f"{name}.parquet"]
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    write_bytes(artifact.folder / f"{name}.csv", sink.getvalue().to_pybytes())
    return [f"{name}.parquet", f"{name}.csv"]


def read_calibration_tables(folder: Path) -> tuple[Manifest, dict[str, list[dict[str, Any]]]]:
    """Manifest and all tables but `trials` (as lists of rows) of a calibration, verified.

    Raises:
        UnreadableInputError: No finished calibration there.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    return manifest, {name: read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES if name != "trials"}
