"""What writes: one seam for a server, a local model and a script."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from lmdissect.errors import UserInputError
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import Prompt

__all__ = ["AtCapacityError", "DialectChangedError", "ForbiddenError", "Generator", "RequestFaultError", "RewriteRequest", "request_key"]


def request_key(location: str, body: bytes, attempt: int) -> str:
    """Key of a request in the ledger: SHA-256 (hex) over where it goes, the bytes that are sent, and the number of the attempt.

    The attempt is in the body too, as its seed; it stands here for servers that take no seed.
    """
    digest = hashlib.sha256()
    for part in (location.encode(), str(attempt).encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """One request, ready to be sent.

    Attributes:
        body: The bytes that are sent.
        location: Where they go.
        attempt: Number of the attempt, from 0.
        seed: Seed in it.
        max_output_tokens: Token limit in it.
        structured: Whether it asks for JSON.
        prompt: What the body was made from.
        key: Its key in the ledger.
    """

    body: bytes
    location: str
    attempt: int
    seed: int
    max_output_tokens: int
    structured: bool
    prompt: Prompt
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", request_key(self.location, self.body, self.attempt))


class Generator(Protocol):
    """Something that answers prompts."""

    @property
    def name(self) -> str:
        """The model, as the user named it."""

    @property
    def location(self) -> str:
        """Where it runs: a base URL, ``local``, ``scripted``."""

    @property
    def structured(self) -> bool:
        """Whether requests ask for JSON, as far as it is known now."""

    @property
    def is_free(self) -> bool:
        """Whether nobody is paid for an answer."""

    @property
    def max_concurrency(self) -> int | None:
        """Requests it can work on at once; None for no limit of its own."""

    def recall(self, dialect: str | None) -> None:
        """Take up what an earlier run learned about the server; None where there was none."""

    def dialect(self) -> str | None:
        """What was learned about the server, for a later run; None where there is nothing to learn or nothing was."""

    def request(self, prompt: Prompt, *, attempt: int, seed: int, max_output_tokens: int) -> RewriteRequest:
        """The request for ``prompt``."""

    async def send(self, request: RewriteRequest) -> RawAnswer:
        """Send a request once.

        Raises:
            AtCapacityError: Too many requests now.
            RequestFaultError: No answer came; the same request can be sent again.
            DialectChangedError: The server does not know a field of the request; ask for a new request.
            ForbiddenError: 403: a wrong key, or this request alone; whether others are answered tells which.
            UserInputError: Nothing can be had from this server as things are: wrong key, wrong model.
            RunFailedError: Likewise, and not by the user's words: no quota left.
        """

    async def close(self) -> None:
        """Give back connections and memory."""


class AtCapacityError(Exception):
    """The server is at its limit (429); ``retry_after_s`` where it says when to come again."""

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("at capacity")
        self.retry_after_s = retry_after_s


class RequestFaultError(Exception):
    """No answer came.

    Attributes:
        outcome: What the fault is called.
        detail: What is known of it, in one line.
        may_be_billed: Whether the server may have made an answer, and charge for it.
        refused: Whether no connection could be made at all.
    """

    def __init__(self, outcome: Outcome, detail: str, *, may_be_billed: bool, refused: bool = False) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.may_be_billed = may_be_billed
        self.refused = refused


class DialectChangedError(Exception):
    """The server does not take the request in this form; the generator has learned another one.

    Attributes:
        was_sent: Whether this request was sent to learn that.
    """

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__("another dialect")
        self.was_sent = was_sent


class ForbiddenError(UserInputError):
    """403. It is an error of the user where the server answers nothing else; where it does, it is what became of this request, for this run.

    Attributes:
        detail: What the server said.
    """

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail
