"""How a request for a rewrite can end, each way with a name."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ASKED_AGAIN", "FAULTS", "REJECTIONS", "Outcome", "RawAnswer"]


class Outcome(StrEnum):
    """What became of one (document, recipe). Only ``ok`` gives a probe."""

    OK = "ok"
    REFUSAL = "refusal"
    """The model declined, in its refusal field or in words."""
    PREAMBLE = "preamble"
    """It talked about the rewrite, and where the talk ends cannot be told. A lead-in line that can be told apart is taken off and recorded instead."""
    EMPTY = "empty"
    """Nothing with a letter or a digit in it."""
    UNCHANGED_COPY = "unchanged_copy"
    """The original, or a piece of it, word for word."""
    CUT_OFF = "cut_off"
    """finish_reason=length: the token limit ended it."""
    CONTENT_FILTER = "content_filter"
    """The server's filter ended it (finish_reason=content_filter), or would not let it begin (an error of that name)."""
    WRONG_LANGUAGE = "wrong_language"
    """Clearly another language than the original's."""
    ECHOED_PROMPT = "echoed_prompt"
    """It holds pieces of the prompt."""
    INVALID_JSON = "invalid_json"
    """Structured output was asked for, and it is not that."""
    NO_CHOICES = "no_choices"
    """A well-formed response without any answer in it."""
    BAD_REQUEST = "bad_request"
    """The server will not take this request (too long, for example); asking again would not help."""
    FORBIDDEN = "forbidden"
    """403, where others are or were answered: about this request alone, or about a key that was good before; the next run asks again, which is free."""
    SERVER_ERROR = "server_error"
    """5xx, as often as it was asked; or 429 for as long as the patience lasts, while others were answered."""
    TIMEOUT = "timeout"
    """No whole response in the time allowed."""
    CONNECTION_LOST = "connection_lost"
    """Reset, refused, or broken off in the middle of a response."""
    MALFORMED_RESPONSE = "malformed_response"
    """A response that is not of the protocol: HTML, broken JSON."""
    NOT_ASKED = "not_asked"
    """The run ended before its turn came."""


ASKED_AGAIN = frozenset(
    {
        Outcome.REFUSAL,
        Outcome.PREAMBLE,
        Outcome.EMPTY,
        Outcome.UNCHANGED_COPY,
        Outcome.CUT_OFF,
        Outcome.CONTENT_FILTER,
        Outcome.WRONG_LANGUAGE,
        Outcome.ECHOED_PROMPT,
        Outcome.INVALID_JSON,
        Outcome.NO_CHOICES,
    }
)
"""Answers that are no rewrite: asked again with another seed, which is another request."""

FAULTS = frozenset({Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CONNECTION_LOST, Outcome.MALFORMED_RESPONSE})
"""No answer came: the same request is sent again, now and in a later run."""


REJECTIONS = frozenset({Outcome.BAD_REQUEST, Outcome.CONTENT_FILTER, Outcome.FORBIDDEN})
"""As a `RawAnswer.problem`: the server will not work on the request; nothing is billed, and nothing is learned about the others."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back for one request, before it is judged.

    Attributes:
        problem: Why there is no answer (a fault, a rejection, ``no_choices``); None where there is one.
        text: The message's content.
        refusal: The message's refusal field.
        finish_reason: Why the model stopped, in the server's word.
        answered_by: The model as the server names it.
        input_tokens: Tokens of the prompt as the server counts them; None where it does not say.
        output_tokens: Tokens of the answer, likewise.
        detail: What the server said of a problem, shortened.
    """

    problem: Outcome | None = None
    text: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    answered_by: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None

    @property
    def is_fault(self) -> bool:
        """Whether no answer came, so that asking again repeats nothing that was paid for."""
        return self.problem in FAULTS
