"""The report's tables as cells of printed text: what stands where, without a word of HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift
from lmdissect.report.content import SELECTIONS, FactTokenShift, Gain, Loss, ReportContent, Variant
from lmdissect.report.findings import factor_noun, select_headline
from lmdissect.wording import UNITS, estimate_parts, format_estimate, format_level, format_p, format_plain, format_signed, share_parts

__all__ = ["Cell", "Head", "RowGroup", "Table", "fact_table", "interaction_table", "loss_table", "shift_table"]

_NONE = "\u2013"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: the number, a smaller second line, and whether it is the headline."""

    text: str
    note: str = ""
    is_headline: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """One column heading, ``span`` columns wide; ``note`` says what the second line of its cells is."""

    text: str
    span: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows under one title; the first cell of a row is its heading."""

    title: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table. ``bands`` is the upper line of headings, where there are two."""

    caption: str
    bands: Sequence[Head]
    heads: Sequence[Head]
    groups: Sequence[RowGroup]

    @property
    def openings(self) -> frozenset[int]:
        """Columns in which a band begins: they stand a little apart."""
        starts = accumulate(band.span for band in self.bands)
        return frozenset(starts)


_ROW_HEADS = (Head("shift", note="interval"), Head("p", note="Holm p"), Head("share", note="interval"))


def shift_table(content: ReportContent, normalization: str) -> Table:
    """Shifts for one normalization: against the original and, where there is a control, the control's own and net."""
    groups = []
    for factor, variants in groupby(content.variants, key=lambda variant: variant.factor):
        rows = [_shift_cells(content, variant, normalization) for variant in variants]
        title = "Control" if factor == CONTROL else factor_noun(factor).capitalize()
        groups.append(RowGroup(title, rows))
    bands, heads = [Head(""), Head("Against the original", 3)], [Head("Variant"), *_ROW_HEADS]
    if content.control is not None:
        bands += [Head("The control\u2019s own", 1), Head("Net of the control", 3)]
        heads += [_ROW_HEADS[0], *_ROW_HEADS]
    bands.append(Head("Originals", 2))
    heads += [Head("n"), Head("gain")]
    caption = f"Shifts in {UNITS[normalization]}, with {format_level(content.level)} intervals"
    return Table(caption, bands, heads, groups)


def _shift_cells(content: ReportContent, variant: Variant, normalization: str) -> list[Cell]:
    own = content.shifts.get((variant.name, ORIGINAL, normalization))
    net = content.shifts.get((variant.name, CONTROL, normalization))
    kept = f"keeps {format_plain(100 * variant.kept_words, 0)} % of words" if variant.kept_words is not None else ""
    cells = [Cell(variant.name, kept), *_row_cells(content, variant, own)]
    if content.control is not None:
        control = content.shifts.get((content.control, ORIGINAL, normalization)) if variant.name != content.control else None
        cells += [_estimate_cell(content, control), *_row_cells(content, variant, net)]
    return [*cells, _count_cell(own, net), _gain_cell(content, own or net)]


def _row_cells(content: ReportContent, variant: Variant, row: FactorShift | None) -> list[Cell]:
    if row is None:
        return [Cell(_NONE), Cell(_NONE), Cell(_NONE)]
    headline = select_headline(content, variant)
    is_headline = headline is not None and headline.row is not None and headline.row.reference == row.reference and variant.name != content.control
    share = Cell(_NONE)
    if row.share is not None and row.share_ci_low is not None and row.share_ci_high is not None:
        share = Cell(*share_parts(row.share, row.share_ci_low, row.share_ci_high))
    return [_estimate_cell(content, row, is_headline=is_headline), Cell(format_p(row.p_value), format_p(row.p_holm)), share]


def _estimate_cell(content: ReportContent, row: FactorShift | None, *, is_headline: bool = False) -> Cell:
    if row is None:
        return Cell(_NONE)
    decimals = content.decimals[row.normalization]
    return Cell(*estimate_parts(row.estimate, row.ci_low, row.ci_high, decimals), is_headline=is_headline)


def _count_cell(own: FactorShift | None, net: FactorShift | None) -> Cell:
    counts = [row.num_documents for row in (own, net) if row is not None]
    if not counts:
        return Cell(_NONE)
    differs = own is not None and net is not None and own.num_documents != net.num_documents
    return Cell(f"{counts[0]:,}", f"net {counts[-1]:,}" if differs else "")


