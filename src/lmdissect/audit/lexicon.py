"""The word lists that measures count by: `lexicon.yaml`, read once."""

from functools import cache
from importlib import resources
from typing import Any

from lmdissect.store import hash_text

__all__ = ["lexicon_hash", "ordered_words", "pole_pairs", "word_list"]


def word_list(name: str) -> frozenset[str]:
    """The words under ``name``."""
    return frozenset(str(_lexicon()[name]).split())


def ordered_words(name: str) -> tuple[str, ...]:
    """The words under ``name`` in their order."""
    return tuple(str(_lexicon()[name]).split())


def pole_pairs() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """Pairs of opposite directions (increased ..., decreased ...), each as the words of its two poles."""
    return tuple((frozenset(str(up).split()), frozenset(str(down).split())) for up, down in _lexicon()["directions"])


def lexicon_hash() -> str:
    """Hash of the word lists: measures made by other lists are other measures."""
    return hash_text(_source())


@cache
def _source() -> str:
    return (resources.files("lmdissect.audit") / "lexicon.yaml").read_text(encoding="utf-8")


@cache
def _lexicon() -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only needed here

    found: dict[str, Any] = yaml.safe_load(_source())
    return found
