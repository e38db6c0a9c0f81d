"""The exact expected shift: by hand where a hand can, and against very many drawn documents."""

import numpy as np
import pytest

from lmdissect.calibration import PLANTS, VARIANTS, Grammar, Plant, Rewriter, base_world, draw_probes, expected_gain, expected_shift, plant_world
from lmdissect.calibration.truth import _compositions

ROWS = [(variant, reference) for variant in VARIANTS for reference in ("original", "control") if (variant, reference) != ("paraphrase", "control")]


def test_compositions_are_all_ways_and_no_other() -> None:
    found = _compositions(3, 3)
    assert len(found) == 10
    assert len({tuple(row) for row in found.tolist()}) == 10
    assert found.sum(axis=1) == pytest.approx(3.0)


def test_fact_shift_by_hand() -> None:
    """One new fact in 36: a true statement gains log(0.7 / 0.125), each of the seven wrong ones log((0.3 / 7) / 0.125), with chance 1 / 36, on one token in eight."""
    base = base_world(Grammar())
    plant = Plant(("factual",), "one", new_facts=1)
    expected = (np.log(0.7 / 0.125) - np.log(0.3 / 7 / 0.125)) / 36 / 8
    assert expected_shift(base, plant_world(base, plant), "counterfactual", "original", "token", Rewriter()) == pytest.approx(expected, abs=1e-14)


def test_topic_shift_of_very_long_texts_is_the_change_of_the_log_prior() -> None:
    """With many words the topic is certain, and the log-ratio is that of the priors, on 8 tokens a sentence."""
    grammar = Grammar(sentence_counts=(40,))
    base = base_world(grammar)
    expected = (np.log(0.7 / 0.15)) / (8 * 40)
    assert expected_shift(base, plant_world(base, PLANTS["topic"]), "nontopic", "original", "token", Rewriter()) == pytest.approx(expected, rel=1e-4)


def test_hand_shows_in_every_rewrite_and_not_in_a_net_shift() -> None:
    base = base_world(Grammar())
    tuned = plant_world(base, PLANTS["hand"])
    shifts = {row: expected_shift(base, tuned, *row, "token", Rewriter()) for row in ROWS}
    assert len({round(shift, 12) for (_, reference), shift in shifts.items() if reference == "original"}) == 1
    assert shifts["paraphrase", "original"] > 0
    assert all(shift == pytest.approx(0.0, abs=1e-15) for (_, reference), shift in shifts.items() if reference == "control")


@pytest.mark.parametrize("plant", [name for name in PLANTS if name != "hand"])
def test_what_was_not_planted_has_a_truth_of_zero(plant: str) -> None:
    base = base_world(Grammar())
    tuned = plant_world(base, PLANTS[plant])
    for variant, reference in ROWS:
        shift = expected_shift(base, tuned, variant, reference, "token", Rewriter())
        assert (abs(shift) > 1e-3) == (VARIANTS[variant] in PLANTS[plant].factors)


def test_slips_put_their_share_of_the_planted_shift_into_other_variants() -> None:
    base = base_world(Grammar())
    tuned = plant_world(base, PLANTS["topic"])
    planted = expected_shift(base, tuned, "nontopic", "original", "document", Rewriter())
    careless = Rewriter(slips=0.2)
    assert expected_shift(base, tuned, "restyled", "original", "document", careless) == pytest.approx(0.1 * planted)
    assert expected_shift(base, tuned, "paraphrase", "original", "document", careless) == pytest.approx(0.2 / 3 * planted)
    assert expected_shift(base, tuned, "restyled", "control", "document", careless) == pytest.approx((0.1 - 0.2 / 3) * planted)


@pytest.mark.parametrize("num_documents", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_truth_is_the_mean_over_very_many_documents(num_documents: int) -> None:
    """Everything planted at once, a careless rewriter: every mean gain within 4.5 of its own standard errors (15 means, not independent)."""
    grammar = Grammar()
    base = base_world(grammar)
    tuned = plant_world(base, Plant((), "all", topic=0.7, style=0.6, new_facts=9, changed_facts=6, human_hand=True))
    rewriter = Rewriter(slips=0.15)
    draw = draw_probes(base, rewriter, num_documents, np.random.default_rng(20))
    num_sentences = draw.texts["original"].num_sentences
    divisors = {"token": grammar.num_tokens(num_sentences), "byte": grammar.num_bytes(num_sentences), "document": 1}
    for variant, texts in draw.texts.items():
        total = tuned.document_scores(texts) - base.document_scores(texts)
        for normalization, divisor in divisors.items():
            gain = total / divisor
            error = gain.std() / np.sqrt(num_documents)
            assert gain.mean() == pytest.approx(expected_gain(base, tuned, variant, normalization, rewriter), abs=4.5 * error)
