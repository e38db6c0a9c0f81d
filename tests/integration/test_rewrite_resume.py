"""Runs that are killed, run twice, or find their ledger damaged: what was paid for is paid for once."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from llm_servers import serving
from lmdissect.errors import InterruptedRunError, OutputLockedError, UnusableOutputError
from lmdissect.interrupts import StopRequest
from lmdissect.progress import SilentProgress
from lmdissect.rewrite import ChatEndpoint, Outcome, RewriteConfig, ScriptedGenerator, rewrite_documents
from lmdissect.store import lock_folder, read_artifact
from rewriting import CASUAL, CONTROL, FALSE, documents, server_process

CONFIG = RewriteConfig(concurrency=16, max_concurrency=16, timeout_s=10.0)
NUM_DOCUMENTS = 100
NUM_KILLED_RUNS = int(os.environ.get("LMDISSECT_KILLED_RUNS", "3"))

_RUN = """
import json, os, sys
from pathlib import Path
request = json.loads(sys.argv[1])
sys.path.insert(0, request["tests"])
from lmdissect.rewrite import ChatEndpoint, RewriteConfig, rewrite_documents
from lmdissect.language import same_language
from rewriting import CASUAL, CONTROL, documents
import openai  # slow to import: before any run
config = RewriteConfig.model_validate(request["config"])
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        endpoint = ChatEndpoint("m", base_url=request["url"], timeout_s=config.timeout_s)
        rewrite_documents(documents(request["number"]), [CONTROL, CASUAL], endpoint, config, Path(line.strip()))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class _Runner:
    """A process that has imported everything and forks one run for every folder it is told."""

    def __init__(self, url: str) -> None:
        request = {"tests": str(Path(__file__).parents[1]), "config": CONFIG.model_dump(mode="json"), "number": NUM_DOCUMENTS, "url": url}
        command = [sys.executable, "-c", _RUN, json.dumps(request)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, folder: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


def _stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=10) as response:  # noqa: S310 - our own server
        content: dict[str, Any] = json.load(response)
    return content


def _texts(folder: Path) -> list[dict[str, object]]:
    columns = ["document_id", "variant", "outcome", "text", "attempts", "key"]
    return pq.read_table(folder / "outcomes.parquet", columns=columns).to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("storm", [(), ("429=0.05", "500=0.05", "reset=0.02", "truncated=0.02")], ids=["calm", "storm"])
def test_killed_at_any_moment_and_started_again(tmp_path: Path, storm: tuple[str, ...]) -> None:
    """Every run is killed several times. What the server was paid for twice is never more than what was in flight at the kills."""
    server, url = server_process("--latency-s", "0.02", *(part for share in storm for part in ("--storm", share)))
    runner = _Runner(url)
    rng = np.random.default_rng(3)
    try:
        runner.start(tmp_path / "whole")
        assert runner.wait() == 0
        for number in range(NUM_KILLED_RUNS):
            before = _stats(url)["paid_answers"]
            folder, kills, code = tmp_path / str(number), 0, -1
            while code != 0:
                process_id = runner.start(folder)
                if kills < 4:
                    time.sleep(rng.uniform(0.02, 0.6))
                    os.kill(process_id, signal.SIGKILL)  # the runner has not reaped it before we read its end: the id is still its own
                    kills += 1
                code = runner.wait()
                assert code in {0, -signal.SIGKILL}
            paid_again = _stats(url)["paid_answers"] - before - 2 * NUM_DOCUMENTS
            assert 0 <= paid_again <= kills * CONFIG.max_concurrency
            assert _texts(folder) == _texts(tmp_path / "whole")
    finally:
        runner.close()
        server.kill()
        server.communicate()


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    with serving() as server:
        endpoint = ChatEndpoint("m", base_url=server.url)
        first = rewrite_documents(documents(20), [CONTROL, CASUAL], endpoint, CONFIG, tmp_path / "out")
        rows = _texts(tmp_path / "out")
        second = rewrite_documents(documents(20), [CONTROL, CASUAL], endpoint, CONFIG, tmp_path / "out")
    assert (first.num_sent, second.num_sent, server.num_requests) == (40, 0, 40)
    assert first.outcomes == second.outcomes
    assert _texts(tmp_path / "out") == rows
    assert read_artifact(tmp_path / "out", "rewrite").counts == {"documents": 20, "rewrites": 40, "ok": 40}


def test_more_documents_and_more_recipes_ask_for_what_is_new(tmp_path: Path) -> None:
    generator = ScriptedGenerator()
    rewrite_documents(documents(10), [CONTROL, CASUAL], generator, CONFIG, tmp_path / "out")
    rewrite_documents(documents(10), [CONTROL, CASUAL, FALSE], generator, CONFIG, tmp_path / "out")
    assert generator.num_sent == 30
    summary = rewrite_documents(documents(12), [CONTROL, FALSE], generator, CONFIG, tmp_path / "out")
    assert generator.num_sent == 34
    assert summary.counts() == {"paraphrase": {"ok": 12}, "counterfactual": {"ok": 12}}


