"""`lmdissect report`: a shift folder -> one HTML file, figures and tables."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: lmdissect report runs/compare"


def run(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder made by shift or compare.")]) -> None:
    """Write report.html, figures/ and tables.tex into a shift folder."""
    from lmdissect.progress import choose_progress
    from lmdissect.report import write_report

    typer.echo(f"report: {write_report(folder, progress=choose_progress())}")
