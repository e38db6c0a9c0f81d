"""Which places of the originals are asked about, and what competes for each: drawn from texts and settings alone, before any model is loaded.

Two kinds of places: words that a counterfactual replaced (the true term, the counterfactual's, and terms of other documents), and the listed key terms of a
document at their first occurrence (the true term, and terms of other documents).
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from lmdissect.alignment import ChangedSpan, changed_spans
from lmdissect.factors import ORIGINAL
from lmdissect.formats.cloze_terms import ClozeTerm
from lmdissect.records import ProbeSet
from lmdissect.shifts.fact_tokens import EDGES, FUNCTION_WORDS, SELECTIONS, holds_key_term, holds_named_term, holds_number
from lmdissect.store import hash_text, seeded_rank

__all__ = ["ClozeConfig", "draw_terms"]

_STOPS = ".,;:!?"
_QUOTES = "\"'"
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_NO_CONTEXT = "nothing stands before the term"
_ONE_SIDED = "words on one side only, or a difference of punctuation alone"
_TWO_SENTENCES = "words on both sides of a sentence border"
_NOT_FOUND = "a listed key term that does not stand in the original"
_RANK_DIGITS = 8


class ClozeConfig(BaseModel):
    """Which terms are asked about. All draws come from ``seed`` and are the same for every model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_terms: int = Field(default=4, ge=1, description="terms of a document for each selection (changed, number, named, key_term)")
    num_candidates: int = Field(
        default=6, ge=2, description="strings that a rank is among: the true term, the counterfactual's, terms of other documents"
    )
    max_context_words: int = Field(default=256, ge=1, description="words before a term that are kept")
    max_term_words: int = Field(default=6, ge=1, description="a longer run of changed words is a reworded clause, not a term")
    seed: int = Field(default=0, ge=0, description="seed of the choice of terms and of the other documents' terms")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place of an original: where the true term stands, and what it is."""

    document_id: str
    variant: str
    start: int
    end: int
    true_term: str
    other_term: str | None
    kind: str
    selections: tuple[str, ...]


def draw_terms(probe_set: ProbeSet, config: ClozeConfig) -> tuple[list[ClozeTerm], dict[str, int]]:
    """Terms of every document that has an original.

    Of each selection of a document's changed words a uniform draw of ``max_terms`` is taken, so that every selection stands for all its words; a term may
    be drawn for several. Distractors have the kind of the true term and as many words where there are such; none stands anywhere in the original.

    Args:
        probe_set: Originals, counterfactuals, key terms.
        config: Settings.

    Returns:
        Terms in the order of the set, and how many places were left out, by reason.
    """
    table = probe_set.by_variant()
    originals = table.get(ORIGINAL, {})
    variants = [variant for variant, factor in probe_set.factors.items() if variant != ORIGINAL and "factual" in factor.split("+")]
    left_out: Counter[str] = Counter()
    places_of: dict[str, list[_Place]] = {}
    for document_id, original in originals.items():
        places = places_of.setdefault(document_id, [])
        key_terms = _key_terms(probe_set, document_id)
        for variant in variants:
            if document_id in table.get(variant, {}):
                places += _changed_places(document_id, original, variant, table[variant][document_id], key_terms, config, left_out)
        places += _listed_places(document_id, original, key_terms, left_out)
    pool = _Pool(itertools.chain.from_iterable(places_of.values()), config.seed)
    terms: list[ClozeTerm] = []
    for document_id, original in originals.items():
        terms += [_term(place, number, original, pool, config) for number, place in enumerate(_drawn(places_of[document_id], config))]
    return terms, dict(left_out)


def _key_terms(probe_set: ProbeSet, document_id: str) -> list[str]:
    listed = probe_set.metadata.get(document_id, {}).get("keywords")
    return [str(term) for term in listed] if isinstance(listed, (list, tuple)) else []


def _changed_places(
    document_id: str, original: str, variant: str, text: str, key_terms: Sequence[str], config: ClozeConfig, left_out: Counter[str]
) -> list[_Place]:
    places = []
    for span in changed_spans(original, text):
        if span.original is None or span.variant is None:
            left_out[_ONE_SIDED] += 1
            continue
        if max(len(span.original_words), len(span.variant_words)) > config.max_term_words:
            left_out[f"more than {config.max_term_words} words"] += 1
            continue
        if any(word.endswith((".", "!", "?")) for word in (*span.original_words[:-1], *span.variant_words[:-1])):
            left_out[_TWO_SENTENCES] += 1
            continue
        start, end = _bare(original, *span.original)
        true_term, other_term = original[start:end], text[slice(*_bare(text, *span.variant))]
        if not true_term or not other_term or true_term == other_term:
            left_out[_ONE_SIDED] += 1
        elif not original[:start].strip():
            left_out[_NO_CONTEXT] += 1
        else:
            kind, selections = _kind(span, key_terms), _selections(span, key_terms)
            places.append(_Place(document_id, variant, start, end, true_term, other_term, kind, selections))
    return places


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without the punctuation around it: stops at its end, quotes, brackets that are not closed inside or that hold all of it."""
    while start < end:
        first, last, piece = text[start], text[end - 1], text[start:end]
        if last in _STOPS or last in _QUOTES:
            end -= 1
        elif first in _QUOTES or (first in _BRACKETS and piece.find(_BRACKETS[first]) in {-1, len(piece) - 1}):
            start += 1
        elif any(last == closing and piece.count(closing) > piece.count(opening) for opening, closing in _BRACKETS.items()):
            end -= 1
        else:
            break
    return start, end


