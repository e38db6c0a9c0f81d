"""Files over HTTP: taken up where they broke off, checked, and there under their name only when they are whole.

    NAME.part         what was received so far
    NAME.part.json    address and validator (ETag or Last-Modified) of the version it belongs to

A server that ignores the range, or has another version by now, sends the file from its beginning, and so it is begun again.
"""

import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx2
import tenacity

from lmdissect import __version__
from lmdissect.corpus.checksums import parse_md5
from lmdissect.errors import InterruptedRunError, RunFailedError, UserInputError
from lmdissect.interrupts import StopRequest
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import output_guard, write_json, write_text

__all__ = ["Fetcher"]

_ATTEMPTS = 6
_TIMEOUT_S = 60.0
_MAX_WAIT_S = 60.0
_POLL_S = 0.1
_MAX_TEXT_BYTES = 16 << 20
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_MIB = 1 << 20
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416

_T = TypeVar("_T")


class _RetriedError(Exception):
    """A fault that may pass: the reason, in words."""


class Fetcher:
    """A client that fetches files. A context manager."""

    def __init__(self, *, progress: Progress | None = None, stop: StopRequest | None = None, first_wait_s: float = 1.0) -> None:
        """Prepare the client.

        Args:
            progress: Where progress is shown.
            stop: Looked at between two blocks of a file, before each attempt and while one is waited for.
            first_wait_s: Longest wait after the first fault, in seconds; it doubles with each further one.
        """
        self._progress = progress or SilentProgress()
        self._stop = stop if stop is not None else StopRequest()  # one that is not asked yet is false
        self._first_wait_s = first_wait_s
        self._client = httpx2.Client(
            follow_redirects=True, timeout=_TIMEOUT_S, headers={"User-Agent": f"lmdissect/{__version__}", "Accept-Encoding": "identity"}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def text(self, url: str) -> str:
        """A short text.

        Raises:
            UserInputError: There is no such address.
            RunFailedError: It cannot be fetched.
        """

        def get() -> str:
            content = bytearray()
            with self._stream(url, {}) as response:
                _refuse(response, url)
                for block in response.iter_raw():
                    content += block
                    if len(content) > _MAX_TEXT_BYTES:
                        message = f"{url}: more than {_MAX_TEXT_BYTES >> 20} MiB, and a short text is expected: check --base-url"
                        raise RunFailedError(message)
            return content.decode("utf-8", "replace")

        return self._retried(url, get)

    def file(self, url: str, path: Path, *, md5_url: str | None = None) -> bool:
        """Fetch one file, and the `.md5` beside it, which is kept too.

        Args:
            url: Its address.
            path: Where it will stand.
            md5_url: Address of its `.md5`; without one, the SHA-256 that Hugging Face tells is checked, where it does.

        Returns:
            False where the file was there already and is whole.

        Raises:
            UserInputError: There is no such file.
            RunFailedError: It cannot be fetched, or has the wrong hash twice.
            InterruptedRunError: ``stop`` was set; what was received is kept.
            OutOfSpaceError: The disk is full.
            UnusableOutputError: The folder cannot be written.
        """
        expected = None
        if md5_url is not None:
            listing = self.text(md5_url)
            expected = parse_md5(listing, path.name)
            if expected is None:
                message = f"{md5_url} holds no MD5 of {path.name}: check --base-url"
                raise RunFailedError(message)
            write_text(path.with_name(f"{path.name}.md5"), listing)
        if path.is_file() and (expected is None or _digest(path, "md5") == expected):
            return False
        for _ in range(2):
            part = _Part(path)
            sha256 = self._retried(url, functools.partial(self._receive, url, part, has_md5=expected is not None))
            wrong = _mismatch(part.path, expected, sha256)
            if wrong is None:
                part.publish()
                return True
            self._progress.say(f"{path.name}: {wrong}; fetching it again")
            part.drop()
        message = f"{url}: {wrong}, twice: the server's copy is damaged; try later, or another --base-url"
        raise RunFailedError(message)

    def _receive(self, url: str, part: "_Part", *, has_md5: bool) -> str | None:
        """Receive the rest of a file; the SHA-256 that the server tells, if it does. Where all of it was received before, its hash is left to check."""
        offset, validator = part.begun(url)
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset and validator else {}
        with self._stream(url, headers) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE:
                sha256 = _told_sha256(response)
                if response.headers.get("Content-Range") == f"bytes */{offset}" and (has_md5 or sha256 is not None):
                    return sha256
                part.drop()
                message = "the server does not have the rest of what was received"
                raise _RetriedError(message)
            _refuse(response, url)
            start = _resumed_at(response, offset, validator)
            total = _total(response, start)
            part.begin(url, _validator(response), start)
            self._copy(response, part, start, total)
            return _told_sha256(response)

    def _copy(self, response: httpx2.Response, part: "_Part", start: int, total: int | None) -> None:
        num_bytes = start
        name = part.path.name.removesuffix(".part")
        with (
            self._progress.task(name, (total or 0) // _MIB, "MiB", done=start // _MIB) as task,
            output_guard(part.path),
            part.path.open("ab") as stream,
        ):
            for block in response.iter_raw():  # as it comes in: a block that waits to be filled would be lost with the connection
                if self._stop:
                    message = f"stopped after {num_bytes} bytes of {name}; run the same command again to go on"
                    raise InterruptedRunError(message)
                stream.write(block)
                task.advance((num_bytes + len(block)) // _MIB - num_bytes // _MIB)
                num_bytes += len(block)
        if total is not None and num_bytes != total:
            if num_bytes > total:
                part.drop()
            message = f"the connection broke off after {num_bytes} of {total} bytes"
            raise _RetriedError(message)

    @contextmanager
    def _stream(self, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                yield response
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            message = f"{url}: not an address that can be fetched ({error}); check --base-url"
            raise UserInputError(message) from error
        except httpx2.TransportError as error:
            raise _RetriedError(_reason(error)) from error

    def _retried(self, url: str, attempt: Callable[[], _T]) -> _T:
        """Try until it works; a fault that may pass is waited out, longer each time.

        Raises:
            RunFailedError: It did not pass.
            InterruptedRunError: The user asked to stop.
        """

        def sleep(duration_s: float) -> None:
            end_s = time.monotonic() + duration_s
            while not self._stop and (left_s := end_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _POLL_S))

        def begin(_state: tenacity.RetryCallState) -> None:
            if self._stop:
                message = f"stopped before {url}; what was received is kept: run the same command again to go on"
                raise InterruptedRunError(message)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_RetriedError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=self._first_wait_s, max=_MAX_WAIT_S),
            sleep=sleep,
            before=begin,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _RetriedError as error:
            message = f"{url}: {error} ({_ATTEMPTS} attempts); what was received is kept: run the same command again to go on"
            raise RunFailedError(message) from error


class _Part:
    """A file while it is being received."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._target = target
        self._note = target.with_name(f"{target.name}.part.json")

    def begun(self, url: str) -> tuple[int, str | None]:
        """How many bytes were received before, and the validator of their version."""
        if not (self.path.is_file() and self._note.is_file()):
            return 0, None
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return 0, None
        if not isinstance(note, dict) or note.get("url") != url or not isinstance(note.get("validator"), str):
            return 0, None
        return self.path.stat().st_size, note["validator"]

    def begin(self, url: str, validator: str | None, start: int) -> None:
        """Go on after ``start`` bytes, with a note of what they belong to."""
        with output_guard(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if start == 0:
                self.path.write_bytes(b"")
            write_json(self._note, {"url": url, "validator": validator})

    def publish(self) -> None:
        """Give the file its name."""
        with output_guard(self._target):
            with self.path.open("rb+") as stream:
                os.fsync(stream.fileno())
            self.path.replace(self._target)
            self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        """Begin again from nothing."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _refuse(response: httpx2.Response, url: str) -> None:
    if response.status_code in _RETRIED:
        message = f"the server answers {response.status_code}"
        raise _RetriedError(message)
    if response.is_error:
        message = f"{url}: the server answers {response.status_code} {response.reason_phrase}".rstrip() + "; check --files and --base-url"
        raise UserInputError(message)


def _resumed_at(response: httpx2.Response, offset: int, validator: str | None) -> int:
    """Byte from which the server sends: ``offset``, or 0 where it ignores the range or has another version."""
    if response.status_code != _PARTIAL:
        return 0
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != offset or _validator(response) not in {None, validator}:
        message = "the server sends another part than was asked for"
        raise _RetriedError(message)
    return offset


def _total(response: httpx2.Response, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _validator(response: httpx2.Response) -> str | None:
    """What tells this version from others: a strong ETag, else Last-Modified; a weak ETag says nothing of bytes."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _told_sha256(response: httpx2.Response) -> str | None:
    for answer in (*response.history, response):
        if found := _SHA256.fullmatch(answer.headers.get("X-Linked-Etag", "")):
            return found[1]
    return None


def _mismatch(path: Path, md5: str | None, sha256: str | None) -> str | None:
    """How the file differs from what it should be, in words; None where it does not, or nothing is known."""
    for name, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None and (found := _digest(path, name)) != expected:
            return f"its {name.upper()} is {found}, and {expected} is told"
    return None


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, name).hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
