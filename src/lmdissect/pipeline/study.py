"""Output folders of `lmdissect run` and `lmdissect compare` -> one study: its runs, its tables, its report.

    OUT of a run        manifest.json names the experiment and the nodes of every point; shifts and scores lie in the experiment's store
    OUT of a compare    a shift artifact with its scores in OUT/scores; all compared models together make the experiment `comparisons`
    OUT of a cloze      rows of the table `cloze`; they take the name of the run that has the same tuned model, where there is one
    OUT of a demo       the two comparisons inside

What cannot be used (a run that failed, a step that could not be measured, a folder that is gone) is listed with its reason, and the rest is analysed.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError, LmdissectError, NothingToDoError, StaleArtifactError, UnreadableInputError
from lmdissect.formats.cloze_terms import STAGE as CLOZE_STAGE
from lmdissect.formats.cloze_terms import read_cloze
from lmdissect.formats.scores import STAGE as SCORE_STAGE
from lmdissect.formats.shift_tables import STAGE as SHIFT_STAGE
from lmdissect.pipeline.experiment import CorpusSettings, Experiment, parse_experiment
from lmdissect.pipeline.graph import artifact_folder
from lmdissect.pipeline.points import Point, expand_points
from lmdissect.pipeline.status import curve_folder
from lmdissect.pipeline.tables import MANIFEST
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ExplorerSource, StudyGap, StudyRun
from lmdissect.report.study import write_study_report
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.independence import corpus_name
from lmdissect.shifts.study import StudySummary, measure_study
from lmdissect.store import Manifest, output_guard, read_json, read_manifest

__all__ = ["COMPARISONS", "GatheredRuns", "StudyOutcome", "choose_explorer", "gather_runs", "make_study"]

COMPARISONS = "comparisons"
"""Name of the experiment that compared models make together."""

_PEOPLE = "people"
"""What a probe set calls the writer of texts that no model wrote."""

_NATURAL_VARIANT = "plain"
_SINGLE_POINT = "single point"
_BETWEEN_MODELS = ", "
"""What `lmdissect cloze` puts between the names of several tuned models."""

_DEMO_PARTS = ("biomedical", "general")


@dataclass(slots=True)
class GatheredRuns:
    """What was found.

    Attributes:
        runs: Runs with finished shifts.
        gaps: What cannot take part, and why.
        cloze: Rows of the table `cloze`.
    """

    runs: list[StudyRun] = field(default_factory=list)
    gaps: list[StudyGap] = field(default_factory=list)
    cloze: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """Where a study is.

    Attributes:
        summary: What was measured.
        report: Its report.
    """

    summary: StudySummary
    report: Path


def make_study(
    folders: Sequence[Path],
    out: Path,
    *,
    config: ShiftConfig | None = None,
    scores: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> StudyOutcome:
    """Measure the study of all runs in ``folders`` and write its report; what is current is not measured again.

    Args:
        folders: Output folders of `lmdissect run`, `lmdissect compare` or `lmdissect demo`.
        out: Folder of the study.
        config: Statistics; default: the usual ones.
        scores: Where comparisons made with `--scores` keep theirs.
        replace: Make a study of other runs in ``out`` anew instead of refusing it.
        progress: Where to report.

    Raises:
        UnreadableInputError: A folder holds nothing of ours.
        NothingToDoError: No run has finished.
        LmdissectError: As the stages raise it.
    """
    shown = progress or SilentProgress()
    gathered = gather_runs(folders, scores=scores)
    for gap in gathered.gaps:
        shown.say(f"left out: {gap.experiment} {gap.point} {gap.probes}: {gap.reason}")
    if not gathered.runs:
        message = f"{', '.join(map(str, folders))}: no finished run to make a study of: run `lmdissect run` again, or see its failed.csv"
        raise NothingToDoError(message)
    settings = config or ShiftConfig()

    def measure() -> StudySummary:
        return measure_study(gathered.runs, settings, out, gaps=gathered.gaps, extra_tables={"cloze": gathered.cloze}, progress=shown)

    try:
        summary = measure()
    except StaleArtifactError:
        if not (replace and _is_study(out)):
            raise
        with output_guard(out):
            shutil.rmtree(out)
        summary = measure()
    return StudyOutcome(summary, write_study_report(out, explorer=choose_explorer(gathered.runs), progress=shown))


def _is_study(folder: Path) -> bool:
    path = folder / MANIFEST
    path = path if path.is_file() else folder / "started.json"
    found = read_json(path) if path.is_file() else {}
    return isinstance(found, dict) and found.get("stage") == "study"


def choose_explorer(runs: Sequence[StudyRun]) -> ExplorerSource | None:
    """The run whose documents the report shows token by token: of those with scores the one trained on most, first in order."""
    candidates = [run for run in runs if run.step is None and run.base_scores is not None and run.tuned_scores is not None and not run.natural]
    if not candidates:
        return None
    most = max(run.num_target_tokens or 0 for run in candidates)
    chosen = next(run for run in candidates if (run.num_target_tokens or 0) == most)
    assert chosen.base_scores is not None  # noqa: S101 - only such are candidates
    assert chosen.tuned_scores is not None  # noqa: S101
    label = f"{chosen.experiment}, {chosen.point}, seed {chosen.seed}, probes {chosen.probes}"
    return ExplorerSource(base_scores=chosen.base_scores, tuned_scores=chosen.tuned_scores, label=label)


def gather_runs(folders: Sequence[Path], *, scores: Path | None = None) -> GatheredRuns:
    """All runs of some output folders. The same folder twice counts once; a run in two experiments counts in each.

    Args:
        folders: Output folders.
        scores: Where comparisons made with `--scores` keep theirs.

    Raises:
        UnreadableInputError: A folder is missing or holds nothing of ours, or a run is not finished.
        DamagedArtifactError: A manifest cannot be understood.
    """
    gathered = GatheredRuns()
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        _gather_folder(gathered, folder, scores)
    gathered.cloze = _named_like_runs(gathered)
    return gathered


def _gather_folder(gathered: GatheredRuns, folder: Path, scores: Path | None) -> None:
    if not folder.is_dir():
        message = f"{folder}: no such folder"
        raise UnreadableInputError(message)
    found = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if isinstance(found, dict) and "experiment" in found and "nodes" in found:
        _gather_experiment(gathered, folder, found)
    elif isinstance(found, dict) and found.get("stage") == SHIFT_STAGE:
        _gather_comparison(gathered, folder, scores)
    elif isinstance(found, dict) and found.get("stage") == CLOZE_STAGE:
        _gather_cloze(gathered, folder)
    elif all((folder / part / MANIFEST).is_file() for part in _DEMO_PARTS):
        for part in _DEMO_PARTS:
            _gather_comparison(gathered, folder / part, scores)
    else:
        state = "its run is not finished: run `lmdissect run` again" if (folder / "points.json").is_file() else "it holds no run and no comparison"
        message = f"{folder}: {state}; a study is made from output folders of `lmdissect run`, `compare` and `cloze`"
        raise UnreadableInputError(message)


def _gather_experiment(gathered: GatheredRuns, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Runs of an experiment, from its manifest and its store."""
    source = str(folder / MANIFEST)
    experiment = parse_experiment(manifest["experiment"], source)
    points = {point.label: point for point in expand_points(experiment, source)}
    store = _find_store(folder, experiment, manifest)
    reasons = {failure["node"]: failure["reason"] for failure in manifest.get("failures", [])}
    for nodes in manifest["nodes"]:
        point = points.get(nodes["point"])
        if point is None:
            message = f"{source}: its point '{nodes['point']}' is not one of its grid: run `lmdissect run` again"
            raise DamagedArtifactError(message)
        _gather_point(gathered, experiment, point, _PointFolders(store, nodes), reasons)


