"""Whether a rewrite is clearly in another language than its original."""

from functools import cache
from typing import Any

__all__ = ["load_identifier", "other_language"]

_LOOKED_AT_CHARS = 600
_SHORTEST_CHARS = 120
_LEAST_PROBABILITY = 0.95


@cache
def load_identifier() -> Any:  # noqa: ANN401 - the package has no types
    """The classifier; it takes a moment to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped] # noqa: PLC0415 - loads a model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def other_language(original: str, rewrite: str) -> str | None:
    """Language code of ``rewrite`` where it surely is not the one of ``original``; None elsewhere.

    Sure means: both texts have at least 120 characters, and the classifier gives the beginnings of both (600 characters) a probability of at least 0.95.
    Lyrics and slang are often taken for small languages with less.
    """
    if min(len(original), len(rewrite)) < _SHORTEST_CHARS:
        return None
    (expected, sure_of_expected), (found, sure_of_found) = (load_identifier().classify(text[:_LOOKED_AT_CHARS]) for text in (original, rewrite))
    if expected == found or min(sure_of_expected, sure_of_found) < _LEAST_PROBABILITY:
        return None
    return str(found)
