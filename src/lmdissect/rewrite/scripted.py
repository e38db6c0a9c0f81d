"""A generator that follows a script: for tests, dry runs, and for trying the rest of the program without a model."""

import json
from collections.abc import Callable

from lmdissect.rewrite.generator import RewriteRequest
from lmdissect.rewrite.outcomes import RawAnswer
from lmdissect.rewrite.prompt import REWRITE_FIELD, Prompt

__all__ = ["ScriptedGenerator", "retell"]

_CHARS_PER_TOKEN = 4


def retell(prompt: Prompt, _attempt: int) -> str:
    """The document under a line that names the variant: a text that no model wrote and that nobody will take for a rewrite."""
    return f"(As {prompt.variant}, by a script.) {prompt.document}"


class ScriptedGenerator:
    """A `Generator` that answers at once and always the same.

    Args:
        script: Gives the answer to a prompt and the number of an attempt: a rewrite, or a raw answer.
        name: What the probe set will say who wrote it.
    """

    location = "scripted"
    structured = False
    is_free = True
    max_concurrency: int | None = None

    def __init__(self, script: Callable[[Prompt, int], str | RawAnswer] = retell, *, name: str = "script") -> None:
        self.name = name
        self.num_sent = 0
        self._script = script

    def recall(self, dialect: str | None) -> None:
        """Nothing to recall."""

    def dialect(self) -> str | None:
        """Nothing is learned."""
        return None

    def request(self, prompt: Prompt, *, attempt: int, seed: int, max_output_tokens: int) -> RewriteRequest:
        """The request."""
        body = json.dumps(
            {"script": self.name, "messages": prompt.messages, "seed": seed, "max_tokens": max_output_tokens, REWRITE_FIELD: prompt.variant}
        )
        return RewriteRequest(body.encode(), self.location, attempt, seed, max_output_tokens, self.structured, prompt)

    async def send(self, request: RewriteRequest) -> RawAnswer:
        """What the script says."""
        self.num_sent += 1
        said = self._script(request.prompt, request.attempt)
        if isinstance(said, RawAnswer):
            return said
        return RawAnswer(
            text=said,
            finish_reason="stop",
            answered_by=self.name,
            input_tokens=len(request.body) // _CHARS_PER_TOKEN,
            output_tokens=len(said) // _CHARS_PER_TOKEN,
        )

    async def close(self) -> None:
        """Nothing to close."""
