"""Grid and seeds -> points, each with the settings it runs with."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from lmdissect.errors import UserInputError
from lmdissect.pipeline.experiment import ASSUMPTIONS, Experiment, parse_experiment
from lmdissect.store.fingerprint import canonical_json

__all__ = ["Point", "expand_points", "settled_settings", "shown_field", "shown_value", "value_at"]

_LORA = "finetune.lora"
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of the grid's values with one seed.

    Attributes:
        fields: Value of every field that the grid varies; None for a field that this part of the grid leaves as the file has it unset.
        seed: Training seed.
        settings: The experiment with these values in place.
        label: The values in short: ``size=100 rank=8 seed=0``.
    """

    fields: Mapping[str, Any]
    seed: int
    settings: Experiment
    label: str


def expand_points(experiment: Experiment, source: str) -> list[Point]:
    """All points, in the order of the file, seeds innermost.

    A mapping of the grid stands for all combinations of its values, a list of mappings for their union. ``null`` for a field under `finetune.lora`
    means full finetuning.

    Args:
        experiment: The experiment.
        source: Its file, for messages.

    Raises:
        UserInputError: A value is not allowed for its field, or two combinations are the same point.
    """
    varied = experiment.varied_fields()
    names = _short_names(varied)
    settings = experiment.model_dump(mode="json", exclude={"grid", "seeds", "analysis"})
    points: list[Point] = []
    seen: dict[str, str] = {}
    for values in _combinations(experiment.grid):
        chosen = _settle(settings, values, source)
        fields = {field: value_at(chosen, field) for field in varied}
        label = " ".join(f"{names[field]}={shown_field(field, value)}" for field, value in fields.items())
        identity = canonical_json(settled_settings(chosen))
        if identity in seen:
            message = f"{source}: grid: the same point twice: {label or 'the only one'}, and {seen[identity] or 'again'}: leave one of them out"
            raise UserInputError(message)
        seen[identity] = label
        points.extend(Point(fields, seed, chosen, f"{label} seed={seed}".strip()) for seed in experiment.seeds)
    return points


def _combinations(grids: Sequence[Mapping[str, Sequence[Any]]]) -> Iterator[dict[str, Any]]:
    for grid in grids:
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _settle(settings: Mapping[str, Any], values: Mapping[str, Any], source: str) -> Experiment:
    """Put the values of one combination in place and check them."""
    chosen = _copied(settings)
    for field, value in values.items():
        _put(chosen, field.split("."), value)
    if any(field.startswith(f"{_LORA}.") and value is None for field, value in values.items()):
        chosen["finetune"]["lora"] = None
    shown = ", ".join(f"{field}={shown_value(value)}" for field, value in values.items())
    return parse_experiment(chosen, f"{source}: grid ({shown})" if values else source)


def _copied(value: Any) -> Any:  # noqa: ANN401 - JSON is whatever it is
    if isinstance(value, Mapping):
        return {name: _copied(entry) for name, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value


def _put(section: dict[str, Any], parts: Sequence[str], value: object) -> None:
    for part in parts[:-1]:
        if not isinstance(section.get(part), dict):  # a section that the file leaves out: finetune.lora, corpus.mix
            section[part] = {}
        section = section[part]
    section[parts[-1]] = value


def value_at(settings: BaseModel, field: str) -> Any:  # noqa: ANN401 - settings hold any type
    """Value of a dotted field, in JSON types; None where a section on the way is absent."""
    value: Any = settings.model_dump(mode="json")
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def settled_settings(experiment: Experiment) -> dict[str, Any]:
    """Everything that an outcome may depend on, in JSON types: no names of folders, no assumptions, nothing of the grid."""
    settings = experiment.model_dump(mode="json", exclude={"name", "description", "store", "out", "grid", "seeds", "analysis"})
    return {name: _without_assumptions(value) for name, value in settings.items()}


def _without_assumptions(value: Any) -> Any:  # noqa: ANN401 - JSON is whatever it is
    if isinstance(value, dict):
        return {name: _without_assumptions(entry) for name, entry in value.items() if name not in ASSUMPTIONS}
    return value


def shown_field(field: str, value: object) -> str:
    """A field's value as `shown_value` has it; no adapters are ``full``."""
    return "full" if value is None and field.startswith(_LORA) else shown_value(value)


def shown_value(value: object) -> str:
    """A value in a label or a table: bare where it is one word or number, else in short, else canonical JSON; None is ``none``."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping) and "rank" in value:  # adapters
        return f"rank {value['rank']}"
    if isinstance(value, Mapping) and "grid" in value:  # learning rates to choose from
        return "/".join(f"{rate:g}" for rate in value["grid"])
    if isinstance(value, (list, tuple)) and value and all(isinstance(entry, str) for entry in value):
        value = "+".join(value)
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each field, or all of it where two fields end alike."""
    ends = [field.rpartition(".")[2] for field in fields]
    return {field: end if ends.count(end) == 1 else field for field, end in zip(fields, ends, strict=True)}
