"""What servers send back."""

import json
from datetime import UTC, datetime

import pytest

from lmdissect.rewrite.outcomes import Outcome
from lmdissect.rewrite.responses import Trouble, read_completion, read_error, read_trouble, retry_after_s

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Fri, 01 May 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 01 May 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 01 May 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "code", "trouble"),
    [
        (429, "", Trouble.CAPACITY),
        (429, "rate_limit_exceeded", Trouble.CAPACITY),
        (429, "insufficient_quota", Trouble.NO_QUOTA),
        (402, "", Trouble.NO_QUOTA),
        (401, "", Trouble.WRONG_KEY),
        (403, "", Trouble.FORBIDDEN),
        (400, "content_filter", Trouble.FILTERED),
        (403, "content_filter", Trouble.FILTERED),
        (404, "model_not_found", Trouble.WRONG_PLACE),
        (400, "", Trouble.BAD_REQUEST),
        (413, "", Trouble.BAD_REQUEST),
        (422, "", Trouble.BAD_REQUEST),
        (408, "", Trouble.FAULT),
        (500, "", Trouble.FAULT),
        (503, "", Trouble.FAULT),
        (529, "overloaded", Trouble.CAPACITY),
    ],
)
def test_kinds_of_trouble(status: int, code: str, trouble: Trouble) -> None:
    assert read_trouble(status, code) is trouble


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", Outcome.MALFORMED_RESPONSE),
        (b'{"choices": [{"message": {"content": "x"', Outcome.MALFORMED_RESPONSE),
        (b'{"error": {"message": "busy"}}', Outcome.MALFORMED_RESPONSE),
        (b'{"choices": [7]}', Outcome.MALFORMED_RESPONSE),
        (b"[]", Outcome.MALFORMED_RESPONSE),
        (b"\xff\xfe", Outcome.MALFORMED_RESPONSE),
        (b'{"choices": [{"message": {"content": "\\ud83d"}}]}', Outcome.MALFORMED_RESPONSE),
        (b'{"choices": []}', Outcome.NO_CHOICES),
        (b'{"choices": [{"message": {"content": null}}]}', None),
    ],
)
def test_bodies_that_are_no_answer(body: bytes, problem: Outcome | None) -> None:
    assert read_completion(body).problem is problem


def test_an_answer_with_its_counts() -> None:
    body = {
        "model": "m-1",
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": True},
    }
    answer = read_completion(json.dumps(body).encode())
    assert (answer.text, answer.finish_reason, answer.answered_by, answer.input_tokens, answer.output_tokens) == ("hi", "stop", "m-1", 3, None)


def test_errors_in_several_forms() -> None:
    assert read_error(b'{"error": {"message": "m", "code": "c", "param": "p"}}') == ("c", "p", "m")
    assert read_error(b'{"detail": "seed: extra"}') == ("", "", "seed: extra")
    assert read_error(b"<html>" + b"x" * 1000)[2].endswith("…")
    assert read_error(b'{"error": "just words"}') == ("", "", "just words")
