"""A chat-completions server on a real socket that misbehaves on purpose. Shared by tests and the benchmark; also a program of its own:

    python tests/llm_servers.py --latency-s 0.5 --storm 429=0.3 --storm 500=0.05 --seed 1

prints its address and serves until it is killed. GET /stats tells what it saw.
"""

import argparse
import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

__all__ = ["Behaviours", "MisbehavingServer", "serving", "storm"]

_DOCUMENT = re.compile(r"\[document (\w+)\]\n(.*)\n\[end of document \1\]", re.DOTALL)
_SHARE_DIVISOR = 0xFFFFFFFF

Behaviours = Callable[[int, Mapping[str, Any]], str]
"""What to do, by the number of the request (from 0) and its body: the name of a behaviour."""


def always(name: str) -> Behaviours:
    """The same behaviour every time."""
    return lambda _number, _body: name


def in_turn(*names: str) -> Behaviours:
    """One behaviour after the other, the last one for ever."""
    return lambda number, _body: names[min(number, len(names) - 1)]


def storm(seed: int, shares: Mapping[str, float]) -> Behaviours:
    """Behaviours drawn with given shares by a hash of seed and number; ``ok`` for the rest."""

    def draw(number: int, _body: Mapping[str, Any]) -> str:
        point = int(hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:8], 16) / _SHARE_DIVISOR
        for name, share in shares.items():
            if point < share:
                return name
            point -= share
        return "ok"

    return draw


def told_again(body: Mapping[str, Any]) -> str:
    """A rewrite of the document in a request: good enough to be taken for one."""
    found = _DOCUMENT.search(body["messages"][-1]["content"])
    assert found is not None, "no fenced document in the prompt"
    return f"{found[2]} So it was told again."


def completion(body: Mapping[str, Any], text: str | None, **changes: Any) -> dict[str, Any]:
    """A chat completion; structured where that was asked for."""
    content = json.dumps({"rewrite": text}) if "response_format" in body and text is not None else text
    message = {"role": "assistant", "content": changes.pop("content", content), **changes.pop("message", {})}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": f"{body['model']}-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "stop")}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        **changes,
    }


def error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI words it."""
    return {"error": {"message": message, "type": "some_error", "param": param, "code": code}}


@dataclass
class _Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body that are sent before the connection is cut
    drip_s: float = 0.0  # seconds between two bytes
    is_success: bool = False


def _json(status: int, content: Any, *, is_success: bool = False, **headers: str) -> _Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **named}, is_success=is_success)


def _answers(body: Mapping[str, Any]) -> dict[str, Callable[[], _Reply]]:
    """Every behaviour that is a response, by name."""
    text = told_again(body)
    document = text.removesuffix(" So it was told again.")

    def answer(**changes: Any) -> Callable[[], _Reply]:
        said = changes.pop("text", text)
        return lambda: _json(200, completion(body, said, **changes), is_success=True)

    def trouble(status: int, message: str, code: str | None = None, param: str | None = None, **headers: str) -> Callable[[], _Reply]:
        return lambda: _json(status, error(message, code, param), **headers)

    whole = json.dumps(completion(body, text)).encode()
    return {
        "ok": answer(),
        "429": trouble(429, "slow down"),
        "429 seconds": trouble(429, "slow down", Retry_After="1"),
        "429 zero": trouble(429, "slow down", Retry_After="0"),
        "429 date": lambda: _json(429, error("slow down"), Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)),
        "429 tomorrow": trouble(429, "come back tomorrow", Retry_After="86400"),
        "quota": trouble(429, "You exceeded your current quota", "insufficient_quota"),
        "500": trouble(500, "oops"),
        "502": lambda: _Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
        "503": trouble(503, "overloaded"),
        "401": trouble(401, "Incorrect API key provided", "invalid_api_key"),
        "403": trouble(403, "not for you"),
        "404": trouble(404, "The model does not exist", "model_not_found"),
        "400": trouble(400, "maximum context length is 10 tokens", "context_length_exceeded"),
        "400 filter": trouble(400, "The prompt was filtered", "content_filter"),
        "400 too large": trouble(
            400, "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens.", param="max_tokens"
        ),
        "400 structured": trouble(400, "response_format is not supported by this model", param="response_format"),
        "400 tokens": trouble(
            400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"
        ),
        "422 seed": lambda: _json(422, {"detail": "body.seed: extra inputs are not permitted"}),
        "drip": lambda: _Reply(200, whole, {"Content-Type": "application/json"}, drip_s=0.05),
        "truncated": lambda: _Reply(200, whole, {"Content-Type": "application/json"}, cut_after=len(whole) // 2),
        "half json": lambda: _Reply(200, whole[: len(whole) // 2], {"Content-Type": "application/json"}),
        "wrong type": lambda: _Reply(200, whole, {"Content-Type": "text/plain"}, is_success=True),
        "html": lambda: _Reply(200, b"<html><body>Sign in to the network</body></html>", {"Content-Type": "text/html"}),
        "not a completion": lambda: _json(200, {"hello": "world"}),
        "no message": lambda: _json(200, {"choices": [{"text": "old protocol"}]}),
        "surrogate": answer(content="a lone \ud83d surrogate"),
        "empty choices": lambda: _json(200, {**completion(body, text), "choices": []}),
        "length": answer(finish_reason="length"),
        "content_filter": answer(finish_reason="content_filter", content=""),
        "refusal field": answer(content=None, message={"refusal": "I will not do that."}),
        "refusal text": answer(text="I'm sorry, but I can't assist with that request."),
        "empty": answer(text=" \n"),
        "null": answer(content=None),
        "preamble": answer(text=f"Sure! Here is the rewritten document:\n\n{text}"),
        "preamble alone": answer(text="Here is how I rewrote the document in the style that was asked for."),
        "wrong language": answer(
            text="Die Untersuchung wurde mit zwanzig Personen durchgeführt, und das Ergebnis war für alle Beteiligten sehr überraschend. " * 3
        ),
        "unchanged": answer(text=document),
        "echo": answer(text=f"{body['messages'][-1]['content']}"),
        "invalid json": answer(content='{"rewrite": "no end'),
        "plain": answer(content=text),
        "key in the answer": answer(text=f"{text} Your header was {body.get('_authorization', '')}."),
        "think": answer(content=f"<think>The user wants it casual.</think>\n\n{completion(body, text)['choices'][0]['message']['content']}"),
        "key in the error": lambda: _json(401, error(f"Incorrect API key provided: {body.get('_authorization', '')}")),
        "key escaped": lambda: _Reply(500, b'{"error": {"message": "for ' + _escaped(body.get("_authorization")) + b'"}}'),
        "key in the fault": lambda: _json(500, error(f"internal error for {body.get('_authorization', '')}")),
    }


def _escaped(text: str | None) -> bytes:
    """A text as JSON may also write it: every letter by its number."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text or "").encode()


