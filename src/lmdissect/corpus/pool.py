"""Sources read side by side, one process each; the number of bytes read so far is shared with the parent, for its progress."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.corpus.config import CorpusConfig
from lmdissect.corpus.parts import write_part
from lmdissect.corpus.sources import Source
from lmdissect.errors import RunFailedError
from lmdissect.interrupts import StopRequest

__all__ = ["PartTask", "default_workers", "use_less_memory", "write_parts"]

_POLL_S = 0.5
_WORTH_A_PROCESS_BYTES = 16 << 20  # a process takes about a second to start

_num_bytes_read: Any = None
"""In a worker: the counter that all of them share with the parent."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """One source to read, and the numbers of its two files."""

    source: Source
    config: CorpusConfig
    paths: tuple[Path, Path]


def default_workers(num_bytes: int) -> int:
    """Processes for sources of this size: one for each processor that may be used, but none that would start for less than 16 MiB."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, num_bytes // _WORTH_A_PROCESS_BYTES))


def use_less_memory() -> None:
    """Let Arrow give memory back to the system as soon as it is free: a corpus is copied batch by batch, and its default pool would keep 80 MB more."""
    pa.set_memory_pool(pa.system_memory_pool())


def write_parts(tasks: Sequence[PartTask], num_workers: int, stop: StopRequest, on_read: Callable[[int], None]) -> Iterator[PartTask]:
    """Write the parts of all tasks; each is handed out when its files are complete. After a request to stop no other is begun.

    Args:
        tasks: What to read.
        num_workers: Processes; with one, or one task, this process does the work.
        stop: Looked at between two parts.
        on_read: Told how many more bytes were read.

    Raises:
        RunFailedError: A worker died: most often for want of memory.
        LmdissectError: What `write_part` raises.
    """
    if min(num_workers, len(tasks)) <= 1:
        for task in tasks:
            if stop:
                return
            write_part(task.source, task.config, task.paths, on_read)
            yield task
        return
    yield from _write_in_processes(tasks, min(num_workers, len(tasks)), stop, on_read)


def _write_in_processes(tasks: Sequence[PartTask], num_workers: int, stop: StopRequest, on_read: Callable[[int], None]) -> Iterator[PartTask]:
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, and the progress bar
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_begin_worker, initargs=(counter,))
    waiting = list(reversed(tasks))
    running: dict[Future[None], PartTask] = {}
    num_read = 0
    try:
        while running or (waiting and not stop):
            while waiting and len(running) < num_workers and not stop:
                task = waiting.pop()
                with _interrupts_held_back():
                    running[pool.submit(_write_in_worker, task)] = task
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            on_read(counter.value - num_read)
            num_read = counter.value
            for future in done:
                future.result()
                yield running.pop(future)
    except BrokenProcessPool as error:
        names = ", ".join(task.source.label for task in running.values())
        message = (
            f"a process that read a corpus file died, most often for want of memory (in hand: {names}): run the same command with fewer --workers"
        )
        raise RunFailedError(message) from error
    finally:
        _end(pool, running)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C only afterwards. A process that is started inherits this, so that a Ctrl-C before it has begun does not end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pool: ProcessPoolExecutor, running: dict[Future[None], PartTask]) -> None:
    """Let the workers go; those still at work, after an error, are stopped: what they were writing has no name yet."""
    workers = list((pool._processes or {}).values()) if running else []  # noqa: SLF001 - the pool itself can only wait for them
    for worker in workers:
        worker.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(counter: Any) -> None:  # noqa: ANN401 - multiprocessing has no public name for its type
    global _num_bytes_read  # noqa: PLW0603 - how a pool's initializer hands anything to its tasks
    _num_bytes_read = counter
    use_less_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what it means
    threading.Thread(target=_follow_parent, name="follow-parent", daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, however that ends: a worker that outlived it would write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _write_in_worker(task: PartTask) -> None:
    def on_read(count: int) -> None:
        with _num_bytes_read.get_lock():
            _num_bytes_read.value += count

    write_part(task.source, task.config, task.paths, on_read)
