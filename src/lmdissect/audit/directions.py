"""Facts turned around: negations that came or went, and findings that point the other way."""

import re
from dataclasses import dataclass

from lmdissect.audit.lexicon import pole_pairs
from lmdissect.audit.words import word_tokens

__all__ = ["Turns", "count_negations", "find_turns"]

_NEGATION = re.compile(
    r"n't\b|\b(?:no|not|none|never|neither|nor|nobody|nothing|nope|cannot|without|lack|lacks|lacked|lacking|absence|absent|fail|fails|failed|failure|unable|hardly|un\w{2,}ed|non-?\w+)\b",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    r"\b(?:less|more|greater|fewer|higher|lower|larger|smaller)\s+than\s+(?:or\s+equal\s+to\s+)?(?=[\d.])|\bat\s+(?:least|most)\b", re.IGNORECASE
)
"""``p less than 0.05``: a sign in words, no direction of a finding."""
_AXES = pole_pairs()


@dataclass(frozen=True, slots=True)
class Turns:
    """What was turned around in a pair.

    Attributes:
        negations_added: Negations of the variant above those of the original; 0 if it has fewer.
        negations_removed: Negations of the original above those of the variant, likewise.
        directions_flipped: Words of one pole (increased) that went while as many words of the other pole (decreased) came, summed over the axes.
    """

    negations_added: int
    negations_removed: int
    directions_flipped: int


def count_negations(text: str) -> int:
    """Words of a plain text that deny: not, no, -n't, never, without, lack, fail, non-, un-...-ed."""
    return len(_NEGATION.findall(text))


def find_turns(original: str, variant: str) -> Turns:
    """Compare the negations and the poles of two plain texts.

        flipped = sum over axes of min(max(up_o - up_v, 0), max(down_v - down_o, 0)) + min(max(down_o - down_v, 0), max(up_v - up_o, 0))

    with the counts of an axis' words in original (o) and variant (v). A word that only went, or only came, is no flip: rewrites leave out and explain.
    """
    words = [[word.casefold() for word in word_tokens(_COMPARISON.sub(" ", text))] for text in (original, variant)]
    flipped = 0
    for up, down in _AXES:
        (up_o, down_o), (up_v, down_v) = [[sum(word in pole for word in found) for pole in (up, down)] for found in words]
        flipped += min(max(up_o - up_v, 0), max(down_v - down_o, 0)) + min(max(down_o - down_v, 0), max(up_v - up_o, 0))
    change = count_negations(variant) - count_negations(original)
    return Turns(max(change, 0), max(-change, 0), flipped)
