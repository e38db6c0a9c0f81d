"""Pair the texts of two score tables by document id: what is compared with what, and what had to be left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmdissect.errors import MismatchedScoresError, NothingToDoError
from lmdissect.factors import ORIGINAL, control_variant, sort_variants
from lmdissect.formats.scores import ScoreTable
from lmdissect.records import NORMALIZATIONS
from lmdissect.shifts.resampling import Floats

__all__ = ["DroppedText", "PairedScores", "pair_scores"]

_COMPARED_SETTINGS = ("bos", "max_tokens", "window_tokens")


@dataclass(frozen=True, slots=True)
class DroppedText:
    """A text that takes no part, and why."""

    variant: str
    document_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Scores of the same texts under two models, as arrays over documents.

    Attributes:
        base: Scores under the base model.
        tuned: Scores under the tuned model.
        documents: Ids of all documents with an original, in table order; index d below.
        factors: Factor of each variant, in report order.
        control: The control variant, or None.
        normalizations: Those that can be compared: all three, or per byte alone when the tokenizers differ.
        base_values: ``[normalization][variant]`` -> shape (D,): normalised log-likelihood under the base, NaN where there is none.
        tuned_values: The same under the tuned model.
        truncated: ``[variant]`` -> shape (D,): whether a token limit cut that text.
        dropped: Texts that take no part.
        tokenizers_equal: Whether both models cut texts into the same tokens.
    """

    base: ScoreTable
    tuned: ScoreTable
    documents: Sequence[str]
    factors: Mapping[str, str]
    control: str | None
    normalizations: Sequence[str]
    base_values: Mapping[str, Mapping[str, Floats]]
    tuned_values: Mapping[str, Mapping[str, Floats]]
    truncated: Mapping[str, np.ndarray]
    dropped: Sequence[DroppedText]
    tokenizers_equal: bool

    def gains(self, normalization: str, variant: str) -> Floats:
        """Gain of every document's ``variant``, shape (D,): tuned minus base; NaN where the document has no such text."""
        gain: Floats = self.tuned_values[normalization][variant] - self.base_values[normalization][variant]
        return gain

    def row_of(self, table: ScoreTable, variant: str, document: int) -> int:
        """Row of a document's ``variant`` in one of the two tables."""
        return table.rows[self.documents[document], variant]


def pair_scores(base: ScoreTable, tuned: ScoreTable) -> PairedScores:
    """Pair two score tables.

    Raises:
        MismatchedScoresError: They hold different texts under the same id, or were scored with other settings.
        NothingToDoError: No document has both an original and a variant.
    """
    _check_settings(base, tuned)
    _check_prefixes(base, tuned)
    _check_factors(base, tuned)
    shared = _shared_texts(base, tuned)
    documents = [document_id for document_id, variant in shared if variant == ORIGINAL]
    index = {document_id: number for number, document_id in enumerate(documents)}
    variants = sort_variants({variant for _, variant in shared}, base.factors)
    factors = {variant: base.factors[variant] for variant in variants if variant != ORIGINAL}
    if not any(variant != ORIGINAL and document_id in index for document_id, variant in shared):
        counts = f"{len(documents)} originals, {len(shared) - len(documents)} variants"
        message = f"no document has both an original and a variant ({counts}): nothing to compare"
        raise NothingToDoError(message)
    tokenizers_equal = _tokenize_alike(base, tuned, shared)
    normalizations = NORMALIZATIONS if tokenizers_equal else ("byte",)
    truncated = _truncated(base, tuned, variants, index)
    base_values, tuned_values = ({name: _values(table, variants, index, name) for name in normalizations} for table in (base, tuned))
    dropped = _dropped(base, tuned, shared, index, variants)
    if not tokenizers_equal:  # the same number of other tokens covers another stretch of the text
        dropped += _leave_out_cut_texts(base_values["byte"], truncated, documents)
    return PairedScores(
        base=base,
        tuned=tuned,
        documents=documents,
        factors=factors,
        control=control_variant(factors),
        normalizations=normalizations,
        base_values=base_values,
        tuned_values=tuned_values,
        truncated=truncated,
        dropped=dropped,
        tokenizers_equal=tokenizers_equal,
    )


def _leave_out_cut_texts(values: Mapping[str, Floats], truncated: Mapping[str, np.ndarray], documents: Sequence[str]) -> list[DroppedText]:
    """Blank the values of texts that a token limit cut, and name them."""
    dropped: list[DroppedText] = []
    for variant, cut in truncated.items():
        values[variant][cut] = np.nan
        reason = "cut by the token limit, at another place for each tokenizer"
        dropped += [DroppedText(variant, documents[number], reason) for number in np.flatnonzero(cut).tolist()]
    return dropped


