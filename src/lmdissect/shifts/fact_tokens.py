"""The shift on the tokens whose words differ: facts measured on facts.

    contrast_m(d) = mean score of the original's changed tokens - mean score of the counterfactual's changed tokens   (and with sums in place of means)

The whole-text shift dilutes a changed number with a hundred unchanged words; and counterfactuals reword too, so the changed spans that hold a number, a
named term or a listed key term stand beside all changed ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.alignment import ChangedSpan, changed_spans, overlapping_tokens
from lmdissect.factors import ORIGINAL
from lmdissect.formats.scores import ScoreTable
from lmdissect.records import UnavailableRow
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS, estimate_means
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats

__all__ = [
    "EDGES",
    "FUNCTION_WORDS",
    "SELECTIONS",
    "STATISTICS",
    "FactValues",
    "fact_token_rows",
    "fact_token_values",
    "factual_variants",
    "holds_key_term",
    "holds_named_term",
    "holds_number",
]

SELECTIONS = ("changed", "number", "named", "key_term")
STATISTICS = ("mean", "sum")
_ALIGNED = 4096
"""Aligned pairs that are kept: a thousand documents with a few variants."""

EDGES = ".,;:!?()[]\"'"
FUNCTION_WORDS = frozenset(("a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "of", "on", "or", "the", "to", "with", "without"))


def holds_number(span: ChangedSpan) -> bool:
    """Whether a word on either side of the span has a digit."""
    return any(character.isdigit() for word in (*span.original_words, *span.variant_words) for character in word)


def holds_named_term(span: ChangedSpan) -> bool:
    """Whether a word on either side looks like a name: a capital inside the word, or a first capital where no sentence begins."""
    for words in (span.original_words, span.variant_words):
        for index, word in enumerate(words):
            bare = word.strip(EDGES)
            sentence_start = span.opens_sentence if index == 0 else words[index - 1].endswith((".", "!", "?"))
            if any(character.isupper() for character in bare[1:]) or (bare[:1].isupper() and not sentence_start):
                return True
    return False


def holds_key_term(span: ChangedSpan, key_terms: Sequence[str]) -> bool:
    """Whether the original's side of the span shares a word with one of the document's key terms ("of" in "risk of infection" does not count)."""
    words = {word.strip(EDGES).casefold() for word in span.original_words} - {""} - FUNCTION_WORDS
    return any(words & {part.strip(EDGES).casefold() for part in term.split()} for term in key_terms)


@dataclass(frozen=True, slots=True)
class FactValues:
    """What one selection of changed spans gives in every document that has such tokens on both sides; N of them.

    Attributes:
        documents: Their numbers, shape (N,).
        contrasts: Contrast under (base, tuned) as (mean, sum), shape (N, 2, 2); the sums of a pair that a token limit cut are NaN.
        num_tokens: Selected tokens of (original, variant), shape (N, 2).
    """

    documents: npt.NDArray[np.int64]
    contrasts: Floats
    num_tokens: npt.NDArray[np.int64]

    @property
    def shift(self) -> Floats:
        """Change of the contrast, as (mean, sum): shape (N, 2)."""
        change: Floats = self.contrasts[:, 1] - self.contrasts[:, 0]
        return change


def factual_variants(paired: PairedScores) -> list[str]:
    """Variants that change facts, in report order."""
    return [variant for variant, factor in paired.factors.items() if "factual" in factor.split("+")]


def fact_token_values(paired: PairedScores, variant: str) -> dict[str, FactValues]:
    """Contrasts on the changed tokens of ``variant`` in every document, by selection. Needs equal tokenizers."""
    spans = _spans_by_document(paired, variant)
    return {selection: _selected_values(paired, variant, selection, spans) for selection in SELECTIONS}


def fact_token_rows(paired: PairedScores, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[UnavailableRow]]:
    """The fact-token table: for every variant that changes facts, each selection of spans, as means and as sums."""
    variants = factual_variants(paired)
    if not paired.tokenizers_equal:
        return [], [UnavailableRow("fact_tokens", variant, "original", "token", "the models' tokenizers differ") for variant in variants]
    rows: list[dict[str, Any]] = []
    unavailable: list[UnavailableRow] = []
    for variant in variants:
        for selection, values in fact_token_values(paired, variant).items():
            found_rows = _rows(variant, selection, values, config)
            rows += found_rows
            for statistic in STATISTICS:
                if statistic not in {row["statistic"] for row in found_rows}:
                    whole = " in whole texts" if statistic == "sum" else ""
                    reason = f"{selection}, {statistic}: fewer than {MIN_DOCUMENTS} documents have such tokens{whole}"
                    unavailable.append(UnavailableRow("fact_tokens", variant, "original", "token" if statistic == "mean" else "document", reason))
    return rows, unavailable


def _spans_by_document(paired: PairedScores, variant: str) -> dict[int, list[ChangedSpan]]:
    table = paired.base
    spans: dict[int, list[ChangedSpan]] = {}
    for number, document_id in enumerate(paired.documents):
        row, other = table.rows[document_id, ORIGINAL], table.rows.get((document_id, variant))
        if other is not None and not np.isnan(paired.gains(paired.normalizations[0], variant)[number]):
            ends = [_kept_chars(table, kept) for kept in (row, other)]
            found = _aligned(table.texts[row], table.texts[other])
            spans[number] = [
                span for span in found if all(side is None or side[1] <= end for side, end in zip((span.original, span.variant), ends, strict=True))
            ]
    return spans


@lru_cache(maxsize=_ALIGNED)
def _aligned(original: str, variant: str) -> tuple[ChangedSpan, ...]:
    """`changed_spans`, kept for the other runs of a study, which hold the same texts."""
    return tuple(changed_spans(original, variant))


def _kept_chars(table: ScoreTable, row: int) -> int:
    """Where the tokens of a text end: before its end if a token limit cut it. A span is compared only if neither side lies beyond."""
    return int(table.token_char_end[table.tokens(row)][-1]) if table.truncated[row] else len(table.texts[row])


def _selector(paired: PairedScores, document: int, selection: str) -> Callable[[ChangedSpan], bool]:
    key_terms = paired.base.key_terms.get(paired.documents[document], ())
    return {
        "changed": lambda _span: True,
        "number": holds_number,
        "named": holds_named_term,
        "key_term": lambda span: holds_key_term(span, key_terms),
    }[selection]


def _selected_values(paired: PairedScores, variant: str, selection: str, spans: dict[int, list[ChangedSpan]]) -> FactValues:
    documents: list[int] = []
    contrasts: list[Floats] = []
    num_tokens: list[tuple[int, int]] = []
    for document, found in spans.items():
        chosen = [span for span in found if _selector(paired, document, selection)(span)]
        left = _selected(paired, ORIGINAL, document, [span.original for span in chosen if span.original])
        right = _selected(paired, variant, document, [span.variant for span in chosen if span.variant])
        if left.any() and right.any():
            documents.append(document)
            contrasts.append(_contrasts(paired, variant, document, left, right))
            num_tokens.append((int(left.sum()), int(right.sum())))
    return FactValues(
        np.asarray(documents, dtype=np.int64), np.asarray(contrasts).reshape(-1, 2, 2), np.asarray(num_tokens, dtype=np.int64).reshape(-1, 2)
    )


def _rows(variant: str, selection: str, values: FactValues, config: ShiftConfig) -> list[dict[str, Any]]:
    shift, contrasts = values.shift, values.contrasts
    present = ~np.isnan(shift)
    columns = [column for column in range(len(STATISTICS)) if present[:, column].sum() >= MIN_DOCUMENTS]
    if not columns:
        return []
    return [
        {
            "variant": variant,
            "selection": selection,
            "statistic": STATISTICS[column],
            "num_original_tokens": int(values.num_tokens[present[:, column], 0].sum()),
            "num_variant_tokens": int(values.num_tokens[present[:, column], 1].sum()),
            "base_contrast": float(contrasts[present[:, column], 0, column].mean()),
            "tuned_contrast": float(contrasts[present[:, column], 1, column].mean()),
            **mean.to_row(),
        }
        for column, mean in zip(columns, estimate_means(shift[:, columns], config)[0], strict=True)
    ]


def _selected(paired: PairedScores, variant: str, document: int, ranges: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Scored tokens of a text that overlap any of ``ranges``."""
    table = paired.base
    tokens = table.tokens(paired.row_of(table, variant, document))
    covered = overlapping_tokens(table.token_char_start[tokens], table.token_char_end[tokens], ranges)
    scored: npt.NDArray[np.bool_] = covered & ~np.isnan(table.token_logprob_nats[tokens])
    return scored


def _contrasts(paired: PairedScores, variant: str, document: int, left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> Floats:
    """Contrast of the selected tokens under (base, tuned), as (mean, sum): shape (2, 2). The sums of a pair that a token limit cut are NaN."""
    values = np.empty((2, 2))
    for number, table in enumerate((paired.base, paired.tuned)):
        scores = [_token_scores(paired, table, name, document)[mask] for name, mask in ((ORIGINAL, left), (variant, right))]
        values[number] = scores[0].mean() - scores[1].mean(), scores[0].sum() - scores[1].sum()
    if paired.truncated[ORIGINAL][document] or paired.truncated[variant][document]:
        values[:, 1] = np.nan
    return values


def _token_scores(paired: PairedScores, table: ScoreTable, variant: str, document: int) -> Floats:
    scores: Floats = table.token_logprob_nats[table.tokens(paired.row_of(table, variant, document))].astype(np.float64)
    return scores
