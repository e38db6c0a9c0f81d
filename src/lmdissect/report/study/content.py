"""The study artifact as its report sees it: rows by table, names in report order, one precision per unit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from lmdissect.factors import CONTROL, ORIGINAL, VARIANT_FACTORS, sort_variants
from lmdissect.formats.study_tables import read_study_tables
from lmdissect.records import NORMALIZATIONS
from lmdissect.report.palette import LINES
from lmdissect.store import Manifest
from lmdissect.wording import UNITS, choose_decimals

__all__ = ["Place", "Row", "StudyContent", "group_rows", "read_study_content", "split_units"]

Row: TypeAlias = Mapping[str, Any]
_DEFAULT_LEVEL = 0.95
_ROLES = tuple(role for role in LINES if role != "line6")  # grey is the control's
_ORIGINAL_SYMBOL, _CONTROL_SYMBOL = "circle", "cross"
_SYMBOLS = ("square", "diamond", "triangle", "down", "star")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a number comes from: one point of one experiment on one probe set."""

    experiment: str
    point: str
    probes: str

    @property
    def text(self) -> str:
        """``size: 1000 (pubmed)``."""
        if not self.point:
            return f"{self.experiment} ({self.probes})"
        return f"{self.point if self.point.startswith(self.experiment) else f'{self.experiment}: {self.point}'} ({self.probes})"


@dataclass(frozen=True)
class StudyContent:
    """Everything a study report says.

    Attributes:
        manifest: Manifest of the study artifact.
        tables: Rows of every table.
        variants: Variants (without the originals) in report order.
        factors: Factor of every variant.
        normalization: Of the numbers in figures: per token where there are such rows.
    """

    manifest: Manifest
    tables: Mapping[str, Sequence[Row]]
    variants: Sequence[str]
    factors: Mapping[str, str]
    normalization: str

    @property
    def details(self) -> Mapping[str, Any]:
        """What the stage told."""
        return self.manifest.details

    @property
    def level(self) -> float:
        """Level of all intervals."""
        return float(self.details.get("level", _DEFAULT_LEVEL))

    @property
    def control(self) -> str | None:
        """Name of the control, where there is one."""
        return next((name for name in self.variants if self.factors.get(name) == CONTROL), None)

    @property
    def num_runs(self) -> int:
        """Runs that were measured."""
        return len(self.tables["runs"])

    @property
    def num_documents(self) -> int:
        """Most documents that a run has."""
        return max((int(row["num_documents"] or 0) for row in self.tables["runs"]), default=0)

    def decimals(self, normalization: str | None = None) -> int:
        """Decimals at which shifts in that unit are printed."""
        unit = normalization or self.normalization
        rows = [row for row in self.tables["estimates"] if row["normalization"] == unit]
        return choose_decimals(((row["ci_high"] - row["ci_low"]) / 2 for row in rows), unit)

    def role(self, variant: str) -> str:
        """Colour of a variant's curve: one for each factor, two where a probe set has two variants of it; the control is grey."""
        if variant == ORIGINAL or variant not in self.factors:
            return "ink"
        if self.factors[variant] == CONTROL:
            return "muted"
        return _ROLES[self._slots.index(self._slot_of[variant]) % len(_ROLES)]

    @cached_property
    def _slot_of(self) -> dict[str, tuple[str, int]]:
        """Factor of each variant, and its place among the variants of that factor on the same probe set."""
        slots: dict[str, tuple[str, int]] = {}
        for rows in group_rows((row for row in self.tables["estimates"] if row["variant"] in self.factors), "probes").values():
            present = self.sort(row["variant"] for row in rows)
            for variant in present:
                same = [name for name in present if self.factors[name] == self.factors[variant]]
                slots[variant] = max(
                    slots.get(variant, ("", 0)), (self.factors[variant], same.index(variant)), key=lambda slot: slot[1] if slot[0] else -1
                )
        return {**{variant: (self.factors[variant], 0) for variant in self.variants}, **slots}

    @cached_property
    def _slots(self) -> list[tuple[str, int]]:
        ordered = [self._slot_of[variant] for variant in self.variants if self.factors[variant] != CONTROL]
        return sorted(set(ordered), key=ordered.index)

    def symbol(self, variant: str) -> str:
        """Mark of a variant's curve, so that colour is not the only difference: like its colour, one for each variant of a probe set."""
        if variant == ORIGINAL or variant not in self.factors:
            return _ORIGINAL_SYMBOL
        if self.factors[variant] == CONTROL:
            return _CONTROL_SYMBOL
        return _SYMBOLS[self._slots.index(self._slot_of[variant]) % len(_SYMBOLS)]

    def sort(self, variants: Iterable[str]) -> list[str]:
        """Variant names in report order."""
        found = set(variants)
        return [*([ORIGINAL] if ORIGINAL in found else []), *(name for name in self.variants if name in found)]

    @cached_property
    def _units(self) -> dict[Place, str]:
        """Normalization in which each point is drawn: per token, or per byte where its tokenizers differ."""
        units: dict[Place, str] = {}
        for row in sorted(self.tables["estimates"], key=lambda row: NORMALIZATIONS.index(row["normalization"])):
            units.setdefault(Place(row["experiment"], row["point"], row["probes"]), row["normalization"])
        return units

    def is_drawn(self, row: Row) -> bool:
        """Whether ``row`` is in the unit in which its point is drawn."""
        return bool(row["normalization"] == self._units.get(Place(row["experiment"], row["point"], row["probes"]), self.normalization))

    def unit_of(self, rows: Iterable[Row]) -> str:
        """Unit of ``rows``, in words: their own where their table tells it, else that of the figures."""
        found = list(dict.fromkeys(row["normalization"] for row in rows if row.get("normalization") in UNITS))
        return UNITS[found[0] if found else self.normalization]

    def shifts(self, table: str, keep: Callable[[Row], bool] = lambda _: True) -> list[Row]:
        """Rows of shifts in ``table``, each in the unit of its point."""
        return [row for row in self.tables[table] if row["statistic"] == "shift" and self.is_drawn(row) and keep(row)]

    def probes_of(self, analysis: str) -> list[str]:
        """Probe sets that the statements of ``analysis`` (``learned`` or ``forgotten``) speak of."""
        return list(dict.fromkeys(str(row["probes"]) for row in self.tables["statements"] if row["analysis"] == analysis and row["probes"]))

    def statements(self, analysis: str) -> list[Row]:
        """What may be said in one section, in its order."""
        return sorted((row for row in self.tables["statements"] if row["analysis"] == analysis), key=lambda row: int(row["order"] or 0))

    def main_places(self, probes: str) -> list[Place]:
        """Points measured on ``probes``; the one that the statements on it name comes first, else the one trained on most."""
        places = list(
            dict.fromkeys(Place(row["experiment"], row["point"], row["probes"]) for row in self.shifts("estimates") if row["probes"] == probes)
        )
        named = [
            Place(row["experiment"], row["point"], row["probes"])
            for analysis in ("learned", "forgotten")
            for row in self.statements(analysis)
            if row["probes"] == probes
        ]
        size = {Place(row["experiment"], row["point"], row["probes"]): int(row["num_target_tokens"] or 0) for row in self.tables["runs"]}
        rank = {place: index for index, place in reversed(list(enumerate(named)))}
        return sorted(places, key=lambda place: (rank.get(place, len(named)), -size.get(place, 0)))


