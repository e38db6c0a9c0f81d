"""Token scores of one text -> pieces of the text to colour: every character once, in order, whatever the tokenizer's offsets are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmdissect.report.content import Example
from lmdissect.report.text import clean_text

__all__ = ["NUM_STEPS", "TextPiece", "choose_scale", "cut_text"]

NUM_STEPS = 4
"""Shades on each side of 0."""

_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_COVERED = 0.97


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A run of characters with one colour.

    Attributes:
        text: Harmless to look at, not yet escaped.
        is_token: False for text that no kept token covers.
        base_nats: Log-probability under the base model, summed over the tokens of the piece; None without a score.
        tuned_nats: Likewise under the tuned model.
        num_tokens: Tokens that cover the piece.
        step: Shade, from -NUM_STEPS (less likely after finetuning) to NUM_STEPS; None without a score.
    """

    text: str
    is_token: bool
    base_nats: float | None
    tuned_nats: float | None
    num_tokens: int
    step: int | None


@dataclass(slots=True)
class _Group:
    start: int
    end: int
    tokens: list[int]


def choose_scale(examples: Sequence[Example]) -> float:
    """Gain, in nats, of the strongest shade: a round number that covers nearly all tokens shown."""
    gains = sorted(
        abs(tuned - base)
        for example in examples
        for base, tuned in zip(example.base_logprob_nats, example.tuned_logprob_nats, strict=True)
        if base is not None and tuned is not None
    )
    if not gains:
        return _SCALES[-1]
    wanted = gains[min(int(_COVERED * len(gains)), len(gains) - 1)]
    return next((scale for scale in _SCALES if scale >= wanted), _SCALES[-1])


def cut_text(example: Example, scale_nats: float) -> list[TextPiece]:
    """The text of ``example`` as pieces whose texts, joined, are the whole text.

    Tokens that share a character (bytes of one letter) and tokens of no width become one piece with their neighbour; their gains add up, as
    log-probabilities do.
    """
    pieces: list[TextPiece] = []
    done = 0
    for group in _group_tokens(example):
        if group.start > done:
            pieces.append(_plain(example.text[done : group.start]))
        pieces.append(_piece(example, group, scale_nats))
        done = group.end
    if done < len(example.text):
        pieces.append(_plain(example.text[done:]))
    return pieces


def _group_tokens(example: Example) -> list[_Group]:
    length = len(example.text)
    spans = [(min(max(start, 0), length), min(max(end, 0), length)) for start, end in zip(example.char_start, example.char_end, strict=True)]
    groups: list[_Group] = []
    waiting: list[int] = []
    for token in sorted(range(len(spans)), key=lambda index: (spans[index][0], index)):
        start, end = spans[token]
        if end <= start:
            (groups[-1].tokens if groups else waiting).append(token)
        elif groups and start < groups[-1].end:
            groups[-1].tokens.append(token)
            groups[-1].end = max(groups[-1].end, end)
        else:
            groups.append(_Group(start, end, [*waiting, token]))
            waiting = []
    return groups


def _plain(text: str) -> TextPiece:
    return TextPiece(clean_text(text), is_token=False, base_nats=None, tuned_nats=None, num_tokens=0, step=None)


def _piece(example: Example, group: _Group, scale_nats: float) -> TextPiece:
    scores = [
        (base, tuned)
        for token in group.tokens
        if (base := example.base_logprob_nats[token]) is not None and (tuned := example.tuned_logprob_nats[token]) is not None
    ]
    text = clean_text(example.text[group.start : group.end])
    if not scores:
        return TextPiece(text, is_token=True, base_nats=None, tuned_nats=None, num_tokens=len(group.tokens), step=None)
    base_nats, tuned_nats = math.fsum(base for base, _ in scores), math.fsum(tuned for _, tuned in scores)
    return TextPiece(
        text, is_token=True, base_nats=base_nats, tuned_nats=tuned_nats, num_tokens=len(group.tokens), step=_step(tuned_nats - base_nats, scale_nats)
    )


def _step(gain_nats: float, scale_nats: float) -> int:
    """Shade of a gain: none within half a step of 0, the strongest from the scale on."""
    steps = min(math.floor(abs(gain_nats) / scale_nats * NUM_STEPS + 0.5), NUM_STEPS)
    return steps if gain_nats > 0 else -steps
