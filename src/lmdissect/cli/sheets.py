"""`lmdissect sheets`: pairs for human readers, and what their answers say."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmdissect.cli import options

if TYPE_CHECKING:
    from lmdissect.audit.ratings import Ratings
    from lmdissect.records import ProbeSet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Have people read pairs of a probe set, and measure whether they agree.")

_Draws = Annotated[int, typer.Option("--draws", min=100, help="Bootstrap draws of documents for the interval of alpha.")]
_Level = Annotated[float, typer.Option("--level", min=0.5, max=0.999, help="Level of the intervals.")]


@app.command("make", epilog="Example: lmdissect sheets make runs/probes --limit 50 --raters 2 --out runs/sheets")
def make(
    source: Annotated[
        str, typer.Argument(metavar="PROBES", help="Probe set in any form; of an audited folder, rejected texts are in the sheet too.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the forms; the same command again keeps what is there.")],
    limit: options.Limit = None,
    seed: options.Seed = 0,
    variant: Annotated[list[str] | None, typer.Option("--variant", metavar="NAME", help="Variant to read; may be repeated. [default: all]")] = None,
    raters: Annotated[int, typer.Option("--raters", min=1, max=99, help="Number of readers; each gets the same pairs in another order.")] = 2,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipes", metavar="FILE", help="Your own recipes: what the writers were asked; may be repeated.")
    ] = None,
    factor: options.Factors = None,
) -> None:
    """Write forms in which people judge pairs: an HTML page that works offline, and a CSV file, for each reader."""
    from lmdissect.audit.sheets import build_sheet, write_sheets
    from lmdissect.audit.spreadsheet import MAX_CELL_CHARS
    from lmdissect.recipes import read_recipes

    probe_set = _read_all(source, factor)
    sheet = build_sheet(probe_set, read_recipes(recipes or ()), limit=limit, seed=seed, variants=variant or ())
    outcome = write_sheets(sheet, out, num_raters=raters, seed=seed)
    typer.echo(f"{len(sheet.pairs)} pairs of {len({pair.document_id for pair in sheet.pairs})} documents for {raters} readers")
    if long := sum(max(len(pair.original), len(pair.text)) > MAX_CELL_CHARS for pair in sheet.pairs):
        typer.echo(f"{long} pairs have a text of more than {MAX_CELL_CHARS} characters, which Excel cuts: read those in the HTML form", err=True)
    typer.echo(f"unchanged, reused: {out}" if outcome == "reused" else f"{outcome}: {out}")
    typer.echo(f"when the answers are back, put them into {out} and run: lmdissect sheets read {out}")


def _read_all(source: str, factors: Sequence[str] | None) -> "ProbeSet":
    """The probe set with the texts that an audit rejected."""
    from lmdissect.probes import read_probe_set

    probe_set = read_probe_set(source, factors=options.parse_pairs("--factor", factors or [], "plain=style"), include_rejected=True)
    options.report_rejected(probe_set.rejected)
    return probe_set


@app.command("read", epilog="Example: lmdissect sheets read runs/sheets --probes runs/probes")
def read(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="The folder of the sheets with the answers in it, or the files of answers.")],
    probes: Annotated[
        Path | None, typer.Option("--probes", metavar="P", help="Audited probe folder: compare the readers with the automatic audit.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write ratings.parquet and agreement.json. [default: the sheets' folder]")
    ] = None,
    draws: _Draws = 10_000,
    level: _Level = 0.95,
    seed: options.Seed = 0,
    *,
    strict: options.Strict = False,
) -> None:
    """Read what people answered, and say how far they agree with one another and with the automatic audit."""
    from lmdissect.audit.ratings import read_ratings
    from lmdissect.audit.review import review_ratings, write_review
    from lmdissect.store import output_folder

    ratings = read_ratings(paths)
    options.report_rejected(ratings.rejected, strict=strict)
    for name in ratings.unanswered:
        typer.echo(f"no answers yet: {options.printable(name)}", err=True)
    verdicts = _verdicts(probes, ratings) if probes is not None else None
    review = review_ratings(ratings, verdicts, num_draws=draws, level=level, seed=seed)
    folder = output_folder(out or ratings.folder)
    write_review(ratings, review, folder)
    for line in _review_lines(review):
        typer.echo(line)
    typer.echo(f"written: {folder / 'ratings.parquet'}, {folder / 'agreement.json'}")


def _verdicts(folder: Path, ratings: "Ratings") -> dict[tuple[str, str], bool]:
    """What the audit of the probe folder says of the texts of the sheet.

    Raises:
        UserInputError: The folder holds no audit, or other texts than the sheet.
    """
    from lmdissect.errors import UserInputError
    from lmdissect.factors import ORIGINAL
    from lmdissect.probes import probe_folder, read_audit, read_probe_set
    from lmdissect.store import hash_text

    table = read_probe_set(str(folder), include_rejected=True).by_variant()
    ours = probe_folder(str(folder))
    audit = read_audit(ours) if ours is not None else None
    if audit is None:
        message = f"--probes {folder}: holds no audit; run lmdissect audit {folder} first, or leave --probes out"
        raise UserInputError(message)
    for pair in ratings.sheet.pairs:
        there = (table.get(ORIGINAL, {}).get(pair.document_id), table.get(pair.variant, {}).get(pair.document_id))
        if [None if text is None else hash_text(text) for text in there] != [pair.original_sha256, pair.text_sha256]:
            message = f"--probes {folder}: document {pair.document_id}, {pair.variant}: not the texts of the sheet; give the probe set that it was made from"
            raise UserInputError(message)
    return {(verdict.document_id, verdict.variant): verdict.accepted for verdict in audit.verdicts}


def _review_lines(review: Mapping[str, Any]) -> Iterator[str]:
    level = round(100 * review["level"])
    for rater in review["raters"]:
        pace = f", median {rater['median_seconds']:.0f} s a pair" if rater["median_seconds"] is not None else ""
        name = options.printable(rater["rater"])
        yield f"rater {name}: {rater['num_pairs']} of {review['num_pairs']} pairs, {rater['num_complete']} completely{pace}"
    yield f"agreement (Krippendorff's alpha, {level} % interval: {review['ci_method']['alpha']}, {review['num_draws']} draws; 1 perfect, 0 chance)"
    yield f"{'question':<18}{'variant':<22}{'texts':>5}  {'equal':>6}  {'metric':<9}alpha"
    yield from (_agreement_line(row) for row in review["criteria"])
    yield f"accepted by the majority of readers ({level} % Wilson interval)"
    yield from (f"{row['variant'] or 'all':<22}{_share(row)}{_tied(row['num_tied'])}" for row in review["acceptance"])
    if review["automatic"] is not None:
        yield "the automatic audit against the majority of readers (precision, recall: of its rejections)"
        yield f"{'variant':<22}{'both accept':>12}{'both reject':>12}{'only readers reject':>20}{'only audit rejects':>19}"
        for row in review["automatic"]:
            counts = f"{row['both_accept']:>12}{row['both_reject']:>12}{row['only_raters_reject']:>20}{row['only_checks_reject']:>19}"
            alpha = "not defined" if row["alpha"] is None else f"{row['alpha']:.2f}"
            yield f"{row['variant'] or 'all':<22}{counts}{_tied(row['num_tied'])}"
            yield f"{'':<22}precision {_share(row['precision'])}; recall {_share(row['recall'])}; alpha {alpha}"


def _agreement_line(row: Mapping[str, Any]) -> str:
    equal = "-" if row["percent_agreement"] is None else f"{row['percent_agreement']:.0f} %"
    alpha = row["alpha"][row["metric"]]
    interval = f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" if row["ci_low"] is not None else ""
    shown = f"{alpha:.2f}{interval}" if alpha is not None else "not defined"
    reason = f" ({row['reason']})" if row["reason"] else ""
    return f"{row['criterion']:<18}{row['variant'] or 'all':<22}{row['num_units']:>5}  {equal:>6}  {row['metric']:<9}{shown}{reason}"


def _share(row: Mapping[str, Any]) -> str:
    if row["share"] is None:
        return "none of 0"
    return f"{row['count']} of {row['total']} = {100 * row['share']:.0f} % [{100 * row['ci_low']:.0f}, {100 * row['ci_high']:.0f}]"


def _tied(num_tied: int) -> str:
    return f", {num_tied} tied and left out" if num_tied else ""