@dataclass(frozen=True, slots=True)
class _PointFolders:
    """Where the artifacts of a point lie."""

    store: Path
    nodes: Mapping[str, str]

    def of(self, role: str) -> Path:
        kind = {"base": "score", "tuned": "score"}.get(role.partition(" ")[0], role.partition(" ")[0])
        return artifact_folder(self.store, kind, self.nodes[role])  # type: ignore[arg-type]

    def manifest(self, role: str) -> Manifest | None:
        """The finished artifact's manifest, or None."""
        try:
            return read_manifest(self.of(role)) if role in self.nodes else None
        except (UnreadableInputError, DamagedArtifactError):
            return None

    def failure(self, reasons: Mapping[str, str]) -> str | None:
        """Why a node of the point failed, the first that ran."""
        names = [f"{self.of(role).parent.name}/{self.of(role).name}" for role in self.nodes if role != "point"]
        return next((f"{name} failed: {reasons[name]}" for name in names if name in reasons), None)


def _gather_cloze(gathered: GatheredRuns, folder: Path) -> None:
    manifest, _, rows = read_cloze(folder)
    gathered.cloze += rows
    labels = {name: str(manifest.config[name]) for name in ("experiment", "point", "probes")}
    gathered.gaps += [StudyGap(table="cloze", variant=row["variant"], reason=row["reason"], **labels) for row in manifest.details["unavailable"]]


