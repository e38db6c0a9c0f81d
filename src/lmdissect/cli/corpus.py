"""`lmdissect corpus`: files -> a corpus."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from lmdissect.cli import options
from lmdissect.errors import UserInputError

EXAMPLE = "Example: lmdissect corpus baseline/*.xml.gz updates/*.xml.gz --min-chars 500 --split train=0.9 --split probe=0.1 --out runs/pubmed"

_NOTES = {
    "without abstract": "citations without an Abstract",
    "superseded": "citations that a later version or file revises",
    "deleted": "citations that a file takes back",
    "language not wanted": "not in a language that --language names",
    "language not known": "of unknown language, with --language",
    "too short": "shorter than --min-chars",
    "too long": "longer than --max-chars",
    "no match": "without a match of --match",
    "excluded": "with a match of --exclude",
    "near-duplicate": "near-duplicates of a document that is kept",
    "not in the sample": "not among the --num-documents of smallest rank",
    "in no split": "in no split: the shares of --split leave room",
    "set aside": "set aside: damaged, or their id was seen before",
}


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="PubMed XML (baseline, update, efetch), JSON lines (C4's too), CSV, TSV, text, Parquet, all but Parquet also .gz; a folder made by this"
            " command; or hub:OWNER/NAME[@REVISION][:[CONFIG/]SPLIT]. Their order has no meaning.",
        ),
    ],
    out: options.Out,
    min_chars: Annotated[int | None, typer.Option("--min-chars", metavar="N", help="Leave shorter texts out.")] = None,
    max_chars: Annotated[int | None, typer.Option("--max-chars", metavar="N", help="Leave longer texts out.")] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="Keep documents of this language (PubMed: eng); may be repeated. [default: any]"),
    ] = None,
    match: Annotated[str | None, typer.Option("--match", metavar="REGEX", help="Keep texts in which this is found; (?i) ignores case.")] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", metavar="REGEX", help="Leave texts out in which this is found.")] = None,
    drop_near_duplicates: Annotated[
        float | None,
        typer.Option(
            "--drop-near-duplicates",
            metavar="SHARE",
            help="Leave a text out that shares this much of its word 5-grams with a kept one; 0.8 is usual.",
        ),
    ] = None,
    num_documents: Annotated[
        int | None,
        typer.Option("--num-documents", metavar="N", help="Keep N documents by seeded hash of the id; fewer are inside more. [default: all]"),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split", metavar="NAME=SHARE", help="A split by hash of the id, whatever else is in the corpus; read it as DIR#NAME. May be repeated."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that read files. [default: one per processor]")] = None,
    seed: options.Seed = 0,
    *,
    with_title: Annotated[bool, typer.Option("--with-title", help="Put the title on a line before the abstract; else it is a column only.")] = False,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="Put section labels (METHODS: ) into the text; else they are a column only.")
    ] = False,
    strict: options.Strict = False,
) -> None:
    """Make a corpus: one folder of Parquet files with ids, texts and what is known of them.

    Nothing is left out but citations without an abstract, unless asked for. Of a citation the last version counts, and deleted ones go. Use the folder as
    --corpus DIR in finetune, compare and probes check, with splits as DIR#train.
    """
    from lmdissect.corpus import SET_ASIDE, CorpusConfig, build_corpus
    from lmdissect.corpus.pool import use_less_memory
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.progress import choose_progress

    config = options.build(
        CorpusConfig,
        with_title=with_title,
        with_labels=with_labels,
        min_chars=min_chars,
        max_chars=max_chars,
        languages=tuple(language or ()),
        match=match,
        exclude=exclude,
        drop_near_duplicates=drop_near_duplicates,
        num_documents=num_documents,
        split=_shares(split or ()),
        seed=seed,
    )
    use_less_memory()
    with listen_for_interrupt() as stop:
        summary = build_corpus(sources, config, out, num_workers=workers, strict=strict, progress=choose_progress(), stop=stop)
    options.report_rejected(summary.rejected, where=f"{summary.folder}/{SET_ASIDE} lists all")
    for line in _summary_lines(summary.counts):
        typer.echo(line)
    typer.echo(f"unchanged, reused: {summary.folder}" if summary.reused else f"corpus: {summary.folder}")


def _shares(splits: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for name, share in options.parse_pairs("--split", splits, "train=0.9").items():
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] <= 1:
            message = f"--split {name}={share}: the share is not a number above 0 and up to 1; write for example --split train=0.9"
            raise UserInputError(message)
    return shares


def _summary_lines(counts: Mapping[str, int]) -> list[str]:
    """What became of the records, in words."""
    lines = [f"{counts['records']} records -> {counts['documents']} documents"]
    lines += [f"  left out: {counts[reason]} {words}" for reason, words in _NOTES.items() if counts.get(reason)]
    lines += [f"  {name}: {count} documents" for name, count in counts.items() if name.startswith("split ")]
    if counts.get("not English"):
        lines.append(f"  kept: {counts['not English']} articles in another language than English (their abstracts are mostly English)")
    return lines
