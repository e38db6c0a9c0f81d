"""Plain text, sentences, words, content words and syllables: what every measure counts.

Published abstracts hold HTML tags and entities that a rewrite rarely keeps, so texts are made plain before they are measured. Nothing here changes a stored
text.
"""

import html
import re
import unicodedata
from functools import lru_cache

from lmdissect.audit.lexicon import ordered_words, word_list

__all__ = ["all_stems", "content_words", "count_syllables", "is_function_word", "plain_text", "split_sentences", "stem", "word_tokens"]

_SUPERSCRIPT_TAG = re.compile(r"(?<=\d)<sup>\s*([+\u2212-]?\d+)\s*</sup>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|sub|sup|br|p|span|italic|bold)\s*/?>", re.IGNORECASE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT_RUN = re.compile(r"(?<=\d)[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_THIN_THOUSANDS = re.compile("(?<=\\d)[\u2009\u00a0\u202f](?=\\d{3}(?!\\d))")
_CHARACTERS = str.maketrans(
    dict.fromkeys("\u2019\u2018", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u2010\u2011\u2013\u2014\u2212", "-")
    | {"\u00b7": ".", "\u200b": "", "\u00ad": ""}
)
"""Quotes, dashes and the raised decimal point in ASCII; zero-width space and soft hyphen gone."""
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:[A-Za-z]|[A-Za-z](?:\.[A-Za-z])+|vs|cf|al|etc|approx|ca|fig|figs|no|nos|dr|mr|mrs|ms|prof|st|inc|ltd|co|corp|jr|sr|spp?|var|subsp|resp)\.$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_](?:[\w'-]*\w)?|\d[\w.,%'-]*\w|\d")
_VOWELS = re.compile(r"[aeiouy]+")
_MIN_STEM = 3
_ABBREVIATION_CHARS = 16
_FUNCTION_WORDS = word_list("function_words")
_SUFFIXES = ordered_words("suffixes")


def plain_text(text: str) -> str:
    """``text`` without tags and entities, quotes and dashes in their ASCII form, compatibility characters folded, line breaks kept.

    Exponents keep a caret (``10<sup>6</sup>`` and ``10⁶`` become ``10^6``), so that they are not read as 106.
    """
    found = html.unescape(html.unescape(text)) if "&" in text else text
    found = _TAG.sub("", _SUPERSCRIPT_TAG.sub(r"^\1", found))
    found = _SUPERSCRIPT_RUN.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), _THIN_THOUSANDS.sub("", found))
    return unicodedata.normalize("NFKC", found.translate(_CHARACTERS)).translate(_CHARACTERS)


def split_sentences(text: str) -> list[str]:
    """Sentences of a plain text: cut after ``. ! ?`` before a capital or a digit, and at line breaks; not after an initial or a usual abbreviation."""
    sentences: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if "\n" not in match.group() and _ABBREVIATION.search(text[max(start, match.start() - _ABBREVIATION_CHARS) : match.start() + 1]):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if any(character.isalnum() for character in sentence)]


def word_tokens(text: str) -> list[str]:
    """Words and numbers of a plain text, as written, without the punctuation around them."""
    return _WORD.findall(text)


def is_function_word(word: str) -> bool:
    """Whether ``word`` carries grammar or chat rather than content."""
    return word.casefold() in _FUNCTION_WORDS


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The word in lower case without its usual English endings (``infections`` and ``infected`` both give ``infect``): for matching, not for reading."""
    found = word.casefold().removesuffix("'s")
    for _ in range(2):
        for suffix in _SUFFIXES:
            if found.endswith(suffix) and len(found) - len(suffix) >= _MIN_STEM:
                found = found[: -len(suffix)]
                break
        else:
            break
    return found


def content_words(text: str) -> list[str]:
    """Stems of the words of a plain text that carry content: no function words, no numbers, at least three letters; in order."""
    return [stem(word) for word in word_tokens(text) if word[0].isalpha() and len(word) >= _MIN_STEM and not is_function_word(word)]


@lru_cache(maxsize=200_000)
def count_syllables(word: str) -> int:
    """Groups of vowels, less a silent final e, at least 1: a rule of thumb for reading levels, not a dictionary."""
    letters = "".join(character for character in unicodedata.normalize("NFD", word.casefold()) if character.isascii() and character.isalpha())
    groups = len(_VOWELS.findall(letters))
    silent = letters.endswith("e") and not letters.endswith(("le", "ee", "oe", "ye")) and groups > 1
    silent = silent or (letters.endswith("ed") and not letters.endswith(("ted", "ded")) and groups > 1)
    return max(groups - silent, 1)


@lru_cache(maxsize=4_096)
def all_stems(text: str) -> frozenset[str]:
    """Stems of all words of a plain text, the parts of hyphenated ones too."""
    words = word_tokens(text)
    return frozenset(stem(part) for word in words for part in (word, *word.split("-")) if part)
