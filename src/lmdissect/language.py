"""Which language a text is in, and whether two texts are surely of one."""

from functools import cache
from typing import Any

__all__ = ["identify_language", "load_identifier", "same_language"]

_LOOKED_AT_CHARS = 600
_SHORTEST_CHARS = 120
_LEAST_PROBABILITY = 0.95


@cache
def load_identifier() -> Any:  # noqa: ANN401 - the package has no types
    """The classifier; it takes a moment to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped] # noqa: PLC0415 - loads a model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify_language(text: str) -> tuple[str, float]:
    """ISO 639-1 code of the beginning of ``text`` (600 characters), and its probability."""
    code, probability = load_identifier().classify(text[:_LOOKED_AT_CHARS])
    return str(code), float(probability)


def same_language(left: str, right: str) -> bool | None:
    """Whether two texts are of one language; None where that is not sure.

    Sure means: both have at least 120 characters, and the classifier gives both a probability of at least 0.95. Lyrics, lists and slang are often taken for
    small languages with less.
    """
    if min(len(left), len(right)) < _SHORTEST_CHARS:
        return None
    (before, sure_of_before), (after, sure_of_after) = identify_language(left), identify_language(right)
    return before == after if min(sure_of_before, sure_of_after) >= _LEAST_PROBABILITY else None
