"""The tables of a study as its statements read them: which points are spoken of, in which unit, and why something is missing.

A number is told in nats per token where its point has such numbers, per byte where its tokenizers differ; points of one study may differ in this.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import NORMALIZATIONS, StudyGap
from lmdissect.shifts.curves import RANK
from lmdissect.shifts.statement_words import NO_WIDTH, Numbers, has_no_width, is_moved, print_p, seems_to_move

__all__ = ["Row", "StatedTables", "stated_points"]

Row: TypeAlias = Mapping[str, Any]

_POINT = ("experiment", "point", "probes")
_PLACE = ("axis", "group", "share_of_full")
"""Columns that say which of several curves, or figures of one, a statement is about; null for other analyses."""

_TELLING = ("probes", "variant", "reference", "axis", "group", "share_of_full", "selection")
"""Columns that, with the runs, tell what a statement is about."""

_NOTES = (": left out", "take no part", "missing here")
"""How reasons end that say what a number stands on, and not why there is none."""


def stated_points(runs: Iterable[Row]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The points that statements speak of, for every experiment and probe set.

    One of each: that with most training documents, of equals full finetuning, then the first. Points that no setting tells apart are models of their own,
    brought together only to be compared: all of them.

    Args:
        runs: Rows of the table `runs`.
    """
    groups: dict[tuple[str, str], dict[str, tuple[dict[str, Any], int]]] = {}
    for row in runs:
        found = groups.setdefault((row["experiment"], row["probes"]), {})
        found.setdefault(row["point"], (json.loads(row["fields"]), row["training_documents"] or 0))
    chosen: dict[tuple[str, str], tuple[str, ...]] = {}
    for key, points in groups.items():
        if any(fields for fields, _ in points.values()):
            chosen[key] = (max(points, key=lambda point: (points[point][1], points[point][0].get(RANK, 0) is None)),)
        else:
            chosen[key] = tuple(points)
    return chosen


