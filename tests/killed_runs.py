"""Work that is killed at random moments until it finishes: one process imports what is heavy, then forks the runs.

whole_s = run_whole(lambda: train("whole"))
kills = run_killed(lambda: train("killed"), whole_s, np.random.default_rng(7), most_kills=8)
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

__all__ = ["ENVIRONMENT", "run_killed", "run_whole"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).resolve().parent)}
"""Of a process that imports this module: one thread (bits depend on their number, and threads do not survive a fork), no hub."""

_POLL_S = 0.002


def run_whole(work: Callable[[], object]) -> float:
    """Run ``work`` in a process of its own, which must end well; how long it took."""
    started_s = time.monotonic()
    _check(os.waitpid(_fork(work), 0)[1])
    return time.monotonic() - started_s


def run_killed(work: Callable[[], object], whole_s: float, rng: np.random.Generator, *, most_kills: int) -> int:
    """Run ``work`` again and again, killing it after a random time, until it ends by itself; after ``most_kills`` it is let be. The number of kills.

    The first kill comes in the first quarter, so that there is one, however busy the machine was when ``whole_s`` was taken.
    """
    for kills in range(most_kills):
        child = _fork(work)
        deadline_s = time.monotonic() + rng.uniform(0.0, whole_s if kills else whole_s / 4)
        status = None
        while status is None and time.monotonic() < deadline_s:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = code if ended else None
            time.sleep(_POLL_S)
        if status is None:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            _check(status)
            return kills
    run_whole(work)
    return most_kills


def _fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        work()
    except BaseException as error:  # noqa: BLE001 - nobody above may see it: the parent's code follows there
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def _check(status: int) -> None:
    assert os.WIFEXITED(status), status
    assert os.WEXITSTATUS(status) == 0, status
