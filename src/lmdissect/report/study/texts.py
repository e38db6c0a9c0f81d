"""The texts of one run for the explorer: which documents there are, how far each moved, and every token of a text with both scores."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmdissect.errors import MismatchedScoresError, NothingToDoError
from lmdissect.factors import CONTROL, ORIGINAL, control_variant, sort_variants
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.records import ExplorerSource
from lmdissect.report.content import Example
from lmdissect.report.spans import cut_text
from lmdissect.report.text import clean_text

__all__ = ["DocumentSummary", "RunTexts", "TextPieces", "read_run_texts"]

_SNIPPET_CHARS = 90
_SPECIAL = re.compile(r"[^\t\n\x20-\x7e\u00a1-\u02ff\u0370-\u03ff\u2010-\u2027\u2030-\u205e\u2190-\u22ff]")


@dataclass(frozen=True, slots=True)
class TextPieces:
    """One text cut into pieces, each of one token or of tokens that share a character. All arrays have shape (n,).

    Attributes:
        text: The text, harmless to look at; one character is one code point of the original text.
        start: First character of each piece.
        end: One past its last character.
        num_tokens: Tokens in the piece.
        base_nats: Log-probability under the base model; NaN without a score.
        tuned_nats: Likewise under the tuned model.
    """

    text: str
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]
    base_nats: npt.NDArray[np.float64]
    tuned_nats: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DocumentSummary:
    """One line of the explorer's list.

    Attributes:
        document_id: The document.
        snippet: How its original begins.
        gain: Gain on the original, nats per token; None where a text has no score.
        shifts: Shift of every variant against the original, in the order of the run's variants; None where it cannot be computed.
        net_shifts: The same net of the control.
        num_tokens: Tokens of the original that were scored or kept.
    """

    document_id: str
    snippet: str
    gain: float | None
    shifts: tuple[float | None, ...]
    net_shifts: tuple[float | None, ...]
    num_tokens: int


class RunTexts:
    """Texts and token scores of one run."""

    def __init__(self, base: ScoreTable, tuned: ScoreTable, label: str) -> None:
        self.base, self.tuned, self.label = base, tuned, label
        self.factors = dict(base.factors)
        names = sort_variants((name for name in set(base.variants) if name != ORIGINAL), self.factors)
        self.variants: list[str] = sorted(names, key=lambda name: self.factors.get(name) == CONTROL)
        self.document_ids: list[str] = [
            document
            for document, variant in zip(base.document_ids, base.variants, strict=True)
            if variant == ORIGINAL and (document, ORIGINAL) in tuned.rows
        ]

    @cached_property
    def _gains(self) -> dict[tuple[str, str], float]:
        """g(x) = (l_tuned - l_base) / n of every text that has a score."""
        base, tuned = self.base, self.tuned
        gains = {}
        for key, row in base.rows.items():
            other = tuned.rows.get(key)
            if other is not None and base.num_scored[row]:
                gains[key] = float((tuned.logprob_nats[other] - base.logprob_nats[row]) / base.num_scored[row])
        return gains

    def summaries(self) -> Iterator[DocumentSummary]:
        """Every document, in the order of the probe set: shift = g(original) - g(variant), net = g(control) - g(variant)."""
        control = control_variant(self.factors)
        for document in self.document_ids:
            gain = self._gains.get((document, ORIGINAL))
            row = self.base.rows[document, ORIGINAL]
            yield DocumentSummary(
                document,
                clean_text(" ".join(self.base.texts[row][: 2 * _SNIPPET_CHARS].split())[:_SNIPPET_CHARS]),
                gain,
                tuple(self._difference(gain, document, variant) for variant in self.variants),
                tuple(
                    None if control is None or variant == control else self._difference(self._gains.get((document, control)), document, variant)
                    for variant in self.variants
                ),
                int(self.base.token_offsets[row + 1] - self.base.token_offsets[row]),
            )

    def _difference(self, reference: float | None, document: str, variant: str) -> float | None:
        gain = self._gains.get((document, variant))
        return None if gain is None or reference is None else reference - gain

    def pieces(self, document: str, variant: str) -> TextPieces | None:
        """One text, cut and scored; None where the document does not have it."""
        row = self.base.rows.get((document, variant))
        other = self.tuned.rows.get((document, variant))
        if row is None or other is None:
            return None
        tokens, others = self.base.tokens(row), self.tuned.tokens(other)
        text = self.base.texts[row]
        start, end = self.base.token_char_start[tokens].astype(np.int64), self.base.token_char_end[tokens].astype(np.int64)
        base = self.base.token_logprob_nats[tokens].astype(np.float64)
        tuned = self.tuned.token_logprob_nats[others].astype(np.float64)
        if _is_plain(start, end, len(text)):
            return TextPieces(_clean(text), start, end, np.ones(len(start), np.int64), base, tuned)
        return _cut_slowly(text, start, end, base, tuned)


def _is_plain(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], length: int) -> bool:
    """Whether every token covers characters of its own, in order."""
    if not len(start):
        return True
    return bool((end > start).all() and (start[1:] >= end[:-1]).all() and start[0] >= 0 and end[-1] <= length)


def _cut_slowly(
    text: str, start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], base: npt.NDArray[np.float64], tuned: npt.NDArray[np.float64]
) -> TextPieces:
    """Tokens that share characters, put together as in the report of one pair."""
    example = Example("", "", text, None, start.tolist(), end.tolist(), _with_none(base), _with_none(tuned))
    at, spans = 0, []
    for piece in cut_text(example, 1.0):
        if piece.is_token:
            spans.append((at, at + len(piece.text), piece.num_tokens, piece.base_nats, piece.tuned_nats))
        at += len(piece.text)
    columns = list(zip(*spans, strict=True)) if spans else [(), (), (), (), ()]
    counts = [np.asarray(column, np.int64) for column in columns[:3]]
    scores = [np.asarray([np.nan if value is None else value for value in column], np.float64) for column in columns[3:]]
    return TextPieces(_clean(text), counts[0], counts[1], counts[2], scores[0], scores[1])


def _with_none(values: npt.NDArray[np.float64]) -> Sequence[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _clean(text: str) -> str:
    """`clean_text`, which looks at every character, only where there is one to look at."""
    return clean_text(text) if _SPECIAL.search(text) else text


def read_run_texts(source: ExplorerSource) -> RunTexts:
    """Read both score folders of a run.

    Raises:
        UnreadableInputError: A folder holds no finished scores.
        DamagedArtifactError: A file is missing or changed.
        MismatchedScoresError: The models cut the texts into different tokens, so that a token has no pair of scores.
        NothingToDoError: No document has an original under both models.
    """
    base, tuned = read_scores(source.base_scores), read_scores(source.tuned_scores)
    if base.tokenizer != tuned.tokenizer:
        message = f"{source.label}: base and tuned model have different tokenizers, so tokens cannot be shown side by side; choose another run"
        raise MismatchedScoresError(message)
    lengths, other_lengths = np.diff(base.token_offsets), np.diff(tuned.token_offsets)
    for key, row in base.rows.items():
        other = tuned.rows.get(key)
        if other is not None and (base.texts[row] != tuned.texts[other] or lengths[row] != other_lengths[other]):
            message = f"{source.label}: document {key[0]!r}, {key[1]!r}: the two score folders hold different texts or limits; score both again"
            raise MismatchedScoresError(message)
    texts = RunTexts(base, tuned, source.label)
    if not texts.document_ids:
        message = f"{source.label}: no document has an original under both models"
        raise NothingToDoError(message)
    return texts
