"""Several processes that do one piece of work: who is who, and how one tells the others.

Processes are those of torch.distributed: a group that is there already is used, else one is made from the variables that torchrun and `accelerate launch` set
(RANK, WORLD_SIZE, MASTER_ADDR). A program that was started alone is process 0 of 1, and nothing of torch.distributed is touched. A group made here is taken down
when the program ends, before the interpreter is: a thread of gloo that outlives it can abort a process whose work is done (PyTorch pull request 179291).
"""

import atexit
import datetime as dt
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from lmdissect import errors
from lmdissect.errors import LmdissectError, RunFailedError

__all__ = [
    "any_process",
    "ask_main_process",
    "broadcast",
    "is_main_process",
    "num_processes",
    "process_rank",
    "sum_over_processes",
    "wait_for_all",
]

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
_PATIENCE = dt.timedelta(hours=6)
"""How long a process waits for another one that is alive: it may be writing a large model. A dead one is noticed at once."""


def num_processes() -> int:
    """Number of processes, 1 for a program that was started alone."""
    group = _join()
    return 1 if group is None else int(group.get_world_size())


def process_rank() -> int:
    """Number of this process among them, from 0."""
    group = _join()
    return 0 if group is None else int(group.get_rank())


def is_main_process() -> bool:
    """Whether this is process 0: the one that writes and reports."""
    return process_rank() == 0


def wait_for_all() -> None:
    """Return once all processes have come here."""
    sum_over_processes(0.0)


def broadcast(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The main process's ``value``, a JSON value, on every process; what others pass is not looked at."""
    group = _join()
    if group is None:
        return value
    import torch  # noqa: PLC0415 - heavy

    main = group.get_rank() == 0
    content = json.dumps(value).encode() if main else b""
    length = torch.tensor([len(content)], device=_device(group))
    group.broadcast(length, src=0)
    carried = torch.frombuffer(bytearray(content), dtype=torch.uint8) if main else torch.empty(int(length), dtype=torch.uint8)
    carried = carried.to(_device(group))
    group.broadcast(carried, src=0)
    return json.loads(bytes(carried.cpu().tolist()))


def ask_main_process(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Do ``work`` on the main process alone; every process returns its JSON value, or raises its error.

    Raises:
        LmdissectError: What ``work`` raised; on the other processes an error of the same class and words. Another exception is a RunFailedError there.
    """
    if num_processes() == 1:
        return work()
    if is_main_process():
        try:
            told = {"value": work()}
        except BaseException as error:
            kind = type(error).__name__ if isinstance(error, LmdissectError) else RunFailedError.__name__
            broadcast({"kind": kind, "message": str(error) or type(error).__name__})
            raise
        return broadcast(told)["value"]
    told = broadcast(None)
    if "message" in told:
        raise getattr(errors, told["kind"])(told["message"])
    return told["value"]


def sum_over_processes(value: float) -> float:
    """Sum of ``value`` over all processes."""
    group = _join()
    if group is None:
        return value
    import torch  # noqa: PLC0415 - heavy

    total = torch.tensor([value], dtype=torch.float64, device=_device(group))
    group.all_reduce(total)
    return float(total)


def any_process(flag: bool) -> bool:  # noqa: FBT001 - the value itself
    """Whether ``flag`` is true on any process."""
    return sum_over_processes(float(flag)) > 0


def _join() -> Any:  # noqa: ANN401 - the module torch.distributed, or None
    """torch.distributed with a group in it; None for a program that was started alone."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and all(name in os.environ for name in _VARIABLES)
    if not launched and "torch.distributed" not in sys.modules:
        return None
    import torch.distributed as group  # noqa: PLC0415 - heavy

    if not group.is_available():
        return None
    if not group.is_initialized():
        if not launched:
            return None
        import torch  # noqa: PLC0415

        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        group.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return group if group.get_world_size() > 1 else None


def _leave() -> None:
    """Take down the group that was made here, if nobody has."""
    import torch.distributed as group  # noqa: PLC0415 - loaded long since

    if group.is_initialized():
        group.destroy_process_group()


def _device(group: Any) -> str:  # noqa: ANN401
    """Where tensors have to be that this group can carry."""
    return "cuda" if str(group.get_backend()) == "nccl" else "cpu"
