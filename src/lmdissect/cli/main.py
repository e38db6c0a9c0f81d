"""Entry point: one application, one place where errors become one line and an exit code."""

import os
import signal
import sys
import warnings
from types import FrameType
from typing import NoReturn

import typer

from lmdissect import __version__
from lmdissect.cli import (
    audit,
    calibrate,
    cloze,
    compare,
    corpus,
    demo,
    download,
    finetune,
    options,
    plan,
    probes,
    report,
    rewrite,
    run,
    score,
    sheets,
    shift,
    show,
    study,
    view,
)
from lmdissect.errors import InterruptedRunError, LmdissectError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # with markup, "[default: ...]" and "id[@revision]" would be taken for tags and vanish
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What did finetuning change in a language model: knowledge, or only a preference for a topic and a style? With error bars.",
    epilog="Start with: lmdissect demo",
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if value:
        typer.echo(f"lmdissect {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."),  # noqa: FBT001, FBT003
) -> None:
    pass


app.command("demo", epilog=demo.EXAMPLE)(demo.run)
app.command("compare", epilog=compare.EXAMPLE)(compare.run)
app.command("cloze", epilog=cloze.EXAMPLE)(cloze.run)
app.command("run", epilog=run.EXAMPLE)(run.run)
app.command("plan", epilog=plan.EXAMPLE)(plan.run)
app.command("study", epilog=study.EXAMPLE)(study.run)
app.command("download", epilog=download.EXAMPLE)(download.run)
app.command("corpus", epilog=corpus.EXAMPLE)(corpus.run)
app.command("rewrite", epilog=rewrite.EXAMPLE)(rewrite.run)
app.command("audit", epilog=audit.EXAMPLE)(audit.run)
app.command("finetune", epilog=finetune.EXAMPLE)(finetune.run)
app.command("score", epilog=score.EXAMPLE)(score.run)
app.command("shift", epilog=shift.EXAMPLE)(shift.run)
app.command("report", epilog=report.EXAMPLE)(report.run)
app.command("show", epilog=show.EXAMPLE)(show.run)
app.command("calibrate", epilog=calibrate.EXAMPLE)(calibrate.run)
app.command("view", epilog=view.EXAMPLE)(view.run)
app.add_typer(probes.app, name="probes")
app.add_typer(sheets.app, name="sheets")


def main() -> None:
    """Run the command line; every expected error is one line on standard error and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # third-party notices; ours are errors or lines of the report
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except LmdissectError as error:
        rank = os.environ.get("RANK", "0")  # torchrun's: of several processes each says what ended it
        process = "" if rank == "0" else f" (process {rank})"
        print(f"lmdissect{process}: {options.printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    message = "interrupted; run the same command again to go on from the last finished piece"
    raise InterruptedRunError(message)