class MisbehavingServer:
    """The server. Thread-safe to read; it runs in a loop of its own.

    Attributes:
        bodies: Bodies of all requests, in order.
        authorizations: Their Authorization headers.
        seen: How often every behaviour was shown.
        successes: How often every body was answered with a paid answer.
        most_in_flight: Largest number of requests that were being answered at once.
    """

    def __init__(self, behaviours: Behaviours, *, latency_s: float = 0.0, keep_bodies: bool = True) -> None:
        self.behaviours = behaviours
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.seen: Counter[str] = Counter()
        self.successes: Counter[str] = Counter()
        self.most_in_flight = 0
        self.num_requests = 0
        self._latency_s = latency_s
        self._keep_bodies = keep_bodies
        self._in_flight = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Base URL, as a client wants it."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def stats(self) -> dict[str, Any]:
        """What it saw, as JSON types."""
        paid = sorted(self.successes.values())
        return {
            "requests": self.num_requests,
            "seen": dict(self.seen),
            "most_in_flight": self.most_in_flight,
            "paid_bodies": len(paid),
            "paid_answers": sum(paid),
            "paid_more_than_once": sum(count - 1 for count in paid),
        }

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)

    async def stop(self) -> None:
        """Close the socket."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        if head.startswith("GET /stats"):
            await _write(writer, _json(200, self.stats()))
            return True
        if not head.startswith("POST /v1/chat/completions"):
            await _write(writer, _json(404, error("no such page")))
            return True
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return await self._answer(content, headers.get("authorization"), writer)
        finally:
            self._in_flight -= 1

    async def _answer(self, content: bytes, authorization: str | None, writer: asyncio.StreamWriter) -> bool:
        body = json.loads(content)
        number, self.num_requests = self.num_requests, self.num_requests + 1
        if self._keep_bodies:
            self.bodies.append(body)
            self.authorizations.append(authorization)
        name = self.behaviours(number, body)
        self.seen[name] += 1
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if name == "reset":
            writer.transport.abort()
            return False
        if name == "silence":
            await asyncio.sleep(3600)
        reply = _answers({**body, "_authorization": authorization})[name]()
        done = await _write(writer, reply)
        if done and reply.is_success:
            self.successes[hashlib.sha256(content).hexdigest()] += 1
        return done


async def _write(writer: asyncio.StreamWriter, reply: _Reply) -> bool:
    """Send a reply; False where the connection was cut on purpose."""
    headers = {"Content-Length": str(len(reply.body)), **reply.headers}
    head = f"HTTP/1.1 {reply.status} Said\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    body = reply.body if reply.cut_after is None else reply.body[: reply.cut_after]
    writer.write(head.encode())
    if reply.drip_s:
        for index in range(len(body)):
            writer.write(body[index : index + 1])
            await writer.drain()
            await asyncio.sleep(reply.drip_s)
    else:
        writer.write(body)
    await writer.drain()
    if reply.cut_after is not None:
        writer.close()
        return False
    return True


@contextmanager
def serving(behaviours: Behaviours | str = "ok", *, latency_s: float = 0.0) -> Iterator[MisbehavingServer]:
    """A server in a thread of this process."""
    server = MisbehavingServer(always(behaviours) if isinstance(behaviours, str) else behaviours, latency_s=latency_s)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(timeout=10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _end(server: MisbehavingServer) -> None:
    await server.stop()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _main(options: argparse.Namespace) -> None:
    shares = {name: float(share) for name, _, share in (entry.partition("=") for entry in options.storm)}
    server = MisbehavingServer(storm(options.seed, shares), latency_s=options.latency_s, keep_bodies=False)
    await server.start()
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--storm", action="append", default=[], metavar="BEHAVIOUR=SHARE")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(_main(parser.parse_args()))
