"""Study artifact -> report files beside it, `report.json` last. A report that is current is left as it is."""

from pathlib import Path
from typing import Any

from lmdissect.errors import MismatchedScoresError, NothingToDoError
from lmdissect.formats.study_tables import STAGE
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ExplorerSource
from lmdissect.report.write import hash_sources, is_current, record_report
from lmdissect.store import fingerprint, hash_file, lock_folder, read_artifact, write_bytes, write_text

__all__ = ["write_study_report"]

_PAGE = "report.html"
_LATEX = "tables.tex"
_FIGURES = "figures"
_LATEX_ROWS = 60


def write_study_report(study_folder: Path, *, explorer: ExplorerSource | None = None, progress: Progress | None = None) -> Path:
    """Write the report of the study in ``study_folder`` next to its tables.

    Makes report.html (one file that opens offline), figures/NAME.png, .svg and .pdf, tables.tex, and, last, report.json with the hash of every file. Where
    report.json matches the tables, this program and the files, nothing is written.

    Args:
        study_folder: A finished study artifact.
        explorer: The run whose texts the page shows token by token; None for a page without texts.
        progress: Where to tell what happens.

    Returns:
        Path of report.html.

    Raises:
        UnreadableInputError: No finished study in ``study_folder``, or no finished scores in the explorer's folders.
        DamagedArtifactError: A table is missing or changed.
        MissingDependencyError: The plotly package is not installed.
        UnusableOutputError: The folder cannot be written.
        OutputLockedError: Another process is writing the folder.
        OutOfSpaceError: The disk is full.
    """
    shown = progress or SilentProgress()
    inputs = _describe_inputs(study_folder, explorer)
    key = fingerprint(inputs)
    if is_current(study_folder, key):
        shown.say(f"{study_folder / _PAGE}: current, nothing rewritten")
        return study_folder / _PAGE
    with lock_folder(study_folder):
        names = _write_files(study_folder, explorer, shown)
        record_report(study_folder, key, inputs, names)
    shown.say(f"{study_folder / _PAGE}: written")
    return study_folder / _PAGE


def _describe_inputs(folder: Path, explorer: ExplorerSource | None) -> dict[str, Any]:
    """What the report is a function of."""
    manifest = read_artifact(folder, STAGE)
    chosen = None
    if explorer is not None:
        chosen = [explorer.label, *(hash_file(path / "manifest.json") for path in (explorer.base_scores, explorer.tuned_scores))]
    return {
        "template_hash": hash_sources(),
        "manifest_key": manifest.key,
        "manifest_sha256": hash_file(folder / "manifest.json"),
        "explorer": chosen,
    }


def _write_files(folder: Path, explorer: ExplorerSource | None, progress: Progress) -> list[str]:
    """Write every file but the record.

    Returns:
        Names of the files, relative to ``folder``.
    """
    from lmdissect.report.study.content import read_study_content  # noqa: PLC0415 - matplotlib and jinja2 are slow to load, and a current report needs neither
    from lmdissect.report.study.drawing import draw_files  # noqa: PLC0415
    from lmdissect.report.study.estimates import overview_chart  # noqa: PLC0415
    from lmdissect.report.study.packing import PackedTexts, pack_texts  # noqa: PLC0415
    from lmdissect.report.study.page import PageParts, write_study_page  # noqa: PLC0415
    from lmdissect.report.study.sections import build_sections  # noqa: PLC0415
    from lmdissect.report.study.tables import write_table_latex  # noqa: PLC0415
    from lmdissect.report.study.texts import read_run_texts  # noqa: PLC0415

    content = read_study_content(folder)
    sections, overview = build_sections(content), overview_chart(content)
    charts = [*([overview] if overview else []), *(chart for section in sections for chart in section.charts if chart.is_static)]
    names = [_PAGE, _LATEX]
    with progress.task("draw figures", len(charts), "figures") as task:
        for chart in charts:
            for kind, file in draw_files(chart).items():
                names.append(f"{_FIGURES}/{chart.name}.{kind}")
                write_bytes(folder / names[-1], file)
            task.advance(1)
    texts: PackedTexts | None = None
    no_texts = "No run was chosen to show token by token."
    if explorer is not None:
        progress.say(f"{folder}: packing the texts of {explorer.label}")
        try:
            texts = pack_texts(read_run_texts(explorer))
        except (MismatchedScoresError, NothingToDoError) as error:  # the study's numbers stand; only its texts cannot be shown
            no_texts = str(error)
            progress.say(no_texts)
    tables = [table for section in sections for table in section.tables]
    head = r"% Needs \usepackage{booktabs}; include with \input{tables.tex}. The first rows of every table; all rows are in the CSV files."
    write_text(folder / _LATEX, "\n\n".join([head, *(write_table_latex(table, table.rows[:_LATEX_ROWS]) for table in tables)]) + "\n")
    write_text(folder / _PAGE, write_study_page(PageParts(content, overview, sections, texts, no_texts)))
    return names
