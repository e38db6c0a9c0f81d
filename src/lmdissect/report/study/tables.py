"""Tables of a study report: which columns of which rows, and how a cell is printed. The page's script prints the same way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdissect.formats.study_tables import WHOLE_TEXT
from lmdissect.report.content import SELECTIONS
from lmdissect.report.latex import escape_latex
from lmdissect.report.study.analyses import MEASURES
from lmdissect.report.study.content import Place, Row, StudyContent
from lmdissect.report.text import clean_text
from lmdissect.wording import choose_decimals, estimate_parts, format_p, format_plain, print_x, share_parts

__all__ = ["Column", "StudyTable", "build_tables", "cell_text", "write_table_latex"]

_NONE = "\u2013"
_FEW_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: Column of the study table; of an interval the estimate's.
        label: Its head.
        kind: ``text``, ``count``, ``number``, ``amount``, ``share``, ``p``, ``interval``, ``amount_interval`` or ``share_interval``.
        low: Column of the lower end of an interval.
        high: Column of the upper end.
    """

    key: str
    label: str
    kind: str = "text"
    low: str = "ci_low"
    high: str = "ci_high"

    @property
    def is_number(self) -> bool:
        """Whether cells stand on the right."""
        return self.kind != "text"


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A table to sort, filter and take away.

    Attributes:
        name: Unique in a study; the id on the page.
        source: Study table whose CSV file holds every column.
        caption: What it holds.
        columns: Its columns.
        rows: Cells: a string, a number or None; an interval is [estimate, low, high, decimals], and its unit behind them where its column holds several.
        shared: Columns that say the same in every row, with what they say; they stand above the table and not in it.
    """

    name: str
    source: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    shared: Sequence[tuple[Column, Any]] = ()

    @property
    def note(self) -> str:
        """What ``shared`` says: ``In every row: Per token; Seeds 3.``."""
        said = "; ".join(f"{column.label} {cell_text(cell, column.kind)}" for column, cell in self.shared)
        return f"In every row: {said}." if said else ""

    @property
    def title(self) -> str:
        """Caption and note, where they stand together."""
        return f"{self.caption}. {self.note}" if self.note else self.caption


_POINT = (Column("experiment", "Experiment"), Column("point", "Point"), Column("probes", "Probes"))
_VARIANT = (Column("variant", "Variant"), Column("factor", "Factor"), Column("reference", "Against"))
_COUNTS = (Column("num_seeds", "Seeds", "count"), Column("num_documents", "Documents", "count"))
_PER = Column("normalization", "Per")
_WORDS = Column("selection", "Words")
_SHIFT = Column("estimate", "Shift", "interval")
_OVER = Column("interval_over", "Interval over")
_P = (Column("p_value", "p", "p"), Column("p_holm", "Holm p", "p"))
_ESTIMATES = (
    Column("point", "Point"),
    Column("probes", "Probes"),
    Column("statistic", "Kind"),
    *_VARIANT,
    _PER,
    *_COUNTS,
    Column("estimate", "Estimate", "interval"),
    Column("p_holm", "Holm p", "p"),
    Column("share", "Share of gain", "share_interval", "share_ci_low", "share_ci_high"),
)
_SEEDS = (
    Column("point", "Point"),
    Column("probes", "Probes"),
    Column("seed", "Seed", "count"),
    Column("statistic", "Kind"),
    *_VARIANT,
    _PER,
    Column("num_documents", "Documents", "count"),
    Column("estimate", "Estimate", "interval"),
)
_GROUP = (Column("experiment", "Experiment"), Column("group", "Group"), Column("probes", "Probes"))

_COLUMNS: dict[str, tuple[tuple[str, str, tuple[Column, ...]], ...]] = {
    "learned": (
        ("estimates", "Gains and shifts on probes of the training domain", _ESTIMATES),
        ("seeds", "The same for every training seed by itself", _SEEDS),
    ),
    "forgotten": (("estimates", "Gains and shifts on general probes", _ESTIMATES), ("seeds", "The same for every training seed by itself", _SEEDS)),
    "curves": (
        (
            "changes",
            "Change of every shift along a curve, from its first point to its last, document by document",
            (
                *_GROUP,
                Column("axis", "Axis"),
                Column("first_x", "From x", "amount"),
                Column("last_x", "To x", "amount"),
                *_VARIANT,
                _WORDS,
                _PER,
                *_COUNTS,
                Column("estimate", "Change", "interval"),
                *_P,
                _OVER,
            ),
        ),
        (
            "curves",
            "Gains and shifts along every axis",
            (
                *_GROUP,
                Column("axis", "Axis"),
                Column("x", "x", "amount"),
                Column("statistic", "Kind"),
                *_VARIANT,
                _WORDS,
                _PER,
                *_COUNTS,
                Column("estimate", "Estimate", "interval"),
                Column("p_holm", "Holm p", "p"),
            ),
        ),
    ),
    "position": (
        (
            "positions",
            "Gain and shift by bins of token position",
            (
                *_POINT,
                *_VARIANT,
                Column("document_set", "Documents of"),
                Column("bin_start", "From", "count"),
                Column("bin_end", "Before", "count"),
                *_COUNTS,
                _SHIFT,
                Column("gain", "Gain", "interval", "gain_ci_low", "gain_ci_high"),
            ),
        ),
        (
            "cumulative",
            "Share of the shift made before a position",
            (*_POINT, *_VARIANT, Column("position", "Before", "count"), Column("share", "Share", "share_interval")),
        ),
    ),
    "capacity": (
        (
            "capacity",
            "Smallest rank that reaches a share of full finetuning\u2019s shift",
            (
                *_GROUP,
                *_VARIANT,
                _WORDS,
                *_COUNTS,
                Column("share_of_full", "Share", "share"),
                _PER,
                Column("full_estimate", "Full", "number"),
                Column("rank", "Rank", "amount_interval"),
                Column("largest_rank", "Largest measured", "amount"),
                _OVER,
            ),
        ),
    ),
    "tempo": (
        (
            "tempo",
            "Where half of the last shift is reached",
            (
                *_GROUP,
                Column("axis", "Axis"),
                *_VARIANT,
                _WORDS,
                *_COUNTS,
                Column("last_x", "Last x", "amount"),
                _PER,
                Column("last_estimate", "Last shift", "number"),
                Column("half_x", "Half at", "amount_interval"),
                _OVER,
            ),
        ),
    ),
    "independence": (
        (
            "independence",
            "Shift by training corpus and factor",
            (*_POINT, Column("training_corpus", "Trained on"), Column("compared_with", "Less trained on"), *_VARIANT, _PER, *_COUNTS, _SHIFT, *_P),
        ),
    ),
    "interactions": (
        (
            "interactions",
            "Interaction of two factors; 0 where they move independently",
            (
                *_POINT,
                Column("variant", "Together"),
                Column("first_variant", "First"),
                Column("second_variant", "Second"),
                _PER,
                *_COUNTS,
                Column("estimate", "Interaction", "interval"),
                *_P,
            ),
        ),
    ),
    "facts": (
        (
            "facts",
            "Shift on the tokens whose words differ",
            (
                *_POINT,
                Column("variant", "Variant"),
                Column("selection", "Words"),
                Column("statistic", "Mean or sum"),
                *_COUNTS,
                Column("num_original_tokens", "Tokens, original", "count"),
                Column("num_variant_tokens", "Tokens, variant", "count"),
                _SHIFT,
                *_P,
            ),
        ),
    ),
    "cloze": (
        (
            "cloze",
            "True term against the counterfactual\u2019s, in the true context",
            (
                Column("point", "Point"),
                Column("variant", "Variant"),
                Column("selection", "Words"),
                Column("measure", "Measure"),
                Column("terms", "Terms"),
                _PER,
                Column("estimate", "Change", "interval"),
                *_P,
                Column("base_mean", "Base", "number"),
                Column("tuned_mean", "Tuned", "number"),
                *_COUNTS,
                Column("num_terms", "Terms in all", "count"),
                Column("probes", "Probes"),
                Column("experiment", "Experiment"),
            ),
        ),
    ),
    "natural": (
        (
            "natural",
            "Style by natural pairs and by written variants",
            (*_POINT, Column("kind", "Pairs"), Column("variant", "Variant"), _PER, *_COUNTS, _SHIFT, *_P),
        ),
    ),
    "fingerprint": (
        (
            "fingerprint",
            "Shift against the original, and how much of the original each variant keeps",
            (
                *_POINT,
                Column("axis", "Axis"),
                Column("x", "x", "amount"),
                Column("variant", "Variant"),
                Column("writer", "Writer"),
                Column("kept_words_median", "Words kept", "share"),
                _PER,
                *_COUNTS,
                _SHIFT,
                *_P,
            ),
        ),
    ),
    "moved": (
        (
            "moved_documents",
            "Documents whose shift is largest and smallest",
            (
                *_POINT,
                *_VARIANT,
                Column("document_id", "Document"),
                Column("rank", "Rank", "count"),
                _PER,
                Column("shift", "Shift", "number"),
                Column("gain", "Gain", "number"),
            ),
        ),
        (
            "moved_tokens",
            "Tokens whose log-probability changed most",
            (
                *_POINT,
                Column("variant", "Texts"),
                Column("token", "Token"),
                Column("direction", "Direction"),
                Column("rank", "Rank", "count"),
                Column("num_occurrences", "Occurrences", "count"),
                Column("num_documents", "Documents", "count"),
                Column("estimate", "Gain", "interval"),
            ),
        ),
    ),
}


def build_tables(content: StudyContent, analysis: str) -> list[StudyTable]:
    """The tables of one section that have rows."""
    found = []
    places = {
        place: rank
        for probes in dict.fromkeys(row["probes"] for row in content.tables["runs"])
        for rank, place in enumerate(content.main_places(probes))
    }

    def ranks(row: Row) -> int:
        """The point that the statements speak of comes first."""
        return places.get(Place(row["experiment"], row["point"], row["probes"]), len(places))

    for source, caption, columns in _COLUMNS[analysis]:
        rows = list(content.tables[source])
        if analysis in ("learned", "forgotten"):
            probes = content.probes_of(analysis)
            rows = [row for row in rows if row["probes"] in probes]
            rows.sort(key=lambda row: (row["normalization"] != content.normalization, ranks(row), not row.get("is_headline")))
        elif analysis in _BY_POINT:
            rows.sort(key=ranks)
        if rows:
            kept = [column for column in columns if any(row.get(column.key) not in (None, "") for row in rows)]
            measures = _measure_decimals(rows)
            cells = {column: [_cell(content, row, column, measures) for row in rows] for column in kept}
            shared = [column for column in kept if _is_shared(column, cells[column])]
            shown = [column for column in kept if column not in shared]
            lines = list(zip(*(cells[column] for column in shown), strict=True))
            found.append(StudyTable(f"{analysis}-{source}", source, caption, shown, lines, [(column, cells[column][0]) for column in shared]))
    return found


def _is_shared(column: Column, cells: Sequence[Any]) -> bool:
    """Whether a column of names or counts says the same in every row of a table that has several. What a row is about stays in it."""
    return column.kind in ("text", "count") and column.key != "variant" and len(cells) > 1 and all(cell == cells[0] for cell in cells)


_BY_POINT = ("position", "facts", "cloze", "interactions", "natural", "fingerprint", "moved")
"""Sections whose tables begin with the point that the statements speak of."""

_UNITS = ("token", "byte", "document")
_POINTS = "% points"


def _measure_decimals(rows: Sequence[Row]) -> dict[str, int]:
    """Decimals of every measure of a cloze: its changes are nats, ranks and shares, each on a scale of its own."""
    widths: dict[str, list[float]] = {}
    for row in rows:
        if row.get("measure") in MEASURES:
            widths.setdefault(row["measure"], []).append((row["ci_high"] - row["ci_low"]) / 2)
    fixed = {"ranks": 1, "share": 1}
    return {measure: fixed.get(MEASURES[measure][1]) or choose_decimals(found, "token") for measure, found in widths.items()}


def _cell(content: StudyContent, row: Row, column: Column, measures: Mapping[str, int]) -> Any:  # noqa: ANN401 - a string, a number, an interval or nothing
    value = row.get(column.key)
    if value is None:
        return None
    if column.kind.endswith("interval"):
        bounds = [value, row.get(column.low), row.get(column.high)]
        if row.get("measure") in measures:
            unit = MEASURES[row["measure"]][1]
            return [*bounds, measures[row["measure"]], _POINTS if unit == "share" else unit]
        return [*bounds, content.decimals(row.get("normalization") if row.get("normalization") in _UNITS else None)]
    if column.key == "selection":
        return {**SELECTIONS, WHOLE_TEXT: "whole text"}.get(value, clean_text(value))
    if column.key == "measure":
        return MEASURES[value][0] if value in MEASURES else clean_text(value)
    return clean_text(value) if isinstance(value, str) else value


def cell_text(value: Any, kind: str) -> str:  # noqa: ANN401 - see `_cell`
    """A cell as it is printed: ``+0.046 [0.034, 0.058]``, ``16 % [9, 24]``, ``< 0.001``, ``1,024``; a dash where there is nothing."""
    if value is None:
        return _NONE
    if kind in _PRINTERS:
        return _PRINTERS[kind](value)
    return str(value)


def _interval_text(cell: Sequence[Any]) -> str:
    estimate, low, high, decimals, *units = cell
    scale = 100.0 if units == [_POINTS] else 1.0
    if low is None or high is None:
        return " ".join([format_plain(scale * estimate, decimals), *units])
    number, interval = estimate_parts(scale * estimate, scale * low, scale * high, decimals)
    return " ".join([number, *units, interval])


def _amount_text(cell: Sequence[Any]) -> str:
    estimate, low, high, _ = cell
    return print_x(estimate) if low is None else f"{print_x(estimate)} [{print_x(low)}, {'open' if high is None else print_x(high)}]"


def _share_text(cell: Sequence[Any]) -> str:
    share, low, high, _ = cell
    return f"{format_plain(100 * share, 0)} %" if low is None or high is None else " ".join(share_parts(share, low, high))


def _number_text(value: float) -> str:
    """Whole numbers as they are, others with enough digits to tell."""
    if float(value).is_integer():
        return format_plain(value, 0)
    return format_plain(value, 4 if abs(value) < 1 else _FEW_DECIMALS)


_PRINTERS: dict[str, Callable[[Any], str]] = {
    "count": lambda value: format_plain(value, 0),
    "number": _number_text,
    "amount": print_x,
    "share": lambda value: f"{format_plain(100 * value, 0)} %",
    "p": format_p,
    "interval": _interval_text,
    "amount_interval": _amount_text,
    "share_interval": _share_text,
}


def write_table_latex(table: StudyTable, rows: Sequence[Sequence[Any]]) -> str:
    """``rows`` of ``table`` as a booktabs table."""
    columns = "".join("r" if column.is_number else "l" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escape_latex(column.label) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    lines += [
        " & ".join(escape_latex(cell_text(cell, column.kind)) for cell, column in zip(row, table.columns, strict=True)) + r" \\" for row in rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])