def _gain_cell(content: ReportContent, row: FactorShift | None) -> Cell:
    return Cell(_NONE) if row is None else Cell(format_signed(row.gain, content.decimals[row.normalization]))


def loss_table(content: ReportContent) -> Table:
    """Loss of every variant under both models, and its gain."""
    names = [ORIGINAL, *(variant.name for variant in content.variants)]
    rows = [_loss_cells(content, content.losses[name]) for name in names if name in content.losses]
    bands = [Head("", 3), Head("Loss, nats/token", 2), Head("Loss, nats/byte", 2), Head("Perplexity", 2), Head("Gain", 1)]
    heads = [Head(text) for text in ("Texts", "documents", "tokens", "base", "tuned", "base", "tuned", "base", "tuned", UNITS[content.normalization])]
    return Table("Loss of every variant, pooled over all scored tokens, and gain, the mean over documents", bands, heads, [RowGroup("", rows)])


def _loss_cells(content: ReportContent, loss: Loss) -> list[Cell]:
    gain = content.gains.get((loss.variant, content.normalization))
    return [
        Cell(loss.variant, factor_noun(loss.factor) if loss.factor else ""),
        Cell(f"{loss.num_documents:,}"),
        Cell(_NONE if loss.num_tokens is None else f"{loss.num_tokens:,}"),
        *[_plain_cell(value, 3) for value in (loss.base_loss_nats, loss.tuned_loss_nats)],
        *[_plain_cell(value, 4) for value in (loss.base_nats_per_byte, loss.tuned_nats_per_byte)],
        *[_plain_cell(value, 2) for value in (loss.base_perplexity, loss.tuned_perplexity)],
        _gain_interval(content, gain),
    ]


def _plain_cell(value: float | None, decimals: int) -> Cell:
    return Cell(_NONE if value is None else format_plain(value, decimals))


def _gain_interval(content: ReportContent, gain: Gain | None) -> Cell:
    if gain is None:
        return Cell(_NONE)
    decimals = content.decimals[gain.normalization]
    return Cell(*estimate_parts(gain.estimate, gain.ci_low, gain.ci_high, decimals))


def fact_table(content: ReportContent) -> Table:
    """Shift on the fact tokens, as mean per token and as sum per document."""
    groups = []
    for variant in content.variants:
        rows = [
            _fact_cells(
                content, text, content.fact_tokens.get((variant.name, selection, "mean")), content.fact_tokens.get((variant.name, selection, "sum"))
            )
            for selection, text in SELECTIONS.items()
            if (variant.name, selection, "mean") in content.fact_tokens or (variant.name, selection, "sum") in content.fact_tokens
        ]
        if rows:
            groups.append(RowGroup(variant.name, rows))
    bands = [Head("", 2), Head("Tokens", 2), Head("Mean, nats/token", 2), Head("Sum, nats/document", 2)]
    heads = [Head(text) for text in ("Words", "documents", "original", "variant", "shift", "p", "shift", "p")]
    return Table("Shift on the words that a factual variant changes", bands, heads, groups)


def _fact_cells(content: ReportContent, text: str, mean: FactTokenShift | None, total: FactTokenShift | None) -> list[Cell]:
    known = mean or total
    counts = [] if known is None else [known.num_documents, known.num_original_tokens, known.num_variant_tokens]
    cells = [Cell(text), *[Cell(f"{count:,}") for count in counts]]
    for row, normalization in ((mean, "token"), (total, "document")):
        if row is None:
            cells += [Cell(_NONE), Cell(_NONE)]
            continue
        decimals = content.decimals[normalization]
        is_headline = row.selection == "changed" and row.statistic == ("mean" if content.tokenizers_equal else "sum")
        cells += [
            Cell(*estimate_parts(row.estimate, row.ci_low, row.ci_high, decimals), is_headline=is_headline),
            Cell(format_p(row.p_value)),
        ]
    return cells


def interaction_table(content: ReportContent) -> Table:
    """Whether factors changed together move independently."""
    rows = [
        [
            Cell(row.variant, f"{row.first_variant} \u00d7 {row.second_variant}"),
            Cell(UNITS[row.normalization]),
            Cell(f"{row.num_documents:,}"),
            Cell(format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[row.normalization])),
            Cell(format_p(row.p_value)),
        ]
        for row in content.interactions
    ]
    heads = [Head(text) for text in ("Variant", "unit", "documents", "interaction", "p")]
    return Table("Interaction of two factors; 0 where they move independently", (), heads, [RowGroup("", rows)])
