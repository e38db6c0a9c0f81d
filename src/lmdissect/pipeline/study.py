"""Finished runs -> one study: its tables and its report, in a folder that may hold an older one.

gathering.py      output folders -> runs
comparisons.py    names of models that were compared one by one
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lmdissect.errors import InterruptedRunError, LmdissectError, NothingToDoError, StaleArtifactError
from lmdissect.formats.study_tables import STAGE
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.comparisons import COMPARISONS
from lmdissect.pipeline.gathering import GatheredRuns, gather_runs
from lmdissect.pipeline.tables import MANIFEST
from lmdissect.progress import Progress, SilentProgress, Task
from lmdissect.records import ExplorerSource, StudyGap, StudyRun
from lmdissect.report.study import write_study_report
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.study import StudySummary, measure_study
from lmdissect.store import lock_folder, read_json, read_table, replace_folder

__all__ = ["StudyOutcome", "choose_explorer", "make_study"]

_STARTED = "started.json"
_NAMED_RUNS = 3


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """Where a study is.

    Attributes:
        summary: What was measured.
        report: Its report.
        num_left_out: Runs that take no part; a folder that could not be gathered counts as one.
    """

    summary: StudySummary
    report: Path
    num_left_out: int


def make_study(
    folders: Sequence[Path],
    out: Path,
    *,
    config: ShiftConfig | None = None,
    scores: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> StudyOutcome:
    """Measure the study of all runs in ``folders`` and write its report; what is current is not measured again.

    Args:
        folders: Output folders of `lmdissect run`, `lmdissect compare`, `lmdissect cloze` or `lmdissect demo`; ``out`` itself is passed over.
        out: Folder of the study.
        config: Statistics; default: the usual ones.
        scores: Where comparisons made with `--scores` keep theirs.
        replace: Make a study of other runs in ``out`` anew instead of refusing it; the old one stays until the new one is measured.
        progress: Where to report.
        stop: Once asked, the work ends after the point or figure in hand.

    Raises:
        UnreadableInputError: The only folder given holds nothing that could be used.
        NothingToDoError: No run has finished.
        StaleArtifactError: ``out`` holds another study, and ``replace`` is off.
        InterruptedRunError: ``stop`` was asked.
        LmdissectError: As the stages raise it.
    """
    shown = _Stoppable(progress or SilentProgress(), StopRequest() if stop is None else stop)
    settings = config or ShiftConfig()
    gathered = gather_runs([folder for folder in folders if folder.resolve() != out.resolve()], scores=scores, level=settings.level)
    said = [_gap_line("left out", gap) for gap in gathered.gaps]
    for line in said:
        shown.say(line)
    if not gathered.runs:
        raise _nothing_to_do(folders, gathered)

    def measure(folder: Path) -> StudySummary:
        return measure_study(gathered.runs, settings, folder, gaps=gathered.gaps, extra_tables={"cloze": gathered.cloze}, progress=shown)

    try:
        summary = measure(out)
    except StaleArtifactError as error:
        if not _is_study(out):
            raise
        if not replace and (out / MANIFEST).is_file():
            raise StaleArtifactError(_compare_studies(out, gathered.runs, error), out) from error
        summary = _measure_beside(out, measure)
    for line in dict.fromkeys([*(_gap_line("left out", gap) for gap in summary.left_out), *_notes(summary)]):
        if line not in said:
            shown.say(line)
    report = write_study_report(out, explorer=choose_explorer(_taking_part(gathered.runs, out)), progress=shown)
    num_left_out = sum(run.step is None for run in gathered.runs) - summary.num_runs + sum(gap.table == "runs" for gap in gathered.gaps)
    return StudyOutcome(summary, report, num_left_out)


def _nothing_to_do(folders: Sequence[Path], gathered: GatheredRuns) -> LmdissectError:
    if len(folders) == len(gathered.refused) == 1:
        return gathered.refused[0]
    named = ", ".join(map(str, folders))
    reason = f" ({gathered.gaps[0].reason})" if gathered.gaps else ""
    return NothingToDoError(f"{named}: no finished run to make a study of{reason}: run `lmdissect run` again, or see its failed.csv")


def _gap_line(head: str, gap: StudyGap) -> str:
    """A gap for the terminal. A reason that begins with its folder names it already."""
    labels = " ".join(label for label in (gap.experiment, gap.point, gap.probes) if label)
    return f"{head}: {gap.reason}" if not gap.point and gap.reason.startswith(gap.experiment) else f"{head}: {labels}: {gap.reason}"


def _notes(summary: StudySummary) -> list[str]:
    """What makes runs that take part no fair comparison, and seeds that some points lack."""
    return [_gap_line("note", gap) for gap in summary.gaps if gap.table in ("runs", "seeds") and gap not in summary.left_out]


def _is_study(folder: Path) -> bool:
    path = folder / MANIFEST
    path = path if path.is_file() else folder / _STARTED
    found = read_json(path) if path.is_file() else {}
    return isinstance(found, dict) and found.get("stage") == STAGE


def _measure_beside(out: Path, measure: Callable[[Path], StudySummary]) -> StudySummary:
    """Measure in a folder beside ``out``, then let it take the place of the study there: whatever ends this process, one of the two is whole."""
    with lock_folder(out):
        prefix = f".tmp-{out.name}-"
        for left in out.parent.glob(f"{prefix}*"):  # of a process that was killed: the lock says that none is at work
            shutil.rmtree(left, ignore_errors=True)
        beside = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        try:
            summary = measure(beside)
            replace_folder(beside, out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return with_fields(summary, folder=out)


def _compare_studies(out: Path, runs: Sequence[StudyRun], error: StaleArtifactError) -> str:
    """What the study in ``out`` is of, where its runs are others; else what the store says."""
    listed = read_json(out / MANIFEST)["inputs"].get("runs", [])
    there, here = ({_run_name(run): None for run in found if run["step"] is None} for found in (listed, [_labels(run) for run in runs]))
    changes = {"gone": [name for name in there if name not in here], "new": [name for name in here if name not in there]}
    parts = [f"{kind}: {'; '.join(names[:_NAMED_RUNS])}{_and_more(names)}" for kind, names in changes.items() if names]
    if not parts:
        return f"{error}, or give --replace"
    return f"{out} is a study of {len(there)} runs, and this one has {len(here)} ({', '.join(parts)}): choose another --out, or give --replace"


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - _NAMED_RUNS} more" if len(names) > _NAMED_RUNS else ""


def _labels(run: StudyRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("experiment", "point", "seed", "probes", "step")}


def _run_name(run: Mapping[str, Any]) -> str:
    experiment = "" if run["experiment"] == COMPARISONS else f"{run['experiment']}, "
    return f"{experiment}{run['point']}, seed {run['seed']} on {run['probes']}"


def _taking_part(runs: Sequence[StudyRun], study: Path) -> list[StudyRun]:
    """Those of ``runs`` that are in the study's table."""
    names = ("experiment", "point", "seed", "probes")
    rows = {tuple(row[name] for name in names) for row in read_table(study / "runs.parquet").select(names).to_pylist()}
    return [run for run in runs if tuple(getattr(run, name) for name in names) in rows]


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


class _Stoppable:
    """A `Progress` whose tasks end once the user asked to stop."""

    def __init__(self, progress: Progress, stop: StopRequest) -> None:
        self._progress, self._stop = progress, stop

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        return _StoppableTask(self._progress.task(name, total, unit, done=done), self._stop)

    def say(self, message: str) -> None:
        self._progress.say(message)


class _StoppableTask:
    def __init__(self, task: Task, stop: StopRequest) -> None:
        self._task, self._stop = task, stop

    def advance(self, amount: int) -> None:
        self._task.advance(amount)
        if self._stop:
            message = "stopped while the study was made: run the same command again; finished runs are kept"
            raise InterruptedRunError(message)

    def note(self, text: str) -> None:
        self._task.note(text)

    def __enter__(self) -> Self:
        self._task.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._task.__exit__(kind, error, trace)
