"""What a human reader is asked about a pair of texts: the questions that follow from the factor a variant changes."""

from collections.abc import Mapping
from dataclasses import dataclass

from lmdissect.audit.agreement import Metric
from lmdissect.factors import FACTORS

__all__ = ["ACCEPT", "CRITERIA", "Criterion", "choose_criteria"]

ACCEPT = "accept"
"""The criterion that a variant's acceptance is read from."""

_GRADES: Mapping[str, int] = {"yes": 2, "partly": 1, "no": 0}
_DECISION: Mapping[str, int] = {"accept": 1, "reject": 0}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question about a pair.

    Attributes:
        name: A word; column of the CSV form.
        question: What the reader sees.
        answers: Possible answers, in the order in which they are shown, with the value each stands for.
    """

    name: str
    question: str
    answers: Mapping[str, int]

    @property
    def metric(self) -> Metric:
        """How far apart two answers are: by rank where they are grades, else just equal or not."""
        return "ordinal" if len(self.answers) > 2 else "nominal"


CRITERIA: Mapping[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("topic_changed", "Is the topic changed, as asked?", _GRADES),
        Criterion("style_changed", "Is the style changed, as asked?", _GRADES),
        Criterion("facts_changed", "Are the facts changed to others, as asked?", _GRADES),
        Criterion("changed", "Is the text changed, as asked?", _GRADES),
        Criterion("topic_kept", "Is the topic kept?", _GRADES),
        Criterion("style_kept", "Are style and tone kept?", _GRADES),
        Criterion("facts_kept", "Are facts, numbers and names kept?", _GRADES),
        Criterion("statements_kept", "Is it the same statement by statement, with the same numbers, in the new topic?", _GRADES),
        Criterion("rest_kept", "Is everything kept that must stay?", _GRADES),
        Criterion("fluent", "Is it fluent?", _GRADES),
        Criterion(ACCEPT, "All in all: would you use this pair?", _DECISION),
    )
}
"""All questions, in the order in which they are asked."""


def choose_criteria(factor: str) -> tuple[str, ...]:
    """Names of the questions about a variant of ``factor``: whether that factor changed, whether the others stayed, fluency, and the decision.

    Where the topic changes, the facts cannot stay: what must stay is what is said of the new subject. A factor that a user added is asked after as a whole.
    """
    parts = set(factor.split("+"))
    if not parts <= set(FACTORS):
        return ("changed", "rest_kept", "fluent", ACCEPT)
    facts = "facts_changed" if "factual" in parts else "statements_kept" if "topic" in parts else "facts_kept"
    asked = {"topic_changed" if "topic" in parts else "topic_kept", "style_changed" if "style" in parts else "style_kept", facts, "fluent", ACCEPT}
    return tuple(name for name in CRITERIA if name in asked)
