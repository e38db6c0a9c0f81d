"""Files over HTTP from a server on this machine: broken off, taken up again, changed meanwhile, damaged, slow to recover."""

import gzip
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from citation_xml import article_set, citation_xml
from lmdissect.corpus.download import DownloadRequest, DownloadSummary, download
from lmdissect.corpus.remote import parse_numbers
from lmdissect.errors import InterruptedRunError, OutputLockedError, RunFailedError, UserInputError
from lmdissect.interrupts import StopRequest
from lmdissect.progress import LineProgress
from lmdissect.store import lock_folder
from lmdissect_cli import CliOutcome

NAME = "pubmed26n0002.xml.gz"
CONTENT = gzip.compress(article_set([citation_xml(number, "x" * 50) for number in range(1, 2000)]).encode(), 0, mtime=0)


@dataclass
class Mirror:
    """A server whose faults are chosen by each test.

    Attributes:
        files: Content by path.
        cut_after: For these paths, break the connection off after so many bytes of an answer; one entry is used up by each request.
        statuses: Answers to give instead, one for each request.
        ignores_ranges: Send whole files whatever is asked for.
        etag: Validator of all files; None for no validator at all.
        delay_s: Wait between two blocks.
        requests: Path and range of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    ignores_ranges: bool = False
    etag: str | None = '"one"'
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def ranges(self, path: str) -> list[str | None]:
        return [asked for where, asked in self.requests if where == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.requests.append((self.path, self.headers.get("Range")))
        if statuses := mirror.statuses.get(self.path):
            self._answer(statuses.pop(0), b"")
        elif self.path not in mirror.files:
            self._answer(404, b"")
        else:
            self._send_file(mirror.files[self.path])

    def _send_file(self, content: bytes) -> None:
        mirror = self.mirror
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not mirror.ignores_ranges and self.headers.get("If-Range") == mirror.etag:
            start = int(asked[1])
            if start >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            self._answer(206, content[start:], {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
        else:
            self._answer(200, content)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self.mirror.headers, **(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.mirror.etag is not None:
            self.send_header("ETag", self.mirror.etag)
        self.end_headers()
        cuts = self.mirror.cut_after.get(self.path, []) if status < 300 else []
        limit = cuts.pop(0) if cuts else None
        try:
            for start in range(0, len(content[:limit]), 1 << 14):
                self.wfile.write(content[:limit][start : start + (1 << 14)])
                time.sleep(self.mirror.delay_s)
        except OSError:  # the other side went away: that is what some tests do
            self.close_connection = True
        if limit is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    served = Mirror()
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    served.files = {
        "/baseline/": b'<a href="pubmed26n0001.xml.gz">1</a> <a href="pubmed26n0002.xml.gz">2</a> <a href="pubmed26n0002.xml.gz.md5">md5</a>',
        "/updatefiles/": b'<a href="pubmed26n1275.xml.gz">',
        f"/baseline/{NAME}": CONTENT,
        f"/baseline/{NAME}.md5": f"MD5({NAME})= {digest}\n".encode(),
        "/c4-validation.00003-of-00008.json.gz": CONTENT,
    }

    class Handler(_Handler):
        mirror = served

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def _fetch(mirror: Mirror, out: Path, **more: object) -> DownloadSummary:
    return download(DownloadRequest("pubmed", files="2", base_url=mirror.url), out, first_wait_s=0.01, **more)  # type: ignore[arg-type]


def _assert_whole(out: Path) -> None:
    assert (out / NAME).read_bytes() == CONTENT
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [NAME, f"{NAME}.md5"]


def test_file_is_fetched_checked_and_not_fetched_again(tmp_path: Path, mirror: Mirror) -> None:
    assert _fetch(mirror, tmp_path) == DownloadSummary(1, 0)
    _assert_whole(tmp_path)
    assert _fetch(mirror, tmp_path) == DownloadSummary(0, 1)
    assert mirror.ranges(f"/baseline/{NAME}") == [None]
    (tmp_path / NAME).write_bytes(CONTENT[:-1] + b"x")
    assert _fetch(mirror, tmp_path) == DownloadSummary(1, 0)
    _assert_whole(tmp_path)


def test_broken_connections_are_taken_up_where_they_broke_off(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cut_after[f"/baseline/{NAME}"] = [100_000, 0, 50_000]
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)
    ranges = mirror.ranges(f"/baseline/{NAME}")
    starts = [int(asked[6:-1]) if asked else 0 for asked in ranges]
    assert len(ranges) == 4
    assert starts == sorted(starts)
    assert starts[-1] > 0


@pytest.mark.parametrize("change", ["ignores ranges", "another version", "no validator", "weak validator"])
def test_file_is_begun_again_where_it_cannot_be_taken_up(tmp_path: Path, mirror: Mirror, change: str) -> None:
    mirror.etag = {"no validator": None, "weak validator": 'W/"one"'}.get(change, '"one"')
    mirror.cut_after[f"/baseline/{NAME}"] = [100_000] * 6
    with pytest.raises(RunFailedError, match=r"\(6 attempts\); what was received is kept"):
        _fetch(mirror, tmp_path)
    (tmp_path / f"{NAME}.part").write_bytes(b"another file's beginning")
    mirror.cut_after.clear()
    mirror.ignores_ranges = change == "ignores ranges"
    mirror.etag = '"two"' if change == "another version" else mirror.etag
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)


def test_server_that_recovers_is_waited_for(tmp_path: Path, mirror: Mirror) -> None:
    mirror.statuses = {"/baseline/": [503, 429], f"/baseline/{NAME}": [500, 502, 504], f"/baseline/{NAME}.md5": [408]}
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)


def test_server_that_does_not_recover_is_an_error_that_says_what_to_do(tmp_path: Path, mirror: Mirror) -> None:
    mirror.statuses = {f"/baseline/{NAME}": [503] * 6}
    with pytest.raises(RunFailedError, match=r"n0002\.xml\.gz: the server answers 503 \(6 attempts\).*run the same command again"):
        _fetch(mirror, tmp_path)
    assert len(mirror.ranges(f"/baseline/{NAME}")) == 6


def test_wrong_md5_is_fetched_once_more_and_then_an_error(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[f"/baseline/{NAME}"] = CONTENT[:-1] + b"x"
    said = StringIO()
    with pytest.raises(RunFailedError, match=r"n0002\.xml\.gz: its MD5 is [0-9a-f]{32}, and [0-9a-f]{32} is told, twice"):
        _fetch(mirror, tmp_path, progress=LineProgress(said))
    assert mirror.ranges(f"/baseline/{NAME}") == [None, None]
    assert "fetching it again" in said.getvalue()
    assert not (tmp_path / NAME).exists()


def test_part_that_is_longer_than_the_file_is_dropped(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cut_after[f"/baseline/{NAME}"] = [100_000] * 6
    with pytest.raises(RunFailedError):
        _fetch(mirror, tmp_path)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    mirror.cut_after.clear()
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)


@pytest.mark.parametrize("told", ["right", "wrong"])
def test_hash_that_the_hub_tells_is_checked(tmp_path: Path, mirror: Mirror, told: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest() if told == "right" else "0" * 64
    mirror.headers["X-Linked-Etag"] = f'"{digest}"'
    request = DownloadRequest("c4", files="3", base_url=mirror.url.rstrip("/"))
    if told == "wrong":
        with pytest.raises(RunFailedError, match="its SHA256 is"):
            download(request, tmp_path, first_wait_s=0.01)
        return
    assert download(request, tmp_path, first_wait_s=0.01) == DownloadSummary(1, 0)
    assert (tmp_path / "c4-validation.00003-of-00008.json.gz").read_bytes() == CONTENT


ERRORS: list[tuple[dict[str, str], type[Exception], str]] = [
    ({"files": "7"}, UserInputError, r"has no file number 7 \(it has 1 to 2\)"),
    ({"files": "1"}, UserInputError, r"pubmed26n0001\.xml\.gz\.md5: the server answers 404 Not Found; check --files and --base-url"),
    ({"part": "updates", "files": "1275"}, UserInputError, "1275.xml.gz.md5: the server answers 404"),
    ({"files": "x"}, UserInputError, "--files x: write numbers"),
    ({"collection": "c4", "split": "validation", "files": "8"}, UserInputError, r"no file number 8 \(it has 0 to 7\)"),
    ({"collection": "c4", "split": "train", "files": "0"}, UserInputError, "c4-train.00000-of-01024.json.gz: the server answers 404"),
]


@pytest.mark.parametrize(("fields", "error", "told"), ERRORS)
def test_what_is_not_there_is_an_error(tmp_path: Path, mirror: Mirror, fields: dict[str, str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        download(DownloadRequest(**{"collection": "pubmed", **fields}, base_url=mirror.url), tmp_path, first_wait_s=0.01)  # type: ignore[arg-type]


def test_listing_without_files_is_an_error(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files["/baseline/"] = b"<html>Welcome</html>"
    with pytest.raises(RunFailedError, match="lists no file named like"):
        _fetch(mirror, tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "ftp://127.0.0.1/", "http://[broken/"])
def test_address_that_cannot_be_reached_is_an_error_of_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises((RunFailedError, UserInputError), match=r"127\.0\.0\.1|broken") as caught:
        download(DownloadRequest("c4", files="0", base_url=url), tmp_path, first_wait_s=0.01)
    assert len(str(caught.value).splitlines()) == 1


class StopWhenReceived(StopRequest):
    """Asked to stop as soon as a file holds so many bytes."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        super().__init__()
        self._path, self._num_bytes = path, num_bytes

    def __bool__(self) -> bool:
        return self._path.exists() and self._path.stat().st_size >= self._num_bytes


def test_request_to_stop_keeps_what_was_received(tmp_path: Path, mirror: Mirror) -> None:
    mirror.delay_s = 0.002
    part = tmp_path / f"{NAME}.part"
    with pytest.raises(InterruptedRunError, match=r"stopped after \d+ bytes of pubmed26n0002.*run the same command again"):
        _fetch(mirror, tmp_path, stop=StopWhenReceived(part, 100_000))
    num_bytes = part.stat().st_size
    assert 100_000 <= num_bytes < len(CONTENT)
    assert part.read_bytes() == CONTENT[:num_bytes]
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)
    assert mirror.ranges(f"/baseline/{NAME}") == [None, f"bytes={num_bytes}-"]


def test_request_to_stop_is_heard_while_an_attempt_is_waited_for(tmp_path: Path, mirror: Mirror) -> None:
    mirror.statuses = {f"/baseline/{NAME}": [503] * 6}
    stop = StopRequest()

    def ask() -> None:
        while not mirror.ranges(f"/baseline/{NAME}"):
            time.sleep(0.005)
        stop.asked = True

    asking = threading.Thread(target=ask)
    asking.start()
    begun_s = time.monotonic()
    with pytest.raises(InterruptedRunError, match="what was received is kept: run the same command again"):
        download(DownloadRequest("pubmed", files="2", base_url=mirror.url), tmp_path, first_wait_s=60.0, stop=stop)
    asking.join()
    assert time.monotonic() - begun_s < 5
    assert len(mirror.ranges(f"/baseline/{NAME}")) <= 2  # the wait is drawn at random, and may be over at once


def test_no_request_is_made_after_a_request_to_stop(tmp_path: Path, mirror: Mirror) -> None:
    stop = StopRequest()
    stop.asked = True
    with pytest.raises(InterruptedRunError):
        _fetch(mirror, tmp_path, stop=stop)
    assert mirror.requests == []


@pytest.mark.parametrize("content", ["whole", "damaged"])
def test_part_that_is_whole_is_not_fetched_again(tmp_path: Path, mirror: Mirror, content: str) -> None:
    with pytest.raises(InterruptedRunError):
        _fetch(mirror, tmp_path, stop=StopWhenReceived(tmp_path / f"{NAME}.part", 100_000))
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT if content == "whole" else CONTENT[:-1] + b"x")
    assert _fetch(mirror, tmp_path).num_fetched == 1
    _assert_whole(tmp_path)
    asked_again = [] if content == "whole" else [None]
    assert mirror.ranges(f"/baseline/{NAME}")[1:] == [f"bytes={len(CONTENT)}-", *asked_again]


def test_two_downloads_into_one_folder_are_refused(tmp_path: Path, mirror: Mirror) -> None:
    with lock_folder(tmp_path), pytest.raises(OutputLockedError):
        _fetch(mirror, tmp_path)


def test_killed_download_goes_on_where_it_was(tmp_path: Path, mirror: Mirror) -> None:
    mirror.delay_s = 0.01
    command = [sys.executable, "-m", "lmdissect", "download", "pubmed", "--files", "2", "--base-url", mirror.url, "--out", str(tmp_path)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        before = (tmp_path / f"{NAME}.part").stat().st_size if (tmp_path / f"{NAME}.part").exists() else 0
        wanted = before + int(rng.integers(1, 300_000))
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and not ((part := tmp_path / f"{NAME}.part").exists() and part.stat().st_size > wanted):
            time.sleep(0.005)
        assert process.poll() is None, "it must be killed at work"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / NAME).exists()
    mirror.delay_s = 0.0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"1 files fetched, 0 were there already: {tmp_path}\n")
    _assert_whole(tmp_path)
    ranges = mirror.ranges(f"/baseline/{NAME}")
    assert [bool(asked) for asked in ranges] == [False, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["c4", "--part", "updates"], 2, "--part is for pubmed"),
        (["pubmed", "--split", "train"], 2, "--split is for c4"),
        (["pubmed", "--files", "3-1"], 2, "write numbers and ranges"),
    ],
)
def test_command_line_refuses_what_makes_no_sense(
    run_cli: Callable[..., CliOutcome], tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    outcome = run_cli("download", *arguments, "--out", str(tmp_path))
    assert outcome.code == code
    assert told in outcome.err


def test_numbers_and_ranges() -> None:
    assert parse_numbers("1-3, 7,2") == [1, 2, 3, 7]
