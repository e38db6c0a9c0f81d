"""Names and terms: what a text speaks of, kept or replaced in its rewrite."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from lmdissect.audit.words import all_stems, is_function_word, split_sentences, stem, word_tokens

__all__ = ["kept_share", "lost_names", "named_terms", "new_names", "rarer_names", "term_is_kept"]

_BEGINNING = 4
_NAME = re.compile(r"[^\W_]+(?:[-/+][^\W_]+)*")


@lru_cache(maxsize=20_000)
def named_terms(text: str) -> frozenset[str]:
    """Words of a plain text that look like names, as written: a capital or digit inside (DNA, IL-6, mRNA), or a first capital inside a sentence.

    A sentence in capitals alone and words such as ``I`` count for nothing.
    """
    found: set[str] = set()
    for sentence in split_sentences(text):
        words = _NAME.findall(sentence)
        capitals = sum(word[0].isupper() for word in words)
        titled = len(words) > 3 and capitals > 0.7 * len(words)
        for index, word in enumerate(words):
            if len(word) < 2 or word.isdigit() or is_function_word(word) or not any(character.isalpha() for character in word):
                continue
            inside = any(character.isupper() for character in word[1:]) or (any(character.isdigit() for character in word) and word[0].isalpha())
            first_capital = word[0].isupper() and index > 0 and not titled
            if (inside and not (titled and word.isupper())) or first_capital:
                found.add(word)
    return frozenset(found)


def term_is_kept(term: str, variant: str, variant_stems: frozenset[str]) -> bool:
    """Whether a rewrite still has a term: its letters and digits in order (up to case, hyphens and spaces), or the stems of its content words."""
    squeezed = _squeeze(term)
    if squeezed and squeezed in _squeeze(variant):
        return True
    stems = [stem(word) for word in word_tokens(term) if not is_function_word(word)]
    return bool(stems) and all(found in variant_stems for found in stems)


@lru_cache(maxsize=4_096)
def _squeeze(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def kept_share(terms: Iterable[str], variant: str) -> float | None:
    """Share of ``terms`` that a rewrite (plain text) still has; None where there are none to keep."""
    wanted = sorted(set(terms))
    if not wanted:
        return None
    stems = all_stems(variant)
    return sum(term_is_kept(term, variant, stems) for term in wanted) / len(wanted)


def lost_names(original: str, variant: str) -> list[str]:
    """Named terms of the original that a rewrite does not have any more; sorted."""
    stems = all_stems(variant)
    return sorted(term for term in named_terms(original) if not term_is_kept(term, variant, stems))


def rarer_names(original: str, variant: str) -> list[str]:
    """Named terms of the original, as written there, that a rewrite says less often; sorted."""
    before, after = (Counter(_NAME.findall(text)) for text in (original, variant))
    return sorted(term for term in named_terms(original) if after[term] < before[term])


def new_names(original: str, variant: str) -> list[str]:
    """Named terms of a rewrite that its original does not account for; sorted.

    Accounted for is a term that stands there in any spelling; an abbreviation of words that follow one another there, and words that spell out an abbreviation
    of it; a compound whose name-like parts stand there (``LPA-like``); and a form of a name that begins alike (``Scottish`` for ``Scotland``).
    """
    stems = all_stems(original)
    beginnings = {name[:_BEGINNING].casefold() for name in named_terms(original) if len(name) > _BEGINNING}
    spelled_out = _spelled_out(original, variant)
    return sorted(
        term
        for term in named_terms(variant)
        if not term_is_kept(term, original, stems)
        and not (term.isupper() and term.casefold() in _initials(original))
        and not _is_made_of(term, stems)
        and not (len(term) > _BEGINNING and term[:_BEGINNING].casefold() in beginnings)
        and term not in spelled_out
    )


@lru_cache(maxsize=8_192)
def _initials(text: str) -> str:
    return "".join(word[0] for word in _NAME.findall(text)).casefold()


def _spelled_out(original: str, variant: str) -> set[str]:
    """Words of the variant inside a run whose initials are an abbreviation of the original (``United States`` where it has ``US``)."""
    words, initials = _NAME.findall(variant), _initials(variant)
    short = [term.casefold() for term in named_terms(original) if term.isupper() and term.isalpha()]
    starts = [(match.start(), len(term)) for term in short for match in re.finditer(re.escape(term), initials)]
    return {word for start, length in starts for word in words[start : start + length]}


def _is_made_of(term: str, stems: frozenset[str]) -> bool:
    parts = [part for part in re.split(r"[-/+]", term) if part]
    names = [part for part in parts if any(character.isupper() or character.isdigit() for character in part)]
    return len(parts) > 1 and all(stem(part) in stems for part in names)
