"""Output folders of `lmdissect run`, `compare`, `cloze` and `demo` -> the runs of a study.

    OUT of a run        manifest.json names the experiment and the nodes of every point; shifts and scores lie in the experiment's store
    OUT of a compare    a shift artifact with its scores in OUT/scores; all compared models together make the experiment `comparisons`
    OUT of a cloze      rows of the table `cloze`; they take the name of the run that has the same tuned model, where there is one
    OUT of a demo       the two comparisons inside

What cannot be used (a folder that is gone or damaged, a run that failed or is not finished, a step that could not be measured) is listed with its reason, and
the rest is gathered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError, LmdissectError, UnreadableInputError
from lmdissect.formats.cloze_terms import STAGE as CLOZE_STAGE
from lmdissect.formats.cloze_terms import read_cloze
from lmdissect.formats.scores import STAGE as SCORE_STAGE
from lmdissect.formats.shift_tables import STAGE as SHIFT_STAGE
from lmdissect.pipeline.cloze_names import ClozeAnswers, name_cloze
from lmdissect.pipeline.comparisons import COMPARISONS, name_comparisons, read_training, source_name
from lmdissect.pipeline.experiment import CorpusSettings, Experiment, parse_experiment
from lmdissect.pipeline.graph import artifact_folder
from lmdissect.pipeline.points import Point, expand_points
from lmdissect.pipeline.status import curve_folder
from lmdissect.pipeline.tables import MANIFEST
from lmdissect.records import StudyGap, StudyRun
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.independence import corpus_name
from lmdissect.store import Manifest, read_json, read_manifest
from lmdissect.wording import format_level

__all__ = ["GatheredRuns", "gather_runs"]

_PEOPLE = "people"
"""What a probe set calls the writer of texts that no model wrote."""

_NATURAL_VARIANT = "plain"
_SINGLE_POINT = "single point"
_DEMO_PARTS = ("biomedical", "general")


@dataclass(slots=True)
class GatheredRuns:
    """What was found.

    Attributes:
        runs: Runs with finished shifts.
        gaps: What cannot take part, and why.
        answers: What `lmdissect cloze` measured.
        cloze: Its rows, under the names of the runs.
        refused: Why folders could not be gathered; each is among ``gaps`` too.
        compared: Which of ``runs`` are comparisons.
    """

    runs: list[StudyRun] = field(default_factory=list)
    gaps: list[StudyGap] = field(default_factory=list)
    answers: list[ClozeAnswers] = field(default_factory=list)
    cloze: list[dict[str, Any]] = field(default_factory=list)
    refused: list[LmdissectError] = field(default_factory=list)
    compared: list[int] = field(default_factory=list)


def gather_runs(folders: Sequence[Path], *, scores: Path | None = None, level: float = ShiftConfig().level) -> GatheredRuns:
    """All runs of some output folders. The same folder twice counts once; a run in two experiments counts in each.

    Args:
        folders: Output folders. One that is missing, unfinished, damaged or none of ours becomes a gap.
        scores: Where comparisons made with `--scores` keep theirs.
        level: Confidence level of the study; a cloze has the intervals it was measured with, and one of another level is left out.
    """
    gathered = GatheredRuns()
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    for folder in once.values():
        _try(gathered, folder, partial(_gather_folder, gathered, folder, scores))
    named = name_comparisons([gathered.runs[number] for number in gathered.compared])
    for number, run in zip(gathered.compared, named, strict=True):
        gathered.runs[number] = run
    for answers in gathered.answers:
        rows, gaps = name_cloze(answers, gathered.runs)
        why = _why_no_cloze(answers, rows, gathered.cloze, level)
        gathered.gaps += [StudyGap("cloze", row["experiment"], row["point"], row["probes"], "all", why) for row in rows[:1]] if why else gaps
        gathered.cloze += [] if why else rows
    return gathered


def _why_no_cloze(answers: ClozeAnswers, rows: Sequence[Mapping[str, Any]], taken: Sequence[Mapping[str, Any]], level: float) -> str:
    """Why a cloze takes no part; empty where it does."""
    found = answers.manifest.details["level"]
    if found != level:
        return f"its intervals are at {format_level(found)}, the study's at {format_level(level)}: measure it again with lmdissect cloze --level {level:g}"
    places = [{tuple(row[name] for name in ("experiment", "point", "probes")) for row in some} for some in (rows, taken)]
    return "another cloze folder of the same point and probes came before it: give one of them" if places[0] & places[1] else ""


def _try(gathered: GatheredRuns, folder: Path, gather: Callable[[], None]) -> None:
    """Gather, or list why that cannot be done: one folder never takes the others with it."""
    try:
        try:
            gather()
        except (KeyError, TypeError, AttributeError) as error:  # JSON of the right kind that lacks what its kind has
            message = f"{folder / MANIFEST} cannot be understood ({type(error).__name__}: {error}): run the command that made the folder again"
            raise DamagedArtifactError(message) from error
    except LmdissectError as error:
        gathered.refused.append(error)
        gathered.gaps.append(StudyGap("runs", str(folder), "", "", "all", str(error)))


def _gather_folder(gathered: GatheredRuns, folder: Path, scores: Path | None) -> None:
    if not folder.is_dir():
        message = f"{folder}: no such folder"
        raise UnreadableInputError(message)
    parts = [folder / part for part in _DEMO_PARTS]
    found = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if isinstance(found, dict) and "experiment" in found and "nodes" in found:
        _gather_experiment(gathered, folder, found)
    elif isinstance(found, dict) and found.get("stage") == SHIFT_STAGE:
        _gather_comparison(gathered, folder, scores)
    elif isinstance(found, dict) and found.get("stage") == CLOZE_STAGE:
        gathered.answers.append(ClozeAnswers(*read_cloze(folder)))
    elif found is None and any((part / MANIFEST).is_file() for part in parts):
        for part in parts:
            _try(gathered, part, partial(_gather_comparison, gathered, part, scores))
    else:
        message = f"{folder}: {_state(folder, found)}; a study is made from output folders of `lmdissect run`, `compare` and `cloze`"
        raise UnreadableInputError(message)


def _state(folder: Path, found: object) -> str:
    """What a folder that cannot be used is."""
    if (folder / "points.json").is_file():
        return "its run is not finished: run `lmdissect run` again"
    if found is None and (folder / "started.json").is_file():
        return "its work is not finished: run the command that was making it again"
    if isinstance(found, dict) and "stage" in found:
        return f"it holds an artifact of the stage '{found['stage']}', which is no run"
    return "it holds no run and no comparison"


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
            reason = f"{source}: its point '{nodes['point']}' is not one of its grid: run `lmdissect run` again"
            gathered.gaps.append(StudyGap("runs", experiment.name, str(nodes["point"]), "", "all", reason))
            continue
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
    """A comparison as it is; it gets its name beside the others."""
    manifest = read_manifest(folder)
    facts = _from_shift(manifest.details)
    sides = [
        next((found for place in _score_places(folder, side, key, scores) if (found := _finished_scores(place, key)) is not None), None)
        for side, key in zip(("base", "tuned"), manifest.details.get("scores_keys", ["", ""]), strict=True)
    ]
    gathered.compared.append(len(gathered.runs))
    gathered.runs.append(
        StudyRun(
            experiment=COMPARISONS,
            point=facts["tuned_model"],
            fields={},
            seed=0,
            probes=str(manifest.details["probes"]),
            **facts,
            **_training_facts(facts["tuned_model"]),
            shift_folder=folder,
            base_scores=sides[0],
            tuned_scores=sides[1],
        )
    )


def _score_places(folder: Path, side: str, key: str, scores: Path | None) -> list[Path]:
    return [folder / "scores" / side, *([scores / key[:16]] if scores is not None else [])]


def _training_facts(model: str) -> dict[str, Any]:
    """What a model folder that was finetuned here says of its training."""
    manifest = read_training(model)
    if manifest is None:
        return {}
    return {"num_target_tokens": manifest.details.get("num_target_tokens"), "training_documents": manifest.counts.get("documents")}


def _finished_scores(folder: Path, key: str = "") -> Path | None:
    """``folder``, if finished scores lie there; where a key is given, those that the shifts were made from, and no others that took their place."""
    try:
        manifest = read_manifest(folder)
    except LmdissectError:
        return None
    return folder if manifest.stage == SCORE_STAGE and key in ("", manifest.key) else None


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
        return corpus_name(source_name(corpus.probe_set), corpus.variant)
    return "+".join(source_name(name) for name in corpus.files)
