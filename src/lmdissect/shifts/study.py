"""Many runs -> one study artifact with every table of `lmdissect.formats.study_tables`.

What cannot be computed is left out and listed with its reason; one point that cannot be used never takes the others with it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.errors import LmdissectError, NothingToDoError
from lmdissect.formats.shift_tables import read_document_values
from lmdissect.formats.study_tables import SCHEMAS, STAGE, write_study_table
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import StudyGap, StudyRun
from lmdissect.shifts.capacity import capacity_rows
from lmdissect.shifts.changes import change_rows
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import Curve, curve_rows, find_curves
from lmdissect.shifts.fact_curves import fact_curve_rows, fact_curves
from lmdissect.shifts.fact_seeds import changed_word_shifts, facts_over_seeds
from lmdissect.shifts.fingerprint import fingerprint_rows
from lmdissect.shifts.independence import independence_rows
from lmdissect.shifts.interaction_seeds import interactions_over_seeds
from lmdissect.shifts.moved import moved_document_rows, moved_token_rows
from lmdissect.shifts.natural import natural_rows
from lmdissect.shifts.one_run import tables_of_one_run
from lmdissect.shifts.panel import Panel, read_panels
from lmdissect.shifts.pooled import point_rows, seed_rows
from lmdissect.shifts.position_seeds import cumulative_over_seeds, positions_over_seeds
from lmdissect.shifts.resampling import Floats
from lmdissect.shifts.run_tokens import RunTokens, TokenReader
from lmdissect.shifts.statements import write_statements
from lmdissect.shifts.tempo import tempo_rows
from lmdissect.store import Manifest, artifact_key, fingerprint, open_artifact, read_manifest
from lmdissect.store.fingerprint import canonical_json
from lmdissect.wording import format_count

__all__ = ["StudySummary", "measure_study"]

_FORMAT_VERSION = 5
_OF_RUNS = ("runs", "curves")
"""Tables whose gaps, known before anything is measured, each name a run or a step that takes no part."""

_TOKEN_TABLES = ("positions", "cumulative", "facts", "moved_tokens")

_Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StudySummary:
    """What was measured.

    Attributes:
        folder: The study artifact.
        reused: Whether a finished study of the same runs was found there.
        num_runs: Runs that take part.
        num_points: Points they make, counted once for every probe set.
        gaps: What is missing, and why.
        left_out: Those of ``gaps`` that name a run, or a step of one, which takes no part.
    """

    folder: Path
    reused: bool
    num_runs: int
    num_points: int
    gaps: tuple[StudyGap, ...]
    left_out: tuple[StudyGap, ...]


def measure_study(
    runs: Sequence[StudyRun],
    config: ShiftConfig,
    folder: Path,
    *,
    gaps: Sequence[StudyGap] = (),
    extra_tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    progress: Progress | None = None,
) -> StudySummary:
    """Compute every table of a study and write it.

    Args:
        runs: The runs; those of one point differ in the seed.
        config: Statistics settings.
        folder: Output folder.
        gaps: What is known to be missing before: runs that failed.
        extra_tables: Rows measured elsewhere, by table (``cloze``).
        progress: Where to report.

    Raises:
        NothingToDoError: No run can be used; the first reason is named.
        StaleArtifactError: The output folder holds a study of other runs or settings.
    """
    shown = progress or SilentProgress()
    extra = {name: [dict(row) for row in rows] for name, rows in (extra_tables or {}).items()}
    inputs = {
        "format_version": _FORMAT_VERSION,
        "runs": [_identify(run) for run in runs],
        "gaps": [asdict(gap) for gap in gaps],
        "extra_tables": fingerprint(extra),
    }
    settings = config.model_dump(mode="json")
    usable = (
        None if _is_made(folder, artifact_key(STAGE, settings, inputs)) else _usable_panels(runs)
    )  # before anything is written: a refusal leaves no trace
    with open_artifact(folder, stage=STAGE, config=settings, inputs=inputs) as artifact:
        if artifact.finished is not None:
            shown.say(f"{folder}: study measured before from the same runs; reused")
            return _summary(folder, artifact.finished, reused=True)
        for line in artifact.describe_damage():
            shown.say(line)
        panels, missing = usable or _usable_panels(runs)
        left_out = [*gaps, *missing]
        study = _Study(config, panels, left_out, shown)
        study.measure(extra)
        study.tables["runs"] = [_seen_from(folder, row) for row in study.tables["runs"]]
        tables = {name: pa.Table.from_pylist(study.tables[name], schema=schema) for name, schema in SCHEMAS.items()}
        files = [name for table, content in tables.items() for name in write_study_table(artifact, table, content)]
        listed_gaps = tuple(dict.fromkeys(study.gaps))
        counts = {"runs": len(study.tables["runs"]), "points": len(study.panels), "gaps": len(listed_gaps)}
        details = {**_details(study, listed_gaps, config), "left_out": [asdict(gap) for gap in dict.fromkeys(left_out) if gap.table in _OF_RUNS]}
        manifest = artifact.finish(counts=counts, details=details, files=files)
    return _summary(folder, manifest, reused=False)


def _is_made(folder: Path, key: str) -> bool:
    try:
        return read_manifest(folder).key == key
    except LmdissectError:
        return False


def _usable_panels(runs: Sequence[StudyRun]) -> tuple[list[Panel], list[StudyGap]]:
    """The points, and which runs take no part.

    Raises:
        NothingToDoError: None does.
    """
    panels, missing = read_panels(runs)
    if not panels:
        reason = missing[0].reason if missing else "there are no runs"
        message = f"no run can be used for a study ({reason})"
        raise NothingToDoError(message)
    return panels, missing


def _summary(folder: Path, manifest: Manifest, *, reused: bool) -> StudySummary:
    gaps, left_out = (tuple(StudyGap(**gap) for gap in manifest.details[name]) for name in ("unavailable", "left_out"))
    return StudySummary(folder, reused=reused, num_runs=manifest.counts["runs"], num_points=manifest.counts["points"], gaps=gaps, left_out=left_out)


def _identify(run: StudyRun) -> dict[str, Any]:
    """What of a run decides the study: its labels and the content of its shifts. Where folders lie decides nothing."""
    try:
        content = fingerprint({name: record.sha256 for name, record in read_manifest(run.shift_folder).files.items()})
    except LmdissectError as error:
        content = f"unreadable: {type(error).__name__}"
    labels = {name: value for name, value in asdict(run).items() if not name.endswith(("_folder", "_scores"))}
    has_scores = [run.base_scores is not None, run.tuned_scores is not None]
    return {**labels, "fields": canonical_json(run.fields), "writers": dict(run.writers), "shifts": content, "has_scores": has_scores}


def _details(study: "_Study", gaps: Sequence[StudyGap], config: ShiftConfig) -> dict[str, Any]:
    first = read_manifest(study.panels[0].runs[0].shift_folder).details
    return {
        "level": config.level,
        "num_draws": config.num_draws,
        "seed": config.seed,
        "ci_method": config.ci_method,
        "unavailable": [asdict(gap) for gap in gaps],
        "experiments": list(dict.fromkeys(panel.experiment for panel in study.panels)),
        "probes": list(dict.fromkeys(panel.probes for panel in study.panels)),
        "base_models": list(dict.fromkeys(run.base_model for panel in study.panels for run in panel.runs)),
        "max_tokens": first.get("max_tokens"),
        "natural_probes": list(dict.fromkeys(panel.probes for panel in study.panels if panel.runs[0].natural)),
        "notes": list(dict.fromkeys(note for panel in study.panels for note in _notes(panel))),
    }


def _notes(panel: Panel) -> list[str]:
    """Sentences that every report of these numbers must show."""
    return [note for run in panel.runs for note in read_manifest(run.shift_folder).details.get("notes", [])]


class _Study:
    """The tables while they are made."""

    def __init__(self, config: ShiftConfig, panels: list[Panel], gaps: Sequence[StudyGap], progress: Progress) -> None:
        self.tables: dict[str, _Rows] = {name: [] for name in SCHEMAS}
        self.panels = panels
        self.gaps = list(gaps)
        self._config = config
        self._progress = progress
        self._reader = TokenReader()
        self._curves = find_curves(panels)
        self._fact_shifts: dict[Panel, Mapping[str, Floats]] = {}
        """Shift on the changed words, by variant that changes facts, where the scores are at hand."""
        self._of_tokens: dict[tuple[Path, ...], tuple[dict[str, _Rows], list[StudyGap], Mapping[str, Floats]]] = {}
        """Tables of a point's tokens by the folders of its runs: two experiments that share runs share the work."""
        self._of_points: dict[tuple[Path, ...], tuple[_Rows, _Rows, list[StudyGap]]] = {}
        """Estimates of a point and of its seeds, likewise."""

    def measure(self, extra: Mapping[str, _Rows]) -> None:
        """Fill all tables."""
        self._check_points()
        self._check_experiments()
        self.tables["runs"] = [_run_row(panel, number) for panel in self._final() for number in range(len(panel.runs))]
        self._pool()
        with self._progress.task("measure points", len(self._final()), "points") as task:
            for panel in self._final():
                self._measure_point(panel)
                task.advance(1)
        on_words = fact_curves(self._curves, self._fact_shifts)
        self.tables["curves"] += fact_curve_rows(on_words, self.tables["facts"])
        self._measure_along(on_words)
        self.tables["independence"], missing = independence_rows(self.panels, self.tables["estimates"], self._config)
        self.gaps += missing
        self.tables["fingerprint"] = fingerprint_rows(self.panels, self.tables["estimates"], self.tables["curves"])
        self.tables["natural"] = natural_rows(self.panels, self.tables["estimates"])
        for name, rows in extra.items():
            self.tables[name] += rows
        self.tables["statements"] = write_statements(self.tables, self._config.level, self.gaps)

    def _final(self) -> list[Panel]:
        """Points at the end of their training."""
        return [panel for panel in self.panels if panel.step is None]

    def _check_points(self) -> None:
        """List what makes a mean or a curve stand on less than the reader may think: seeds and documents that some points lack."""
        groups: dict[tuple[str, str, bool], list[Panel]] = {}
        for panel in self.panels:
            groups.setdefault((panel.experiment, panel.probes, panel.step is None), []).append(panel)
        for panels in groups.values():
            all_seeds = sorted({seed for panel in panels for seed in panel.seeds})
            most = max(panels, key=lambda panel: len(panel.document_ids))
            for panel in panels:
                if absent := [seed for seed in all_seeds if seed not in panel.seeds]:
                    self._miss("seeds", panel, f"seeds {', '.join(map(str, absent))} are missing here; other points of the experiment have them")
                if lost := set(most.document_ids) - set(panel.document_ids):
                    self._miss("estimates", panel, f"{len(lost)} of the documents that other points have are missing here")
                if panel.left_out:
                    self._miss("estimates", panel, f"{format_count(len(panel.left_out), 'document')} that not every seed has: left out")
                for variant, count in panel.texts_left_out.items():
                    self._miss("estimates", panel, f"{format_count(count, 'text')} that not every seed has: left out", variant)
                self._compare_points(panel, most)

    def _check_experiments(self) -> None:
        """The same between experiments: the first point of each is held against the first one of the study that has its probe set."""
        first: dict[str, Panel] = {}
        seen: set[tuple[str, str]] = set()
        for panel in self.panels:
            other = first.setdefault(panel.probes, panel)
            if panel.experiment != other.experiment and (panel.experiment, panel.probes) not in seen:
                self._compare_points(panel, other, f"of the experiment {other.experiment}")
            seen.add((panel.experiment, panel.probes))

    def _compare_points(self, panel: Panel, other: Panel, named: str = "") -> None:
        """List what makes two points no fair comparison, though each stands by itself: other texts under one id, another tokenizer."""
        point = f"the point {other.label} {named}".strip()
        here, there = (_texts_of(found) for found in (panel, other))
        if differing := [key for key, digest in here.items() if there.get(key, digest) != digest]:
            text = f"{differing[0][0]}, {differing[0][1]}"
            reason = f"{len(differing)} texts (first: {text}) differ from those of {point}: the probe sets are not the same, compare with care"
            self._miss("runs", panel, reason)
        elif named and not here.keys() & there.keys():
            self._miss("runs", panel, f"no document is shared with {point}: the probe sets are not the same, compare with care")
        tokenizers = [read_manifest(found.runs[0].shift_folder).details["base_model"].get("tokenizer") for found in (panel, other)]
        if tokenizers[0] != tokenizers[1]:
            self._miss("runs", panel, f"another tokenizer than at {point}: numbers per token cannot be compared with it, those per byte can")

    def _miss(self, table: str, panel: Panel, reason: str, variant: str = "all") -> None:
        self.gaps.append(StudyGap(table, panel.experiment, panel.label, panel.probes, variant, reason))

    def _pool(self) -> None:
        """Estimates of every point and seed, and of every step that was measured on the way; curves of them, and what is asked of each curve."""
        rows_of: dict[Panel, _Rows] = {}
        with self._progress.task("pool seeds", len(self.panels), "points") as task:
            for panel in self.panels:
                rows, seeds, missing = self._pooled(panel)
                self.gaps += _named_like(panel, missing)
                rows_of[panel] = rows
                for variant in dict.fromkeys(row["variant"] for row in rows if row["ci_low"] == row["ci_high"]):
                    self._miss(
                        "estimates", panel, "every document has the same value under every seed: an interval of no width says nothing", variant
                    )
                if panel.step is None:
                    fields = canonical_json(dict(panel.fields))
                    self._add(panel, "estimates", [{"fields": fields, **row} for row in rows])
                    self._add(panel, "seeds", seeds)
                task.advance(1)
        self.tables["curves"] = curve_rows(self._curves, rows_of)
        self._measure_along(self._curves)

    def _measure_along(self, curves: Sequence[Curve]) -> None:
        """Every table that is computed for each curve."""
        for name, measure in {"changes": change_rows, "tempo": tempo_rows, "capacity": capacity_rows}.items():
            rows, missing = measure(curves, self._config)
            self.tables[name] += rows
            self.gaps += missing

    def _pooled(self, panel: Panel) -> tuple[_Rows, _Rows, list[StudyGap]]:
        key = _identity(panel)
        if key not in self._of_points:
            rows, missing = point_rows(panel, self._config)
            self._of_points[key] = (rows, seed_rows(panel, self._config), missing)
        return self._of_points[key]

    def _measure_point(self, panel: Panel) -> None:
        """Every table that is computed for each point by itself."""
        found, missing = interactions_over_seeds(panel, self._config)
        self._add(panel, "interactions", found)
        self.gaps += missing
        self._add(panel, "moved_documents", moved_document_rows(panel))
        key = _identity(panel)
        if key not in self._of_tokens:
            self._of_tokens[key] = self._token_tables(panel)
        tables, missing, self._fact_shifts[panel] = self._of_tokens[key]
        for name, rows in tables.items():
            self._add(panel, name, rows)
        self.gaps += _named_like(panel, missing)

    def _add(self, panel: Panel, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        point = {"experiment": panel.experiment, "point": panel.point, "probes": panel.probes}
        self.tables[table] += [{**point, **row} for row in rows]

    def _token_tables(self, panel: Panel) -> tuple[dict[str, _Rows], list[StudyGap], Mapping[str, Floats]]:
        """Tables of tokens of one point, what is missing, and its shifts on changed words. One seed: tables of its run; several: from the scores of all."""
        tables: dict[str, _Rows] = {}
        gaps: list[StudyGap] = []
        if len(panel.seeds) == 1:
            tables, gaps = tables_of_one_run(panel, self._config, self._reader)
        tokens = self._read_tokens(panel, gaps, _TOKEN_TABLES if len(panel.seeds) > 1 else ("moved_tokens",))
        if tokens is None:
            return tables, gaps, {}
        if len(panel.seeds) > 1:
            measures: dict[str, Callable[[Panel, Sequence[RunTokens], ShiftConfig], tuple[_Rows, list[StudyGap]]]] = {
                "positions": positions_over_seeds,
                "cumulative": cumulative_over_seeds,
                "facts": facts_over_seeds,
            }
            for name, measure in measures.items():
                tables[name], missing = measure(panel, tokens, self._config)
                gaps += missing
        tables["moved_tokens"] = moved_token_rows(panel, tokens, self._config)
        return tables, gaps, changed_word_shifts(panel, tokens)

    def _read_tokens(self, panel: Panel, gaps: list[StudyGap], tables: Sequence[str]) -> list[RunTokens] | None:
        tokens: list[RunTokens] = []
        for run in panel.runs:
            try:
                tokens.append(self._reader.read(run, strings_only=len(panel.seeds) == 1))
            except LmdissectError as error:
                reason = f"seed {run.seed}: {error}"
                gaps += [StudyGap(table, panel.experiment, panel.point, panel.probes, "all", reason) for table in tables]
                return None
        return tokens


def _texts_of(panel: Panel) -> dict[tuple[str, str], str]:
    """Hash of every text of a point's first run, by document and variant."""
    table = read_document_values(panel.runs[0].shift_folder)[1]
    names = zip(table["document_id"].to_pylist(), table["variant"].to_pylist(), strict=True)
    return dict(zip(names, table["text_hash"].to_pylist(), strict=True))


def _identity(panel: Panel) -> tuple[Path, ...]:
    return tuple(run.shift_folder.resolve() for run in panel.runs)


def _named_like(panel: Panel, gaps: Iterable[StudyGap]) -> list[StudyGap]:
    """Gaps of a point that may have been computed under another experiment's name."""
    return [StudyGap(gap.table, panel.experiment, panel.label, panel.probes, gap.variant, gap.reason) for gap in gaps]


def _seen_from(study: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table `runs` with its folders as seen from the study's: true wherever a command is run, and after all were moved together."""
    here = study.resolve()
    return {
        name: os.path.relpath(Path(value).resolve(), here) if value is not None and name.endswith(("_folder", "_scores")) else value
        for name, value in row.items()
    }


def _run_row(panel: Panel, number: int) -> dict[str, Any]:
    run = panel.runs[number]
    return {
        "experiment": run.experiment,
        "point": run.point,
        "probes": run.probes,
        "fields": canonical_json(dict(run.fields)),
        "seed": run.seed,
        "base_model": run.base_model,
        "tuned_model": run.tuned_model,
        "training_documents": run.training_documents,
        "num_target_tokens": run.num_target_tokens,
        "num_documents": len(panel.document_ids),
        "shift_folder": str(run.shift_folder),
        "base_scores": None if run.base_scores is None else str(run.base_scores),
        "tuned_scores": None if run.tuned_scores is None else str(run.tuned_scores),
    }
