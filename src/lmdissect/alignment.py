"""Which words differ between an original and its rewrite, and which tokens belong to them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

__all__ = ["ChangedSpan", "changed_spans", "kept_word_share", "overlapping_tokens"]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class ChangedSpan:
    """A run of words that differs. Either side may be empty (words inserted or left out).

    Attributes:
        original: Character range in the original, or None where nothing stands there.
        variant: Character range in the variant, likewise.
        original_words: The words of the original in the span.
        variant_words: The words of the variant in the span.
        opens_sentence: Whether the first word of either side begins a sentence (its capital then says nothing).
    """

    original: tuple[int, int] | None
    variant: tuple[int, int] | None
    original_words: tuple[str, ...]
    variant_words: tuple[str, ...]
    opens_sentence: bool


def changed_spans(original: str, variant: str) -> list[ChangedSpan]:
    """Align the words of two texts (difflib, autojunk off) and list the runs that differ, in order."""
    left, right = list(_WORD.finditer(original)), list(_WORD.finditer(variant))
    left_words, right_words = [match.group() for match in left], [match.group() for match in right]
    matcher = SequenceMatcher(None, left_words, right_words, autojunk=False)
    return [
        ChangedSpan(
            original=_range(left, i1, i2),
            variant=_range(right, j1, j2),
            original_words=tuple(left_words[i1:i2]),
            variant_words=tuple(right_words[j1:j2]),
            opens_sentence=_opens_sentence(left_words, i1) or _opens_sentence(right_words, j1),
        )
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    ]


def _range(words: Sequence[re.Match[str]], start: int, end: int) -> tuple[int, int] | None:
    return (words[start].start(), words[end - 1].end()) if end > start else None


def _opens_sentence(words: Sequence[str], index: int) -> bool:
    return index == 0 or words[index - 1].rstrip("\"')]").endswith((".", "!", "?"))


def kept_word_share(original: str, variant: str) -> float:
    """Share of the original's words that the variant keeps in order (difflib word alignment); 1.0 for an original without words."""
    left, right = _WORD.findall(original), _WORD.findall(variant)
    if not left:
        return 1.0
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(left)


def overlapping_tokens(
    char_start: npt.NDArray[np.int32], char_end: npt.NDArray[np.int32], ranges: Sequence[tuple[int, int]]
) -> npt.NDArray[np.bool_]:
    """Which tokens cover any character of any range (a token that stands only for the space before a word does not), shape (n,)."""
    covered = np.zeros(len(char_start), dtype=bool)
    for start, end in ranges:
        covered |= (char_start < end) & (char_end > start)
    return covered
