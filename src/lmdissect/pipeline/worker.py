"""A worker process: reads nodes as lines of JSON, answers with their outcomes, and ends when its input closes.

    in    {"node": {...}, "log": "OUT/logs/finetune-0123456789abcdef.log"}    run this node; what it prints goes to the log
    in    {"stop": true}                                                    end the node in hand at its next safe point
    out   {"key": ..., "status": "done", ...}                               its outcome

Whoever started it may die at any moment, and then its input closes and it ends at once. That loses nothing: artifacts survive a kill at any moment.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from lmdissect.interrupts import StopRequest
from lmdissect.progress import LineProgress

__all__ = ["serve"]

_LOG_INTERVAL_S = 5.0


def serve() -> None:
    """Run nodes until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process in front, which asks for a stop through the pipe
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not stand between two answers
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stop = StopRequest()
    threading.Thread(target=_read, args=(sys.stdin, requests, stop), daemon=True).start()
    while True:
        request = requests.get()
        answer = _run(request, stop)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read(stream: IO[str], requests: "queue.SimpleQueue[dict[str, Any]]", stop: StopRequest) -> None:
    for line in stream:
        request = json.loads(line)
        if "stop" in request:
            stop.asked = True
        else:
            requests.put(request)
    os._exit(0)


def _run(request: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    from lmdissect.pipeline.graph import Node  # noqa: PLC0415 - the log must be open before anything heavy is loaded

    node = Node.from_json(request["node"])
    with _open_log(Path(request["log"])) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        _note(f"{node.name}: {node.label}")
        from lmdissect.pipeline.work import run_node  # noqa: PLC0415 - loads torch, once

        outcome = run_node(node, progress=LineProgress(interval_s=_LOG_INTERVAL_S), stop=stop)
        _note(f"{outcome.status} after {outcome.wall_s:.1f} s {outcome.message}".rstrip())
    return outcome.to_json()


def _open_log(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError:  # a full disk: the node itself will say so
        return Path(os.devnull).open("a", encoding="utf-8")


def _note(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    serve()