class StatedTables:
    """The tables, and what all analyses ask of them.

    Args:
        tables: All tables of the study but the statements, as rows.
        alpha: 1 - level.
        gaps: What could not be computed, and why.
    """

    def __init__(self, tables: Mapping[str, Sequence[Row]], alpha: float, gaps: Sequence[StudyGap] = ()) -> None:
        self.tables = tables
        self.alpha = alpha
        self.numbers = Numbers(tables["estimates"])
        self.points = stated_points(tables["runs"])
        self._gaps = gaps
        self._factors = {(*self.key(row), row["variant"]): row["factor"] for row in tables["estimates"]}
        self._several_points = len({(experiment, point) for (experiment, _), points in self.points.items() for point in points}) > 1
        self._several_experiments = len({experiment for experiment, _ in self.points}) > 1
        self._units: dict[tuple[str, str, str], str] = {}
        for name in reversed(NORMALIZATIONS):
            self._units.update({self.key(row): name for row in tables["estimates"] if row["normalization"] == name})
        self._folders: dict[tuple[str, str, str], tuple[str, ...]] = {}
        for row in tables["runs"]:
            if row.get("shift_folder"):
                self._folders[self.key(row)] = (*self._folders.get(self.key(row), ()), row["shift_folder"])

    @staticmethod
    def key(row: Row) -> tuple[str, str, str]:
        """The point and probe set of a row."""
        return row["experiment"], row["point"], row["probes"]

    def is_stated(self, row: Row) -> bool:
        """Whether statements speak of the row's point."""
        return row["point"] in self.points.get((row["experiment"], row["probes"]), ())

    def stated(self, table: str) -> list[Row]:
        """Rows of the points that are stated."""
        return [row for row in self.tables.get(table, ()) if self.is_stated(row)]

    def unit(self, row: Row) -> str:
        """Normalization of a row: its own column's, else its point's."""
        return str(row.get("normalization") or self._units.get(self.key(row), NORMALIZATIONS[0]))

    def is_shown(self, row: Row) -> bool:
        """Whether a row is in the unit in which its point is told."""
        return bool(row["normalization"] == self._units.get(self.key(row)))

    def all_gains(self) -> list[Row]:
        """Gain on the originals at every point."""
        return [row for row in self.tables["estimates"] if row["statistic"] == "gain" and row["variant"] == ORIGINAL and self.is_shown(row)]

    def gains(self) -> list[Row]:
        """Gain on the originals of every stated point."""
        return [row for row in self.all_gains() if self.is_stated(row)]

    def headlines(self) -> list[Row]:
        """The row of every variant that is read first, controls left out."""
        return [
            row
            for row in self.stated("estimates")
            if row["statistic"] == "shift" and row["is_headline"] and self.is_shown(row) and row["factor"] != CONTROL
        ]

    def fact_row(self, row: Row, selection: str = "changed") -> Row | None:
        """The fact-token row that judges a variant: all changed words, mean per token."""
        wanted = (*self.key(row), row["variant"], selection, "mean")
        return next((r for r in self.tables.get("facts", ()) if (*self.key(r), r["variant"], r["selection"], r["statistic"]) == wanted), None)

    def factor(self, row: Row) -> str:
        """Factor of a row's variant, whether its table says so or not."""
        return str(row.get("factor") or self._factors.get((*self.key(row), row["variant"])) or "factor")

    def site(self, row: Row) -> str:
        """The row's probe set, with its point where statements speak of more than one."""
        return f"{row['probes']} ({row['experiment']}, {row['point']})" if self._several_points else str(row["probes"])

    def line(self, row: Row) -> str:
        """What tells a row's curve from others, to stand behind a semicolon or comma; empty where there is nothing to tell."""
        return ", ".join(name for name in (row["experiment"] if self._several_experiments else "", row["group"]) if name)

    def number(self, row: Row) -> str:
        """Estimate, unit and interval."""
        return self.numbers.with_unit(row, self.unit(row))

    def verdict(self, row: Row) -> str:
        """``moved`` or ``not shown``."""
        return "moved" if is_moved(row, self.alpha) else "not shown"

    def judged(self, row: Row, moved: str, still: str) -> str:
        """``moved`` with its p, or why it cannot be said."""
        if is_moved(row, self.alpha):
            return f"{moved} ({print_p(row)})" if print_p(row) else moved
        if has_no_width(row):
            return f"{still}: {NO_WIDTH}"
        if seems_to_move(row, self.alpha):
            return f"{still}: the interval leaves 0 out, but {print_p(row)} is too weak to count as a finding"
        return still

    def say(self, row: Row | None, sentence: str, verdict: str, *, interval: bool = True, along: Sequence[Row] = ()) -> dict[str, Any]:
        """One row of the table `statements`, and under ``identity`` what it is about: equal for runs that two experiments share.

        Args:
            row: What is stated; None for what is said of a whole study.
            sentence: In words.
            verdict: One of `VERDICTS`.
            interval: Whether the row's numbers are those of the statement.
            along: The points that the statement stands on, where they are more than the row's own.
        """
        source: Row = row or {}
        numbers = {name: source.get(name) if interval else None for name in ("estimate", "ci_low", "ci_high")}
        points = tuple((self._runs_of(point), point.get("x")) for point in along or [source]) if row else ()
        identity = (points, interval, *(source.get(name) for name in _TELLING)) if row else None
        return {
            **{name: source.get(name) for name in (*_POINT, *_PLACE, "variant", "factor")},
            "sentence": sentence,
            "verdict": verdict,
            **numbers,
            "identity": identity,
        }

    def _runs_of(self, row: Row) -> tuple[str, ...]:
        key = (row["experiment"], row.get("point"), row["probes"])
        return self._folders.get(key, tuple(map(str, key)))  # type: ignore[arg-type]

    def reasons(self, tables: Sequence[str], variant: str | None = None) -> list[StudyGap]:
        """Why there is nothing in some tables, those of stated points first, then in the order of the tables; each reason once.

        Args:
            tables: Their names.
            variant: Only what holds for this one.
        """
        found = [gap for gap in self._gaps if gap.table in tables and variant in (None, gap.variant) and not gap.reason.endswith(_NOTES)]
        found.sort(key=lambda gap: (gap.point not in self.points.get((gap.experiment, gap.probes), ()), tables.index(gap.table)))
        once: dict[str, StudyGap] = {}
        for gap in found:
            once.setdefault(gap.reason, gap)
        return list(once.values())

    def reason_at(self, row: Row, tables: Sequence[str]) -> str | None:
        """Why a point has no such number for a row's variant."""
        wanted = (*self.key(row), row["variant"])
        places = [(gap, (gap.experiment, gap.point, gap.probes, row["variant"] if gap.variant == "all" else gap.variant)) for gap in self._gaps]
        found = [gap for gap, place in places if place == wanted and gap.table in tables and not gap.reason.endswith(_NOTES)]
        return min(found, key=lambda gap: tables.index(gap.table)).reason if found else None
