"""Asking a generator for something that is no rewrite: a judge's opinion, through the same ledger, limiter and named outcomes."""

import json
import re
from dataclasses import dataclass

from lmdissect.rewrite.judging import JudgedAnswer, without_reasoning
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import Prompt
from lmdissect.store import hash_text

__all__ = ["Question"]

_CODE_FENCE = re.compile(r"^```[\w-]*\n(.*?)\n?```$", re.DOTALL)
_NAME_CHARS = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt whose answer is one JSON object; which one is for the asker to check.

    Attributes:
        text: The prompt.
        variant: What the ledger calls it.
        factor: What the outcomes file it under.
    """

    text: str
    variant: str = "judge"
    factor: str = "judge"

    @property
    def document_ids(self) -> tuple[str, ...]:
        """A name made of the prompt: equal questions are one."""
        return (hash_text(self.text)[:_NAME_CHARS],)

    def prompt(self, *, structured: bool) -> Prompt:  # noqa: ARG002 - the schema of structured output is that of a rewrite
        """The prompt as one user turn."""
        return Prompt((("user", self.text),), self.text, self.variant, "")

    def judge(self, answer: RawAnswer, prompt: Prompt, *, structured: bool, lenient: bool) -> JudgedAnswer:  # noqa: ARG002 - as for a rewrite
        """Whether the answer is a whole JSON object; a code fence around it and the reasoning before it are taken off."""
        if answer.problem is not None:
            return JudgedAnswer(answer.problem, detail=answer.detail)
        if answer.refusal:
            return JudgedAnswer(Outcome.REFUSAL, detail=answer.refusal)
        if answer.finish_reason in {"length", "content_filter"}:
            return JudgedAnswer(Outcome.CUT_OFF if answer.finish_reason == "length" else Outcome.CONTENT_FILTER)
        said = answer.text or ""
        objects = (_object_in(text) for text in (said, without_reasoning(said, self.text) or ""))  # a tag inside of an answer ends no reasoning
        found = next((text for text in objects if text is not None), None)
        return JudgedAnswer(Outcome.OK, found) if found is not None else JudgedAnswer(Outcome.INVALID_JSON, detail=answer.text)


def _object_in(text: str) -> str | None:
    """The JSON object that a text is, a code fence around it taken off; None where it is none."""
    bare = text.strip()
    if (fenced := _CODE_FENCE.match(bare)) is not None:
        bare = fenced[1].strip()
    try:
        return bare if isinstance(json.loads(bare), dict) else None
    except (ValueError, RecursionError):
        return None
