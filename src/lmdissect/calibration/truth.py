"""The exact expected shift: no simulation.

Given the number of sentences m, the log-ratio of tuned to base world is a sum of independent parts, each with a mean that can be computed:

    topic, style   E log [sum_k pi'(k) prod P(c | k) / sum_k pi(k) prod P(c | k)] over the multinomial counts of classes in 2 m words, by enumeration of the counts
    facts          m x mean over entities and relations of log P'(v | e, r) - log P(v | e, r), v the true value, or a wrong one
    hand           4 m x sum_w hand(w) [log hand'(w) - log hand(w)]

and a shift per token (byte, document) is the difference of two such means, divided by n(m) (b(m), 1), averaged over m.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.special import gammaln

from lmdissect.calibration.grammar import STYLE_SLOTS, TOPIC_SLOTS, Floats
from lmdissect.calibration.plants import human_hand, true_values
from lmdissect.calibration.rewriting import FACTORS, VARIANTS, Rewriter
from lmdissect.calibration.world import WorldModel, log_sum_exp

__all__ = ["expected_gain", "expected_shift"]


@dataclass(frozen=True, slots=True)
class _Parts:
    """Mean log-ratios of texts of one length: of the topic words [topic 0, another], the style words [style 0, another], the statements [true, wrong], in nats."""

    topic: tuple[float, float]
    style: tuple[float, float]
    factual: tuple[float, float]


def expected_shift(base: WorldModel, tuned: WorldModel, variant: str, reference: str, normalization: str, rewriter: Rewriter) -> float:
    """E[shift(d)] over documents, exact to rounding, in nats per ``normalization``.

    Args:
        base: The world before.
        tuned: The world after.
        variant: One of `VARIANTS`.
        reference: ``original`` or ``control``.
        normalization: ``token``, ``byte`` or ``document``.
        rewriter: Who writes the variants.
    """
    other = "original" if reference == "original" else "paraphrase"
    return expected_gain(base, tuned, other, normalization, rewriter) - expected_gain(base, tuned, variant, normalization, rewriter)


def expected_gain(base: WorldModel, tuned: WorldModel, variant: str, normalization: str, rewriter: Rewriter) -> float:
    """E[gain] of the texts of one variant (``original`` too); arguments as `expected_shift`."""
    grammar = base.grammar
    counts = np.asarray(grammar.sentence_counts)
    divisors = {"token": grammar.num_tokens(counts), "byte": grammar.num_bytes(counts), "document": np.ones_like(counts)}[normalization]
    gains = [_gain_of_length(base, tuned, variant, count, rewriter) for count in counts.tolist()]
    return float(np.mean(np.asarray(gains) / divisors))


def _gain_of_length(base: WorldModel, tuned: WorldModel, variant: str, count: int, rewriter: Rewriter) -> float:
    parts = _Parts(
        _latent_means(base.topic_prior, tuned.topic_prior, base.topic_classes, count * len(TOPIC_SLOTS)),
        _latent_means(base.style_prior, tuned.style_prior, base.style_classes, count * len(STYLE_SLOTS)),
        _fact_means(base, tuned, count),
    )
    hand = human_hand(base.grammar) if variant == "original" else rewriter.hand(base.grammar)
    written = 2 * (len(TOPIC_SLOTS)) * count * float((hand * (np.log(tuned.hand) - np.log(base.hand))).sum())
    factor = VARIANTS.get(variant)
    others = [name for name in FACTORS if name != factor]
    slip = 0.0 if factor is None else rewriter.slips / len(others)  # chance of each other factor
    total = written
    for name in FACTORS:
        kept, changed = getattr(parts, name)
        chance = 1.0 if name == factor else slip
        total += (1.0 - chance) * kept + chance * changed
    return total


def _latent_means(base_K: Floats, tuned_K: Floats, classes_KC: Floats, num_words: int) -> tuple[float, float]:
    """Mean log-ratio of ``num_words`` words of value 0, and of another value (each as likely)."""
    if np.array_equal(base_K, tuned_K):
        return 0.0, 0.0
    counts = _compositions(num_words, classes_KC.shape[1])
    weights = gammaln(num_words + 1) - gammaln(counts + 1).sum(axis=1)
    given = counts @ np.log(classes_KC).T
    ratio = log_sum_exp(np.log(tuned_K) + given) - log_sum_exp(np.log(base_K) + given)
    means = np.exp(weights[:, None] + given).T @ ratio
    return float(means[0]), float(means[1:].mean())


def _compositions(total: int, parts: int) -> Floats:
    """All ways to write ``total`` as an ordered sum of ``parts`` counts, shape (N, parts)."""
    if parts == 1:
        return np.full((1, 1), float(total))
    blocks = [
        np.hstack([np.full((comb(total - first + parts - 2, parts - 2), 1), float(first)), _compositions(total - first, parts - 1)])
        for first in range(total + 1)
    ]
    return np.vstack(blocks)


def _fact_means(base: WorldModel, tuned: WorldModel, count: int) -> tuple[float, float]:
    """Mean log-ratio of ``count`` statements that are true, and of as many that are wrong."""
    ratio = np.log(tuned.beliefs) - np.log(base.beliefs)
    truth = true_values(base.grammar)
    is_true = np.arange(base.grammar.num_values) == truth[:, :, None]
    return count * float(ratio[is_true].mean()), count * float(ratio[~is_true].mean())
