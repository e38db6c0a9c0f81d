"""`lmdissect calibrate`: how far the numbers of this instrument can be trusted."""

from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect calibrate --out runs/calibration"


def run(
    out: options.Out,
    seed: options.Seed = 0,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="All parts in about a minute, too small to judge by. [default: the full calibration]")
    ] = False,
) -> None:
    """Test the instrument in a synthetic world where the truth is known: bias, coverage, leak, power, careless rewriters, tiny trained models."""
    from lmdissect.calibration import CalibrationConfig
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.calibrating import calibrate
    from lmdissect.progress import choose_progress

    config = CalibrationConfig.quick(seed) if quick else CalibrationConfig(seed=seed)
    with listen_for_interrupt() as stop:
        summary = calibrate(config, out, progress=choose_progress(), stop=stop)
    for goal in summary.goals:
        verdict = {True: "met", False: "MISSED", None: "not judged"}[goal["is_met"]]
        typer.echo(f"{verdict}: {goal['goal']}; measured: {goal['measured']}")
    typer.echo(f"calibration: {summary.folder}; open {summary.report} in a browser")
