"""Grid and seeds -> points, each with the settings it runs with."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from lmdissect.errors import UserInputError
from lmdissect.pipeline.experiment import ASSUMPTIONS, Experiment, parse_experiment
from lmdissect.store.fingerprint import canonical_json

__all__ = [
    "LORA",
    "Point",
    "cell_value",
    "expand_points",
    "settled_settings",
    "short_names",
    "shown_field",
    "shown_forms",
    "shown_value",
    "table_cell",
    "value_at",
]

LORA = "finetune.lora"
_NO_ADAPTERS = frozenset({LORA, f"{LORA}.rank"})
"""Fields whose null means full finetuning; null in the others is their default."""

_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of the grid's values with one seed.

    Attributes:
        fields: Value of every field that the grid varies; None for a field that this part of the grid leaves as the file has it unset.
        seed: Training seed.
        settings: The experiment with these values in place.
        label: The values in short: ``size=100 rank=8 seed=0``; no two points have the same.
    """

    fields: Mapping[str, Any]
    seed: int
    settings: Experiment
    label: str

    @property
    def identity(self) -> str:
        """The values in full, as canonical JSON: what tells a point from the others of its experiment, whatever these are."""
        return canonical_json({"fields": self.fields, "seed": self.seed})


def expand_points(experiment: Experiment, source: str) -> list[Point]:
    """All points, in the order of the file, seeds innermost.

    A mapping of the grid stands for all combinations of its values, a list of mappings for their union. ``null`` for `finetune.lora` or its rank
    means full finetuning.

    Args:
        experiment: The experiment.
        source: Its file, for messages.

    Raises:
        UserInputError: A value is not allowed for its field, or two combinations are the same point.
    """
    varied = experiment.varied_fields()
    settings = experiment.model_dump(mode="json", exclude={"grid", "seeds", "analysis"})
    combinations = [_settle(settings, values, source) for values in _combinations(experiment.grid)]
    values = {field: [value_at(chosen, field) for chosen in combinations] for field in varied}
    forms = {field: shown_forms(field, found) for field, found in values.items()}
    names = short_names(varied)
    labels = [" ".join(f"{names[field]}={forms[field][number]}" for field in varied) for number in range(len(combinations))]
    _refuse_equal_points(combinations, labels, source)
    return [
        Point({field: values[field][number] for field in varied}, seed, chosen, f"{labels[number]} seed={seed}".strip())
        for number, chosen in enumerate(combinations)
        for seed in experiment.seeds
    ]


def _refuse_equal_points(combinations: Sequence[Experiment], labels: Sequence[str], source: str) -> None:
    seen: dict[str, str] = {}
    for chosen, label in zip(combinations, labels, strict=True):
        identity = canonical_json(settled_settings(chosen))
        if identity in seen:
            message = f"{source}: grid: the same point twice: {label or 'the only one'}, and {seen[identity] or 'again'}: leave one of them out"
            raise UserInputError(message)
        seen[identity] = label


def _combinations(grids: Sequence[Mapping[str, Sequence[Any]]]) -> Iterator[dict[str, Any]]:
    for grid in grids:
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _settle(settings: Mapping[str, Any], values: Mapping[str, Any], source: str) -> Experiment:
    """Put the values of one combination in place and check them."""
    chosen = _copied(settings)
    for field, value in values.items():
        _put(chosen, field.split("."), value)
    if any(field in _NO_ADAPTERS and value is None for field, value in values.items()):
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
    """A field's value as `shown_value` has it; no adapters are ``full``, and what is not set of adapters is ``unset``."""
    if value is None and field in _NO_ADAPTERS:
        return "full"
    return "unset" if value is None and field.startswith(f"{LORA}.") else shown_value(value)


def shown_value(value: object) -> str:
    """A value in a label: bare where it is one word or number, else in short, else canonical JSON; None is ``none``. Two values may have one form."""
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


def shown_forms(field: str, values: Sequence[Any]) -> list[str]:
    """Each of a field's values in short; different values have different forms.

    Where two are the same in short, sections are shown by the settings in which they differ, and whatever is the same even then in full.
    """
    keys = [canonical_json(value) for value in values]
    distinct = dict(zip(keys, values, strict=True))
    short = {key: shown_field(field, value) for key, value in distinct.items()}
    if not _all_differ(short):
        telling = _telling_settings([value for value in distinct.values() if isinstance(value, Mapping)])
        short |= {
            key: " ".join(f"{name}={table_cell(value.get(name))}" for name in telling)
            for key, value in distinct.items()
            if isinstance(value, Mapping)
        }
    if not _all_differ(short):
        short = {key: key for key in distinct}
    return [short[key] for key in keys]


def _all_differ(forms: Mapping[str, str]) -> bool:
    return all(number == 1 for number in Counter(forms.values()).values())


def _telling_settings(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings in which the sections differ."""
    names = dict.fromkeys(name for section in sections for name in section)
    return [name for name in names if len({canonical_json(section.get(name)) for section in sections}) > 1]


def table_cell(value: object) -> str:
    """A value in a column of text, in full: words as they are, anything else as canonical JSON."""
    return value if isinstance(value, str) else canonical_json(value)


def cell_value(cell: object) -> Any:  # noqa: ANN401 - JSON is whatever it is
    """The section or list that `table_cell` wrote; any other cell as it is."""
    if not isinstance(cell, str) or not cell.startswith(("{", "[")):
        return cell
    try:
        return json.loads(cell)
    except ValueError:  # a word that begins like one
        return cell


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each field, or all of it where two fields end alike."""
    ends = [field.rpartition(".")[2] for field in fields]
    return {field: end if ends.count(end) == 1 else field for field, end in zip(fields, ends, strict=True)}
