"""One experiment, from its file to its tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from lmdissect.errors import InterruptedRunError, LmdissectError, UnusableOutputError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.curves import draw_curves, text_tables
from lmdissect.pipeline.executors import Executor
from lmdissect.pipeline.experiment import Experiment
from lmdissect.pipeline.graph import Node
from lmdissect.pipeline.inputs import Inputs
from lmdissect.pipeline.rates import read_choice
from lmdissect.pipeline.schedule import Failure, ScheduleSummary, missing_nodes, run_nodes
from lmdissect.pipeline.stale import changes_of_points, note_points, read_points
from lmdissect.pipeline.status import node_state
from lmdissect.pipeline.study import make_study
from lmdissect.pipeline.tables import same_as_before, write_tables
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import lock_folder, output_folder

__all__ = ["STUDY", "ExperimentSummary", "run_experiment"]

STUDY = "study"
"""Folder of the study inside the folder of the tables."""


@dataclass(frozen=True, slots=True)
class ExperimentSummary:
    """What a run did.

    Attributes:
        out: Folder of the tables.
        reused: Whether everything was there before, tables included.
        num_points: Points, seeds counted.
        num_made: Pieces of work done this time.
        failures: What failed, or could not be run for that.
        warnings: What the user should know before reading the tables.
        lines: The curves as text.
        report: Report of the study of all its runs; None where it was not wanted or could not be made (``warnings`` says why).
    """

    out: Path
    reused: bool
    num_points: int
    num_made: int
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]
    lines: tuple[str, ...]
    report: Path | None


def run_experiment(
    experiment: Experiment,
    source: str,
    make_executor: Callable[[Path], Executor],
    *,
    estimate: Callable[[Study, list[Node]], Mapping[str, float]] | None = None,
    study_wanted: bool = True,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> ExperimentSummary:
    """Do what is missing of an experiment and write its tables. Run again, it does only what is missing; when nothing is, nothing.

    Args:
        experiment: The experiment.
        source: Its file, for messages.
        make_executor: Gives the executor, told the folder of the logs; called only when there is work.
        estimate: Estimated cost of the missing nodes by key, for the time left.
        study_wanted: Whether to make the study of all runs at the end (OUT/study).
        progress: Where to report.
        stop: Once asked, the work in hand ends at its next safe point.

    Raises:
        UserInputError: The grid or an input cannot be used; nothing was run.
        OutputLockedError: Another run is writing the same tables.
        InterruptedRunError: ``stop`` was asked.
    """
    shown = progress or SilentProgress()
    study = build_study(experiment, source, Inputs())
    out = experiment.out_folder
    _refuse_foreign(out)
    with lock_folder(output_folder(out)):
        missing = missing_nodes(study)
        if not missing and same_as_before(study, out):
            return _summary(study, _make_study(experiment, shown, stop, wanted=study_wanted), reused=True, num_made=0, failures=())
        changes = changes_of_points(study, {node.key for node in missing}, read_points(out))
        note_points(study, out)
        schedule = ScheduleSummary()
        if missing:
            shown.say(f"{experiment.name}: {len(study.points)} points, {len(missing)} pieces of work to do")
            for line, number in changes.items():
                shown.say(f"changed since the last run: {line} ({number} points)")
            costs = estimate(study, missing) if estimate is not None else {}
            executor = make_executor(out / "logs")
            try:
                asked = StopRequest() if stop is None else stop
                schedule = run_nodes(study, missing, executor, costs=costs, describe=partial(_last_line, out / "logs"), progress=shown, stop=asked)
            finally:
                executor.close()
        failures = tuple(schedule.failures.values())
        tables = write_tables(study, out, failures, source=source, durations_s=schedule.done, figures=lambda tables: _figures(study, tables))
        made = _make_study(experiment, shown, stop, wanted=study_wanted)
    return _summary(study, made, reused=False, num_made=len(schedule.done), failures=failures, tables=tables)


def _make_study(experiment: Experiment, progress: Progress, stop: StopRequest | None, *, wanted: bool) -> Path | str | None:
    """The report of the study of all runs, or why there is none: the tables stand without it. None where it is not wanted."""
    if not wanted:
        return None
    out = experiment.out_folder
    try:
        return make_study([out], out / STUDY, config=experiment.shift, replace=True, progress=progress, stop=stop).report
    except InterruptedRunError:
        raise
    except LmdissectError as error:
        return f"the tables are finished, but the study could not be made: {error}"


def _last_line(logs: Path, node: Node) -> str:
    """What a node's log says last."""
    try:
        lines = (logs / node.log_name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()) and not (out / "points.json").is_file():
        message = f"{out} is not empty and holds no experiment: set `out` to a new or empty folder"
        raise UnusableOutputError(message)


def _figures(study: Study, tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    return draw_curves(tables, study.experiment.analysed_fields(), study.experiment.varied_fields())


def _summary(
    study: Study, made: Path | str | None, *, reused: bool, num_made: int, failures: tuple[Failure, ...], tables: Mapping[str, pa.Table] | None = None
) -> ExperimentSummary:
    experiment = study.experiment
    lines = text_tables(tables, experiment.analysed_fields(), experiment.varied_fields()) if tables else []
    warnings = (*_warnings(study), *([made] if isinstance(made, str) else []))
    report = made if isinstance(made, Path) else None
    return ExperimentSummary(experiment.out_folder, reused, len(study.points), num_made, failures, warnings, tuple(lines), report)


def _warnings(study: Study) -> tuple[str, ...]:
    """Learning rates chosen at the edge of their grid."""
    rates = dict.fromkeys(nodes.nodes["rate"] for nodes in study.points if "rate" in nodes.nodes)
    nodes = [study.graph.nodes[key] for key in rates]
    choices = {node.label: read_choice(Path(node.folder)) for node in nodes if node_state(node) == "done"}
    return tuple(f"{label}: {warning}" for label, choice in choices.items() if (warning := choice.warning()) is not None)
