"""Any OpenAI-compatible server, through the official client.

The body of a request is made here, byte for byte, and nothing is added to it later: its hash is the hash of what is sent. The key comes from an
environment variable, goes into one header, and nowhere else: should a server repeat it, it is taken out before anything is read.

Servers differ in the fields they take. The first request of a run goes alone; where the server rejects a field by name, the generator learns to do
without it and the request is made anew. What was learned is kept for later runs, so that they make the same requests.
"""

import asyncio
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lmdissect.errors import RunFailedError, UserInputError
from lmdissect.rewrite.generator import AtCapacityError, DialectChangedError, ForbiddenError, RequestFaultError, RewriteRequest
from lmdissect.rewrite.outcomes import REJECTIONS, Outcome, RawAnswer
from lmdissect.rewrite.prompt import REWRITE_FIELD, Prompt
from lmdissect.rewrite.responses import Trouble, read_completion, read_error, read_trouble, retry_after_s

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

__all__ = ["CHAT_PATH", "OPENAI_URL", "ChatEndpoint", "Dialect"]

OPENAI_URL = "https://api.openai.com/v1"
CHAT_PATH = "/chat/completions"

_SHORTEST_KEY = 8  # a shorter "key" ("none", "x") is no secret, and its letters occur in any text
_CONNECT_TIMEOUT_S = 20.0
_UNWANTED = r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|invalid|only the default|extra"
_TOO_LONG = r"too large|too long|context.length|context.window|at least 1\b"
"""Words about a number, not about a field: this request asks for too much, and the next one may not."""
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "rewritten_document",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {REWRITE_FIELD: {"type": "string"}},
            "required": [REWRITE_FIELD],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which fields a server takes."""

    structured: bool
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sends_seed: bool = True
    sends_temperature: bool = True

    def without(self, parameter: str, message: str, *, may_drop_structure: bool) -> "Dialect | None":
        """The dialect without the field that an error names; None where it names none that could be left out."""
        said = f"{parameter} {message}".lower()
        if self.structured and may_drop_structure and re.search(r"response_format|json_schema|structured.output|guided|grammar", said):
            return replace(self, structured=False)
        if self.limit_field == "max_tokens" and "max_completion_tokens" in said and re.search(_UNWANTED, said):
            return replace(self, limit_field="max_completion_tokens")
        if not (parameter or re.search(_UNWANTED, said)):
            return None
        if self.sends_seed and re.search(r"\bseed\b", said):
            return replace(self, sends_seed=False)
        if self.sends_temperature and re.search(r"\btemperature\b", said):
            return replace(self, sends_temperature=False)
        return None


class ChatEndpoint:
    """A `Generator` behind an HTTP endpoint for chat completions.

    Args:
        model: The model, as the server knows it.
        base_url: Where the server is, up to and with ``/v1``; None is OpenAI's own.
        key_variable: Environment variable that holds the key. A server of one's own may need none.
        temperature: Sampling temperature.
        structured: JSON schema output: ``auto`` where the server takes it, ``on``, ``off``.
        timeout_s: Seconds until a whole response must be there.
        max_connections: Connections at most.

    Raises:
        UserInputError: The URL is not one, or carries a secret; the key cannot be one.
    """

    is_free = False
    max_concurrency: int | None = None

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        temperature: float = 0.7,
        structured: Literal["auto", "on", "off"] = "auto",
        timeout_s: float = 180.0,
        max_connections: int = 64,
    ) -> None:
        self.name = model
        self.location = _checked_url(base_url or OPENAI_URL)
        self._key_variable = key_variable
        self._key = _checked_key(key_variable)
        self._temperature = temperature
        self._mode = structured
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._dialect = Dialect(structured != "off")
        self._recalled = False
        self._scouted = False
        self._scout: asyncio.Lock | None = None
        self._client: AsyncOpenAI | None = None

    @property
    def structured(self) -> bool:
        """Whether requests ask for JSON."""
        return self._dialect.structured

    def recall(self, dialect: str | None) -> None:
        """Take up what an earlier run learned."""
        if dialect is not None:
            self._dialect = Dialect(**json.loads(dialect))
            self._recalled = True

    def dialect(self) -> str | None:
        """What was learned, once the server has answered."""
        return json.dumps(asdict(self._dialect), sort_keys=True) if self._scouted or self._recalled else None

    def request(self, prompt: Prompt, *, attempt: int, seed: int, max_output_tokens: int) -> RewriteRequest:
        """The request, its body as it will be sent."""
        fields: dict[str, object] = {
            "model": self.name,
            "messages": [{"role": role, "content": text} for role, text in prompt.messages],
            self._dialect.limit_field: max_output_tokens,
        }
        if self._dialect.sends_temperature:
            fields["temperature"] = self._temperature
        if self._dialect.sends_seed:
            fields["seed"] = seed
        if self._dialect.structured:
            fields["response_format"] = _SCHEMA
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        return RewriteRequest(body, self.location, attempt, seed, max_output_tokens, self._dialect.structured, prompt)

    async def send(self, request: RewriteRequest) -> RawAnswer:
        """Send once; the first request of a run alone, to learn what the server takes before many are sent."""
        if self._is_scouted():
            return await self._post(request)
        if self._scout is None:
            self._scout = asyncio.Lock()
        async with self._scout:
            current = self.request(request.prompt, attempt=request.attempt, seed=request.seed, max_output_tokens=request.max_output_tokens)
            if current.key != request.key:
                raise DialectChangedError(was_sent=False)
            if not self._is_scouted():
                answer = await self._post(request)
                self._scouted = answer.problem not in REJECTIONS  # a document that is too long teaches nothing about the fields
                return answer
        return await self._post(request)

    def _is_scouted(self) -> bool:  # asked again behind the lock: another request may have been the scout meanwhile
        return self._scouted

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        self._scout = None

    def _opened(self) -> "AsyncOpenAI":
        import httpx2  # noqa: PLC0415 - slow to load
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # noqa: PLC0415 - slow to load

        if not self._key and self.location == OPENAI_URL:
            message = (
                f"no key: put it into the environment variable {self._key_variable} (or name another one with --api-key-env),"
                " or give --base-url for a server of your own"
            )
            raise UserInputError(message)
        if self._client is None:
            self._client = AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self.location,
                max_retries=0,  # our limiter and our ledger must see every try
                timeout=httpx2.Timeout(self._timeout_s, connect=min(_CONNECT_TIMEOUT_S, self._timeout_s)),
                http_client=DefaultAsyncHttpxClient(
                    limits=httpx2.Limits(max_connections=self._max_connections, max_keepalive_connections=self._max_connections)
                ),
            )
        return self._client

    async def _post(self, request: RewriteRequest) -> RawAnswer:
        import httpx2  # noqa: PLC0415 - slow to load
        from openai import APIConnectionError, APIStatusError, APITimeoutError, Omit  # noqa: PLC0415 - slow to load

        headers: dict[str, str | Omit] = {"Content-Type": "application/json"}
        if not self._key:
            headers["Authorization"] = Omit()
        try:
            async with asyncio.timeout(self._timeout_s):  # the client's own limit starts anew with every piece of a slow drip
                response = await self._opened().post(CHAT_PATH, cast_to=httpx2.Response, content=request.body, options={"headers": headers})
        except APIStatusError as error:
            return self._rejected(error.response)
        except (TimeoutError, APITimeoutError) as error:
            refused = isinstance(error.__cause__, httpx2.ConnectTimeout)
            raise RequestFaultError(
                Outcome.TIMEOUT, f"no whole response within {self._timeout_s:g} s", may_be_billed=not refused, refused=refused
            ) from error
        except APIConnectionError as error:
            refused = isinstance(error.__cause__, httpx2.ConnectError)
            detail = self._scrubbed(" ".join(str(error.__cause__ or error).split())) or type(error.__cause__ or error).__name__
            raise RequestFaultError(Outcome.CONNECTION_LOST, detail, may_be_billed=not refused, refused=refused) from error
        answer = read_completion(self._scrubbed_bytes(response.content))
        if answer.is_fault:
            raise RequestFaultError(answer.problem or Outcome.MALFORMED_RESPONSE, answer.detail or "", may_be_billed=True)
        return answer

    def _rejected(self, response: "httpx2.Response") -> RawAnswer:
        """The answer ``bad_request`` or ``content_filter``, or the exception that says what else an error response means."""
        code, parameter, said = read_error(self._scrubbed_bytes(response.content))
        status = response.status_code
        shown = f"HTTP {status} from {self.location}: {said or 'no reason given'}"
        match read_trouble(status, code):
            case Trouble.CAPACITY:
                raise AtCapacityError(retry_after_s(response.headers))
            case Trouble.FAULT:
                raise RequestFaultError(Outcome.SERVER_ERROR, shown, may_be_billed=False)
            case Trouble.NO_QUOTA:
                message = f"no quota left ({shown}): top it up and run the same command again; answers are kept"
                raise RunFailedError(message)
            case Trouble.WRONG_KEY | Trouble.FORBIDDEN as trouble:
                what = f"the key in {self._key_variable} is not accepted" if self._key else f"a key is wanted, and {self._key_variable} is empty"
                message = f"{what} ({shown}): set it right and run the same command again; answers are kept"
                if trouble is Trouble.WRONG_KEY:
                    raise UserInputError(message)
                raise ForbiddenError(f"{message}; where the key is right, it goes on past this request", shown)
            case Trouble.WRONG_PLACE:
                message = f"no such model or address ({shown}): check --model {self.name} and --base-url (it ends in /v1 on most servers)"
                raise UserInputError(message)
            case Trouble.FILTERED:
                return RawAnswer(problem=Outcome.CONTENT_FILTER, detail=shown)
            case Trouble.BAD_REQUEST:
                self._learn(parameter, said, shown)
                return RawAnswer(problem=Outcome.BAD_REQUEST, detail=shown)

    def _learn(self, parameter: str, said: str, shown: str) -> None:
        """Leave out a field that the server rejects by name, if this is the first request of the first run.

        Requests of later runs are made as those of the first, so that answers are found again: what is rejected then is that request's own end.

        Raises:
            DialectChangedError: A field is left out from now on.
            UserInputError: It must not be left out.
        """
        if self._scouted or self._recalled or re.search(_TOO_LONG, said.lower()):
            return
        learned = self._dialect.without(parameter, said, may_drop_structure=True)
        if learned is None:
            return
        if self._mode == "on" and not learned.structured:
            message = f"the server does not take structured output ({shown}): use --structured auto or off"
            raise UserInputError(message)
        self._dialect = learned
        raise DialectChangedError(was_sent=True)

    def _scrubbed_bytes(self, body: bytes) -> bytes:
        """``body`` without the key, however its letters are escaped: JSON is written anew first, so that each letter has one form."""
        if len(self._key) < _SHORTEST_KEY:
            return body
        try:
            written = json.dumps(json.loads(body)).encode()
        except (ValueError, RecursionError):
            return body.replace(self._key.encode(), b"[key]")
        return written.replace(json.dumps(self._key)[1:-1].encode(), b"[key]")

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text


def _checked_key(variable: str) -> str:
    """The key in an environment variable; empty where there is none.

    Raises:
        UserInputError: It has a character that no header can carry; the message does not repeat it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) and key:
        message = f"the environment variable {variable} holds a line break or a character outside of ASCII, so it is no key: set it to the key alone"
        raise UserInputError(message)
    return key


def _checked_url(url: str) -> str:
    """``url`` without a slash at its end.

    Raises:
        UserInputError: It is no URL of a server, or it holds what may be a secret and would be written down.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"--base-url {url}: not the URL of a server; write for example --base-url http://127.0.0.1:8000/v1"
        raise UserInputError(message)
    if parts.username or parts.password or parts.query or parts.fragment:
        message = f"--base-url: leave out user, password and what follows a '?' (for {parts.hostname}): the URL is written down; keys belong into the environment"
        raise UserInputError(message)
    return url.rstrip("/")
