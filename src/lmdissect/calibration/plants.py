"""The base world, and the changes that are planted into it: each touches one kind of belief (or two), and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmdissect.calibration.grammar import Floats, Grammar, Ints
from lmdissect.calibration.world import WorldModel

__all__ = ["PLANTS", "Plant", "base_world", "plant_world", "resize_plant", "true_values"]

_OWN_CLASS, _OTHER_CLASS, _COMMON_CLASS = 0.5, 0.125, 0.25
_SURE = 0.7
"""Probability of the value that a model believes in; the others share the rest."""
_HAND_TILT = 0.85
"""Ratio of neighbouring words' probabilities in a hand that has preferences."""
_WORLD_SEED = 20240507


@dataclass(frozen=True, slots=True)
class Plant:
    """What is planted.

    Attributes:
        factors: Factors whose shift is not 0; ``control`` for the hand, which every rewrite shows.
        topic: Prior of the originals' topic; None leaves the base's.
        style: Prior of the originals' style.
        new_facts: How many facts that the base does not know are learned.
        changed_facts: How many facts that the base knows are overwritten by another value.
        human_hand: Whether the tuned model takes on the preferences of the hand that wrote the originals.
        text: In words.
    """

    factors: tuple[str, ...]
    text: str
    topic: float | None = None
    style: float | None = None
    new_facts: int = 0
    changed_facts: int = 0
    human_hand: bool = False


PLANTS: Mapping[str, Plant] = {
    "nothing": Plant((), "nothing"),
    "topic": Plant(("topic",), "topic prior", topic=0.7),
    "style": Plant(("style",), "style prior", style=0.7),
    "new_facts": Plant(("factual",), "new facts", new_facts=12),
    "changed_facts": Plant(("factual",), "changed facts", changed_facts=12),
    "topic_style": Plant(("topic", "style"), "topic and style prior", topic=0.7, style=0.7),
    "hand": Plant(("topic", "style", "factual", "control"), "human word choice", human_hand=True),
}
"""By name. ``hand`` is the writer's fingerprint: not a factor, and yet every rewrite by another hand shows it."""


def true_values(grammar: Grammar) -> Ints:
    """The world's facts: value of every entity and relation, shape (E, R)."""
    rng = np.random.default_rng([_WORLD_SEED, 1])
    return rng.integers(0, grammar.num_values, size=(grammar.num_entities, grammar.num_relations))


def human_hand(grammar: Grammar) -> Floats:
    """P(word | class) of whoever wrote the originals, shape (W,)."""
    weights = _HAND_TILT ** np.arange(grammar.words_per_class)
    hand: Floats = weights / weights.sum()
    return hand


def base_world(grammar: Grammar) -> WorldModel:
    """A model without preferences among topics and styles, without a hand, that knows half of the facts."""
    beliefs = np.full((grammar.num_entities, grammar.num_relations, grammar.num_values), 1.0 / grammar.num_values)
    known, _ = _split_facts(grammar)
    _believe(beliefs, known, true_values(grammar))
    return WorldModel(
        grammar=grammar,
        topic_prior=np.full(grammar.num_topics, 1.0 / grammar.num_topics),
        style_prior=np.full(grammar.num_styles, 1.0 / grammar.num_styles),
        topic_classes=_class_table(grammar.num_topics),
        style_classes=_class_table(grammar.num_styles),
        hand=np.full(grammar.words_per_class, 1.0 / grammar.words_per_class),
        beliefs=beliefs,
    )


def plant_world(base: WorldModel, plant: Plant) -> WorldModel:
    """``base`` with the change: the tuned world."""
    grammar = base.grammar
    beliefs = base.beliefs.copy()
    known, unknown = _split_facts(grammar)
    truth = true_values(grammar)
    _believe(beliefs, unknown[: plant.new_facts], truth)
    _believe(beliefs, known[: plant.changed_facts], (truth + 1) % grammar.num_values)
    return replace(
        base,
        topic_prior=base.topic_prior if plant.topic is None else _prior(grammar.num_topics, plant.topic),
        style_prior=base.style_prior if plant.style is None else _prior(grammar.num_styles, plant.style),
        hand=human_hand(grammar) if plant.human_hand else base.hand,
        beliefs=beliefs,
    )


def resize_plant(factor: str, size: str) -> Plant:
    """A small, medium or large change of one factor, beside a large change of others: for the question how many probe documents are needed.

    Without the others a shift and its spread over documents would shrink together, and any number of documents would do. A finetuned model always changes in
    other ways too, and in a world where these add nothing to the mean of a contrast they still add to its spread.

    Args:
        factor: ``topic``, ``style`` or ``factual``.
        size: ``small``, ``medium`` or ``large``.
    """
    text = f"{size} change of {factor}"
    if factor == "factual":
        return Plant((factor,), text, topic=0.7, style=0.7, new_facts={"small": 1, "medium": 2, "large": 4}[size])
    prior = {"small": 0.37, "medium": 0.42, "large": 0.5}[size]
    changed = Plant((factor,), text, new_facts=12, changed_facts=12)
    return replace(changed, topic=prior) if factor == "topic" else replace(changed, style=prior)


def _prior(number: int, first: float) -> Floats:
    """``first`` for the originals' value (number 0), the rest shared by the others."""
    prior = np.full(number, (1.0 - first) / (number - 1))
    prior[0] = first
    return prior


def _class_table(number: int) -> Floats:
    """P(class | topic or style), shape (K, K + 1)."""
    own = np.full((number, number), _OTHER_CLASS * 2 / (number - 1))
    np.fill_diagonal(own, _OWN_CLASS)
    return np.hstack([own, np.full((number, 1), _COMMON_CLASS)])


def _split_facts(grammar: Grammar) -> tuple[Ints, Ints]:
    """Numbers (entity x R + relation) of the facts that the base knows and of those it does not, in a fixed random order."""
    number = grammar.num_entities * grammar.num_relations
    order = np.random.default_rng([_WORLD_SEED, 2]).permutation(number)
    return order[: number // 2], order[number // 2 :]


def _believe(beliefs: Floats, facts: Ints, values: Ints) -> None:
    """Make each of ``facts`` believed in, in place."""
    num_relations, num_values = beliefs.shape[1:]
    for fact in facts.tolist():
        entity, relation = divmod(fact, num_relations)
        beliefs[entity, relation] = (1.0 - _SURE) / (num_values - 1)
        beliefs[entity, relation, values[entity, relation]] = _SURE
