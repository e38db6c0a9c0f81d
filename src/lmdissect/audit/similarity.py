"""Meaning kept: cosine similarities of sentence embeddings, sentence by sentence and of whole texts.

A text is embedded as its sentences, so that nothing is cut off at an embedder's limit, and every distinct sentence is embedded once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lmdissect.audit.words import split_sentences
from lmdissect.errors import RunFailedError
from lmdissect.progress import Progress

__all__ = ["Embedder", "SentenceVectors", "embed_sentences", "similarity_measures"]

Floats: TypeAlias = npt.NDArray[np.float32]
Embedder: TypeAlias = Callable[[Sequence[str]], Floats]
"""Texts to unit vectors, shape (N, D); the order of texts is kept."""

_BATCH = 128
_TURNS = 8


class SentenceVectors:
    """Unit vectors of sentences, and of texts as the mean of theirs weighted by characters."""

    def __init__(self, vectors: Mapping[str, Floats]) -> None:
        self._vectors = vectors

    def of(self, text: str) -> tuple[Floats, Floats]:
        """Vectors of the sentences of a plain text, shape (S, D), and their weights (characters), shape (S,); S = 0 for a text without words."""
        sentences = split_sentences(text)
        if not sentences:
            return np.zeros((0, 1), np.float32), np.zeros(0, np.float32)
        return np.stack([self._vectors[sentence] for sentence in sentences]), np.array([len(sentence) for sentence in sentences], np.float32)


def embed_sentences(texts: Iterable[str], embedder: Embedder, *, progress: Progress, stop: Callable[[], None] = lambda: None) -> SentenceVectors:
    """Embed every distinct sentence of plain texts, in batches of like length that waste little; long and short ones take turns, so that an ETA is true.

    Args:
        texts: The texts.
        embedder: Texts to unit vectors.
        progress: Where to report to.
        stop: Called between batches; raises to stop.

    Raises:
        RunFailedError: The embedder gave another number of vectors than of texts, or one that is not finite.
    """
    sentences = sorted({sentence for text in texts for sentence in split_sentences(text)}, key=lambda sentence: (-len(sentence), sentence))
    batches = [sentences[start : start + _BATCH] for start in range(0, len(sentences), _BATCH)]
    vectors: dict[str, Floats] = {}
    with progress.task("embedding", len(sentences), "sentences") as task:
        for batch in (batch for turn in range(_TURNS) for batch in batches[turn::_TURNS]):
            stop()
            found = np.asarray(embedder(batch), dtype=np.float32)
            if found.ndim != 2 or len(found) != len(batch) or not np.isfinite(found).all():
                message = f"the sentence embedder gave {found.shape} for {len(batch)} sentences, or values that are not finite: check the model"
                raise RunFailedError(message)
            vectors.update(zip(batch, found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), strict=True))
            task.advance(len(batch))
    return SentenceVectors(vectors)


def similarity_measures(original: str, variant: str, vectors: SentenceVectors) -> dict[str, float]:
    """Cosines between the sentences of two plain texts; empty where one has no sentence.

    similarity                 = cos(sum_s w_s e_s over the original, the same over the variant)            w = characters, e = unit vector
    original_sentences_matched = sum_s w_s max_t e_s.e_t / sum_s w_s      s in the original, t in the variant
    variant_sentences_matched  = the same with the sides exchanged
    least_sentence_similarity  = min_s max_t e_s.e_t                      the original's sentence that the variant keeps least
    """
    left, left_weights = vectors.of(original)
    right, right_weights = vectors.of(variant)
    if not len(left) or not len(right):
        return {}
    cosines = left @ right.T
    return {
        "similarity": _cosine(left_weights @ left, right_weights @ right),
        "original_sentences_matched": float(left_weights @ cosines.max(axis=1) / left_weights.sum()),
        "variant_sentences_matched": float(right_weights @ cosines.max(axis=0) / right_weights.sum()),
        "least_sentence_similarity": float(cosines.max(axis=1).min()),
    }


def _cosine(left: Floats, right: Floats) -> float:
    return float(left @ right / max(float(np.linalg.norm(left) * np.linalg.norm(right)), 1e-12))
