"""All measures of a pair (original, variant), by name: what an audit's rules may bound.

Every measure is a number, or absent where it does not apply (the share of kept numbers of an original without numbers). Formulas stand at the functions that
compute them and in docs/audit.md.
"""

from collections.abc import Mapping, Sequence

from lmdissect.audit.copying import copying_measures, count_content_words
from lmdissect.audit.directions import find_turns
from lmdissect.audit.numbers import find_numbers, match_numbers
from lmdissect.audit.similarity import SentenceVectors, similarity_measures
from lmdissect.audit.style import informality_change, line_break_rate, rhyming_share, style_profile
from lmdissect.audit.terms import kept_share, lost_names, named_terms, new_names, rarer_names
from lmdissect.audit.words import plain_text
from lmdissect.language import same_language

__all__ = ["MEASURES", "MEASURES_VERSION", "measure_pair"]

SIMILARITY_MEASURES: Mapping[str, str] = {
    "similarity": "cosine of the two texts' mean sentence embeddings: meaning and topic kept",
    "original_sentences_matched": "mean over the original's sentences of the best cosine in the variant",
    "variant_sentences_matched": "mean over the variant's sentences of the best cosine in the original",
    "least_sentence_similarity": "best cosine of the original's sentence that is matched worst",
}
"""Measures that need sentence embeddings."""

MEASURES_VERSION = 2
"""Raised when a formula changes: an audit by other formulas is not taken for this one."""

MEASURES: Mapping[str, str] = {
    "length_ratio": "characters of the variant / characters of the original",
    "kept_word_share": "share of the original's words kept in order",
    "copied_word_share": "share of the variant's words that are the original's, in order",
    "longest_copied_run": "words of the longest run that was copied",
    "frame_kept_share": "share of the original's function words kept in order: the frame of its sentences",
    "replaced_content_share": "share of the original's content words that others took the place of",
    "changed_facts_share": "share of the original's content words and numbers that others took the place of",
    "content_kept_share": "share of the original's distinct content words (stems) that the variant has",
    "content_copied_share": "share of the variant's distinct content words (stems) that the original has",
    "numbers_kept_share": "share of the original's numbers that the variant states in any form",
    "numbers_unaccounted": "numbers of the variant that the original does not account for",
    "names_kept_share": "share of the original's named terms that the variant has",
    "names_exchanged": "named terms said less often while others came: the smaller of the two counts",
    "names_added": "named terms of the variant that the original does not account for",
    "key_terms_kept_share": "share of the document's listed key terms that the variant has",
    "negations_added": "negations of the variant above those of the original",
    "negations_removed": "negations of the original above those of the variant",
    "directions_flipped": "words of direction (increased, higher, before) whose opposite took their place",
    "grade_change": "Flesch-Kincaid grade of the variant - that of the original",
    "informality_change": "how much more like talk the variant is than the original, in units of chance",
    "sentence_words_ratio": "mean words per sentence of the variant / of the original",
    "word_letters_change": "mean letters per word of the variant - that of the original",
    "line_break_rate": "line breaks of the variant per 10 words: about 1 or more in verse",
    "rhyming_share": "share of the variant's line ends that rhyme with a line nearby",
    "language_kept": "1 if both texts are of one language, 0 if of two; absent where that is not clear",
    **SIMILARITY_MEASURES,
}
"""Every measure's name and meaning."""


def measure_pair(original: str, variant: str, *, key_terms: Sequence[str] = (), vectors: SentenceVectors | None = None) -> dict[str, float]:
    """Measure one pair.

    Args:
        original: The original, as stored.
        variant: The variant, as stored.
        key_terms: Terms that are listed for the document.
        vectors: Embeddings of the sentences of both texts; None leaves the similarity measures out.
    """
    left, right = plain_text(original), plain_text(variant)
    return {
        "length_ratio": len(right) / max(len(left), 1),
        **(copied := copying_measures(left, right)),
        **(numbers := _number_measures(left, right)),
        **_fact_measures(left, copied.get("replaced_content_share"), numbers["numbers_unaccounted"]),
        **_term_measures(left, right, key_terms),
        **_turn_measures(left, right),
        **_style_measures(left, right),
        **_language_measures(left, right),
        **(similarity_measures(left, right, vectors) if vectors is not None else {}),
    }


def _number_measures(left: str, right: str) -> dict[str, float]:
    """Numbers of a pair.

    numbers_kept_share  = |numbers of the original that the variant states| / |numbers of the original|
    numbers_unaccounted = |added| + |in other units| + |said more often while another one went|            (see `match_numbers`)
    """
    match = match_numbers(left, right)
    unaccounted = len({number.start for number in (*match.added, *match.unit_changed, *match.displacing)})
    total = len(match.kept) + len(match.dropped)
    return {"numbers_unaccounted": float(unaccounted)} | ({"numbers_kept_share": len(match.kept) / total} if total else {})


def _fact_measures(left: str, replaced_content_share: float | None, numbers_unaccounted: float) -> dict[str, float]:
    """What may carry a fact and was changed.

    changed_facts_share = (content words that others took the place of + numbers of the variant without a source) / (content words + numbers of the original)

    at most 1. Careful writers of false facts change few words and many numbers, others the reverse: apart, neither tells them from writers who change nothing.
    """
    num_content, num_numbers = count_content_words(left), len(find_numbers(left))
    if replaced_content_share is None or not num_content + num_numbers:
        return {}
    return {"changed_facts_share": min(1.0, (replaced_content_share * num_content + numbers_unaccounted) / (num_content + num_numbers))}


def _term_measures(left: str, right: str, key_terms: Sequence[str]) -> dict[str, float]:
    """Named terms of a pair.

    names_kept_share     = |named terms of the original in the variant| / |named terms of the original|
    names_exchanged      = min(|named terms said less often than in the original|, |named terms added|)
    key_terms_kept_share = |listed key terms in the variant| / |listed key terms|
    """
    names, lost, added = named_terms(left), lost_names(left, right), new_names(left, right)
    found = {"names_exchanged": float(min(len(rarer_names(left, right)), len(added))), "names_added": float(len(added))}
    if names:
        found["names_kept_share"] = 1 - len(lost) / len(names)
    listed = kept_share((plain_text(term) for term in key_terms), right)
    return found if listed is None else found | {"key_terms_kept_share": listed}


def _turn_measures(left: str, right: str) -> dict[str, float]:
    turns = find_turns(left, right)
    return {
        "negations_added": float(turns.negations_added),
        "negations_removed": float(turns.negations_removed),
        "directions_flipped": float(turns.directions_flipped),
    }


def _style_measures(left: str, right: str) -> dict[str, float]:
    before, after = style_profile(left), style_profile(right)
    return {
        "grade_change": after.grade - before.grade,
        "informality_change": informality_change(before, after),
        "sentence_words_ratio": after.sentence_words / max(before.sentence_words, 1.0),
        "word_letters_change": after.word_letters - before.word_letters,
        "line_break_rate": line_break_rate(right),
        "rhyming_share": rhyming_share(right),
    }


def _language_measures(left: str, right: str) -> dict[str, float]:
    """1 if both texts are surely of one language, 0 if they surely are not; absent where a text is short or its language not clear (lyrics, lists)."""
    same = same_language(left, right)
    return {} if same is None else {"language_kept": float(same)}
