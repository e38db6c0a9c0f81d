"""`lmdissect demo`: the whole story on a laptop."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: lmdissect demo --out runs/demo"


def run(out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")] = Path("lmdissect-demo")) -> None:
    """Finetune a small embedded model on a few abstracts, and see what moved: topic, style or facts. About 4 minutes on 2 cores."""
    from lmdissect.cli.compare import print_outcome
    from lmdissect.cli.study import study_lines
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.demo import run_demo
    from lmdissect.progress import choose_progress

    with listen_for_interrupt() as stop:
        summary = run_demo(out, progress=choose_progress(), stop=stop)
    for title, outcome in (("biomedical probes", summary.learning), ("general probes", summary.forgetting)):
        typer.echo(f"\n{title}")
        print_outcome(outcome.folder, outcome.report)
    typer.echo("\nthe study of both")
    for line in study_lines(summary.study):
        typer.echo(line)
    typer.echo("\nOriginals and variants of the demo were written by a language model; open a report in a browser for the whole story.")