def split_units(rows: Iterable[Row]) -> list[list[Row]]:
    """``rows`` by their normalization: one axis holds one unit. Rows of a table without that column stay together."""
    units: dict[Any, list[Row]] = {}
    for row in rows:
        units.setdefault(row.get("normalization"), []).append(row)
    return list(units.values())


def group_rows(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of the columns ``names``, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def read_study_content(folder: Path) -> StudyContent:
    """Read the study artifact in ``folder``.

    Raises:
        UnreadableInputError: No finished study there.
        DamagedArtifactError: A table is missing or changed.
    """
    manifest, tables = read_study_tables(folder)
    factors: dict[str, str] = {}
    for name in ("estimates", "curves", "positions", "independence", "tempo", "capacity"):
        for row in tables[name]:
            if row["variant"] and row["variant"] != ORIGINAL and row["factor"]:
                factors.setdefault(row["variant"], row["factor"])
    bare = {row["variant"] for rows in tables.values() for row in rows if row.get("variant")} - {ORIGINAL, *factors}
    factors.update({name: VARIANT_FACTORS.get(name, "") for name in bare})
    present = {row["normalization"] for row in tables["estimates"]}
    normalization = next((name for name in NORMALIZATIONS if name in present), NORMALIZATIONS[0])
    ordered = sorted(sort_variants(factors, factors), key=lambda name: factors[name] == CONTROL)  # the control stands last
    return StudyContent(manifest, tables, ordered, factors, normalization)
