"""The synthetic world: its likelihoods against brute force, its text, its planted changes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lmdissect.calibration import PLANTS, Grammar, Rewriter, TextBatch, WorldModel, base_world, draw_corpus, draw_probes, plant_world
from lmdissect.calibration.grammar import NUM_POSITIONS, VALUE
from lmdissect.calibration.plants import human_hand, resize_plant, true_values


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar()


@pytest.fixture(scope="module")
def base(grammar: Grammar) -> WorldModel:
    return base_world(grammar)


def probability_by_hand(world: WorldModel, texts: TextBatch, row: int) -> float:
    """P(x) as the formula says it: a sum over all topics and styles of a product over all words."""
    grammar, count = world.grammar, int(texts.num_sentences[row])
    total = 0.0
    for topic, style in itertools.product(range(grammar.num_topics), range(grammar.num_styles)):
        product = world.topic_prior[topic] * world.style_prior[style]
        for sentence in range(count):
            for words, classes, latent in ((texts.topic_words, world.topic_classes, topic), (texts.style_words, world.style_classes, style)):
                for word in words[row, sentence]:
                    product *= classes[latent, word // grammar.words_per_class] * world.hand[word % grammar.words_per_class]
            entity, relation, value = (int(part[row, sentence]) for part in (texts.entities, texts.relations, texts.values))
            product *= world.beliefs[entity, relation, value] / grammar.num_entities / grammar.num_relations
        total += product
    return total


@pytest.mark.parametrize("plant", PLANTS)
def test_document_score_is_the_log_of_the_sum_over_topics_and_styles(base: WorldModel, plant: str) -> None:
    world = plant_world(base, PLANTS[plant])
    texts = draw_corpus(world, 5, np.random.default_rng(1))
    expected = [np.log(probability_by_hand(world, texts, row)) for row in range(5)]
    assert world.document_scores(texts) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("plant", PLANTS)
def test_token_scores_add_up_to_the_document_score(base: WorldModel, plant: str) -> None:
    world = plant_world(base, PLANTS[plant])
    texts = draw_corpus(world, 50, np.random.default_rng(2))
    tokens = world.token_scores(texts)
    inside = np.arange(tokens.shape[1])[None, :] < world.grammar.num_tokens(texts.num_sentences)[:, None]
    assert (tokens * inside).sum(axis=1) == pytest.approx(world.document_scores(texts), abs=1e-11)


def test_predictive_probabilities_of_a_slot_sum_to_one(base: WorldModel) -> None:
    """The second topic word of the last sentence, over every word it could be, given all that stands before it."""
    world = plant_world(base, PLANTS["topic_style"])
    texts = draw_corpus(world, 1, np.random.default_rng(3))
    number = world.grammar.num_classes[0] * world.grammar.words_per_class
    total = 0.0
    for word in range(number):
        words = texts.topic_words.copy()
        words[0, -1, 1] = word
        total += float(np.exp(world.token_scores(replace(texts, topic_words=words))[0, -2]))
    assert total == pytest.approx(1.0, abs=1e-12)


def test_evidence_moves_the_predictive_towards_the_topic_of_the_text(base: WorldModel) -> None:
    """Without evidence the first word of class 0 has the mean over topics; after a whole text of class 0 nearly the topic's own."""
    grammar = base.grammar
    zeros = np.zeros((1, 4), np.int64)
    texts = TextBatch(np.array([4]), np.zeros((1, 4, 2), np.int64), np.zeros((1, 4, 2), np.int64), zeros, zeros, zeros)
    scores = base.token_scores(texts)[0].reshape(4, NUM_POSITIONS)
    own, other = base.topic_classes[0, 0], base.topic_classes[1, 0]
    assert np.exp(scores[0, 5]) == pytest.approx((own + 2 * other) / 3 / grammar.words_per_class)
    assert np.exp(scores[3, 6]) == pytest.approx(own / grammar.words_per_class, rel=1e-3)


def test_rendered_texts_have_the_stated_tokens_and_bytes(base: WorldModel) -> None:
    grammar = base.grammar
    texts = draw_corpus(base, 20, np.random.default_rng(4))
    for text, ids, count, num_bytes in zip(
        grammar.render(texts), grammar.token_ids(texts), grammar.num_tokens(texts.num_sentences), grammar.num_bytes(texts.num_sentences), strict=True
    ):
        words = text.split(" ")
        assert len(words) == count
        assert len(text.encode()) == num_bytes
        assert [grammar.vocabulary[token] for token in ids[:count]] == words


def test_vocabulary_has_no_word_twice(grammar: Grammar) -> None:
    assert len(set(grammar.vocabulary)) == len(grammar.vocabulary) == 75


