"""`lmdissect shift`: two score folders -> factor shifts."""

from pathlib import Path
from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect shift --base runs/scores-base --tuned runs/scores-tuned --out runs/shift"


def run(
    base: Annotated[Path, typer.Option("--base", metavar="DIR", help="Scores of the base model.")],
    tuned: Annotated[Path, typer.Option("--tuned", metavar="DIR", help="Scores of the tuned model, same texts and settings.")],
    out: options.Out,
    seed: options.Seed = 0,
    draws: options.Draws = 10_000,
    level: options.Level = 0.95,
    ci_method: options.CiMethod = "bca",
) -> None:
    """Measure how far each factor moved between two models, with intervals and tests."""
    from lmdissect.cli.show import shift_lines
    from lmdissect.progress import choose_progress
    from lmdissect.shifts import ShiftConfig, measure_shifts

    config = options.build(ShiftConfig, num_draws=draws, level=level, seed=seed, ci_method=ci_method)
    summary = measure_shifts(base, tuned, config, out, progress=choose_progress())
    for line in shift_lines(summary.folder):
        typer.echo(line)
    typer.echo(f"shifts: {summary.folder}; write the report with: lmdissect report {summary.folder}")