def _check_settings(base: ScoreTable, tuned: ScoreTable) -> None:
    for name in _COMPARED_SETTINGS:
        here, there = base.manifest.config.get(name), tuned.manifest.config.get(name)
        if here != there:
            option = f"--{name.replace('_', '-')}"
            message = f"the two score folders differ in {name} ({here} for the base, {there} for the tuned model): score both with the same {option}"
            raise MismatchedScoresError(message)


def _check_prefixes(base: ScoreTable, tuned: ScoreTable) -> None:
    """Equal tokenizers must have put the same prefix before a text, or the two models scored different tokens of it."""
    here, there = base.manifest.details.get("prefix_ids"), tuned.manifest.details.get("prefix_ids")
    if base.tokenizer == tuned.tokenizer and here != there:
        message = f"the base model's tokenizer puts tokens {here} before a text and the tuned model's {there}: score both with --bos always, or never"
        raise MismatchedScoresError(message)


def _tokenize_alike(base: ScoreTable, tuned: ScoreTable, shared: Sequence[tuple[str, str]]) -> bool:
    """Whether both models cut the texts at hand into the same tokens: always with equal tokenizers, and often with one that only got a token added."""
    if base.tokenizer == tuned.tokenizer:
        return True
    if base.manifest.details.get("prefix_ids") != tuned.manifest.details.get("prefix_ids"):
        return False
    columns = ("token_id", "token_char_start", "token_char_end")
    return all(
        np.array_equal(getattr(base, column)[base.tokens(base.rows[key])], getattr(tuned, column)[tuned.tokens(tuned.rows[key])])
        for key in shared
        for column in columns
    )


def _check_factors(base: ScoreTable, tuned: ScoreTable) -> None:
    for variant in sorted(base.factors.keys() & tuned.factors.keys()):
        here, there = base.factors[variant], tuned.factors[variant]
        if here != there:
            message = (
                f"variant '{variant}' changes {here} in the base model's scores and {there} in the tuned model's: score both with the same --factor"
            )
            raise MismatchedScoresError(message)


def _shared_texts(base: ScoreTable, tuned: ScoreTable) -> list[tuple[str, str]]:
    shared = [key for key in base.rows if key in tuned.rows]
    for key in shared:
        if base.texts[base.rows[key]] != tuned.texts[tuned.rows[key]]:
            message = f"document {key[0]} ({key[1]}) has another text in the tuned model's scores: score both models on the same probe set"
            raise MismatchedScoresError(message)
    return shared


def _values(table: ScoreTable, variants: Sequence[str], index: Mapping[str, int], normalization: str) -> dict[str, Floats]:
    values = {variant: np.full(len(index), np.nan) for variant in variants}
    for (document_id, variant), row in table.rows.items():
        if document_id in index and variant in values and table.num_scored[row] > 0:
            total = table.logprob_nats[row]
            divisor = {"token": table.num_scored[row], "byte": table.num_scored_bytes[row], "document": 1}[normalization]
            values[variant][index[document_id]] = total / divisor if divisor else np.nan
    return values


def _truncated(base: ScoreTable, tuned: ScoreTable, variants: Sequence[str], index: Mapping[str, int]) -> dict[str, np.ndarray]:
    cut = {variant: np.zeros(len(index), dtype=bool) for variant in variants}
    for table in (base, tuned):
        for (document_id, variant), row in table.rows.items():
            if document_id in index and variant in cut and table.truncated[row]:
                cut[variant][index[document_id]] = True
    return cut


def _dropped(
    base: ScoreTable, tuned: ScoreTable, shared: Sequence[tuple[str, str]], index: Mapping[str, int], variants: Sequence[str]
) -> list[DroppedText]:
    dropped = [DroppedText(variant, document_id, "not scored under the tuned model") for document_id, variant in base.rows.keys() - tuned.rows.keys()]
    dropped += [DroppedText(variant, document_id, "not scored under the base model") for document_id, variant in tuned.rows.keys() - base.rows.keys()]
    dropped += [DroppedText(variant, document_id, "its document has no original") for document_id, variant in shared if document_id not in index]
    have = base.rows.keys() | tuned.rows.keys()
    dropped += [
        DroppedText(variant, document_id, "the document has no such variant")
        for variant in variants
        for document_id in index
        if (document_id, variant) not in have
    ]
    dropped += [
        DroppedText(variant, document_id, "no token has a score")
        for document_id, variant in shared
        if document_id in index and min(base.num_scored[base.rows[document_id, variant]], tuned.num_scored[tuned.rows[document_id, variant]]) == 0
    ]
    return sorted(dropped, key=lambda text: (text.variant, text.reason, text.document_id))
