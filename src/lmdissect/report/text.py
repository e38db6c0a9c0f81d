"""Untrusted text made harmless to look at. Escaping for HTML and LaTeX comes after this, where the text is written."""

import unicodedata

from lmdissect.wording import capitalize_first, join_words

__all__ = ["REPLACEMENT", "capitalize_first", "clean_text", "join_words", "short_label"]

REPLACEMENT = "\ufffd"
_KEPT_CONTROLS = "\n\t"
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs"})
_NONCHARACTER_BITS = 0xFFFE


def clean_text(text: str) -> str:
    """``text`` with every control character, lone surrogate, noncharacter and bidirectional override shown as U+FFFD.

    One character stays one character, so offsets into the text stay valid. Line feeds and tabs are kept; a carriage return is shown as a line
    feed, which is what a browser makes of it.
    """
    return "".join(_clean_character(character) for character in text)


def _clean_character(character: str) -> str:
    if character in _KEPT_CONTROLS:
        return character
    if character == "\r":
        return "\n"
    if character in _BIDI_CONTROLS or unicodedata.category(character) in _UNPRINTABLE_CATEGORIES:
        return REPLACEMENT
    return REPLACEMENT if ord(character) & _NONCHARACTER_BITS == _NONCHARACTER_BITS else character


def short_label(text: str, num_chars: int) -> str:
    """``text`` on one line, cut with an ellipsis after ``num_chars`` characters: for figures, where there is no scrolling."""
    line = " ".join(clean_text(text).split())
    return line if len(line) <= num_chars else f"{line[: num_chars - 1]}\u2026"
