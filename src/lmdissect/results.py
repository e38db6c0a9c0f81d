"""What a command left on disk, opened in Python: tables as properties, as Arrow or as pandas.

    from lmdissect.results import open_results

    results = open_results("runs/compare")          # a comparison, a study, a cloze, a calibration, or the output folder of `run`
    results                                         # what it is, and its tables
    results.shifts.where(normalization="token").to_pandas()

Nothing heavy is imported before a folder is opened; pandas only by `to_pandas`.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmdissect.errors import DamagedArtifactError, MissingDependencyError, UnreadableInputError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa

__all__ = ["ResultTable", "Results", "open_results"]

_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 80
_MANIFEST = "manifest.json"
_ENDING = ".parquet"
_STAGES = {
    "shift": "factor shifts of one model pair",
    "study": "study of many runs",
    "cloze": "cloze scores of one model pair",
    "calibration": "calibration of the instrument",
    "experiment": "tables of an experiment",
}
_WANTED = "open the folder of a comparison, a study, a cloze, a calibration, or an experiment"
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit;background:transparent"
_CELL = "padding:.2em .7em;border-bottom:1px solid rgba(128,128,128,.4);color:inherit;background:transparent;text-align:"


@dataclass(frozen=True, slots=True, eq=False)
class ResultTable:
    """One table.

    Attributes:
        name: Its name, as in docs/file-formats.md.
        arrow: Its content.
    """

    name: str
    arrow: "pa.Table"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.arrow.column_names)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, as mappings."""
        return iter(self.arrow.to_pylist())

    def where(self, **values: object) -> "ResultTable":
        """The rows in which each named column has the given value (None: is empty).

        Raises:
            UnreadableInputError: There is no such column.
        """
        for column in values:
            if column not in self.columns:
                message = f"the table {self.name} has no column '{column}' (it has {', '.join(self.columns)})"
                raise UnreadableInputError(message)
        import pyarrow as pa  # noqa: PLC0415 - heavy

        columns = {column: self.arrow[column].to_pylist() for column in values}
        keep = [all(columns[name][number] == value for name, value in values.items()) for number in range(len(self))]
        return ResultTable(self.name, self.arrow.filter(pa.array(keep, pa.bool_())))

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a DataFrame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - optional, and slow to load
        except ImportError as error:
            message = "to_pandas needs pandas: pip install pandas (without it: .arrow, or iterate over the table for its rows)"
            raise MissingDependencyError(message) from error
        frame: pd.DataFrame = self.arrow.to_pandas()
        return frame

    def __repr__(self) -> str:
        return f"<table {self.name}: {_count(len(self), 'row')}; columns {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        """The first rows, for a notebook; every value is escaped, and colours are those of the page."""
        rows = self.arrow.slice(0, _SHOWN_ROWS).to_pylist()
        body = [[_shown(row[column]) for column in self.columns] for row in rows]
        right = [any(isinstance(row[column], (int, float)) and not isinstance(row[column], bool) for row in rows) for column in self.columns]
        more = f"<p>{_count(len(self) - len(rows), 'more row')}</p>" if len(self) > len(rows) else ""
        caption = f"{self.name}, {_count(len(self), 'row')}"
        return _html_table(caption, self.columns, body, right) + more


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """What a folder holds. Every table is a property (``results.shifts``), and ``results["shifts"]``.

    Attributes:
        folder: The folder.
        kind: shift, study, cloze, calibration or experiment.
        settings: The settings it was made with.
        details: What else its maker told: models, self-checks, notes, what could not be computed.
        files: Hash of every table's file, by the table's name.
    """

    folder: Path
    kind: str
    settings: Mapping[str, Any]
    details: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables."""
        return tuple(self.files)

    @property
    def unavailable(self) -> Sequence[Mapping[str, Any]]:
        """Numbers that could not be computed, each with its reason: they are in no table.

        Of an experiment: what failed. What its finished runs could not compute is listed by its `study`.
        """
        return tuple(self.details.get("unavailable", ()))

    @property
    def study(self) -> "Results":
        """The study that `lmdissect run` made inside the output folder of an experiment.

        Raises:
            UnreadableInputError: There is none.
        """
        return open_results(self.folder / "study")

    def __getitem__(self, name: str) -> ResultTable:
        """A table, read from disk and verified.

        Raises:
            KeyError: There is no such table.
            DamagedArtifactError: Its file is missing or changed.
        """
        if name not in self.files:
            message = f"{self.folder} has no table '{name}' (it has {', '.join(self.tables)})"
            raise KeyError(message)
        from lmdissect.store import hash_file, read_table  # noqa: PLC0415 - pyarrow

        path = self.folder / f"{name}{_ENDING}"
        if not path.is_file() or hash_file(path) != self.files[name]:
            message = f"{path} is missing or changed since it was written: run the command that made the folder again"
            raise DamagedArtifactError(message)
        return ResultTable(name, read_table(path))

    def __getattr__(self, name: str) -> ResultTable:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from error

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self.tables]

    def __repr__(self) -> str:
        return f"<{_STAGES[self.kind]}: {'; '.join(self._facts())}; tables {', '.join(self.tables)}>"

    def _repr_html_(self) -> str:
        """What it is and which tables it has, for a notebook; every value is escaped, and colours are those of the page."""
        rows = [[name, *_size_and_columns(self.folder / f"{name}{_ENDING}")] for name in self.tables]
        heading = f"{_STAGES[self.kind]}: {'; '.join(self._facts())}"
        return _html_table(heading, ("table", "rows", "columns"), rows, (False, True, False))

    def _facts(self) -> list[str]:
        """What is in it, in a few words."""
        details = self.details
        models = [f"{name} {details[key]['reference']}" for name, key in (("base", "base_model"), ("tuned", "tuned_model")) if key in details]
        named = [str(self.settings[name]) for name in ("name", "experiment") if isinstance(self.settings.get(name), str)]
        probes = [f"probes {details['probes']}"] if isinstance(details.get("probes"), str) else []
        missing = [
            _count(len(self.unavailable), "failure") if self.kind == "experiment" else f"{_count(len(self.unavailable), 'number')} not computed"
        ]
        return [*named, *models, *probes, *(missing if self.unavailable else [])] or [self.folder.name]


