"""Factors of a text, and which factor each named variant changes.

A *factor* is one of the things that determine a text (topic, style, factual content). A *variant* is a rewrite in which one factor changed and
the rest stayed. The control is a rewrite in which nothing should have changed; its shift is what rewriting alone does.
Source: Zhang & Wu (2024), sections 2 and 3, for topic, style and factual and their variants; the control is ours.
"""

from collections.abc import Iterable, Mapping

from lmdissect.errors import UserInputError

__all__ = ["CONTROL", "FACTORS", "ORIGINAL", "VARIANT_FACTORS", "control_variant", "resolve_factors", "sort_variants"]

ORIGINAL = "original"
"""Name of the texts that every variant is compared with."""

CONTROL = "control"
"""Factor value of the rewrite that changes nothing but wording."""

FACTORS = ("topic", "style", "factual", CONTROL)
"""Factor values this package knows; combinations are joined with ``+`` (``topic+style``)."""

VARIANT_FACTORS: Mapping[str, str] = {
    "nonbiomedical": "topic",
    "biomedical": "topic",
    "everyday": "topic",
    "casual": "style",
    "rap": "style",
    "academic": "style",
    "plain": "style",
    "counterfactual": "factual",
    "paraphrase": CONTROL,
    "nonbiomedical_casual": "topic+style",
    "biomedical_academic": "topic+style",
    "everyday_casual": "topic+style",
}
"""Built-in mapping of variant name to factor: the paper's names, ours, and ``plain`` for natural pairs."""


def resolve_factors(variants: Iterable[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Factor of every variant: what the user gave, else the built-in mapping.

    Args:
        variants: Variant names; ``original`` is skipped.
        given: The user's own mapping of variant name to factor; wins over the built-in one.

    Returns:
        Mapping of variant name to factor, in report order.

    Raises:
        UserInputError: A variant has no factor in either mapping.
    """
    known = {**VARIANT_FACTORS, **(given or {})}
    names = [name for name in variants if name != ORIGINAL]
    for name in names:
        if name not in known:
            message = f"variant '{name}' has no factor: say which one it changes with --factor {name}=FACTOR (for example {name}=style)"
            raise UserInputError(message)
    return {name: known[name] for name in sort_variants(names, known)}


def sort_variants(variants: Iterable[str], factors: Mapping[str, str]) -> list[str]:
    """Variants in report order: original, topic, style, factual, control, combinations, the user's own; by name within a factor."""

    def rank(name: str) -> tuple[int, str, str]:
        if name == ORIGINAL:
            return (-1, "", name)
        factor = factors.get(name, "")
        if factor in FACTORS:
            return (FACTORS.index(factor), "", name)
        return (len(FACTORS) + (0 if "+" in factor else 1), factor, name)

    return sorted(variants, key=rank)


def control_variant(factors: Mapping[str, str]) -> str | None:
    """Name of the control among ``factors`` (variant name to factor), or None where there is none.

    Raises:
        UserInputError: Several variants claim to be the control.
    """
    names = sorted(name for name, factor in factors.items() if factor == CONTROL)
    if len(names) > 1:
        message = f"more than one control variant: {', '.join(names)}; give all but one another factor with --factor NAME=FACTOR"
        raise UserInputError(message)
    return names[0] if names else None
