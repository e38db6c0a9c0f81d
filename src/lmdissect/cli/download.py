"""`lmdissect download`: the public files of PubMed and C4."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lmdissect.errors import UserInputError

EXAMPLE = "Example: lmdissect download pubmed --files 1-3 --out downloads/pubmed && lmdissect corpus downloads/pubmed/*.xml.gz --out runs/pubmed"


class Collection(StrEnum):
    """What can be fetched."""

    PUBMED = "pubmed"
    C4 = "c4"


class PubmedPart(StrEnum):
    """PubMed's two folders."""

    BASELINE = "baseline"
    UPDATES = "updates"


class C4Split(StrEnum):
    """C4's two splits."""

    TRAIN = "train"
    VALIDATION = "validation"


def run(
    collection: Annotated[
        Collection, typer.Argument(help="pubmed: citations with abstracts, about 20 to 40 MB a file. c4: web text, about 320 MB a file.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files; run the same command again to go on.")],
    files: Annotated[
        str | None, typer.Option("--files", metavar="LIST", help="Numbers of files as in their names: 1-3,7 (C4 counts from 0). [default: all]")
    ] = None,
    part: Annotated[PubmedPart | None, typer.Option("--part", help="pubmed: the yearly baseline, or the daily updates. [default: baseline]")] = None,
    split: Annotated[C4Split | None, typer.Option("--split", help="c4: which split. [default: validation]")] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="A mirror. [default: NLM's server; the hub's allenai/c4, English]"),
    ] = None,
) -> None:
    """Fetch PubMed or C4: broken-off files are taken up again, every file is checked, and is there only when it is whole."""
    from lmdissect.corpus.download import DownloadRequest, download
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.progress import choose_progress

    if collection is Collection.PUBMED and split is not None:
        message = "--split is for c4: PubMed has --part"
        raise UserInputError(message)
    if collection is Collection.C4 and part is not None:
        message = "--part is for pubmed: C4 has --split"
        raise UserInputError(message)
    request = DownloadRequest(collection.value, (part or PubmedPart.BASELINE).value, (split or C4Split.VALIDATION).value, files, base_url)
    with listen_for_interrupt() as stop:
        summary = download(request, out, progress=choose_progress(), stop=stop)
    typer.echo(f"{summary.num_fetched} files fetched, {summary.num_present} were there already: {out}")
