"""The shift artifact as the report sees it: typed rows, variants in report order, one precision per unit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from lmdissect.factors import CONTROL, ORIGINAL, control_variant, sort_variants
from lmdissect.formats.shift_tables import read_shift_tables
from lmdissect.records import NORMALIZATIONS, FactorShift, WriterMatch
from lmdissect.store import Manifest
from lmdissect.wording import choose_decimals

__all__ = [
    "SELECTIONS",
    "CumulativeShare",
    "Example",
    "FactTokenShift",
    "Gain",
    "Interaction",
    "Loss",
    "PositionBin",
    "ReportContent",
    "Variant",
    "read_content",
]

SELECTIONS = {"changed": "all changed words", "number": "numbers", "named": "named terms", "key_term": "key terms"}
"""Selections of fact tokens, in words."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What the report must know of one variant.

    Attributes:
        name: The variant's name.
        factor: The factor it changes.
        num_documents: Documents that have both the original and this variant.
        kept_words: Median part of the original's words that it keeps, where known.
        headline_reference: ``original`` or ``control``: which of its two rows is the headline.
        writer_match: How its writer and prompt compare with the control's; None for the control itself, and without one.
    """

    name: str
    factor: str
    num_documents: int
    kept_words: float | None
    headline_reference: str
    writer_match: WriterMatch | None


@dataclass(frozen=True, slots=True)
class Loss:
    """One row of the table `losses`: pooled over the documents."""

    variant: str
    factor: str | None
    num_documents: int
    num_tokens: int | None
    num_bytes: int
    base_loss_nats: float | None
    tuned_loss_nats: float | None
    base_nats_per_byte: float
    tuned_nats_per_byte: float
    base_perplexity: float | None
    tuned_perplexity: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """One row of the table `gains`: the mean change of one variant's texts."""

    variant: str
    normalization: str
    num_documents: int
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class PositionBin:
    """One row of the table `position`: shift of one variant, and gain of the originals, in one bin of token positions."""

    variant: str
    document_set: str
    bin_start: int
    bin_end: int | None
    num_documents: int
    estimate: float
    ci_low: float
    ci_high: float
    gain: float
    gain_ci_low: float
    gain_ci_high: float

    @property
    def name(self) -> str:
        """``0``, ``2-3`` (with an en dash), ``64 on``."""
        if self.bin_end is None:
            return f"{self.bin_start} on"
        last = self.bin_end - 1
        return f"{self.bin_start}" if last == self.bin_start else f"{self.bin_start}\u2013{last}"


@dataclass(frozen=True, slots=True)
class CumulativeShare:
    """One row of the table `cumulative`: the part of the shift made before token position ``position``."""

    variant: str
    position: int
    share: float
    ci_low: float
    ci_high: float
    num_documents: int


