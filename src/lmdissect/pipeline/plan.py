"""What an experiment would do: its graph by kind, what is there, what has changed, and what the rest takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmdissect.finetune import FinetuneConfig
from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.costs import Cost, CostModel, working_bytes
from lmdissect.pipeline.estimate import estimate_costs
from lmdissect.pipeline.experiment import Experiment
from lmdissect.pipeline.graph import KINDS, Node
from lmdissect.pipeline.inputs import Inputs
from lmdissect.pipeline.schedule import missing_nodes
from lmdissect.pipeline.stale import changed_fields, read_points
from lmdissect.pipeline.status import node_state
from lmdissect.progress import Progress, SilentProgress, format_duration

__all__ = ["Plan", "make_plan", "plan_json", "plan_lines"]

_STATES = ("done", "partial", "stale", "missing")
_SHOWN_CHANGES = 8
_SHOWN_MISSING = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment, and what is left of it.

    Attributes:
        study: The experiment, laid out.
        states: State by key of every node that counts: done, partial (begun), stale (missing, and it was another one when the point was last run) or
            missing.
        changes: What has changed at stale points, with the number of points.
        costs: Cost by key of the nodes that are not done.
        problems: What could not be known, by what it is.
        workers: Worker processes reckoned with.
        price_per_hour: Price of an hour of all workers, in any currency; None where none was given.
        working_bytes: Disk that checkpoints take while runs train.
    """

    study: Study
    states: Mapping[str, str]
    changes: Mapping[str, int]
    costs: Mapping[str, Cost]
    problems: Mapping[str, str]
    workers: int
    price_per_hour: float | None
    working_bytes: float | None

    def total(self, kind: str | None = None) -> Cost:
        """Sum of the costs of one kind, or of all; None in it where one of them is not known."""
        costs = [cost for key, cost in self.costs.items() if kind in {None, self.study.graph.nodes[key].kind}]
        return Cost(*(_sum(getattr(cost, name) for cost in costs) for name in ("tokens", "flops", "seconds", "disk_bytes")))

    @property
    def wall_s(self) -> float | None:
        """Time of the whole, if the workers are never idle."""
        seconds = self.total().seconds
        return None if seconds is None else seconds / self.workers

    @property
    def price(self) -> float | None:
        """Price of that time."""
        return None if self.wall_s is None or self.price_per_hour is None else self.wall_s / 3600 * self.price_per_hour


def _sum(values: Any) -> float | None:  # noqa: ANN401 - numbers, or None
    found = list(values)
    return None if any(value is None for value in found) else float(sum(found))


