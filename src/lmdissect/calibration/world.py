"""A language model that knows the grammar and has beliefs of its own, with exact scores.

Its text is a mixture over topic and style, which it does not see:

    log P(x) = log sum_t pi(t) prod_topic words P(w | t)  +  log sum_s rho(s) prod_style words P(w | s)
             + sum_sentences [log P(entity) + log P(relation) + log P(value | entity, relation)]
    P(w | t) = P(class of w | t) P(w | class, hand)

The score of a topic word is the log of its predictive probability, sum_t P(t | topic words so far) P(w | t): the same sum, one term at a time, so the scores
of a text add up to log P(x) exactly. How long a text is, is not the model's business: scores are of the words given that the text goes on.
"""

from dataclasses import dataclass

import numpy as np

from lmdissect.calibration.grammar import ENTITY, NUM_POSITIONS, RELATION, STYLE_SLOTS, TOPIC_SLOTS, VALUE, Floats, Grammar, Ints, TextBatch

__all__ = ["WorldModel", "log_sum_exp"]


@dataclass(frozen=True, slots=True)
class WorldModel:
    """Beliefs of one model.

    Attributes:
        grammar: The world it speaks of.
        topic_prior: pi, shape (T,).
        style_prior: rho, shape (S,).
        topic_classes: P(class | topic), shape (T, C).
        style_classes: P(class | style), shape (S, C).
        hand: P(word | class), shape (W,), the same in every class.
        beliefs: P(value | entity, relation), shape (E, R, V).
    """

    grammar: Grammar
    topic_prior: Floats
    style_prior: Floats
    topic_classes: Floats
    style_classes: Floats
    hand: Floats
    beliefs: Floats

    def document_scores(self, texts: TextBatch) -> Floats:
        """Score log P(x) of every text in nats, shape (D,)."""
        present = texts.present
        width = self.grammar.words_per_class
        topics = _latent_scores(self.topic_prior, self.topic_classes, texts.topic_words // width, present)[:, -1]
        styles = _latent_scores(self.style_prior, self.style_classes, texts.style_words // width, present)[:, -1]
        scores: Floats = topics + styles + (self._sentence_scores(texts) * present).sum(axis=1)
        return scores

    def token_scores(self, texts: TextBatch) -> Floats:
        """Score of every token in nats, shape (D, M P); beyond a text's end the numbers mean nothing."""
        num_texts, num_sentences = texts.entities.shape
        width = self.grammar.words_per_class
        scores = np.zeros((num_texts, num_sentences, NUM_POSITIONS))
        slots = (
            (TOPIC_SLOTS, self.topic_prior, self.topic_classes, texts.topic_words),
            (STYLE_SLOTS, self.style_prior, self.style_classes, texts.style_words),
        )
        for positions, prior, classes, words in slots:
            running = _latent_scores(prior, classes, words // width, np.ones(texts.entities.shape, bool))
            predictive = np.diff(running, axis=1, prepend=0.0).reshape(num_texts, num_sentences, len(positions))
            scores[:, :, list(positions)] = predictive + np.log(self.hand)[words % width]
        scores[:, :, ENTITY] = -np.log(self.grammar.num_entities)
        scores[:, :, RELATION] = -np.log(self.grammar.num_relations)
        scores[:, :, VALUE] = np.log(self.beliefs)[texts.entities, texts.relations, texts.values]
        return scores.reshape(num_texts, -1)

    def _sentence_scores(self, texts: TextBatch) -> Floats:
        """What no latent decides, for every sentence, shape (D, M): who writes, what is spoken about, what is claimed."""
        hand = np.log(self.hand)
        width = self.grammar.words_per_class
        claimed = np.log(self.beliefs)[texts.entities, texts.relations, texts.values]
        chosen = hand[texts.topic_words % width].sum(axis=2) + hand[texts.style_words % width].sum(axis=2)
        about = np.log(self.grammar.num_entities) + np.log(self.grammar.num_relations)
        scores: Floats = claimed + chosen - about
        return scores


def _latent_scores(prior_K: Floats, classes_KC: Floats, found_DMn: Ints, present_DM: np.ndarray) -> Floats:
    """Log of sum_k prior(k) prod P(class | k) over the first j words, for every j, shape (D, M n); absent sentences add nothing."""
    log_classes = np.log(classes_KC).T[found_DMn] * present_DM[:, :, None, None]
    running = np.cumsum(log_classes.reshape(len(found_DMn), -1, len(prior_K)), axis=1)
    return log_sum_exp(np.log(prior_K) + running)


def log_sum_exp(values: Floats) -> Floats:
    """Log of the sum of exp over the last axis."""
    highest = values.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(values - highest).sum(axis=-1)) + highest[..., 0]
    return total
