"""What is in a probe set, and what looks wrong with it: missing and unpaired texts, copies, length, how much of the original a variant keeps."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lmdissect.alignment import kept_word_share
from lmdissect.factors import ORIGINAL, sort_variants
from lmdissect.records import ProbeSet
from lmdissect.shingles import normalize_text

__all__ = ["OverLongText", "ProbeCheck", "VariantCheck", "check_probe_set"]

_MAX_IDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantCheck:
    """One variant against the originals. Lists of ids hold the first 20, sorted; the counts are complete.

    Attributes:
        variant: Its name.
        factor: Factor it changes.
        num_texts: Texts of this variant.
        num_missing: Documents that have an original and not this variant.
        missing_ids: Some of them.
        num_orphans: Texts of this variant whose document has no original.
        orphan_ids: Some of their documents.
        num_identical: Texts equal to their original, character for character.
        identical_ids: Some of their documents.
        median_kept_word_share: Median over documents of the share of the original's words that the variant keeps in order; None without pairs.
        median_length_ratio: Median over documents of characters of the variant / characters of the original; None without pairs.
    """

    variant: str
    factor: str
    num_texts: int
    num_missing: int
    missing_ids: tuple[str, ...]
    num_orphans: int
    orphan_ids: tuple[str, ...]
    num_identical: int
    identical_ids: tuple[str, ...]
    median_kept_word_share: float | None
    median_length_ratio: float | None


@dataclass(frozen=True, slots=True)
class OverLongText:
    """A text with more tokens than the limit."""

    document_id: str
    variant: str
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCheck:
    """Findings on one probe set.

    Attributes:
        num_documents: Documents with any text.
        num_originals: Documents with an original.
        variants: Findings per variant, in report order.
        duplicate_originals: Groups of ids whose originals are the same text up to case and white space.
        max_tokens: The limit that ``over_long`` is about; None where no tokens were counted.
        over_long: Texts over it, in input order; empty where no tokens were counted.
    """

    num_documents: int
    num_originals: int
    variants: tuple[VariantCheck, ...]
    duplicate_originals: tuple[tuple[str, ...], ...]
    max_tokens: int | None
    over_long: tuple[OverLongText, ...]


def check_probe_set(probe_set: ProbeSet, *, tokenizer: Callable[[str], int] | None = None, max_tokens: int = 1024) -> ProbeCheck:
    """Look at every variant of a probe set.

    Args:
        probe_set: The set.
        tokenizer: Counts the tokens of a text; without it no text is called over-long.
        max_tokens: Tokens a text may have (1024 is what the paper scores).
    """
    table = probe_set.by_variant()
    originals = table.get(ORIGINAL, {})
    names = [name for name in sort_variants(table, probe_set.factors) if name != ORIGINAL]
    return ProbeCheck(
        num_documents=len({text.document_id for text in probe_set.texts}),
        num_originals=len(originals),
        variants=tuple(_check_variant(name, probe_set.factors.get(name, ""), originals, table[name]) for name in names),
        duplicate_originals=_duplicates(originals),
        max_tokens=max_tokens if tokenizer is not None else None,
        over_long=_over_long(probe_set, tokenizer, max_tokens) if tokenizer is not None else (),
    )


def _check_variant(name: str, factor: str, originals: Mapping[str, str], texts: Mapping[str, str]) -> VariantCheck:
    paired = [document_id for document_id in texts if document_id in originals]
    missing = [document_id for document_id in originals if document_id not in texts]
    orphans = [document_id for document_id in texts if document_id not in originals]
    identical = [document_id for document_id in paired if texts[document_id] == originals[document_id]]
    shares = [kept_word_share(originals[document_id], texts[document_id]) for document_id in paired]
    ratios = [len(texts[document_id]) / len(originals[document_id]) for document_id in paired]
    return VariantCheck(
        variant=name,
        factor=factor,
        num_texts=len(texts),
        num_missing=len(missing),
        missing_ids=_some(missing),
        num_orphans=len(orphans),
        orphan_ids=_some(orphans),
        num_identical=len(identical),
        identical_ids=_some(identical),
        median_kept_word_share=statistics.median(shares) if shares else None,
        median_length_ratio=statistics.median(ratios) if ratios else None,
    )


def _some(document_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(document_ids)[:_MAX_IDS])


def _duplicates(originals: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for document_id, text in originals.items():
        groups.setdefault(normalize_text(text), []).append(document_id)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1))


def _over_long(probe_set: ProbeSet, count_tokens: Callable[[str], int], max_tokens: int) -> tuple[OverLongText, ...]:
    counted = (OverLongText(text.document_id, text.variant, count_tokens(text.text)) for text in probe_set.texts)
    return tuple(text for text in counted if text.num_tokens > max_tokens)