def open_results(folder: str | Path) -> Results:
    """Open what `compare`, `shift`, `study`, `cloze`, `calibrate` or `run` left in ``folder``.

    Raises:
        UnreadableInputError: Nothing finished is there, or something that is no result; the message names the results inside it.
        DamagedArtifactError: A file is missing or changed.
    """
    from lmdissect.store import read_artifact, read_json, read_manifest  # noqa: PLC0415 - pyarrow

    path = Path(folder)
    found = read_json(path / _MANIFEST) if (path / _MANIFEST).is_file() else {}
    if isinstance(found, dict) and "experiment" in found and "stage" not in found:
        failures = {"unavailable": found.get("failures", [])}
        files = {name: str(digest) for name, digest in found["files"].items()}
        return Results(path, "experiment", found["experiment"], failures, _table_files(files))
    if isinstance(found, dict) and found and "stage" not in found:
        message = f"{path} holds no results: {_WANTED}"
        raise UnreadableInputError(message)
    if not found and (inside := _results_inside(path)):
        message = f"{path} holds no tables itself, and results inside: open one of {', '.join(inside)}"
        raise UnreadableInputError(message)
    stage = read_manifest(path).stage
    if stage not in _STAGES:
        message = f"{path} holds an artifact of the stage '{stage}', and no results: {_WANTED}"
        raise UnreadableInputError(message)
    manifest = read_artifact(path, stage)
    return Results(path, stage, manifest.config, manifest.details, _table_files({name: record.sha256 for name, record in manifest.files.items()}))


def _results_inside(folder: Path) -> list[str]:
    """Folders right below ``folder`` that `open_results` would open, judged by their manifests alone."""
    from lmdissect.store import read_json  # noqa: PLC0415 - pyarrow

    found = []
    for path in sorted(folder.glob(f"*/{_MANIFEST}")):
        try:
            manifest = read_json(path)
        except DamagedArtifactError:
            continue
        if isinstance(manifest, dict) and (manifest.get("stage") in _STAGES or ("experiment" in manifest and "stage" not in manifest)):
            found.append(str(path.parent))
    return found


def _size_and_columns(path: Path) -> tuple[str, str]:
    """Number of rows and names of the columns of a Parquet file; "missing" or "damaged" and nothing where there are none to read."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.parquet as pq  # noqa: PLC0415

    if not path.is_file():
        return "missing", ""
    try:
        found = pq.read_metadata(path)
        return str(found.num_rows), ", ".join(found.schema.to_arrow_schema().names)
    except (pa.ArrowException, OSError):
        return "damaged", ""


def _table_files(files: Mapping[str, str]) -> dict[str, str]:
    """Hash of every Parquet file beside the manifest, by its name without the ending."""
    return {name.removesuffix(_ENDING): digest for name, digest in files.items() if name.endswith(_ENDING) and "/" not in name}


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _shown(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    aligned = ["right" if at_right else "left" for at_right in right]
    head = "".join(f'<th scope="col" style="{_CELL}{side}">{html.escape(name)}</th>' for name, side in zip(columns, aligned, strict=True))
    body = "".join(f"<tr>{''.join(_html_cell(cell, side) for cell, side in zip(row, aligned, strict=True))}</tr>" for row in rows)
    title = f'<caption style="caption-side:top;text-align:left;color:inherit">{html.escape(caption)}</caption>'
    return f'<div style="overflow-x:auto"><table style="{_STYLE}">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_cell(cell: str, side: str) -> str:
    return f'<td style="{_CELL}{side}">{html.escape(cell)}</td>'