def _selections(span: ChangedSpan, key_terms: Sequence[str]) -> tuple[str, ...]:
    holds = {"changed": True, "number": holds_number(span), "named": holds_named_term(span), "key_term": holds_key_term(span, key_terms)}
    return tuple(name for name in SELECTIONS if holds[name])


def _kind(span: ChangedSpan, key_terms: Sequence[str]) -> str:
    """What the true term is, by its own words alone."""
    selections = _selections(replace(span, variant=None, variant_words=()), key_terms)
    return next((name for name in ("number", "named", "key_term") if name in selections), "words")


def _listed_places(document_id: str, original: str, key_terms: Sequence[str], left_out: Counter[str]) -> list[_Place]:
    places = []
    for term in {term.casefold(): term for term in key_terms}.values():
        found = re.search(rf"(?<![^\W_]){re.escape(term)}(?![^\W_])", original, re.IGNORECASE)
        if found is None:
            left_out[_NOT_FOUND] += 1
        elif not original[: found.start()].strip():
            left_out[_NO_CONTEXT] += 1
        else:
            places.append(_Place(document_id, ORIGINAL, found.start(), found.end(), found.group(), None, "key_term", ("key_term",)))
    return places


def _drawn(places: Sequence[_Place], config: ClozeConfig) -> Iterator[_Place]:
    """Places of one document that are asked about, with the selections they were drawn for, in text order."""
    ranked = sorted(places, key=lambda place: seeded_rank(f"{place.document_id}:{place.variant}:{place.start}", config.seed, "cloze"))
    taken: dict[_Place, list[str]] = {}
    for variant in dict.fromkeys(place.variant for place in places):
        for selection in SELECTIONS:
            members = [place for place in ranked if place.variant == variant and selection in place.selections]
            for place in members[: config.max_terms]:
                taken.setdefault(place, []).append(selection)
    for place in places:
        if place in taken:
            yield replace(place, selections=tuple(taken[place]))


class _Pool:
    """True terms of all documents by sort of place and number of words, in a seeded order."""

    def __init__(self, places: Iterable[_Place], seed: int) -> None:
        self._seed = seed
        texts: dict[tuple[bool, str], dict[int, dict[str, str]]] = {}
        for place in places:
            by_words = texts.setdefault(self._sort(place), {}).setdefault(len(place.true_term.split()), {})
            by_words.setdefault(place.true_term.casefold(), place.true_term)
        self._texts = {
            sort: {words: sorted(found.values(), key=lambda text: seeded_rank(text, seed, "distractor")) for words, found in by_words.items()}
            for sort, by_words in texts.items()
        }

    @staticmethod
    def _sort(place: _Place) -> tuple[bool, str]:
        return place.variant == ORIGINAL, place.kind

    def distractors(self, place: _Place, original: str, number: int) -> tuple[str, ...]:
        """So many terms of the same sort that stand nowhere in ``original``; fewer where there are fewer."""
        whole, taken = original.casefold(), {(place.other_term or "").casefold()}
        found: list[str] = []
        words = len(place.true_term.split())
        by_words: Mapping[int, Sequence[str]] = self._texts[self._sort(place)]
        for length in sorted(by_words, key=lambda length: (abs(length - words), length)):
            texts = by_words[length]
            first = int(seeded_rank(f"{place.document_id}:{place.variant}:{place.start}", self._seed, "distractors")[:_RANK_DIGITS], 16)
            for step in range(len(texts)):
                if len(found) == number:
                    return tuple(found)
                text = texts[(first + step) % len(texts)]
                if text.casefold() not in taken and text.casefold() not in whole:
                    found.append(text)
        return tuple(found)


def _term(place: _Place, number: int, original: str, pool: _Pool, config: ClozeConfig) -> ClozeTerm:
    words = list(re.finditer(r"\S+", original[: place.start]))
    context_start = words[-config.max_context_words].start() if len(words) > config.max_context_words else 0
    context = original[context_start : place.start]
    named = 1 if place.other_term is None else 2
    return ClozeTerm(
        term_id=f"{place.document_id}#{number}",
        document_id=place.document_id,
        variant=place.variant,
        kind=place.kind,
        selections=place.selections,
        context=context,
        true_term=place.true_term,
        other_term=place.other_term,
        distractors=pool.distractors(place, original, config.num_candidates - named),
        copied=any(_stands_in(term, context) for term in (place.true_term, place.other_term) if term is not None),
        context_cut=context_start > 0,
        text_hash=hash_text(original),
    )


def _stands_in(term: str, context: str) -> bool:
    """Whether every content word of ``term`` stands in ``context`` as a word of its own, in any order, up to case: "5" is not in "10.5"."""
    words = [word.strip(EDGES).casefold() for word in term.split()]
    content = [word for word in words if word and word not in FUNCTION_WORDS] or words
    whole = context.casefold()
    return all(re.search(rf"(?<![^\W_])(?<!\d[.,]){re.escape(word)}(?![^\W_])(?![.,]\d)", whole) for word in content)