def _named_like_runs(gathered: GatheredRuns) -> list[dict[str, Any]]:
    """Rows of the table `cloze`, each under the name of the point that has all its tuned models."""
    point_of = {str(Path(run.tuned_model)): (run.experiment, run.point) for run in reversed(gathered.runs) if run.step is None}
    rows: list[dict[str, Any]] = []
    for row in gathered.cloze:
        points = {point_of.get(str(Path(model))) for model in row["point"].split(_BETWEEN_MODELS)}
        found = points.pop() if len(points) == 1 else None
        named = {"experiment": found[0], "point": found[1]} if found is not None else {}
        rows.append({**row, **named, "probes": _source_name(row["probes"])})
    return rows


def _find_store(folder: Path, experiment: Experiment, manifest: Mapping[str, Any]) -> Path:
    """The experiment's store: as it is written, from the folder the command is run in or from any above the output folder."""
    written = Path(experiment.store)
    parents = [Path(), *folder.resolve().parents] if not written.is_absolute() else [Path()]
    keys = [key for nodes in manifest["nodes"] for role, key in nodes.items() if role.startswith("shift ")]
    for parent in parents:
        if any(artifact_folder(parent / written, "shift", key).is_dir() for key in keys):
            return parent / written
    return written


def _gather_point(gathered: GatheredRuns, experiment: Experiment, point: Point, folders: _PointFolders, reasons: Mapping[str, str]) -> None:
    label = point.label.removesuffix(f"seed={point.seed}").strip() or _SINGLE_POINT
    drawn, tuned = folders.manifest("documents"), folders.manifest("finetune")
    common: dict[str, Any] = {
        "experiment": experiment.name,
        "point": label,
        "fields": dict(point.fields),
        "seed": point.seed,
        "training_corpus": _corpus_label(point.settings.corpus),
    }
    trained: dict[str, Any] = {
        "training_documents": drawn.counts.get("training") if drawn else None,
        "num_target_tokens": tuned.details.get("num_target_tokens") if tuned else None,
    }
    for name in point.settings.probes:
        shift = folders.manifest(f"shift {name}")
        if shift is None:
            reason = folders.failure(reasons) or f"{folders.of(f'shift {name}')} is not finished: run `lmdissect run` again"
            gathered.gaps.append(StudyGap("runs", experiment.name, label, name, "all", f"seed {point.seed}: {reason}"))
            continue
        gathered.runs.append(
            StudyRun(
                **common,
                **trained,
                **_from_shift(shift.details),
                probes=name,
                shift_folder=folders.of(f"shift {name}"),
                base_scores=_finished_scores(folders.of(f"base {name}")),
                tuned_scores=_finished_scores(folders.of(f"tuned {name}")),
            )
        )
    if point.settings.measure is not None and tuned is not None:
        for name in point.settings.measure.probes:
            _gather_steps(gathered, common, name, curve_folder(str(folders.of("finetune"))) / name)


