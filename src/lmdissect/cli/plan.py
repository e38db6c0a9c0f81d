"""`lmdissect plan`: what an experiment file would do, and what it would take; nothing is run."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options
from lmdissect.errors import UserInputError

if TYPE_CHECKING:
    from lmdissect.pipeline.build import Study
    from lmdissect.pipeline.graph import Node

EXAMPLE = "Example: lmdissect plan experiments/small/data_size.yaml --set corpus.size=500"

File = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment file (YAML). Paths in it are relative to the current folder.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Replace a setting of the file, as in --set corpus.size=100; may be repeated."),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Worker processes; they share the CPU threads, and have one GPU each where there are any.")
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="Measure this machine's speed in any case, or never. Left out: where it is not known yet (seconds, once).",
    ),
]

_TERA = 1e12


def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Experiment file (YAML). Paths in it are relative to the current folder.")
    ] = None,
    changes: Changes = None,
    workers: Workers = 1,
    threads: options.Threads = None,
    price_per_hour: Annotated[float | None, typer.Option("--price-per-hour", min=0, help="Price of an hour of all workers; gives the total.")] = None,
    teraflops: Annotated[
        float | None,
        typer.Option("--teraflops", min=0.001, help="Reckon with a worker that sustains this many 10^12 operations a second, not with this machine."),
    ] = None,
    *,
    calibrate: Calibrate = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, every node listed.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of experiment files and stop.")] = False,
) -> None:
    """Print what an experiment would do: what is done, stale (and why), missing; tokens, FLOPs, time, disk, money. The same as run --dry-run."""
    from lmdissect.pipeline.experiment import Experiment, read_experiment

    if schema:
        typer.echo(json.dumps(Experiment.model_json_schema(), indent=2))
        return
    if file is None:
        message = "give an experiment file: lmdissect plan FILE (or --schema for what it may hold)"
        raise UserInputError(message)
    from lmdissect.pipeline.plan import make_plan, plan_json, plan_lines
    from lmdissect.progress import choose_progress

    plan = make_plan(
        read_experiment(file, changes or ()),
        str(file),
        workers=workers,
        threads=num_threads(threads),
        calibrate=calibrate,
        price_per_hour=price_per_hour,
        flops_per_s=None if teraflops is None else teraflops * _TERA,
        progress=choose_progress(),
    )
    if as_json:
        typer.echo(json.dumps(plan_json(plan), indent=2))
        return
    for line in plan_lines(plan):
        typer.echo("".join(character if character.isprintable() else " " for character in line))


def num_threads(given: int | None) -> int:
    """CPU threads of all workers together: as given, or one for each core that this process may use."""
    return given or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else given or os.cpu_count() or 1


def cost_estimator(*, workers: int, threads: int) -> "Callable[[Study, list[Node]], Mapping[str, float]]":
    """What `run_experiment` asks for the cost of nodes: seconds where speeds were measured before, else operations."""

    def estimate(study: "Study", nodes: "list[Node]") -> Mapping[str, float]:
        from lmdissect.pipeline.estimate import estimate_costs
        from lmdissect.pipeline.inputs import Inputs
        from lmdissect.progress import SilentProgress

        share = max(1, threads // workers)
        costs, _, _ = estimate_costs(study, nodes, Inputs(lenient=True), threads=share, calibrate=False, progress=SilentProgress())
        if all(cost.seconds is not None for cost in costs.values()):
            return {key: cost.seconds or 0.0 for key, cost in costs.items()}
        return {key: cost.flops or 0.0 for key, cost in costs.items()}

    return estimate
