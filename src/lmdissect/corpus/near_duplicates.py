"""Near-duplicates inside a corpus: which documents to drop so that no two that are kept have nearly the same text.

Documents are taken in the order of their seeded rank, and one is dropped if a kept one is near enough. So the order of files has no part in it; the
first N that are kept are those a sample of N takes, and a larger sample never changes what a smaller one holds. Since of near-duplicates only one is
kept, splits cannot hold two.

Memory: about 0.9 KB for each document at its peak, and the texts of those that have a candidate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmdissect.shingles import NUM_PERMUTATIONS, empty_index, jaccard, normalize_text, word_shingles

__all__ = ["NearDuplicate", "Signatures", "find_near_duplicates"]


@dataclass(frozen=True, slots=True)
class Signatures:
    """MinHashes of documents, in the order of their ranks.

    Attributes:
        values: One row for each document, shape (D, 128).
        locations: Where its text is: part and row, shape (D, 2).
    """

    values: npt.NDArray[np.uint32]
    locations: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A document that is dropped (its index among the signatures), the kept one it is like, and their similarity."""

    dropped: int
    kept: int
    similarity: float


def find_near_duplicates(signatures: Signatures, threshold: float, read_texts: Callable[[Sequence[int]], Mapping[int, str]]) -> list[NearDuplicate]:
    """Documents to drop, in order.

    Candidates share a band of their MinHash; each is verified by the exact similarity of the texts before anything is dropped.

    Args:
        signatures: All documents.
        threshold: Least Jaccard similarity of word 5-grams.
        read_texts: Texts of some documents, by index.
    """
    bands = list(_bands(signatures.values, threshold))
    in_question = np.flatnonzero(np.any([counts > 1 for _, counts in bands], axis=0)) if bands and len(signatures.values) else np.empty(0, np.int64)
    texts = read_texts(in_question.tolist())
    kept_in_bucket: list[dict[int, list[int]]] = [{} for _ in bands]
    found: list[NearDuplicate] = []
    for index in in_question.tolist():
        buckets = [kept.setdefault(int(hashes[index]), []) for kept, (hashes, _) in zip(kept_in_bucket, bands, strict=True)]
        match = _first_match(index, {other for bucket in buckets for other in bucket}, texts, threshold)
        if match is not None:
            found.append(match)
            continue
        for bucket in buckets:
            bucket.append(index)
    return found


def _first_match(index: int, candidates: set[int], texts: Mapping[int, str], threshold: float) -> NearDuplicate | None:
    here = word_shingles(normalize_text(texts[index])) if candidates else frozenset()
    for other in sorted(candidates):
        similarity = jaccard(here, word_shingles(normalize_text(texts[other])))
        if similarity >= threshold:
            return NearDuplicate(index, other, similarity)
    return None


def _bands(values: npt.NDArray[np.uint32], threshold: float) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]]:
    """For each band a hash of its values for every document, and how many documents share it."""
    index = empty_index(threshold)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, min(index.b * index.r, NUM_PERMUTATIONS), index.r):
        hashes = np.zeros(len(values), np.uint64)
        for column in range(start, start + index.r):
            hashes = (hashes ^ values[:, column].astype(np.uint64)) * multiplier
            hashes ^= hashes >> np.uint64(29)
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        yield hashes, counts[inverse]