@pytest.mark.parametrize(
    ("plant", "changed"),
    [
        ("nothing", set()),
        ("topic", {"topic_prior"}),
        ("style", {"style_prior"}),
        ("new_facts", {"beliefs"}),
        ("changed_facts", {"beliefs"}),
        ("topic_style", {"topic_prior", "style_prior"}),
        ("hand", {"hand"}),
    ],
)
def test_a_plant_changes_what_it_says_and_nothing_else(base: WorldModel, plant: str, changed: set[str]) -> None:
    tuned = plant_world(base, PLANTS[plant])
    names = ("topic_prior", "style_prior", "topic_classes", "style_classes", "hand", "beliefs")
    assert {name for name in names if not np.array_equal(getattr(base, name), getattr(tuned, name))} == changed
    assert tuned.beliefs.sum(axis=2) == pytest.approx(1.0)


def test_new_facts_were_unknown_and_changed_facts_were_known(base: WorldModel) -> None:
    truth = true_values(base.grammar)
    at_truth = np.take_along_axis(base.beliefs, truth[:, :, None], axis=2)[:, :, 0]
    new = np.take_along_axis(plant_world(base, PLANTS["new_facts"]).beliefs, truth[:, :, None], axis=2)[:, :, 0]
    changed = np.take_along_axis(plant_world(base, PLANTS["changed_facts"]).beliefs, truth[:, :, None], axis=2)[:, :, 0]
    assert np.count_nonzero(at_truth > 0.5) == 18
    assert at_truth[new > at_truth] == pytest.approx(1 / 8)
    assert np.count_nonzero(new > at_truth) == 12
    assert at_truth[changed < at_truth] == pytest.approx(0.7)
    assert np.count_nonzero(changed < at_truth) == 12


def test_a_larger_change_is_larger(base: WorldModel) -> None:
    priors = [plant_world(base, resize_plant("topic", size)).topic_prior[0] for size in ("small", "medium", "large")]
    assert base.topic_prior[0] < priors[0] < priors[1] < priors[2]


def test_a_careful_rewriter_changes_one_factor(base: WorldModel) -> None:
    draw = draw_probes(base, Rewriter(), 4000, np.random.default_rng(5))
    truth = true_values(base.grammar)
    present = draw.texts["original"].present
    width = base.grammar.words_per_class
    for variant, texts in draw.texts.items():
        topic = (texts.topic_words[present] // width == 0).mean()
        style = (texts.style_words[present] // width == 0).mean()
        states_truth = texts.values[present] == truth[texts.entities[present], texts.relations[present]]
        assert topic == pytest.approx(0.125 if variant == "nontopic" else 0.5, abs=0.02)
        assert style == pytest.approx(0.125 if variant == "restyled" else 0.5, abs=0.02)
        assert states_truth.all() if variant != "counterfactual" else not states_truth.any()


@pytest.mark.parametrize("slips", [0.1, 0.4])
def test_a_careless_rewriter_changes_another_factor_at_the_stated_rate(base: WorldModel, slips: float) -> None:
    draw = draw_probes(base, Rewriter(slips), 6000, np.random.default_rng(6))
    truth = true_values(base.grammar)
    for variant, others in (("nontopic", 2), ("paraphrase", 3)):
        texts = draw.texts[variant]
        wrong = texts.values[:, 0] != truth[texts.entities[:, 0], texts.relations[:, 0]]
        assert wrong.mean() == pytest.approx(slips / others, abs=0.02)


def test_hands_are_distributions_and_the_rewriter_has_another(grammar: Grammar) -> None:
    human, other = human_hand(grammar), Rewriter().hand(grammar)
    assert human.sum() == pytest.approx(1.0)
    assert other.sum() == pytest.approx(1.0)
    assert human[0] > other[0]
    assert np.array_equal(Rewriter(own_hand=False).hand(grammar), human)


def test_a_corpus_states_what_its_world_believes(base: WorldModel) -> None:
    tuned = plant_world(base, PLANTS["changed_facts"])
    texts = draw_corpus(tuned, 20_000, np.random.default_rng(7))
    present = texts.present
    believed = tuned.beliefs[texts.entities[present], texts.relations[present]].max(axis=1)
    stated = tuned.beliefs[texts.entities[present], texts.relations[present], texts.values[present]]
    sure = believed > 0.5
    assert (stated[sure] > 0.5).mean() == pytest.approx(0.7, abs=0.01)


def test_values_are_scored_by_belief_alone(base: WorldModel) -> None:
    texts = draw_corpus(base, 3, np.random.default_rng(8))
    scores = base.token_scores(texts).reshape(3, -1, NUM_POSITIONS)
    assert np.exp(scores[:, :, VALUE]) == pytest.approx(base.beliefs[texts.entities, texts.relations, texts.values])
