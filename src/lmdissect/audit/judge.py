"""A judge model's opinion on a pair: a rubric with one answer per criterion, read strictly.

The judge is asked the same questions as human readers (`criteria`), so that their answers can be compared. An answer that is not exactly the JSON that was
asked for counts as *not judged*, and a text that a judge was asked about and did not judge is not accepted.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

from lmdissect.audit.criteria import ACCEPT, CRITERIA, choose_criteria
from lmdissect.factors import CONTROL
from lmdissect.store import hash_text

__all__ = ["JUDGE", "Judge", "ScriptedJudge", "judge_prompt", "judge_prompt_hash", "parse_judgement", "reasons_of_judgement"]

JUDGE = "judge"
"""Name under which rejections by the judge are counted; its answers are the measures ``judge_CRITERION``."""

_CHANGES = {
    "topic": "its topic",
    "style": "its style",
    "factual": "its facts (to wrong ones that are as plausible)",
    CONTROL: "its wording alone: topic, style and facts stay",
}
_FENCE_CHARS = 12


class Judge(Protocol):
    """Whoever answers prompts: a connection to a model, or a script."""

    def __call__(self, prompts: Sequence[str]) -> Sequence[str | None]:
        """One answer for each prompt, in order; None where there was none."""


class ScriptedJudge:
    """A judge that gives the answers it was made with, by position, over and over: for tests and dry runs.

    Attributes:
        asked: The prompts it was given.
    """

    def __init__(self, answers: Sequence[str | None]) -> None:
        self._answers = tuple(answers)
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[str]) -> Sequence[str | None]:
        """The next answers."""
        first = len(self.asked)
        self.asked += prompts
        return [self._answers[(first + index) % len(self._answers)] for index in range(len(prompts))]


def judge_prompt(original: str, variant: str, factor: str) -> str:
    """The rubric for one pair. Both texts stand between markers that neither contains: a document cannot end its own fence."""
    changed = " and ".join(_CHANGES.get(part, f"its {part}") for part in factor.split("+"))
    fence = hash_text(f"{original}\x00{variant}")[:_FENCE_CHARS]
    criteria = [CRITERIA[name] for name in choose_criteria(factor)]
    rendered: str = _template().render(changed=changed, criteria=criteria, original=original, variant=variant, fence=fence)
    return rendered


def judge_prompt_hash() -> str:
    """SHA-256 of the rubric's template."""
    return hash_text(_source())


def parse_judgement(answer: str | None, factor: str) -> Mapping[str, float] | None:
    """Answers by criterion as the values that stand for them (yes 2, partly 1, no 0; accept 1, reject 0).

    Returns:
        None, *not judged*, unless ``answer`` is one JSON object with exactly the criteria asked, each once, and answers from their lists.
    """
    if answer is None:
        return None
    try:
        given = json.loads(answer, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        return None
    wanted = choose_criteria(factor)
    if not isinstance(given, dict) or set(given) != set(wanted):
        return None
    if not all(isinstance(given[name], str) and given[name] in CRITERIA[name].answers for name in wanted):
        return None
    return {name: float(CRITERIA[name].answers[given[name]]) for name in wanted}


def reasons_of_judgement(judgement: Mapping[str, float] | None) -> list[str]:
    """Why the judge does not accept a pair, in lines: it did not judge, it said *no* to a criterion, or it decided so."""
    if judgement is None:
        return ["judge: not judged (no answer, or not the JSON that was asked for)"]
    reasons = [f"judge says no: {CRITERIA[name].question}" for name, value in judgement.items() if value == 0 and name != ACCEPT]
    if judgement.get(ACCEPT) == 0 and not reasons:
        reasons.append("judge rejects it as a whole")
    return reasons


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        message = "a key twice"
        raise ValueError(message)
    return dict(pairs)


@cache
def _source() -> str:
    return (resources.files("lmdissect.audit") / "prompts" / "judge.j2").read_text(encoding="utf-8")


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2 is imported where it is used
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only a judge needs it

    return Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False).from_string(_source())  # noqa: S701 - a prompt, not HTML
