"""Calibrate the instrument: many probe sets with a known truth through the real pairing and estimating, and tiny models through training and scoring too.

OUT/*.parquet, *.csv, manifest.json   calibration artifact; chunks of finished trials while it is being made
OUT/models/base                       the tiny base model
OUT/work                              what the trained part is working on; gone when it is done
OUT/calibration.html, figures/        the page
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.calibration import PARTS, CalibrationConfig, Grammar, Job, base_world, check_goals, list_jobs, tally_trials
from lmdissect.errors import InterruptedRunError
from lmdissect.formats.calibration_tables import SCHEMAS, STAGE, write_calibration_table
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.trained_world import PRETRAINING, TUNING
from lmdissect.pipeline.trials import compare_with_disk, simulate_trials
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import ArtifactFolder, fingerprint, open_artifact, read_manifest, read_table, versions

__all__ = ["CalibrationSummary", "calibrate"]

_TITLES = {
    "oracle": "probe sets of known truth",
    "power": "probe sets of several sizes",
    "slips": "probe sets of careless rewriters",
    "trained": "trained models",
}


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """Where the outcome is.

    Attributes:
        folder: The calibration artifact.
        report: The page.
        reused: Whether a finished calibration was found there.
        goals: Rows of the table `goals`.
    """

    folder: Path
    report: Path
    reused: bool
    goals: Sequence[dict[str, Any]]


def calibrate(config: CalibrationConfig, folder: Path, *, progress: Progress | None = None, stop: StopRequest | None = None) -> CalibrationSummary:
    """Run every part, count, and write the page. Finished pieces are reused, so a killed calibration goes on.

    Args:
        config: Sizes and seed.
        folder: Output folder.
        progress: Where to report.
        stop: Looked at after every piece.

    Raises:
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds a calibration of other settings.
        RunFailedError: Two ways to the same number disagree.
    """
    shown, stopped = progress or SilentProgress(), StopRequest() if stop is None else stop
    inputs = {"world": _describe_world(config), "lmdissect": versions()["lmdissect"]}
    with open_artifact(folder, stage=STAGE, config=config.model_dump(mode="json"), inputs=inputs) as artifact:
        reused = artifact.finished is not None
        if not reused:
            for line in artifact.describe_damage():
                shown.say(line)
            _make(artifact, config, shown, stopped)
    from lmdissect.report.calibration import write_calibration_report  # noqa: PLC0415 - matplotlib

    report = write_calibration_report(folder, progress=shown)
    return CalibrationSummary(folder, report, reused, read_table(folder / "goals.parquet").to_pylist())


def _describe_world(config: CalibrationConfig) -> str:
    """Hash of everything that decides what a trial is but its settings."""
    base = base_world(Grammar())
    beliefs = {name: getattr(base, name).tolist() for name in ("topic_prior", "style_prior", "topic_classes", "style_classes", "hand", "beliefs")}
    return fingerprint(
        {"grammar": asdict(base.grammar), "base": beliefs, "jobs": [asdict(job) for job in list_jobs(config)], "training": [PRETRAINING, TUNING]}
    )


def _make(artifact: ArtifactFolder, config: CalibrationConfig, progress: Progress, stop: StopRequest) -> None:
    jobs = list_jobs(config)
    work = artifact.folder / "work"
    disk_nats = compare_with_disk(config, work / "disk")
    stored = artifact.chunks()
    for part in PARTS:
        numbers = [number for number, job in enumerate(jobs) if job.part == part]
        todo = [number for number in numbers if number not in stored]
        if not todo:
            continue
        make = _maker(part, config, artifact.folder, progress)
        done = sum(jobs[number].num_sets for number in numbers if number in stored)
        with progress.task(
            _TITLES[part], sum(jobs[number].num_sets for number in numbers), "models" if part == "trained" else "sets", done=done
        ) as task:
            for number in todo:
                stored[number] = artifact.write_chunk(number, pa.Table.from_pylist(list(make(jobs[number])), schema=SCHEMAS["trials"]))
                task.advance(jobs[number].num_sets)
                if stop:
                    message = f"stopped; {len(stored)} of {len(jobs)} pieces are kept, and the same command goes on from there"
                    raise InterruptedRunError(message)
    shutil.rmtree(work, ignore_errors=True)
    _finish(artifact, config, [read_table(stored[number]) for number in range(len(jobs))], disk_nats)


def _maker(part: str, config: CalibrationConfig, folder: Path, progress: Progress) -> Callable[[Job], Iterator[dict[str, Any]]]:
    if part != "trained":
        return partial(simulate_trials, config=config)
    from lmdissect.pipeline.trained_trials import TrainedTrials  # noqa: PLC0415 - torch

    return TrainedTrials(config, folder, progress).run


def _finish(artifact: ArtifactFolder, config: CalibrationConfig, chunks: Sequence[pa.Table], disk_nats: float) -> None:
    trials = pa.concat_tables(chunks)
    tables = tally_trials(trials, config)
    tables["goals"] = check_goals(tables, config)
    files = [name for table, rows in {"trials": trials, **tables}.items() for name in write_calibration_table(artifact, table, rows)]
    details = {"level": config.level, "disk_difference_nats": disk_nats, "base_model": _base_facts(artifact.folder / "models" / "base")}
    artifact.finish(counts={"trials": trials.num_rows, "pieces": len(chunks)}, details=details, files=files)


def _base_facts(folder: Path) -> dict[str, Any] | None:
    """What the tiny base model's manifest tells; None where someone removed the model after the last trial."""
    return read_manifest(folder).details if (folder / "manifest.json").is_file() else None