@dataclass(frozen=True, slots=True)
class FactTokenShift:
    """One row of the table `fact_tokens`: the shift on the tokens of changed words."""

    variant: str
    selection: str
    statistic: str
    num_documents: int
    num_original_tokens: int
    num_variant_tokens: int
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Interaction:
    """One row of the table `interactions`: whether two factors move independently."""

    variant: str
    first_variant: str
    second_variant: str
    normalization: str
    num_documents: int
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Example:
    """One text shown token by token; the four sequences have one entry per token."""

    document_id: str
    variant: str
    text: str
    shift: float | None
    char_start: Sequence[int]
    char_end: Sequence[int]
    base_logprob_nats: Sequence[float | None]
    tuned_logprob_nats: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Everything a report says.

    Attributes:
        manifest: Manifest of the shift artifact.
        base_model: The model before finetuning, as the user named it.
        tuned_model: The model after.
        tokenizers_equal: Whether per-token numbers of the two can be compared.
        level: Level of all intervals.
        variants: In report order, the control last.
        control: Name of the control variant, where there is one.
        shifts: By (variant, reference, normalization).
        losses: By variant, originals included.
        gains: By (variant, normalization).
        positions: All bins.
        cumulative: All points.
        fact_tokens: By (variant, selection, statistic).
        interactions: All rows.
        examples: Texts to show token by token.
        decimals: Decimals to print, by normalization.
    """

    manifest: Manifest
    base_model: str
    tuned_model: str
    tokenizers_equal: bool
    level: float
    variants: tuple[Variant, ...]
    control: str | None
    shifts: Mapping[tuple[str, str, str], FactorShift]
    losses: Mapping[str, Loss]
    gains: Mapping[tuple[str, str], Gain]
    positions: tuple[PositionBin, ...]
    cumulative: tuple[CumulativeShare, ...]
    fact_tokens: Mapping[tuple[str, str, str], FactTokenShift]
    interactions: tuple[Interaction, ...]
    examples: tuple[Example, ...]
    decimals: Mapping[str, int]

    @property
    def normalization(self) -> str:
        """Normalization of the headline: per token, unless the tokenizers differ."""
        return "token" if self.tokenizers_equal else "byte"

    @property
    def num_documents(self) -> int:
        """Documents whose original was scored by both models."""
        counts = [gain.num_documents for gain in self.gains.values() if gain.variant == ORIGINAL]
        return max([*counts, *(variant.num_documents for variant in self.variants)], default=0)

    @property
    def details(self) -> Mapping[str, Any]:
        """What the shift stage told."""
        return self.manifest.details

    def normalizations(self) -> tuple[str, ...]:
        """Those that have a row; only bytes where the tokenizers differ."""
        present = {normalization for _, _, normalization in self.shifts}
        return tuple(name for name in NORMALIZATIONS if name in present)

    def unavailable(self, table: str) -> list[Mapping[str, Any]]:
        """Rows of ``table`` that could not be computed, each with its reason."""
        return [entry for entry in self.details["unavailable"] if entry["table"] == table]

    def changed(self) -> tuple[Variant, ...]:
        """The variants that change a factor: all but the control."""
        return tuple(variant for variant in self.variants if variant.name != self.control)

    def is_unmoved(self) -> bool:
        """Whether every shift and every gain is exactly 0, as when a model is compared with itself."""
        numbers = [value for row in self.shifts.values() for value in (row.estimate, row.ci_low, row.ci_high)]
        numbers += [value for row in self.gains.values() for value in (row.estimate, row.ci_low, row.ci_high)]
        return bool(numbers) and not any(numbers)


_Row = TypeVar("_Row")


def _parse(kind: type[_Row], rows: Iterable[Mapping[str, Any]]) -> list[_Row]:
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    return [kind(**{name: row[name] for name in names}) for row in rows]


def read_content(folder: Path) -> ReportContent:
    """Read the shift artifact in ``folder``, verified against its manifest.

    Raises:
        UnreadableInputError: No finished shifts there.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest, tables = read_shift_tables(folder)
    details = manifest.details
    variants = _read_variants(details["variants"])
    shifts = _parse(FactorShift, tables["shifts"])
    gains = _parse(Gain, tables["gains"])
    return ReportContent(
        manifest=manifest,
        base_model=str(details["base_model"]["reference"]),
        tuned_model=str(details["tuned_model"]["reference"]),
        tokenizers_equal=bool(details["tokenizers_equal"]),
        level=float(details["level"]),
        variants=variants,
        control=control_variant({variant.name: variant.factor for variant in variants}),
        shifts={(row.variant, row.reference, row.normalization): row for row in shifts},
        losses={row.variant: row for row in _parse(Loss, tables["losses"])},
        gains={(row.variant, row.normalization): row for row in gains},
        positions=tuple(_parse(PositionBin, tables["position"])),
        cumulative=tuple(_parse(CumulativeShare, tables["cumulative"])),
        fact_tokens={(row.variant, row.selection, row.statistic): row for row in _parse(FactTokenShift, tables["fact_tokens"])},
        interactions=tuple(_parse(Interaction, tables["interactions"])),
        examples=tuple(_parse(Example, tables["examples"])),
        decimals={name: choose_decimals(_half_widths(shifts, name), name) for name in NORMALIZATIONS},
    )


def _read_variants(table: Mapping[str, Mapping[str, Any]]) -> tuple[Variant, ...]:
    factors = {name: str(facts["factor"]) for name, facts in table.items()}
    return tuple(
        Variant(
            name=name,
            factor=factors[name],
            num_documents=int(table[name]["num_documents"]),
            kept_words=table[name].get("kept_words_median"),
            headline_reference=str(table[name]["headline_reference"]),
            writer_match=table[name]["writer_against_control"],
        )
        for name in sorted(sort_variants(factors, factors), key=lambda name: factors[name] == CONTROL)
    )


def _half_widths(shifts: Iterable[FactorShift], normalization: str) -> list[float]:
    return [(row.ci_high - row.ci_low) / 2 for row in shifts if row.normalization == normalization]