def make_plan(
    experiment: Experiment,
    source: str,
    *,
    workers: int = 1,
    threads: int = 1,
    calibrate: bool | None = None,
    price_per_hour: float | None = None,
    flops_per_s: float | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Lay out an experiment and estimate what is left. Nothing is run but short measurements of speed, and nothing is fetched.

    Args:
        experiment: The experiment.
        source: Its file, for messages.
        workers: Worker processes to reckon with.
        threads: CPU threads of all of them together.
        calibrate: Measure this machine's speed: None where it is not known yet, True in any case, False never.
        price_per_hour: Price of an hour of all workers.
        flops_per_s: Operations per second of one worker of another machine; nothing is measured on this one then.
        progress: Where to say what is being measured.

    Raises:
        UserInputError: The grid is not allowed.
    """
    inputs = Inputs(lenient=True)
    study = build_study(experiment, source, inputs)
    missing = missing_nodes(study)
    costs, problems, model = estimate_costs(
        study,
        missing,
        inputs,
        threads=max(1, threads // workers),
        calibrate=calibrate,
        progress=progress or SilentProgress(),
        flops_per_s=flops_per_s,
    )
    states, changes = _states(study, missing)
    working = _working_bytes(missing, model, workers)
    return Plan(study, states, changes, costs, {**inputs.problems, **problems}, workers, price_per_hour, working)


def _states(study: Study, missing: list[Node]) -> tuple[dict[str, str], dict[str, int]]:
    """State of every node that counts, and what has changed since the last run."""
    wanted = {node.key for node in missing}
    targets = {key for nodes in study.points for key in nodes.nodes.values()}
    states: dict[str, str] = {
        key: node_state(node) if key in wanted else "done" for key, node in study.graph.nodes.items() if key in wanted or key in targets
    }
    earlier = read_points(study.experiment.out_folder)
    changes: dict[str, int] = {}
    for nodes in study.points:
        found: dict[str, None] = {}
        for role, key in nodes.nodes.items():
            if states[key] == "missing" and (lines := changed_fields(nodes, role, earlier)):
                states[key] = "stale"
                found |= dict.fromkeys(lines)
            elif states[key] == "stale":
                found |= dict.fromkeys(changed_fields(nodes, role, earlier))
        for line in found:
            changes[line] = changes.get(line, 0) + 1
    return states, changes


def _working_bytes(missing: list[Node], model: CostModel, workers: int) -> float | None:
    """Checkpoints of the largest runs, as many as there are workers."""
    sizes = []
    for node in missing:
        if node.kind in {"trial", "finetune"}:
            facts = model.models.get(node.settings["models"]["base"])
            sizes.append(None if facts is None else working_bytes(facts, FinetuneConfig.model_validate(node.settings["finetune"])))
    if any(size is None for size in sizes):
        return None
    return float(sum(sorted((size for size in sizes if size is not None), reverse=True)[:workers]))


def plan_lines(plan: Plan) -> list[str]:
    """The plan as text."""
    experiment = plan.study.experiment
    lines = [f"{experiment.name}: {len(plan.study.points)} points (seeds counted), store {experiment.store}, tables {experiment.out_folder}"]
    if experiment.description:
        lines.append(" ".join(experiment.description.split()))
    lines.extend(["", *_kind_table(plan), ""])
    for line, number in list(plan.changes.items())[:_SHOWN_CHANGES]:
        lines.append(f"stale: {line} ({number} points)")
    if len(plan.changes) > _SHOWN_CHANGES:
        lines.append(f"stale: and {len(plan.changes) - _SHOWN_CHANGES} more fields")
    left = [plan.study.graph.nodes[key] for key, state in plan.states.items() if state != "done"]
    lines.extend(f"{plan.states[node.key]}: {node.kind} {node.label} ({node.name})" for node in left[:_SHOWN_MISSING])
    if len(left) > _SHOWN_MISSING:
        lines.append(f"and {len(left) - _SHOWN_MISSING} more (--json lists all)")
    lines.extend(f"not known: {name}: {problem}" for name, problem in plan.problems.items())
    return [*lines, *_total_lines(plan)]


def _kind_table(plan: Plan) -> list[str]:
    head = ["", *_STATES, "tokens", "FLOPs", "time", "disk"]
    body = []
    for kind in KINDS:
        states = [state for key, state in plan.states.items() if plan.study.graph.nodes[key].kind == kind]
        if states:
            cost = plan.total(kind)
            counts = [str(states.count(state)) for state in _STATES]
            body.append([kind, *counts, _number(cost.tokens), _number(cost.flops), _time(cost.seconds), _bytes(cost.disk_bytes)])
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *body)
    ]


def _total_lines(plan: Plan) -> list[str]:
    if not plan.costs:
        return ["nothing to do: everything is there"]
    cost = plan.total()
    workers = f" with {plan.workers} workers" if plan.workers > 1 else ""
    seconds = plan.wall_s
    text = f"left to do: {_number(cost.tokens)} tokens, {_number(cost.flops)} FLOPs, "
    text += f"about {format_duration(seconds)}{workers}" if seconds is not None else "time not known"
    working = f" and {_bytes(plan.working_bytes)} more while training" if plan.working_bytes else ""
    text += f", {_bytes(cost.disk_bytes)} of disk{working}"
    if plan.price is not None:
        text += f", {plan.price:,.2f} at {plan.price_per_hour:g} an hour"
    return [text]


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    if value == 0:
        return "-"
    few = 100_000
    return f"{value:,.0f}" if value < few else f"{value:.2g}"


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else "-" if seconds == 0 else format_duration(seconds)


def _bytes(value: float | None) -> str:
    if value is None:
        return "?"
    if value == 0:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan in JSON types, every node listed."""
    graph = plan.study.graph
    total = plan.total()
    return {
        "experiment": plan.study.experiment.model_dump(mode="json"),
        "points": [
            {"label": nodes.point.label, "fields": dict(nodes.point.fields), "seed": nodes.point.seed, "nodes": dict(nodes.nodes)}
            for nodes in plan.study.points
        ],
        "nodes": [
            {
                "key": key,
                "kind": graph.nodes[key].kind,
                "label": graph.nodes[key].label,
                "folder": graph.nodes[key].folder,
                "state": state,
                **_cost_json(plan.costs.get(key)),
            }
            for key, state in plan.states.items()
        ],
        "changes": dict(plan.changes),
        "problems": dict(plan.problems),
        "total": {**_cost_json(total), "wall_s": plan.wall_s, "workers": plan.workers, "price": plan.price, "working_bytes": plan.working_bytes},
    }


def _cost_json(cost: Cost | None) -> dict[str, float | None]:
    cost = cost or Cost()
    return {"tokens": cost.tokens, "flops": cost.flops, "seconds": cost.seconds, "disk_bytes": cost.disk_bytes}
