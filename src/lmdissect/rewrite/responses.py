"""Read what a chat-completions server sends back: an answer, or which kind of trouble. Used for live responses and for batch files."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from lmdissect.rewrite.outcomes import Outcome, RawAnswer

__all__ = ["Trouble", "read_completion", "read_completion_object", "read_error", "read_trouble", "retry_after_s"]

_SHOWN_CHARS = 300
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"}
_FILTER_CODES = {"content_filter", "content_policy_violation", "responsible_ai_policy_violation", "ResponsibleAIPolicyViolation"}
_WAIT_STATUS = {408, 409, 425}


class Trouble(StrEnum):
    """Kinds of error responses, by what can be done about them."""

    CAPACITY = "capacity"
    FAULT = "fault"
    NO_QUOTA = "no quota"
    WRONG_KEY = "wrong key"
    WRONG_PLACE = "wrong place"
    FORBIDDEN = "forbidden"
    FILTERED = "filtered"
    BAD_REQUEST = "bad request"


_BY_STATUS = {
    401: Trouble.WRONG_KEY,
    403: Trouble.FORBIDDEN,
    404: Trouble.WRONG_PLACE,
    405: Trouble.WRONG_PLACE,
    407: Trouble.WRONG_KEY,
    429: Trouble.CAPACITY,
    529: Trouble.CAPACITY,
}


def read_completion(body: bytes) -> RawAnswer:
    """The answer in the body of a response with status 200.

    A body that is not a chat completion is a fault (``malformed_response``); one without a choice is ``no_choices``.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return RawAnswer(problem=Outcome.MALFORMED_RESPONSE, detail=f"not JSON: {_shortened(body.decode('utf-8', 'replace'))}")
    return read_completion_object(content)


def read_completion_object(content: object) -> RawAnswer:
    """`read_completion` of a body that is parsed already."""
    if not isinstance(content, Mapping) or not isinstance(content.get("choices"), list):
        return RawAnswer(problem=Outcome.MALFORMED_RESPONSE, detail=f"no list of choices: {_shortened(str(content))}")
    usage = content.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    common: dict[str, Any] = {
        "answered_by": _text(content.get("model")),
        "input_tokens": _count(counts.get("prompt_tokens")),
        "output_tokens": _count(counts.get("completion_tokens")),
    }
    if not content["choices"]:
        return RawAnswer(problem=Outcome.NO_CHOICES, detail="an empty list of choices", **common)
    choice = content["choices"][0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        return RawAnswer(problem=Outcome.MALFORMED_RESPONSE, detail=f"a choice without a message: {_shortened(str(choice))}", **common)
    text, refusal, finish_reason = _text(message.get("content")), _text(message.get("refusal")), _text(choice.get("finish_reason"))
    if any(_LONE_SURROGATE.search(said) for said in (text, refusal, finish_reason, common["answered_by"]) if said):
        return RawAnswer(problem=Outcome.MALFORMED_RESPONSE, detail="lone surrogate: not encodable as UTF-8")
    return RawAnswer(text=text, refusal=refusal, finish_reason=finish_reason, **common)


def read_error(body: bytes | object) -> tuple[str, str, str]:
    """(code, parameter, message) of an error response; empty where it does not say."""
    content = body
    if isinstance(body, bytes):
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return "", "", _shortened(body.decode("utf-8", "replace"))
    error = content.get("error", content) if isinstance(content, Mapping) else content
    if not isinstance(error, Mapping):
        return "", "", _shortened(str(error))
    code = error.get("code") or error.get("type") or ""
    return str(code), str(error.get("param") or ""), _shortened(str(error.get("message") or error.get("detail") or content))


def read_trouble(status: int, code: str) -> Trouble:
    """What an error response with HTTP status ``status`` and error code ``code`` means."""
    if code in _QUOTA_CODES or status == 402:
        return Trouble.NO_QUOTA
    if code in _FILTER_CODES and 400 <= status < 500:
        return Trouble.FILTERED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500 or status in _WAIT_STATUS or status < 400:
        return Trouble.FAULT
    return Trouble.BAD_REQUEST


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as an HTTP date; None where it does not say or makes no sense."""
    milliseconds = _finite(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _finite(value)) is not None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _finite(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _shortened(text: str) -> str:
    line = " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 1]}…"
