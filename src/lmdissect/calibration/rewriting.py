"""Probe documents of the world and their variants, and training corpora.

An original has topic 0 and style 0 (the domain), states true facts, and is written by the human hand. A rewriter draws every word anew in its own hand, and keeps
topic, style and truth but for the factor of the variant:

    topic      another topic             (variant nontopic)
    style      another style             (variant restyled)
    factual    every value a wrong one   (variant counterfactual)
    control    nothing                   (variant paraphrase)

It replaces a share of the statements by others of the same kind (true ones, in a counterfactual wrong ones). A careless one also changes another factor, each as
likely, in a share ``slips`` of the documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmdissect.calibration.grammar import Floats, Grammar, Ints, TextBatch
from lmdissect.calibration.plants import human_hand, true_values
from lmdissect.calibration.world import WorldModel

__all__ = ["FACTORS", "VARIANTS", "ProbeDraw", "Rewriter", "draw_corpus", "draw_probes"]

FACTORS = ("topic", "style", "factual")
"""What a rewriter can change."""

VARIANTS: Mapping[str, str] = {"nontopic": "topic", "restyled": "style", "counterfactual": "factual", "paraphrase": "control"}
"""Variant name to factor, in report order."""

_RETOLD = 0.3
"""Share of the statements that a rewriter replaces by others."""


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Who writes the variants.

    Attributes:
        slips: Rate of documents in which a variant changes another factor too.
        own_hand: Whether it has preferences among words that the originals' writer has not.
    """

    slips: float = 0.0
    own_hand: bool = True

    def hand(self, grammar: Grammar) -> Floats:
        """P(word | class), shape (W,): the human hand backwards, or the human hand."""
        hand = human_hand(grammar)
        return hand[::-1].copy() if self.own_hand else hand


@dataclass(frozen=True, slots=True)
class ProbeDraw:
    """Originals and variants: ``texts[variant]``, row d of each is document d."""

    texts: Mapping[str, TextBatch]

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.texts["original"])


def draw_probes(base: WorldModel, rewriter: Rewriter, num_documents: int, rng: np.random.Generator) -> ProbeDraw:
    """Documents with all their variants.

    Args:
        base: Any model of the world: its classes decide what a topic and a style are. Its beliefs play no part.
        rewriter: Who writes the variants.
        num_documents: D.
        rng: Where the draws come from.
    """
    grammar = base.grammar
    num_sentences = rng.choice(np.asarray(grammar.sentence_counts), size=num_documents)
    shape = (num_documents, grammar.max_sentences)
    entities, relations = rng.integers(0, grammar.num_entities, size=shape), rng.integers(0, grammar.num_relations, size=shape)
    values = true_values(grammar)[entities, relations]
    zeros = np.zeros(num_documents, dtype=np.int64)
    original = _write(base, human_hand(grammar), zeros, zeros, TextBatch(num_sentences, entities, entities, entities, relations, values), rng)
    return ProbeDraw({"original": original, **{variant: _rewrite(base, original, factor, rewriter, rng) for variant, factor in VARIANTS.items()}})


def _rewrite(base: WorldModel, original: TextBatch, factor: str, rewriter: Rewriter, rng: np.random.Generator) -> TextBatch:
    grammar = base.grammar
    num_documents = len(original)
    changed = {name: np.full(num_documents, name == factor) for name in FACTORS}
    others = [name for name in FACTORS if name != factor]
    slipped = np.where(rng.random(num_documents) < rewriter.slips, rng.integers(0, len(others), size=num_documents), -1)
    for number, name in enumerate(others):
        changed[name] |= slipped == number
    topics = np.where(changed["topic"], rng.integers(1, grammar.num_topics, size=num_documents), 0)
    styles = np.where(changed["style"], rng.integers(1, grammar.num_styles, size=num_documents), 0)
    shape = original.entities.shape
    retold = rng.random(shape) < _RETOLD
    entities = np.where(retold, rng.integers(0, grammar.num_entities, size=shape), original.entities)
    relations = np.where(retold, rng.integers(0, grammar.num_relations, size=shape), original.relations)
    wrong = rng.integers(1, grammar.num_values, size=shape) * changed["factual"][:, None]
    values = (true_values(grammar)[entities, relations] + wrong) % grammar.num_values
    stated = TextBatch(original.num_sentences, entities, entities, entities, relations, values)
    return _write(base, rewriter.hand(grammar), topics, styles, stated, rng)


def _write(base: WorldModel, hand: Floats, topics: Ints, styles: Ints, stated: TextBatch, rng: np.random.Generator) -> TextBatch:
    """Draw the words around the statements."""
    return TextBatch(
        stated.num_sentences,
        _draw_words(base.style_classes[styles], hand, stated, rng),
        _draw_words(base.topic_classes[topics], hand, stated, rng),
        stated.entities,
        stated.relations,
        stated.values,
    )


def _draw_words(classes_DC: Floats, hand_W: Floats, stated: TextBatch, rng: np.random.Generator) -> Ints:
    """Numbers of two words in every sentence, shape (D, M, 2)."""
    shape = (*stated.entities.shape, 2)
    found = _draw_index(np.cumsum(classes_DC, axis=1)[:, None, None, :], rng.random(shape))
    words = _draw_index(np.cumsum(hand_W), rng.random(shape))
    return found * len(hand_W) + words


def _draw_index(cumulative: Floats, uniform: Floats) -> Ints:
    """Index of the step of a cumulative distribution (last axis) that a uniform number falls on."""
    index = (uniform[..., None] >= cumulative[..., :-1]).sum(axis=-1)
    return np.asarray(index, dtype=np.int64)


def draw_corpus(world: WorldModel, num_documents: int, rng: np.random.Generator) -> TextBatch:
    """Training documents: texts as the model ``world`` itself would write them."""
    grammar = world.grammar
    num_sentences = rng.choice(np.asarray(grammar.sentence_counts), size=num_documents)
    shape = (num_documents, grammar.max_sentences)
    entities, relations = rng.integers(0, grammar.num_entities, size=shape), rng.integers(0, grammar.num_relations, size=shape)
    values = _draw_index(np.cumsum(world.beliefs, axis=2)[entities, relations], rng.random(shape))
    topics = rng.choice(grammar.num_topics, p=world.topic_prior, size=num_documents)
    styles = rng.choice(grammar.num_styles, p=world.style_prior, size=num_documents)
    return _write(world, world.hand, topics, styles, TextBatch(num_sentences, entities, entities, entities, relations, values), rng)
