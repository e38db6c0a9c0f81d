"""What a text of the synthetic world is.

    sentence = style word, entity, relation, value, style word, topic word, topic word, "."
    text     = 2 to 4 sentences

Words of a topic or style slot fall into classes; a topic (style) is a distribution over the classes, a *hand* (who holds the pen) one over the words of a class.
Entity and relation say what is spoken about, the value what is claimed of it. All words have four letters, so that tokens and bytes of a text follow from its
number of sentences alone.

Shape letters: D texts, M sentences of the longest text, P positions in a sentence (8), T topics, S styles, C classes, W words of a class, E entities,
R relations, V values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = [
    "BOS",
    "ENTITY",
    "EOS",
    "FULL_STOP",
    "NUM_POSITIONS",
    "RELATION",
    "STYLE_SLOTS",
    "TOPIC_SLOTS",
    "UNKNOWN",
    "VALUE",
    "Floats",
    "Grammar",
    "Ints",
    "TextBatch",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STYLE_SLOTS = (0, 4)
ENTITY, RELATION, VALUE = 1, 2, 3
TOPIC_SLOTS = (5, 6)
FULL_STOP = 7
NUM_POSITIONS = 8

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
_SPECIAL = (BOS, EOS, UNKNOWN)
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_WORD_BYTES = 4


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts as indices into the word lists of a grammar.

    Attributes:
        num_sentences: Shape (D,).
        style_words: Shape (D, M, 2), numbers of style words; what lies beyond a text's last sentence means nothing.
        topic_words: Shape (D, M, 2).
        entities: Shape (D, M).
        relations: Shape (D, M).
        values: Shape (D, M).
    """

    num_sentences: Ints
    style_words: Ints
    topic_words: Ints
    entities: Ints
    relations: Ints
    values: Ints

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.num_sentences)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which sentences there are, shape (D, M)."""
        mask: npt.NDArray[np.bool_] = np.arange(self.entities.shape[1])[None, :] < self.num_sentences[:, None]
        return mask


@dataclass(frozen=True)
class Grammar:
    """Sizes of the world, and its words.

    Attributes:
        num_topics: T.
        num_styles: S.
        words_per_class: W.
        num_entities: E.
        num_relations: R.
        num_values: V.
        sentence_counts: Numbers of sentences a text may have, each as likely.
    """

    num_topics: int = 3
    num_styles: int = 3
    words_per_class: int = 6
    num_entities: int = 12
    num_relations: int = 3
    num_values: int = 8
    sentence_counts: Sequence[int] = (2, 3, 4)

    @property
    def num_classes(self) -> tuple[int, int]:
        """Classes of topic and of style words: one that each topic (style) likes best, and one that all like the same."""
        return self.num_topics + 1, self.num_styles + 1

    @property
    def max_sentences(self) -> int:
        """M."""
        return max(self.sentence_counts)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All words by token id: special tokens, full stop, topic words, style words, entities, relations, values."""
        return (*_SPECIAL, ".", *_pseudo_words(sum(self._sizes)))

    @property
    def _sizes(self) -> tuple[int, int, int, int, int]:
        topics, styles = self.num_classes
        return (topics * self.words_per_class, styles * self.words_per_class, self.num_entities, self.num_relations, self.num_values)

    @cached_property
    def _first_ids(self) -> tuple[int, ...]:
        starts = np.cumsum([0, *self._sizes]) + len(_SPECIAL) + 1
        return tuple(int(start) for start in starts[:5])

    def token_ids(self, texts: TextBatch) -> Ints:
        """Token ids, shape (D, M P)."""
        topic, style, entity, relation, value = self._first_ids
        ids = np.empty((*texts.entities.shape, NUM_POSITIONS), dtype=np.int64)
        ids[:, :, list(STYLE_SLOTS)] = texts.style_words + style
        ids[:, :, list(TOPIC_SLOTS)] = texts.topic_words + topic
        ids[:, :, ENTITY] = texts.entities + entity
        ids[:, :, RELATION] = texts.relations + relation
        ids[:, :, VALUE] = texts.values + value
        ids[:, :, FULL_STOP] = len(_SPECIAL)
        return ids.reshape(len(texts), -1)

    def num_tokens(self, num_sentences: Ints) -> Ints:
        """n(x): every word and full stop is a token."""
        return num_sentences * NUM_POSITIONS

    def num_bytes(self, num_sentences: Ints) -> Ints:
        """b(x): seven words of four letters and a full stop in each sentence, a space between any two of them."""
        return num_sentences * ((NUM_POSITIONS - 1) * _WORD_BYTES + 1 + NUM_POSITIONS) - 1

    def render(self, texts: TextBatch) -> list[str]:
        """The texts as strings, words and full stops apart by one space."""
        words = np.asarray(self.vocabulary, dtype=object)[self.token_ids(texts)]
        return [" ".join(row[:length]) for row, length in zip(words.tolist(), self.num_tokens(texts.num_sentences).tolist(), strict=True)]


def _pseudo_words(number: int) -> list[str]:
    """``number`` different words of four letters; neighbours in the list share no syllable."""
    syllables = [consonant + vowel for vowel in _VOWELS for consonant in _CONSONANTS]
    step = 29  # has no divisor in common with the number of syllables, so that second syllables repeat late
    return [syllables[index % len(syllables)] + syllables[(index * step + 7 + index // len(syllables)) % len(syllables)] for index in range(number)]
