"""Nodes as tasks of a Ray cluster: of one that is started here, or of any by its address.

The driver writes nodes and reads outcomes; the work itself goes over files. So every machine of the cluster must see the folder the run was started in
under the same path, and have this package in the same version: both are looked at on each machine before anything runs.

A machine or worker that is lost takes no other node with it: Ray runs its node again elsewhere, where the artifact goes on from what is on disk. An error
of the node itself is its outcome and runs nothing again. Where slots are idle, scoring is split: helpers add chunks to the artifact whose lock the node's
own task holds, and that one adds what is missing and finishes.
"""

import importlib
import os
import shutil
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdissect import __version__
from lmdissect.errors import MissingDependencyError, UserInputError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.graph import Node, NodeOutcome

__all__ = ["RayExecutor", "import_ray"]

_MODEL_KINDS = frozenset({"trial", "finetune", "score"})
"""Kinds of nodes that run a model: they get the CPUs or GPUs asked for, all others one CPU."""

_STARTS_OF_A_CLUSTER = 3
"""Ray gives its own processes 15 s to start, and gives up on a machine that is busier than that."""

_RUNS_OF_A_LOST_NODE = 4
_LOOK_TIMEOUT_S = 120.0
_POLL_S = 0.5
_LOG_INTERVAL_S = 5.0
_CHARS_PER_TOKEN = 4
_BATCHES_PER_CHUNK = 8  # as scoring cuts its work; only how finely it is split hangs on it
_CHUNKS_PER_SHARD = 2
"""A shard that is smaller costs more for loading the model than it saves."""


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where the driver and its tasks meet on disk, and what a model's task gets; JSON types, because it travels.

    Attributes:
        cwd: The folder the run was started in.
        folder: A folder of this run for the files of this module.
        logs: Folder of the nodes' logs.
        num_cpus: CPUs of a task that runs a model.
        num_gpus: GPUs of such a task.
        slots: How many such tasks the cluster runs at once.
    """

    cwd: str
    folder: str
    logs: str
    num_cpus: int
    num_gpus: float
    slots: int

    @property
    def token(self) -> Path:
        """File that every machine must see."""
        return Path(self.folder) / "token"

    @property
    def stop(self) -> Path:
        """File that asks every task to end at its next safe point."""
        return Path(self.folder) / "stop"

    def needs(self, kind: str) -> dict[str, float]:
        """What a task of this kind asks Ray for."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus} if kind in _MODEL_KINDS else {"num_cpus": 1, "num_gpus": 0}

    def shard_began(self, node: Node, index: int) -> Path:
        """File that says that a helper has begun a shard of a node."""
        return Path(self.folder) / f"{node.key}-shard{index}"

    def count_start(self, node: Node) -> int:
        """Note that a task begins a node; how often one has, this time included."""
        path = Path(self.folder) / node.key
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{socket.gethostname()} {os.getpid()}\n")
        return len(path.read_text(encoding="utf-8").splitlines())


