"""When two texts are near-duplicates: the Jaccard similarity of their word 5-grams, and MinHash to find candidates.

    similarity = |A and B| / |A or B|   over the sets of word 5-grams of two normalised texts

Candidates come from MinHash with locality-sensitive hashing and are then verified by the exact similarity, so that no chance collision is reported.
Near the threshold a candidate may be missed; from 0.05 above it hardly ever.
"""

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

__all__ = ["NUM_PERMUTATIONS", "empty_index", "jaccard", "minhash", "normalize_text", "word_shingles"]

NUM_PERMUTATIONS = 128
_SHINGLE_WORDS = 5
_SEED = 1


def normalize_text(text: str) -> str:
    """``text`` with case folded and white space collapsed: what two copies of a text agree in."""
    return " ".join(text.casefold().split())


def word_shingles(normalized: str) -> frozenset[str]:
    """Word 5-grams of a normalised text; a shorter text is one shingle."""
    words = normalized.split(" ")
    count = max(len(words) - _SHINGLE_WORDS + 1, 1)
    return frozenset(" ".join(words[start : start + _SHINGLE_WORDS]) for start in range(count))


def jaccard(here: frozenset[str], there: frozenset[str]) -> float:
    """Similarity of two sets of shingles, from 0 to 1."""
    common = len(here & there)
    return common / (len(here) + len(there) - common)


def empty_index(threshold: float) -> "MinHashLSH":
    """An index for candidates of at least this similarity.

    Candidates are verified, so a false one costs little and a missed one is an error: it looks 0.1 below the threshold and weighs misses ninefold.
    """
    from datasketch import MinHashLSH  # noqa: PLC0415 - slow to load

    return MinHashLSH(threshold=max(threshold - 0.1, 0.05), num_perm=NUM_PERMUTATIONS, weights=(0.1, 0.9))


def minhash(shingles: frozenset[str]) -> "MinHash":
    """MinHash of a set of shingles: 128 permutations, fixed seed, the same on every machine."""
    from datasketch import MinHash  # noqa: PLC0415 - slow to load

    found = MinHash(num_perm=NUM_PERMUTATIONS, seed=_SEED, hashfunc=zlib.crc32)
    found.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
    return found
