"""Which nodes are missing, and running them in an order that finishes points early."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import TypeAlias

from lmdissect.errors import InterruptedRunError, OutOfSpaceError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.build import Study
from lmdissect.pipeline.executors import Executor
from lmdissect.pipeline.graph import Graph, Node, NodeOutcome
from lmdissect.pipeline.status import node_state
from lmdissect.progress import Progress, format_duration

__all__ = ["Failure", "ScheduleSummary", "missing_nodes", "run_nodes"]

_POLL_S = 0.2
_QUIET_S = 60.0
_Futures: TypeAlias = dict[Future[NodeOutcome], Node]


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that failed, or could not be run because one that it needs did.

    Attributes:
        node: The node.
        reason: Why, in one line.
        ran: Whether it was run at all.
    """

    node: Node
    reason: str
    ran: bool


@dataclass(slots=True)
class ScheduleSummary:
    """What a run did.

    Attributes:
        done: Nodes that were made this time, with seconds.
        failures: What failed, and what could not be run for that.
    """

    done: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


def missing_nodes(study: Study) -> list[Node]:
    """Nodes that have to be made: the artifacts that points and tables are made of, where they are not finished, and what these need.

    A trial is missing only while its rate has not been chosen.
    """
    graph = study.graph
    targets = [key for nodes in study.points for key in nodes.nodes.values()]
    wanted: set[str] = set()
    seen: set[str] = set()
    open_keys = list(targets)
    while open_keys:
        key = open_keys.pop()
        if key in seen:
            continue
        seen.add(key)
        if node_state(graph.nodes[key]) != "done":
            wanted.add(key)
            open_keys.extend(graph.nodes[key].needs)
    return [node for key, node in graph.nodes.items() if key in wanted]


def run_nodes(
    study: Study,
    missing: Sequence[Node],
    executor: Executor,
    *,
    costs: Mapping[str, float] | None = None,
    describe: Callable[[Node], str] | None = None,
    progress: Progress,
    stop: StopRequest,
) -> ScheduleSummary:
    """Run ``missing`` on an executor. A node that fails takes those that need it with it, and no others.

    Args:
        study: The experiment.
        missing: Nodes to make, as `missing_nodes` finds them.
        executor: Where they run.
        costs: Estimated cost by key in any one unit, for the time left; None counts every node as one.
        describe: How far a running node is, in words; asked for when nothing was finished for a minute.
        progress: Where to report.
        stop: Once asked, running nodes end at their next safe point.

    Raises:
        InterruptedRunError: ``stop`` was asked.
    """
    return _Scheduler(study.graph, missing, executor, costs or {}, describe or (lambda _: ""), progress, stop).run()


class _Scheduler:
    def __init__(
        self,
        graph: Graph,
        missing: Sequence[Node],
        executor: Executor,
        costs: Mapping[str, float],
        describe: Callable[[Node], str],
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self._graph = graph
        self._waiting = {
            node.key: node for node in sorted(missing, key=lambda node: node.kind not in {"documents", "overlap"})
        }  # cheap, and fail early
        self._executor = executor
        self._describe = describe
        self._said_s = time.monotonic()
        self._progress = progress
        self._stop = stop
        self._total = len(missing)
        self._summary = ScheduleSummary()
        self._clock = _RemainingTime({node.key: costs.get(node.key, 0.0 if costs else 1.0) for node in missing}, executor.capacity)

    def run(self) -> ScheduleSummary:
        running: _Futures = {}
        while self._waiting or running:
            if self._stop:
                self._end(running)
            self._drop_hopeless()
            for node in self._ready(self._executor.capacity - len(running)):
                del self._waiting[node.key]
                running[self._executor.submit(node)] = node
            finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                self._take(running.pop(future), future.result())
                self._said_s = time.monotonic()
            self._keep_in_touch(running)
        return self._summary

    def _keep_in_touch(self, running: _Futures) -> None:
        """Say what is running, where nothing was said for a while."""
        if time.monotonic() - self._said_s >= _QUIET_S:
            self._said_s = time.monotonic()
            for node in running.values():
                self._progress.say(f"running: {node.kind} {node.label}: {self._describe(node)}".rstrip(": ") + self._clock.left())

    def _ready(self, number: int) -> list[Node]:
        """Nodes whose needs are settled; in the order of the points, so that whole points are finished early."""
        ready = [node for node in self._waiting.values() if not any(self._is_open(key) for key in node.needs)]
        return ready[: max(0, number)]

    def _is_open(self, key: str) -> bool:
        """Whether a needed node is still to come: neither done now, nor before, nor failed."""
        if key in self._summary.done or key in self._summary.failures:
            return False
        return key in self._clock.costs

    def _drop_hopeless(self) -> None:
        """Give up nodes that need one that failed, and those that need these."""
        while True:
            lost = [(node, key) for node in self._waiting.values() for key in node.needs if key in self._summary.failures]
            if not lost:
                return
            for node, key in lost:
                cause = self._graph.nodes[key]
                self._give_up(node, f"needs {cause.name} ({cause.label}), which failed")

    def _take(self, node: Node, outcome: NodeOutcome) -> None:
        if outcome.status == "interrupted" and self._stop:
            return
        self._clock.settle(node.key, outcome.wall_s)
        number = len(self._summary.done) + sum(failure.ran for failure in self._summary.failures.values()) + 1
        where = f"[{number}/{self._total}] {node.kind}: {node.label}"
        if outcome.status == "done":
            self._summary.done[node.key] = outcome.wall_s
            remark = f" ({outcome.message})" if outcome.message else ""
            self._progress.say(f"{where}: {format_duration(outcome.wall_s)}{remark}{self._clock.left()}")
            return
        self._summary.failures[node.key] = Failure(node, outcome.message, ran=True)
        self._progress.say(f"{where}: FAILED: {outcome.message}")
        if outcome.error == OutOfSpaceError.__name__:  # whatever else is begun would fail in the same way
            for other in list(self._waiting.values()):
                self._give_up(other, "not begun: the disk is full")

    def _give_up(self, node: Node, reason: str) -> None:
        if self._waiting.pop(node.key, None) is not None:
            self._summary.failures[node.key] = Failure(node, reason, ran=False)
            self._clock.settle(node.key, None)

    def _end(self, running: _Futures) -> None:
        self._executor.ask_to_stop()
        wait(running)
        for future, node in running.items():
            self._take(node, future.result())
        message = f"stopped with {len(self._summary.done)} of {self._total} pieces of work done; run the same command again to go on from there"
        raise InterruptedRunError(message)


class _RemainingTime:
    """How long the rest may take: estimated cost of what is left, at the pace of what was done."""

    def __init__(self, costs: Mapping[str, float], capacity: int) -> None:
        self.costs = dict(costs)
        self._left = dict(costs)
        self._capacity = max(1, capacity)
        self._paced_cost = 0.0
        self._paced_s = 0.0

    def settle(self, key: str, wall_s: float | None) -> None:
        """A node is finished, or will never be run."""
        cost = self._left.pop(key, 0.0)
        if wall_s is not None and cost > 0:
            self._paced_cost += cost
            self._paced_s += wall_s

    def left(self) -> str:
        """``, 3 left, about 2m10s``, as far as it is known."""
        if not self._left:
            return ""
        text = f"; {len(self._left)} left"
        if self._paced_cost <= 0:
            return text
        seconds = sum(self._left.values()) * self._paced_s / self._paced_cost / self._capacity
        return f"{text}, about {format_duration(seconds)}"
