"""`lmdissect run`: an experiment file -> every point of its grid, and the tables."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options, plan
from lmdissect.errors import RunFailedError, UserInputError

if TYPE_CHECKING:
    from lmdissect.pipeline.executors import Executor
    from lmdissect.pipeline.run import ExperimentSummary

EXAMPLE = "Example: lmdissect run experiments/small/data_size.yaml --workers 2"

_SHOWN_FAILURES = 10


def run(
    file: plan.File,
    changes: plan.Changes = None,
    workers: plan.Workers = 1,
    threads: options.Threads = None,
    executor: Annotated[str, typer.Option("--executor", help="local (worker processes) or ray (tasks on a Ray cluster).")] = "local",
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster to use. [default: one started on this machine]")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing, as lmdissect plan.")] = False,
    calibrate: plan.Calibrate = None,
    study: Annotated[bool, typer.Option("--study/--no-study", help="Make a study of all runs at the end, OUT/study with its report.")] = True,
) -> None:
    """Run an experiment: finetune, score and compare at every point of its grid, and make a study of it. Run again, it does what is missing.

    With --executor ray the cluster decides how many nodes run at once; on one that is started here, a node gets --threads / --workers CPUs.
    """
    if dry_run:
        plan.run(file, changes, workers, threads, calibrate=calibrate)
        return
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.experiment import read_experiment
    from lmdissect.pipeline.run import run_experiment
    from lmdissect.progress import choose_progress

    experiment = read_experiment(file, changes or ())
    make = _executor(executor, address, workers=workers, threads=plan.num_threads(threads))
    estimate = plan.cost_estimator(workers=workers, threads=plan.num_threads(threads))
    with listen_for_interrupt() as stop:
        summary = run_experiment(experiment, str(file), make, estimate=estimate, study_wanted=study, progress=choose_progress(), stop=stop)
    _report(summary)


def _executor(name: str, address: str | None, *, workers: int, threads: int) -> "Callable[[Path], Executor]":
    if name == "local":
        from lmdissect.pipeline.executors import LocalExecutor

        if address is not None:
            message = "--address belongs to --executor ray"
            raise UserInputError(message)
        return lambda logs: LocalExecutor(workers=workers, threads=threads, logs=logs, devices=_devices())
    if name != "ray":
        message = f"--executor {name}: choose local or ray"
        raise UserInputError(message)
    from lmdissect.pipeline.ray_executor import RayExecutor

    num_cpus = max(1, threads // workers) if address is None else None  # the threads of a node decide the last bits of its numbers
    return lambda logs: RayExecutor(address, logs=logs, num_cpus=num_cpus)


def _devices() -> list[str]:
    """CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:number] if given else [str(index) for index in range(number)]


def _report(summary: "ExperimentSummary") -> None:
    for line in summary.lines:
        typer.echo(options.printable(line) if not line.startswith(" ") and "  " not in line else line)
    for warning in summary.warnings:
        typer.echo(f"note: {options.printable(warning)}", err=True)
    if summary.reused:
        typer.echo(f"nothing to do: all {summary.num_points} points were finished before; tables: {summary.out}")
    else:
        typer.echo(f"{summary.num_points} points, {summary.num_made} pieces of work done; tables: {summary.out}")
    if summary.report is not None:
        typer.echo(f"report: {summary.report}")
    if not summary.failures:
        return
    ran = [failure for failure in summary.failures if failure.ran]
    for failure in ran[:_SHOWN_FAILURES]:
        log = summary.out / "logs" / failure.node.log_name
        typer.echo(options.printable(f"failed: {failure.node.kind} {failure.node.label}: {failure.reason} (log: {log})"), err=True)
    not_run = len(summary.failures) - len(ran)
    after = f", and {not_run} that need them were not run" if not_run else ""
    message = f"{len(ran)} pieces of work failed{after}: {summary.out / 'failed.csv'} has the reasons; mend them and run the same command again"
    raise RunFailedError(message)