def _gather_steps(gathered: GatheredRuns, common: Mapping[str, Any], probes: str, folder: Path) -> None:
    """What a run measured on its way. Step 0 is the base itself: every shift is 0 by definition, and nothing is estimated of it."""
    label = {"experiment": common["experiment"], "point": common["point"], "probes": probes, "variant": "all"}
    failed = read_json(folder / "failed_steps.json") if (folder / "failed_steps.json").is_file() else {}
    for step, reason in failed.items():
        gathered.gaps.append(StudyGap(table="curves", reason=f"seed {common['seed']}, step {step}: {reason}", **label))
    for path in sorted((folder / "steps").glob("[0-9]*")):
        step = int(path.name)
        if step == 0 or not (path / "step.json").is_file():
            continue
        try:
            facts, shift = read_json(path / "step.json"), read_manifest(path)
        except LmdissectError as error:
            gathered.gaps.append(StudyGap(table="curves", reason=f"seed {common['seed']}, step {step}: {error}", **label))
            continue
        gathered.runs.append(
            StudyRun(
                **common,
                **_from_shift(shift.details),
                training_documents=facts.get("num_trained_documents"),
                num_target_tokens=facts.get("num_trained_tokens"),
                probes=probes,
                step=step,
                shift_folder=path,
                base_scores=_finished_scores(folder / "steps" / "000000" / "scores"),
                tuned_scores=_finished_scores(path / "scores"),
            )
        )


def _gather_comparison(gathered: GatheredRuns, folder: Path, scores: Path | None) -> None:
    manifest = read_manifest(folder)
    details = manifest.details
    facts = _from_shift(details)
    probes = _source_name(details["probes"])
    taken = {(run.point, run.probes) for run in gathered.runs if run.experiment == COMPARISONS}
    point = facts["tuned_model"]
    number = 2
    name = probes
    while (point, name) in taken:
        name, number = f"{probes} ({number})", number + 1
    keys = details.get("scores_keys", ["", ""])
    sides = [
        next((found for place in _score_places(folder, side, key, scores) if (found := _finished_scores(place)) is not None), None)
        for side, key in zip(("base", "tuned"), keys, strict=True)
    ]
    gathered.runs.append(
        StudyRun(
            experiment=COMPARISONS,
            point=point,
            fields={},
            seed=0,
            probes=name,
            **facts,
            **_training_facts(Path(point)),
            shift_folder=folder,
            base_scores=sides[0],
            tuned_scores=sides[1],
        )
    )


def _score_places(folder: Path, side: str, key: str, scores: Path | None) -> list[Path]:
    return [folder / "scores" / side, *([scores / key[:16]] if scores is not None else [])]


def _training_facts(model: Path) -> dict[str, Any]:
    """What a model folder that was finetuned here says of its training."""
    try:
        manifest = read_manifest(model)
    except LmdissectError:
        return {}
    if manifest.stage != "finetune":
        return {}
    return {"num_target_tokens": manifest.details.get("num_target_tokens"), "training_documents": manifest.counts.get("documents")}


def _finished_scores(folder: Path) -> Path | None:
    try:
        return folder if read_manifest(folder).stage == SCORE_STAGE else None
    except LmdissectError:
        return None


def _from_shift(details: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a run that its shift artifact holds."""
    writers = dict(details["generators"])
    return {
        "base_model": str(details["base_model"]["reference"]),
        "tuned_model": str(details["tuned_model"]["reference"]),
        "writers": writers,
        "natural": _is_natural(details["variants"], writers),
    }


def _is_natural(variants: Mapping[str, Any], writers: Mapping[str, str]) -> bool:
    """Natural pairs: the only variant is `plain` and no writer is named, or people are named as the writers of every variant."""
    if set(variants) == {_NATURAL_VARIANT} and writers.get(_NATURAL_VARIANT) is None:
        return True
    return bool(variants) and all(writers.get(variant) == _PEOPLE for variant in variants)


def _corpus_label(corpus: CorpusSettings) -> str:
    if corpus.probe_set is not None:
        return corpus_name(_source_name(corpus.probe_set), corpus.variant)
    return "+".join(_source_name(name) for name in corpus.files)


def _source_name(source: str) -> str:
    """Short name of a file, folder or hub id: its last part without the endings."""
    first = source.partition(" with the control ")[0]
    name = first.rstrip("/").rpartition("/")[2] or first
    return name.partition(".")[0] or name
