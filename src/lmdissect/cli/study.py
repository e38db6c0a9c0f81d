"""`lmdissect study`: finished runs -> one study, with every analysis and its report."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options

if TYPE_CHECKING:
    from lmdissect.pipeline.study import StudyOutcome

EXAMPLE = (
    "Example: lmdissect study runs/small-data_size runs/small-forgetting --out runs/study (two experiments in one), or "
    "lmdissect study runs/compare-a runs/compare-b --out runs/study (models that were compared one by one)"
)

_SHOWN = ("learned", "forgotten")


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Output folders of run, compare, cloze or demo.")],
    out: options.Out,
    scores: Annotated[Path | None, typer.Option("--scores", metavar="DIR", help="Where comparisons made with --scores keep theirs.")] = None,
    seed: options.Seed = 0,
    draws: options.Draws = 10_000,
    level: options.Level = 0.95,
    ci_method: options.CiMethod = "bca",
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Make a study of other runs or settings in --out anew.")] = False,
) -> None:
    """Put finished runs into one study: what was learned, what was forgotten, by factor, over data size, steps, rank, position, with intervals.

    Runs that differ in the training seed alone become one point; of compared models only those that lmdissect finetuned tell their seed, others stand alone.
    What cannot be used is listed with its reason, and the rest is analysed.
    """
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.study import make_study
    from lmdissect.progress import choose_progress
    from lmdissect.shifts import ShiftConfig

    config = options.build(ShiftConfig, num_draws=draws, level=level, seed=seed, ci_method=ci_method)
    with listen_for_interrupt() as stop:
        outcome = make_study(folders, out, config=config, scores=scores, replace=replace, progress=choose_progress(), stop=stop)
    for line in study_lines(outcome):
        typer.echo(line)


def study_lines(outcome: "StudyOutcome") -> Iterable[str]:
    """What was learned and forgotten, what is missing, and where the report is."""
    from lmdissect.formats.study_tables import read_study_tables

    summary = outcome.summary
    for row in read_study_tables(summary.folder)[1]["statements"]:
        if row["analysis"] in _SHOWN:
            yield options.printable(f"{row['verdict']}: {row['sentence']}")
    left_out = f"{outcome.num_left_out} of {summary.num_runs + outcome.num_left_out} runs left out; " if outcome.num_left_out else ""
    missing = f"{len(summary.gaps)} numbers not available, each with its reason in the report"
    yield f"study of {summary.num_runs} runs, {summary.num_points} points; {left_out}{missing}"
    yield f"report: {outcome.report}"
