"""What a run leaves behind: every point's rows in one table of each kind, curves over the fields that were varied, and a manifest written last.

    OUT/points.csv       one row per point and seed: its values, learning rate, documents, losses, and its folder in the store
    OUT/shifts.csv       every shift row of every point; likewise losses, gains, position, cumulative, fact_tokens, interactions (also .parquet)
    OUT/overlap.csv      probe documents found among the documents of a point, and what was done about them
    OUT/rates.csv        validation loss of every learning rate that was tried, and which was chosen
    OUT/failed.csv       what failed, why, and its log
    OUT/curve*.csv        shifts measured while training
    OUT/figures/         a figure for each varied field and probe set
    OUT/manifest.json    the experiment, its nodes, and the hash of every file

Nothing in them depends on when or how often the run was killed: durations are in the manifest alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from lmdissect.formats.shift_tables import CSV_TABLES
from lmdissect.pipeline.build import PointNodes, Study
from lmdissect.pipeline.points import table_cell
from lmdissect.pipeline.schedule import Failure
from lmdissect.pipeline.status import curve_folder, node_state
from lmdissect.store import Manifest, hash_file, read_json, read_manifest, read_table, versions, write_bytes, write_json, write_table

__all__ = ["MANIFEST", "collect_tables", "same_as_before", "write_tables"]

MANIFEST = "manifest.json"
_BEGUN = ".tables.json"
"""Every file that is there or about to be written, while tables are written and there is no manifest: whoever is killed then leaves no file unknown."""
_INT64_LIMIT = 2**63
_OVERLAPS = "overlap"
_PATH_COLUMNS = ("tuned_model",)
"""Columns that hold a path of the store; the point says which model it is."""


def collect_tables(study: Study, failures: Iterable[Failure]) -> dict[str, pa.Table]:
    """All tables by name, from what is finished in the store.

    Args:
        study: The experiment.
        failures: What failed in the last run.
    """
    fields = _FieldColumns(study)
    tables = {
        "points": fields.table([(nodes, _point_row(study, nodes)) for nodes in study.points]),
        "overlap": fields.table([(nodes, row) for nodes in study.points for row in _overlap_rows(study, nodes)]),
        "rates": _rate_table(study),
        "failed": _failed_table(study, failures),
    }
    for name in sorted(CSV_TABLES):
        parts = [
            fields.beside(nodes, role.removeprefix("shift "), read_table(Path(study.node(nodes, role).folder) / f"{name}.parquet"))
            for nodes in study.points
            for role in nodes.nodes
            if role.startswith("shift ") and node_state(study.node(nodes, role)) == "done"
        ]
        if parts:
            tables[name] = pa.concat_tables(parts)
    return tables | _curve_tables(study, fields)


def _curve_tables(study: Study, fields: "_FieldColumns") -> dict[str, pa.Table]:
    """Tables of what runs measured on their way, by name."""
    parts: dict[str, list[pa.Table]] = {}
    for nodes in study.points:
        node = study.node(nodes, "finetune")
        if not node.settings.get("measure") or node_state(node) != "done":
            continue
        for name in node.settings["measure"]["probes"]:
            for path in sorted((curve_folder(node.folder) / name).glob("*.parquet")):
                parts.setdefault(path.stem, []).append(fields.beside(nodes, name, read_table(path)))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


class _FieldColumns:
    """The columns that say which point a row is of: the varied fields, and the seed. A field of numbers stays one; anything else is text, in full."""

    def __init__(self, study: Study) -> None:
        self._fields = study.experiment.varied_fields()
        self._kinds = {field: _kind([nodes.point.fields[field] for nodes in study.points]) for field in self._fields}

    def beside(self, nodes: PointNodes, probes: str, table: pa.Table) -> pa.Table:
        """``table`` with these columns, and the name of its probe set, before its own."""
        values = self._values(nodes) | {"probes": probes}
        kept = table.drop_columns([name for name in _PATH_COLUMNS if name in table.column_names])
        columns = {name: pa.array([value] * len(table), type=self._type(name)) for name, value in values.items()}
        return pa.table({**columns, **{name: kept[name] for name in kept.column_names}})

    def table(self, rows: Sequence[tuple[PointNodes, Mapping[str, Any]]]) -> pa.Table:
        """Rows of points as one table."""
        if not rows:
            return pa.table({name: pa.array([], type=self._type(name)) for name in (*self._fields, "seed")})
        columns = {name: pa.array([self._values(nodes)[name] for nodes, _ in rows], type=self._type(name)) for name in (*self._fields, "seed")}
        others = pa.Table.from_pylist([dict(row) for _, row in rows])
        return pa.table({**columns, **{name: others[name] for name in others.column_names}})

    def _values(self, nodes: PointNodes) -> dict[str, Any]:
        shown = {field: self._shown(field, nodes.point.fields[field]) for field in self._fields}
        return {**shown, "seed": nodes.point.seed}

    def _shown(self, field: str, value: object) -> object:
        return value if value is None or self._kinds[field] is not pa.string() else table_cell(value)

    def _type(self, name: str) -> pa.DataType:
        return pa.int64() if name == "seed" else pa.string() if name == "probes" else self._kinds[name]


def _kind(values: Sequence[object]) -> pa.DataType:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return pa.bool_()
    if present and all(isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT64_LIMIT for value in present):
        return pa.int64()
    if present and all(isinstance(value, float) for value in present):
        return pa.float64()
    return pa.string()


def _point_row(study: Study, nodes: PointNodes) -> dict[str, Any]:
    tuned, drawn = _manifest(study, nodes, "finetune"), _manifest(study, nodes, "documents")
    rate = _manifest(study, nodes, "rate") if "rate" in nodes.nodes else None
    states = {role: node_state(study.node(nodes, role)) for role in nodes.nodes}
    details: Mapping[str, Any] = tuned.details if tuned else {}
    counts: Mapping[str, int] = drawn.counts if drawn else {}
    return {
        "finished": all(state == "done" for state in states.values()),
        "learning_rate": details.get("learning_rate"),
        "rate_at_edge": rate.details["at_edge"] if rate else None,
        "training_documents": counts.get("training"),
        "mixed_in_documents": counts.get("mixed_in"),
        "validation_documents": counts.get("validation"),
        "num_steps": details.get("num_steps"),
        "num_target_tokens": details.get("num_target_tokens"),
        "validation_loss_before_nats": details.get("held_out_loss_before_nats"),
        "validation_loss_after_nats": details.get("held_out_loss_after_nats"),
        "model": study.node(nodes, "finetune").name,
    }


def _manifest(study: Study, nodes: PointNodes, role: str) -> Manifest | None:
    node = study.node(nodes, role)
    return read_manifest(Path(node.folder)) if node_state(node) == "done" else None


def _overlap_rows(study: Study, nodes: PointNodes) -> list[dict[str, Any]]:
    """Probe documents among the documents of a point, for each probe set."""
    policy = nodes.point.settings.corpus.on_overlap
    drawn = _manifest(study, nodes, "documents")
    if drawn is None:
        return []
    if policy == "exclude_training":
        left_out = drawn.details["left_out"]  # by the hash of a set's texts: the artifact may be of an experiment that calls it otherwise
        hashes = nodes.content["content of"]["probes"]
        documents = drawn.counts["training"] + drawn.counts["validation"]
        return [
            {
                "probes": name,
                "policy": policy,
                "documents": documents,
                "probe_documents_found": None,
                "corpus_documents_left_out": len(left_out[hashes[name]["texts"]]),
            }
            for name in nodes.point.settings.probes
        ]
    rows = []
    for name in nodes.point.settings.probes:
        checked = _manifest(study, nodes, f"overlap {name}")
        if checked is not None:
            found, documents = checked.counts["probe_documents"], checked.counts["corpus_documents"]
            rows.append({"probes": name, "policy": policy, "documents": documents, "probe_documents_found": found, "corpus_documents_left_out": 0})
    return rows


def _rate_table(study: Study) -> pa.Table:
    schema = pa.schema(
        [
            ("rates_of", pa.string()),
            ("learning_rate", pa.float64()),
            ("validation_loss_nats", pa.float64()),
            ("failed", pa.string()),
            ("chosen", pa.bool_()),
            ("rate", pa.string()),
        ]
    )
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys(nodes.nodes["rate"] for nodes in study.points if "rate" in nodes.nodes):
        node = study.graph.nodes[key]
        if node_state(node) == "done":
            details = read_manifest(Path(node.folder)).details
            rows.extend(
                {"rates_of": node.label, **row, "chosen": row["learning_rate"] == details["learning_rate"], "rate": node.name}
                for row in details["rates"]
            )
    return pa.Table.from_pylist(rows, schema=schema)


def _failed_table(study: Study, failures: Iterable[Failure]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in ("kind", "what", "points", "reason", "log")])
    rows = []
    for failure in failures:
        points = [nodes.point.label for nodes in study.points if failure.node.key in nodes.nodes.values()]
        log = f"logs/{failure.node.log_name}" if failure.ran else None
        what = {"kind": failure.node.kind, "what": failure.node.label, "points": "; ".join(points)}
        rows.append({**what, "reason": failure.reason, "log": log})
    return pa.Table.from_pylist(rows, schema=schema)


def write_tables(
    study: Study,
    out: Path,
    failures: Sequence[Failure],
    *,
    source: str,
    durations_s: Mapping[str, float],
    figures: Callable[[Mapping[str, pa.Table]], Mapping[str, bytes]],
) -> dict[str, pa.Table]:
    """Write all tables and figures, and the manifest last.

    Args:
        study: The experiment.
        out: Its folder.
        failures: What failed.
        source: The experiment file.
        durations_s: Seconds by key of the nodes that were made.
        figures: Draws the figures of the tables: content by path below ``out``.

    Returns:
        The tables by name.
    """
    tables = collect_tables(study, failures)
    files: dict[str, bytes] = {f"{name}.csv": _csv(table) for name, table in tables.items()}
    files |= figures(tables)
    wanted = {*files, *(f"{name}.parquet" for name in tables)}
    earlier, seconds = _earlier_files(out), _earlier_seconds(out) | {study.graph.nodes[key].name: value for key, value in durations_s.items()}
    write_json(out / _BEGUN, {"files": sorted({*earlier, *wanted}), "seconds": seconds})
    (out / MANIFEST).unlink(missing_ok=True)
    for name in _stale_files(earlier, wanted):
        (out / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(out / name, content)
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    manifest = {
        "experiment": study.experiment.model_dump(mode="json"),
        "source": source,
        "nodes": _node_keys(study),
        "points": len(study.points),
        "failures": [{"node": failure.node.name, "reason": failure.reason} for failure in failures],
        "files": {name: hash_file(out / name) for name in sorted(wanted)},
        "seconds": seconds,
        "versions": versions(),
    }
    write_json(out / MANIFEST, manifest)
    (out / _BEGUN).unlink()
    return tables


def _node_keys(study: Study) -> list[dict[str, Any]]:
    return [{"point": nodes.point.label, **nodes.nodes} for nodes in study.points]


def _read_earlier(out: Path, name: str = MANIFEST) -> dict[str, Any]:
    path = out / name
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _earlier_files(out: Path) -> list[str]:
    """Files that earlier runs wrote, or were about to write."""
    return list(dict.fromkeys(name for source in (MANIFEST, _BEGUN) for name in _read_earlier(out, source).get("files", ())))


def _earlier_seconds(out: Path) -> dict[str, float]:
    return {name: value for source in (MANIFEST, _BEGUN) for name, value in _read_earlier(out, source).get("seconds", {}).items()}


def _stale_files(earlier: Iterable[str], wanted: set[str]) -> list[str]:
    """Files of an earlier run of this experiment that this one does not write."""
    return [name for name in earlier if name not in wanted and ".." not in name and not name.startswith("/")]


def same_as_before(study: Study, out: Path) -> bool:
    """Whether the tables in ``out`` were written from these very nodes, without a failure, and nobody touched them since."""
    earlier = _read_earlier(out)
    if earlier.get("nodes") != _node_keys(study) or earlier.get("failures") or earlier.get("experiment") != study.experiment.model_dump(mode="json"):
        return False
    return all((out / name).is_file() and hash_file(out / name) == digest for name, digest in earlier["files"].items())


def _csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    return bytes(sink.getvalue().to_pybytes())
