"""Whether probe texts are in a training corpus: by id, by text, and as near-duplicates.

A probe the model was finetuned on measures memory and not what finetuning moved. The probes are indexed, the corpus streams past them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lmdissect.errors import UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.records import Document, ProbeSet, ProbeText
from lmdissect.shingles import empty_index, jaccard, minhash, normalize_text, word_shingles

__all__ = ["OverlapMatch", "OverlapReport", "find_overlap"]

_PMID_PREFIX = re.compile(r"^pmid:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OverlapMatch:
    """One probe text that was found in the corpus.

    Attributes:
        document_id: Document of the probe.
        variant: Which of its texts; ``original`` for a match by id, which is about the document.
        corpus_id: The corpus document it was found in.
        kind: ``id`` (same id), ``text`` (same text up to case and white space) or ``near`` (near-duplicate).
        similarity: Jaccard similarity of the word 5-grams for ``near``; 1 for ``text``; None for ``id``, where texts were not compared.
    """

    document_id: str
    variant: str
    corpus_id: str
    kind: Literal["id", "text", "near"]
    similarity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapReport:
    """Which probe texts are in a corpus.

    Attributes:
        matches: In corpus order.
        threshold: Least Jaccard similarity of a near-duplicate.
        num_probe_texts: Texts that were looked for.
        num_corpus_documents: Documents that were looked through.
    """

    matches: tuple[OverlapMatch, ...]
    threshold: float
    num_probe_texts: int
    num_corpus_documents: int

    def document_ids(self) -> tuple[str, ...]:
        """Documents of the probe set with any match, sorted."""
        return tuple(sorted({match.document_id for match in self.matches}))


def find_overlap(probe_set: ProbeSet, corpus: Iterable[Document], *, threshold: float = 0.8) -> OverlapReport:
    """Look for originals and variants of a probe set in a corpus.

        similarity = |A and B| / |A or B|   over the sets of word 5-grams of two normalised texts

    Candidates come from MinHash with locality-sensitive hashing (128 permutations, fixed seed) and are then verified by the exact similarity, so
    that what is reported is never a chance collision. Near the threshold a candidate may be missed; from 0.05 above it hardly ever.

    Args:
        probe_set: The set.
        corpus: Training documents; read once, in order.
        threshold: Least similarity of a near-duplicate, in (0, 1].

    Raises:
        UserInputError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        message = f"threshold {threshold} is not in (0, 1]: 0.8 is a usual one"
        raise UserInputError(message)
    index = _ProbeIndex(probe_set.texts, threshold)
    matches: list[OverlapMatch] = []
    num_documents = 0
    for document in corpus:
        num_documents += 1
        matches.extend(index.matches(document))
    return OverlapReport(matches=tuple(matches), threshold=threshold, num_probe_texts=len(probe_set.texts), num_corpus_documents=num_documents)


class _ProbeIndex:
    """Probe texts by id, by normalised text, and by MinHash."""

    def __init__(self, texts: Sequence[ProbeText], threshold: float) -> None:
        self._texts = texts
        self._threshold = threshold
        self._by_id: dict[str, dict[str, None]] = {}
        self._by_text: dict[str, list[int]] = {}
        self._shingle_hashes: set[int] = set()
        self._lsh = empty_index(threshold)
        for number, text in enumerate(texts):
            self._add(number, text)

    def _add(self, number: int, text: ProbeText) -> None:
        self._by_id.setdefault(_bare_id(text.document_id), {})[text.document_id] = None
        normalized = normalize_text(text.text)
        self._by_text.setdefault(normalized, []).append(number)
        shingles = word_shingles(normalized)
        self._shingle_hashes.update(map(hash, shingles))
        self._lsh.insert(number, minhash(shingles))

    def matches(self, document: Document) -> Iterator[OverlapMatch]:
        """Everything found of one corpus document."""
        bare_ids = dict.fromkeys(_bare_id(name) for name in (document.document_id, *document.other_ids))
        for document_id in dict.fromkeys(found for name in bare_ids for found in self._by_id.get(name, ())):
            yield OverlapMatch(document_id, ORIGINAL, document.document_id, "id", None)
        normalized = normalize_text(document.text)
        same = self._by_text.get(normalized, [])
        for number in same:
            yield self._match(number, document, "text", 1.0)
        for number, similarity in self._near(word_shingles(normalized)):
            if number not in same:
                yield self._match(number, document, "near", similarity)

    def _match(self, number: int, document: Document, kind: Literal["text", "near"], similarity: float) -> OverlapMatch:
        probe = self._texts[number]
        return OverlapMatch(probe.document_id, probe.variant, document.document_id, kind, similarity)

    def _near(self, shingles: frozenset[str]) -> Iterator[tuple[int, float]]:
        if self._shingle_hashes.isdisjoint(map(hash, shingles)):  # true of nearly all of a corpus, and far cheaper than a MinHash
            return
        for number in sorted(self._lsh.query(minhash(shingles))):
            similarity = jaccard(shingles, word_shingles(normalize_text(self._texts[number].text)))
            if similarity >= self._threshold:
                yield number, similarity


def _bare_id(document_id: str) -> str:
    return _PMID_PREFIX.sub("", document_id.strip())
