"""The study of finished runs: what takes its folder's place and when, what is said on the terminal, and Ctrl-C."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from lmdissect.cli.study import study_lines
from lmdissect.errors import InterruptedRunError, NothingToDoError, OutputLockedError, StaleArtifactError
from lmdissect.formats.study_tables import read_study_tables
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.study import StudyOutcome, make_study
from lmdissect.progress import LineProgress, Task
from lmdissect.shifts import measure_shifts
from lmdissect.store import lock_folder
from score_tables import documents_from_gains, save_scores
from study_runs import CONFIG


def _compare(folder: Path, model: str, source: str = "p.jsonl") -> Path:
    base, tuned = documents_from_gains({"original": [0.3, 0.5, 0.4], "casual": [0.1, 0.2, 0.1]})
    for side, texts, name in (("base", base, "base"), ("tuned", tuned, model)):
        save_scores(folder / "scores" / side, texts, model=name, source=source)
    measure_shifts(folder / "scores" / "base", folder / "scores" / "tuned", CONFIG, folder)
    return folder


def _study(
    folders: Sequence[Path], out: Path, *, said: io.StringIO | None = None, replace: bool = False, stop: StopRequest | None = None
) -> StudyOutcome:
    return make_study(folders, out, config=CONFIG, replace=replace, progress=LineProgress(said or io.StringIO()), stop=stop)


def _models(study: Path) -> list[str]:
    return [row["tuned_model"] for row in read_study_tables(study)[1]["runs"]]


class _KilledProgress(LineProgress):
    """Ends the work in its middle."""

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        message = f"killed at {name}, {total} {unit}, {done} done"
        raise MemoryError(message)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Comparisons a and b, and the study of a."""
    folder = tmp_path_factory.mktemp("made")
    _compare(folder / "b", "m2")
    _study([_compare(folder / "a", "m1")], folder / "study")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_another_study_is_refused_by_the_names_of_its_runs(folder: Path) -> None:
    with pytest.raises(StaleArtifactError) as refused:
        _study([folder / "b"], folder / "study")
    message = str(refused.value)
    assert "is a study of 1 runs, and this one has 1 (gone: m1, seed 0 on p, new: m2, seed 0 on p)" in message
    assert message.endswith("choose another --out, or give --replace")
    assert _models(folder / "study") == ["m1"]


def test_a_study_is_replaced_when_the_new_one_is_measured(folder: Path) -> None:
    left = folder / ".tmp-study-of-a-killed-process"
    left.mkdir()
    outcome = _study([folder / "a", folder / "b"], folder / "study", replace=True)
    assert outcome.summary.folder == folder / "study"
    assert outcome.report == folder / "study" / "report.html"
    assert outcome.report.is_file()
    assert _models(folder / "study") == ["m1", "m2"]
    assert {entry.name for entry in folder.iterdir()} == {"a", "b", "study"}


def test_a_study_that_cannot_be_made_leaves_the_old_one(folder: Path) -> None:
    (folder / "b" / "documents.parquet").unlink()
    with pytest.raises(NothingToDoError):
        _study([folder / "b"], folder / "study", replace=True)
    assert (folder / "study" / "report.html").is_file()
    assert _models(folder / "study") == ["m1"]


def test_work_that_ends_while_a_study_is_replaced_leaves_the_old_one(folder: Path) -> None:
    with pytest.raises(MemoryError):
        make_study([folder / "b"], folder / "study", config=CONFIG, replace=True, progress=_KilledProgress(io.StringIO()))
    assert _models(folder / "study") == ["m1"]
    assert _study([folder / "a"], folder / "study").summary.reused


def test_a_study_that_another_process_writes_is_not_replaced(folder: Path) -> None:
    with lock_folder(folder / "study"), pytest.raises(OutputLockedError):
        _study([folder / "b"], folder / "study", replace=True)
    assert _models(folder / "study") == ["m1"]


def test_an_unfinished_study_does_not_stand_in_the_way(folder: Path) -> None:
    with pytest.raises(MemoryError):
        make_study([folder / "a"], folder / "new", config=CONFIG, progress=_KilledProgress(io.StringIO()))
    _study([folder / "b"], folder / "new")
    assert _models(folder / "new") == ["m2"]


def test_a_stop_ends_the_study_between_two_points(folder: Path) -> None:
    stop = StopRequest()
    stop.asked = True
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        _study([folder / "a", folder / "b"], folder / "study", replace=True, stop=stop)
    assert _models(folder / "study") == ["m1"]


def test_a_run_left_out_while_measuring_is_said_counted_and_not_shown(folder: Path) -> None:
    (folder / "a" / "documents.parquet").unlink()
    said = io.StringIO()
    outcome = _study([folder / "a", folder / "b", folder / "none"], folder / "new", said=said)
    lines = [line for line in said.getvalue().splitlines() if line.startswith("left out: ")]
    assert [line for line in lines if "none: no such folder" in line]
    assert [line for line in lines if line.startswith("left out: comparisons m1 p: seed 0: ") and "documents.parquet" in line]
    assert len(lines) == 2
    assert "packing the texts of comparisons, m2" in said.getvalue()
    assert any("study of 1 runs, 1 points; 2 of 3 runs left out; " in line for line in study_lines(outcome))


def test_the_study_itself_is_no_run_of_it(folder: Path) -> None:
    said = io.StringIO()
    assert _study([folder / "a", folder / "study"], folder / "study", said=said).summary.reused
    assert "left out" not in said.getvalue()