@pytest.mark.parametrize("change", [{"temperature": 0.1}, {"seed": 5}, {"max_output_tokens": 99}, {"structured": "off"}])
def test_what_changes_an_answer_is_another_request(tmp_path: Path, change: dict[str, object]) -> None:
    config = CONFIG.model_copy(update=change)
    with serving() as server:
        for settings in (CONFIG, config):
            endpoint = ChatEndpoint("m", base_url=server.url, structured=settings.structured, temperature=settings.temperature)
            rewrite_documents(documents(3), [CASUAL], endpoint, settings, tmp_path / "out")
    assert server.num_requests == 6


def test_another_model_or_server_is_another_request(tmp_path: Path) -> None:
    with serving() as one, serving() as two:
        for model, url in (("m", one.url), ("n", one.url), ("m", two.url)):
            rewrite_documents(documents(3), [CASUAL], ChatEndpoint(model, base_url=url), CONFIG, tmp_path / "out")
    assert (one.num_requests, two.num_requests) == (6, 3)


def test_two_runs_on_one_ledger(tmp_path: Path) -> None:
    rewrite_documents(documents(1), [CASUAL], ScriptedGenerator(), CONFIG, tmp_path / "out")
    with lock_folder(tmp_path / "out"), pytest.raises(OutputLockedError, match="another process"):
        rewrite_documents(documents(1), [CASUAL], ScriptedGenerator(), CONFIG, tmp_path / "out")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UnusableOutputError, match="holds no ledger of ours"):
        rewrite_documents(documents(1), [CASUAL], ScriptedGenerator(), CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_row_is_asked_for_again_and_said(tmp_path: Path) -> None:
    class Listening(SilentProgress):
        said: list[str] = []  # noqa: RUF012 - one test reads it

        def say(self, message: str) -> None:
            self.said.append(message)

    generator = ScriptedGenerator()
    rewrite_documents(documents(5), [CASUAL], generator, CONFIG, tmp_path / "out")
    connection = sqlite3.connect(tmp_path / "out" / "ledger.sqlite")
    with connection:
        connection.execute("UPDATE requests SET text = 'something that nobody wrote' WHERE document_id = 'd2'")
    connection.close()
    summary = rewrite_documents(documents(5), [CASUAL], generator, CONFIG, tmp_path / "out", progress=Listening())
    assert generator.num_sent == 6
    assert all("by a script" in (outcome.text or "") for outcome in summary.outcomes)
    assert [line.split(": ")[1] for line in Listening.said if "checksum" in line] == ["1 rows did not match their checksums and were asked for again"]


_HALTED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lmdissect.rewrite import ChatEndpoint, RewriteConfig, rewrite_documents
from rewriting import CASUAL, documents
config = RewriteConfig(attempts=1, concurrency=2, max_concurrency=2)
rewrite_documents(documents(400), [CASUAL], ChatEndpoint("m", base_url=sys.argv[2]), config, Path(sys.argv[3]))
"""


def test_a_run_that_is_killed_while_it_ends_leaves_no_rejection_for_good(tmp_path: Path) -> None:
    """A hundred rejections end the run, and it is killed while one request is still in flight."""
    with serving(lambda number, _body: "ok" if number < 3 else "silence" if number == 10 else "400") as server:
        command = [sys.executable, "-c", _HALTED, str(Path(__file__).parents[1]), server.url, str(tmp_path / "out")]
        process = subprocess.Popen(command)
        deadline_s = time.monotonic() + 60
        while server.seen["400"] < 100 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(1.0)  # it has the last rejection by now, and waits
        assert process.poll() is None
        process.kill()
        process.wait()
        assert server.seen["400"] == 100
        server.behaviours = lambda _number, _body: "ok"
        summary = rewrite_documents(
            documents(400), [CASUAL], ChatEndpoint("m", base_url=server.url), CONFIG.model_copy(update={"attempts": 1}), tmp_path / "out"
        )
    assert summary.counts() == {"casual": {"ok": 400}}


def test_stopping_keeps_what_was_answered(tmp_path: Path) -> None:
    stop = StopRequest()
    generator = ScriptedGenerator()

    class Stopping(SilentProgress):
        def task(self, name, total, unit, *, done=0):
            task = super().task(name, total, unit, done=done)
            task.advance = lambda _amount: setattr(stop, "asked", generator.num_sent >= 200)
            return task

    with pytest.raises(InterruptedRunError, match=r"\d+ of 3000 rewrites have an outcome; run the same command again"):
        rewrite_documents(documents(3000), [CASUAL], generator, CONFIG, tmp_path / "out", progress=Stopping(), stop=stop)
    assert not (tmp_path / "out" / "manifest.json").exists()
    sent = generator.num_sent
    assert 200 <= sent < 3000
    summary = rewrite_documents(documents(3000), [CASUAL], generator, CONFIG, tmp_path / "out")
    assert generator.num_sent == 3000
    assert summary.counts() == {"casual": {Outcome.OK: 3000}}
