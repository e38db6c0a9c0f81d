"""`lmdissect view`: a study or a comparison, served to this machine's own browser."""

from pathlib import Path
from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect view runs/study"


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study, or of a comparison made by compare.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 for a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,  # noqa: FBT002 - an option
) -> None:
    """Serve a report with every run, document and token, on 127.0.0.1 alone, until Ctrl-C."""
    import webbrowser

    from lmdissect.errors import InterruptedRunError
    from lmdissect.pipeline.viewing import ViewServer, open_view

    view = open_view(folder)
    for line in view.not_shown:
        typer.echo(options.printable(f"no texts of {line}"), err=True)
    server = ViewServer(view, port)
    typer.echo(f"serving {folder} at {server.url} (Ctrl-C ends it)")
    if browser:
        webbrowser.open(server.url)
    try:
        server.serve()
    except (InterruptedRunError, KeyboardInterrupt):
        typer.echo("stopped")