def import_ray() -> Any:  # noqa: ANN401 - an optional package, whose types would be read with every check of ours
    """The package ray, told to report no usage.

    Raises:
        MissingDependencyError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        message = 'the executor ray needs the package ray, which is not installed: pip install "lmdissect[ray]"'
        raise MissingDependencyError(message) from error


class RayExecutor:
    """Runs nodes on a Ray cluster; the protocol is that of `lmdissect.pipeline.executors.Executor`."""

    def __init__(self, address: str | None = None, *, logs: Path, num_cpus: int | None = None, num_gpus: float | None = None) -> None:
        """Start a cluster on this machine, or join one, and look at its machines.

        Args:
            address: HOST:PORT of a running cluster, ``ray://HOST:PORT``, or ``auto`` for one on this machine; None starts one here, for this run alone.
            logs: Folder of the nodes' logs.
            num_cpus: CPUs (and threads) of a node that runs a model; default all of the smallest machine, on machines with GPUs a GPU's part.
            num_gpus: GPUs of such a node; default 1 where there are any, else 0. A fraction shares a GPU.

        Raises:
            MissingDependencyError: Ray is not installed.
            UserInputError: No cluster can be had at the address, it has not what a node needs, or one of its machines does not see the run's folder or has
                another version of this package.
        """
        self._ray = import_ray()
        self._joined = bool(self._ray.is_initialized())  # somebody's own session: it is not ours to end
        if not self._joined:
            _connect(self._ray, address)
        folder = logs.resolve() / f".ray-{uuid.uuid4().hex[:8]}"
        try:
            needs = _choose_needs([machine["Resources"] for machine in _machines(self._ray)], num_cpus, num_gpus)
            self._desk = _Desk(str(Path.cwd()), str(folder), str(logs.resolve()), *needs)
            folder.mkdir(parents=True)
            self._desk.token.write_text(folder.name, encoding="utf-8")
            self._look_at_machines()
        except BaseException:
            self._leave(folder)
            raise
        self._task = self._ray.remote(_run_on_worker)
        self._references: dict[str, Any] = {}

    @property
    def capacity(self) -> int:
        """One node for each slot, and one that needs no model."""
        return self._desk.slots + 1

    def submit(self, node: Node) -> Future[NodeOutcome]:
        """Make the node a task."""
        future: Future[NodeOutcome] = Future()
        task = self._task.options(
            name=f"{node.kind} {node.label}"[:80], max_retries=_RUNS_OF_A_LOST_NODE - 1, retry_exceptions=False, **self._desk.needs(node.kind)
        )
        reference = task.remote(node.to_json(), self._desk)
        self._references[node.key] = reference  # the task would be forgotten with its last reference
        reference.future().add_done_callback(lambda done: self._finish(node, done, future))
        return future

    def ask_to_stop(self) -> None:
        """Tell every task, through a file that all of them see."""
        self._desk.stop.write_text("stop", encoding="utf-8")

    def close(self) -> None:
        """Leave the cluster; one that was started here ends, and what still runs is killed."""
        for reference in list(self._references.values()):  # those that end meanwhile take themselves out
            self._ray.cancel(reference, force=True)
        self._leave(Path(self._desk.folder))

    def _leave(self, folder: Path) -> None:
        if not self._joined:
            self._ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    def _finish(self, node: Node, done: "Future[Any]", future: "Future[NodeOutcome]") -> None:
        self._references.pop(node.key, None)
        error = done.exception()
        future.set_result(NodeOutcome.from_json(done.result()) if error is None else self._outcome_of(node, error))

    def _outcome_of(self, node: Node, error: BaseException) -> NodeOutcome:
        """What Ray says went wrong, as an outcome: a node's own errors never come this way."""
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.TaskCancelledError):
            return NodeOutcome(node.key, "interrupted", "cancelled", "TaskCancelledError", 130)
        if isinstance(error, exceptions.RayTaskError):
            cause = getattr(error, "cause", None) or error
            return NodeOutcome(node.key, "failed", f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}", type(cause).__name__, 1)
        return NodeOutcome(node.key, "failed", _lost(_RUNS_OF_A_LOST_NODE, type(error).__name__), type(error).__name__, 1)

    def _look_at_machines(self) -> None:
        """Run a small task on each machine.

        Raises:
            UserInputError: One does not see the run's folder, or has another version.
        """
        ray = self._ray
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        look = ray.remote(_look_around)
        machines = {machine["NodeID"]: machine["NodeManagerHostname"] for machine in _machines(ray)}
        asked = {
            look.options(num_cpus=0, max_retries=0, scheduling_strategy=affinity(node_id=number, soft=False)).remote(self._desk): host
            for number, host in machines.items()
        }
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_TIMEOUT_S)
        if late:
            message = f"the machine {asked[late[0]]} of the Ray cluster did not run a task within {_LOOK_TIMEOUT_S:.0f} s: look at `ray status`"
            raise UserInputError(message)
        for reference in ready:
            _check_machine(asked[reference], self._view(reference), self._desk)

    def _view(self, reference: Any) -> Mapping[str, Any]:  # noqa: ANN401 - a Ray reference
        try:
            return dict(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return {"problem": " ".join(str(getattr(error, "cause", None) or error).split())[-200:]}


def _connect(ray: Any, address: str | None) -> None:  # noqa: ANN401 - the module
    """Start or join a cluster, quietly; handlers of signals are left as they were.

    Raises:
        UserInputError: There is none at the address, or it cannot be started.
    """
    on_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if on_main else None
    attempts = _STARTS_OF_A_CLUSTER if address is None else 1
    try:
        for attempt in range(attempts):
            try:
                _start_or_join(ray, address)
            except Exception as error:
                ray.shutdown()  # what was started of it
                if attempt + 1 < attempts:
                    continue
                where = f"at --address {address}" if address else f"on this machine ({attempts} attempts)"
                message = f"no Ray cluster can be had {where}: {' '.join(str(error).split())[:200]}"
                raise UserInputError(message) from error
            break
    finally:
        if on_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _start_or_join(ray: Any, address: str | None) -> None:  # noqa: ANN401 - the module
    local = {"include_dashboard": False} if address is None else {}
    ray.init(address=address or "local", namespace="lmdissect", log_to_driver=False, logging_level="error", **local)


def _machines(ray: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the module
    return [machine for machine in ray.nodes() if machine["Alive"]]


def _choose_needs(machines: Sequence[Mapping[str, float]], num_cpus: int | None, num_gpus: float | None) -> tuple[int, float, int]:
    """CPUs and GPUs of a task that runs a model, and how many such tasks fit at once.

    Args:
        machines: CPU and GPU of each machine.
        num_cpus: CPUs asked for, or None.
        num_gpus: GPUs asked for, or None.

    Raises:
        UserInputError: No machine has as much.
    """
    with_cpus = [found for found in machines if found.get("CPU", 0) >= 1]
    with_gpus = [found for found in with_cpus if found.get("GPU", 0) > 0]
    gpus = (1.0 if with_gpus else 0.0) if num_gpus is None else num_gpus
    if num_cpus is not None:
        cpus = num_cpus
    elif gpus:
        cpus = int(max(1, min((found["CPU"] * min(gpus / found["GPU"], 1) for found in with_gpus), default=1)))
    else:
        cpus = int(min((found["CPU"] for found in with_cpus), default=1))
    slots = sum(int(min(found["CPU"] // cpus, found.get("GPU", 0) // gpus if gpus else found["CPU"])) for found in with_cpus)
    if slots < 1:
        there = ", ".join(f"{found['CPU']:g} and {found.get('GPU', 0):g}" for found in with_cpus) or "none"
        message = f"no machine of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a node that runs a model (there are {there}): ask for less"
        raise UserInputError(message)
    return cpus, gpus, slots


def _check_machine(host: str, view: Mapping[str, Any], desk: _Desk) -> None:
    if "problem" in view:
        message = f"the machine {host} of the Ray cluster cannot run lmdissect {__version__}: install it there ({view['problem']})"
    elif view["version"] != __version__:
        message = f"the machine {host} of the Ray cluster has lmdissect {view['version']}, and this one {__version__}: install the same version there"
    elif not (view["token"] and view["cwd"]):
        missing = desk.cwd if not view["cwd"] else desk.logs
        message = (
            f"the machine {host} of the Ray cluster does not see {missing} as it is here: run from a folder on a file system that all machines share"
        )
    else:
        return
    raise UserInputError(message)


def _look_around(desk: _Desk) -> dict[str, Any]:
    """Runs on a machine of the cluster: what it sees of the run."""
    token = desk.token.read_text(encoding="utf-8") if desk.token.is_file() else ""
    return {"version": __version__, "token": token == Path(desk.folder).name, "cwd": Path(desk.cwd).is_dir()}


def _run_on_worker(node_json: dict[str, Any], desk: _Desk) -> dict[str, Any]:
    """Runs on a machine of the cluster: do one node's work."""
    node = Node.from_json(node_json)
    if desk.stop.exists():
        return NodeOutcome(node.key, "interrupted", "stopped before it began").to_json()
    starts = desk.count_start(node)
    if starts > _RUNS_OF_A_LOST_NODE:
        return NodeOutcome(node.key, "failed", _lost(_RUNS_OF_A_LOST_NODE, "killed"), "WorkerKilled", 1).to_json()
    with _at_work(desk, node.log_name, node.kind) as stop:
        print(f"{node.name}: {node.label} on {socket.gethostname()} (start {starts})", flush=True)
        outcome = _work(node, desk, stop)
        print(f"{outcome.status} after {outcome.wall_s:.1f} s {outcome.message}".rstrip(), flush=True)
    if starts > 1 and outcome.status == "done":
        again = f"run again {starts - 1} time{'s' if starts > 2 else ''}, because the worker or machine that ran it was lost"
        return {**outcome.to_json(), "message": "; ".join(filter(None, (outcome.message, again)))}
    return outcome.to_json()


def _work(node: Node, desk: _Desk, stop: StopRequest) -> NodeOutcome:
    from lmdissect.pipeline.work import run_node, score_node  # noqa: PLC0415 - loads torch
    from lmdissect.progress import LineProgress  # noqa: PLC0415

    progress = LineProgress(sys.stderr, interval_s=_LOG_INTERVAL_S)
    if node.kind != "score" or desk.slots == 1:
        return run_node(node, progress=progress, stop=stop)

    def score(_node: Node, shown: Any, asked: StopRequest) -> None:  # noqa: ANN401 - a Progress
        score_node(node, shown, asked, delegate=lambda: _share_scoring(node, desk, shown, asked))

    return run_node(node, work=score, progress=progress, stop=stop)


def _share_scoring(node: Node, desk: _Desk, progress: Any, stop: StopRequest) -> None:  # noqa: ANN401 - a Progress
    """Score in as many shards as slots are idle now, the first of them here; returns when all that were begun are done or have failed.

    Another node may have taken a slot meanwhile, for hours: a shard that nobody has begun when the one here is done is taken back and scored here.
    """
    from lmdissect.pipeline.work import score_node  # noqa: PLC0415
    from lmdissect.scoring import Shard  # noqa: PLC0415

    ray = import_ray()
    idle = ray.available_resources()
    free = int(min(idle.get("CPU", 0) // desk.num_cpus, idle.get("GPU", 0) // desk.num_gpus if desk.num_gpus else idle.get("CPU", 0)))
    count = min(free + 1, _num_chunks(node, desk) // _CHUNKS_PER_SHARD)
    if count < 2:
        return
    task = ray.remote(_score_on_worker).options(max_retries=0, retry_exceptions=False, **desk.needs("score"))
    helpers = {index: task.remote(node.to_json(), desk, index, count) for index in range(1, count)}
    progress.say(f"{node.name}: scored in {count} shards")
    try:
        score_node(node, progress, stop, shard=Shard(0, count))
    finally:
        for index, reference in helpers.items():
            if not desk.shard_began(node, index).exists():
                ray.cancel(reference)
        for reference in helpers.values():
            try:
                problem = ray.get(reference)
            except ray.exceptions.RayError as error:
                problem = type(error).__name__
            if problem:
                progress.say(f"{node.name}: a shard was not finished ({problem}); its chunks are scored here")


def _score_on_worker(node_json: dict[str, Any], desk: _Desk, index: int, count: int) -> str:
    """Runs on a machine of the cluster: score one shard of a node that another task holds. What went wrong, or nothing."""
    from lmdissect.errors import LmdissectError  # noqa: PLC0415
    from lmdissect.pipeline.work import score_node  # noqa: PLC0415
    from lmdissect.progress import LineProgress  # noqa: PLC0415
    from lmdissect.scoring import Shard  # noqa: PLC0415

    node = Node.from_json(node_json)
    desk.shard_began(node, index).touch()
    with _at_work(desk, f"{node.log_name.removesuffix('.log')}-shard{index}.log", node.kind) as stop:
        try:
            score_node(node, LineProgress(sys.stderr, interval_s=_LOG_INTERVAL_S), stop, shard=Shard(index, count))
        except LmdissectError as error:
            return str(error)
    return ""


def _num_chunks(node: Node, desk: _Desk) -> int:
    """About how many chunks a node's texts make: from their characters, before any tokenizer is loaded."""
    from lmdissect.pipeline.work import read_scored_texts  # noqa: PLC0415
    from lmdissect.scoring import ScoringConfig  # noqa: PLC0415

    config = ScoringConfig.model_validate(node.settings["scoring"]).sized_for("cuda" if desk.num_gpus else "cpu")
    limit = config.max_tokens or sys.maxsize
    tokens = sum(min(limit, len(text.text) // _CHARS_PER_TOKEN) for text in read_scored_texts(node).texts)
    return tokens // (_BATCHES_PER_CHUNK * config.batch_tokens)


@contextmanager
def _at_work(desk: _Desk, log_name: str, kind: str) -> Iterator[StopRequest]:
    """In the run's folder, with the task's share of threads, its output in its log, and an eye on the file that asks to stop."""
    os.chdir(desk.cwd)
    if kind in _MODEL_KINDS:
        import torch  # noqa: PLC0415 - heavy

        torch.set_num_threads(desk.num_cpus)
    stop, over = StopRequest(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(desk.stop, stop, over), daemon=True)
    watcher.start()
    try:
        with _output_to(Path(desk.logs) / log_name):
            yield stop
    finally:
        over.set()


def _watch(path: Path, stop: StopRequest, over: threading.Event) -> None:
    while not over.wait(_POLL_S):
        if path.exists():
            stop.asked = True
            return


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """What this process and its libraries print goes to ``log`` until the block ends."""
    kept = [os.dup(1), os.dup(2)]
    try:
        with log.open("a", encoding="utf-8") as stream:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _lost(times: int, how: str) -> str:
    return f"its worker or machine was lost {times} times ({how}): fewer nodes at a time, or a smaller model or batch, if memory ran out"
