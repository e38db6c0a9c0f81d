"""Shift artifact -> report files beside it, `report.json` last. A report that is current is left as it is."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError
from lmdissect.formats.shift_tables import STAGE
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import (
    fingerprint,
    hash_file,
    hash_text,
    lock_folder,
    output_guard,
    read_artifact,
    read_json,
    write_bytes,
    write_json,
    write_text,
)

__all__ = ["hash_sources", "is_current", "record_report", "write_report"]

REPORT_VERSION = 1
_PAGE = "report.html"
_LATEX = "tables.tex"
_RECORD = "report.json"
_FIGURES = "figures"
_SOURCES = (".py", ".j2", ".css", ".js")


def write_report(folder: Path, *, progress: Progress | None = None) -> Path:
    """Write the report of the shift artifact in ``folder`` next to its tables.

    Makes report.html (one file that opens offline), figures/NAME.png, .svg and .pdf, tables.tex, and, last, report.json with the hash of
    every file. Where report.json matches the tables, this program and the files, nothing is written.

    Args:
        folder: A finished shift artifact.
        progress: Where to tell what happens.

    Returns:
        Path of report.html.

    Raises:
        UnreadableInputError: No finished shifts in ``folder``.
        DamagedArtifactError: A table is missing or changed.
        UnusableOutputError: The folder cannot be written.
        OutputLockedError: Another process is writing the folder.
        OutOfSpaceError: The disk is full.
    """
    shown = progress or SilentProgress()
    inputs = _describe_inputs(folder)
    key = fingerprint(inputs)
    if is_current(folder, key):
        shown.say(f"{folder / _PAGE}: current, nothing rewritten")
        return folder / _PAGE
    with lock_folder(folder):
        record_report(folder, key, inputs, _write_files(folder, shown))
    shown.say(f"{folder / _PAGE}: written")
    return folder / _PAGE


def record_report(folder: Path, key: str, inputs: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write report.json, with the hash of every file, and remove figures of an older report.

    Args:
        folder: Where the report stands.
        key: Hash of ``inputs``.
        inputs: What the report is a function of.
        names: Its files, relative to ``folder``.
    """
    older = _read_record(folder).get("files", {})
    files = {name: hash_file(folder / name) for name in sorted(names)}
    write_json(folder / _RECORD, {"key": key, **inputs, "files": files})
    _drop_figures(folder, set(older) - set(names))


def _describe_inputs(folder: Path) -> dict[str, Any]:
    """What the report is a function of: this program and the artifact, manifest included (the report prints from it)."""
    manifest = read_artifact(folder, STAGE)
    return {
        "report_version": REPORT_VERSION,
        "program_version": version("lmdissect"),
        "template_hash": hash_sources(),
        "manifest_key": manifest.key,
        "manifest_sha256": hash_file(folder / "manifest.json"),
        "manifest_files": {name: record.sha256 for name, record in manifest.files.items()},
    }


def hash_sources() -> str:
    """Hash of the templates and of the code that fills them."""
    return fingerprint(dict(sorted(_read_sources(resources.files("lmdissect.report"), "").items())))


def _read_sources(folder: Traversable, prefix: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found.update(_read_sources(entry, f"{prefix}{entry.name}/"))
        elif entry.name.endswith(_SOURCES):
            found[prefix + entry.name] = hash_text(entry.read_text(encoding="utf-8"))
    return found


def _read_record(folder: Path) -> dict[str, Any]:
    """The last report.json; nothing where there is none, or none that can be read: then the report is simply made again."""
    try:
        record = read_json(folder / _RECORD)
    except DamagedArtifactError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def is_current(folder: Path, key: str) -> bool:
    """Whether ``folder`` holds a whole report with this key."""
    record = _read_record(folder)
    if record.get("key") != key:
        return False
    return all((folder / name).is_file() and hash_file(folder / name) == digest for name, digest in record["files"].items())


def _drop_figures(folder: Path, names: Iterable[str]) -> None:
    """Remove figures of an older report that this one does not have: beside new tables they would mislead."""
    present = {path.relative_to(folder).as_posix(): path for path in (folder / _FIGURES).glob("*")}
    for name in names:
        if name in present:
            with output_guard(present[name]):
                present[name].unlink()


def _write_files(folder: Path, progress: Progress) -> list[str]:
    """Write every file but the record.

    Returns:
        Names of the files, relative to ``folder``.
    """
    from lmdissect.report.content import read_content  # noqa: PLC0415 - matplotlib and jinja2 are slow to load, and a current report needs neither
    from lmdissect.report.figures import draw_figures  # noqa: PLC0415
    from lmdissect.report.latex import write_latex  # noqa: PLC0415
    from lmdissect.report.page import write_page  # noqa: PLC0415

    content = read_content(folder)
    progress.say(f"{folder}: drawing the report")
    figures = draw_figures(content)
    names = [_PAGE, _LATEX]
    for figure in figures.values():
        for kind, file in figure.files.items():
            names.append(f"{_FIGURES}/{figure.name}.{kind}")
            write_bytes(folder / names[-1], file)
    write_text(folder / _LATEX, write_latex(content))
    write_text(folder / _PAGE, write_page(content, figures))
    return names
