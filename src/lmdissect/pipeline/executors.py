"""Where nodes run: the protocol, and worker processes on this machine.

A worker is a process of its own that loads what is heavy once and runs one node after the other (`lmdissect.pipeline.worker`). Nodes go to it, and
outcomes come back, as lines of JSON. When the process that started it dies, however it dies, its input closes and the worker ends at once: every
artifact survives that.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Protocol

from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.graph import Node, NodeOutcome
from lmdissect.progress import Progress

__all__ = ["Executor", "InlineExecutor", "LocalExecutor"]

_RUNS_OF_A_KILLED_NODE = 2
_GRACE_S = 5.0


class Executor(Protocol):
    """Runs nodes somewhere.

    Work runs in the folder that the run was started in, and what a node prints goes to ``logs / node.log_name``.
    """

    @property
    def capacity(self) -> int:
        """How many nodes may be submitted at the same time."""

    def submit(self, node: Node) -> Future[NodeOutcome]:
        """Run a node whose needs are done. What goes wrong with it is an outcome; the future raises nothing."""

    def ask_to_stop(self) -> None:
        """Let every running node end at its next safe point, with the status ``interrupted``."""

    def close(self) -> None:
        """Give back whatever is held; a node that is still running is killed."""


class InlineExecutor:
    """Runs each node here and now, in the process that submits it: for a notebook, or to look at a node in a debugger."""

    capacity = 1

    def __init__(self, *, progress: Progress | None = None, stop: StopRequest | None = None) -> None:
        """Take what the work is told.

        Args:
            progress: Where stages report.
            stop: Looked at between two pieces of work; the same request that the run is given.
        """
        self._progress = progress
        self._stop = StopRequest() if stop is None else stop

    def submit(self, node: Node) -> Future[NodeOutcome]:
        """Run the node; returns when it is finished."""
        from lmdissect.pipeline.work import run_node  # noqa: PLC0415 - loads torch, which worker processes load for themselves

        future: Future[NodeOutcome] = Future()
        future.set_result(run_node(node, progress=self._progress, stop=self._stop))
        return future

    def ask_to_stop(self) -> None:
        """Whatever is submitted from now on ends at its first safe point."""
        self._stop.asked = True

    def close(self) -> None:
        """Nothing is held."""


class LocalExecutor:
    """Worker processes on this machine.

    A worker that is killed (out of memory, by hand) takes no other node with it: its node is run once more by a new worker, and then counts as failed.
    """

    def __init__(self, *, workers: int, threads: int, logs: Path, devices: Sequence[str] = ()) -> None:
        """Start no process yet; a worker starts with its first node.

        Args:
            workers: How many processes.
            threads: CPU threads of all of them together.
            logs: Folder of the nodes' logs.
            devices: CUDA devices, as in CUDA_VISIBLE_DEVICES; each worker sees one.
        """
        self._workers = [
            _Worker(logs, _environment(max(1, threads // workers), devices[number % len(devices)] if devices else None)) for number in range(workers)
        ]
        self._jobs: queue.SimpleQueue[tuple[Node, Future[NodeOutcome]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in self._workers]
        for thread in self._threads:
            thread.start()

    @property
    def capacity(self) -> int:
        """One node for each worker."""
        return len(self._workers)

    def submit(self, node: Node) -> Future[NodeOutcome]:
        """Hand the node to the next free worker."""
        future: Future[NodeOutcome] = Future()
        self._jobs.put((node, future))
        return future

    def ask_to_stop(self) -> None:
        """Tell every worker."""
        for worker in self._workers:
            worker.ask_to_stop()

    def close(self) -> None:
        """End all workers."""
        for _ in self._threads:
            self._jobs.put(None)
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join(timeout=_GRACE_S)
        for worker in self._workers:
            worker.drop_pipes()

    def _serve(self, worker: "_Worker") -> None:
        while (job := self._jobs.get()) is not None:
            node, future = job
            try:
                future.set_result(worker.run(node))
            except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; the outcome carries it
                future.set_result(NodeOutcome(node.key, "failed", f"{type(error).__name__}: {error}", type(error).__name__, 1))


class _Worker:
    """One worker process, started when it is first needed and again when it was killed."""

    def __init__(self, logs: Path, environment: dict[str, str]) -> None:
        self._logs = logs
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._stopping = False
        self._closed = False
        self._lock = threading.Lock()

    def run(self, node: Node) -> NodeOutcome:
        """Run one node; blocks until its outcome is there."""
        died = ""
        for _ in range(_RUNS_OF_A_KILLED_NODE):
            if self._stopping or self._closed:
                return NodeOutcome(node.key, "interrupted", "stopped before it began")
            process = self._running()
            self._send({"node": node.to_json(), "log": str(self._logs / node.log_name)})
            line = _lines(process.stdout).readline()
            if line:
                return NodeOutcome.from_json(json.loads(line))
            died = _describe_end(process.wait())
        message = f"its worker process {died}, {_RUNS_OF_A_KILLED_NODE} times: use fewer --workers, or a smaller model or batch, if memory ran out"
        return NodeOutcome(node.key, "failed", message, "WorkerKilled", 1)

    def ask_to_stop(self) -> None:
        """Let the node in hand end at its next safe point."""
        self._stopping = True
        if self._process is not None:
            self._send({"stop": True})

    def close(self) -> None:
        """End the process."""
        self._closed = True
        process = self._process
        if process is None:
            return
        with self._lock:
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def drop_pipes(self) -> None:
        """Close what is left of an ended process's pipes."""
        if self._process is not None and self._process.poll() is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # nobody reads what was still to be written
                        pipe.close()

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            self.drop_pipes()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lmdissect.pipeline.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches the process in front alone, which asks its workers to stop
            )
        return self._process

    def _send(self, message: dict[str, object]) -> None:
        process = self._process
        with self._lock:
            try:
                stdin = _lines(process.stdin if process else None)
                stdin.write(json.dumps(message) + "\n")
                stdin.flush()
            except (OSError, ValueError):  # it is dead or closed: whoever waits for its answer sees that
                return


def _lines(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        message = "a worker has no pipe"
        raise OSError(message)
    return stream


def _environment(threads: int, device: str | None) -> dict[str, str]:
    """The environment of a worker: its share of the CPU, and its device."""
    chosen = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return chosen if device is None else {**chosen, "CUDA_VISIBLE_DEVICES": device}


def _describe_end(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in {member.value for member in signal.Signals} else f"signal {-code}"
        return f"was killed ({name})"
    return f"ended with exit code {code}"
