"""What an experiment file says: its schema, how it is read, and the one line a mistake in it gets."""

import difflib
import math
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.finetune import FinetuneConfig
from lmdissect.plain_yaml import parse_yaml, read_yaml
from lmdissect.scoring import ScoringConfig
from lmdissect.shifts import ShiftConfig

__all__ = [
    "ANALYSES",
    "ASSUMPTIONS",
    "CorpusSettings",
    "Experiment",
    "FinetuneSettings",
    "LearningRateGrid",
    "MeasureSettings",
    "MixSettings",
    "ModelSettings",
    "ProbeSettings",
    "known_fields",
    "parse_experiment",
    "read_experiment",
    "read_settings",
]

ANALYSES = {
    "data_size": "corpus.size",
    "forgetting": "corpus.size",
    "capacity": "finetune.lora.rank",
    "mixing": "corpus.mix.share",
    "first_tokens": "finetune.skip_first_tokens",
    "independence": "corpus.variant",
}
"""Short names of the fields that the usual studies vary."""

ASSUMPTIONS = frozenset({"num_parameters", "tokens_per_document", "num_texts", "tokens_per_text"})
"""Settings that only `plan` looks at; no outcome depends on them."""

_RATE_TAGS = frozenset({"<one>", "<grid>"})
_NOT_VARIED = frozenset({"name", "description", "store", "out", "grid", "seeds", "analysis", "measure"})


_MAX_SEED = 2**32 - 1
"""Largest that every generator takes."""

_ProbeName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]
"""Also a folder and part of a file's name, and a dot would end it in a field of the grid."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Section):
    """The model that every point starts from."""

    base: str = Field(min_length=1, description="model reference: hub id[@revision], folder, .gguf file, wheel:NAME, or BASE+ADAPTER")
    allow_pickle: bool = Field(default=False, description="load pickled weights (.bin): they can run code")
    trust_remote_code: bool = Field(default=False, description="run model code that comes with the weights (hub: pinned revision only)")
    num_parameters: int | None = Field(
        default=None, ge=1, description="assumption of `plan` where the model is not at hand: number of its parameters"
    )


class MixSettings(_Section):
    """A second corpus, mixed in. The number of documents of the first stays what `size` says."""

    files: tuple[str, ...] = Field(min_length=1, description="corpus files or folders of the second corpus")
    share: float = Field(ge=0, lt=1, description="share of the documents of the mixture that come from these files, in [0, 1); 0 mixes nothing in")


class CorpusSettings(_Section):
    """What is trained on: `size` documents by a seeded hash of their ids, so that a smaller size is inside a larger one."""

    files: tuple[str, ...] = Field(default=(), description="corpus files, folders of `lmdissect corpus`, or DIR#train of one with splits")
    probe_set: str | None = Field(default=None, description="train on one variant of a probe set instead of files")
    variant: str = Field(default="original", min_length=1, description="which variant of `probe_set`; `original` for the originals")
    control: str | None = Field(default=None, description="control file of `probe_set`, which holds its variant `paraphrase`")
    size: int = Field(ge=1, description="documents to train on; the documents mixed in come on top")
    seed: int = Field(default=0, ge=0, description="seed of the draw of documents and of the validation split; stays while `seeds` vary")
    redraw: bool = Field(default=False, description="draw other documents for every seed of the point (draw seed = seed + the point's)")
    validation: int = Field(default=64, ge=0, description="documents kept out of every training set, for losses and the learning-rate grid")
    mix: MixSettings | None = Field(default=None, description="a second corpus to mix in; null for none")
    on_overlap: Literal["refuse", "exclude_training", "exclude_probes"] = Field(
        default="refuse", description="when probe documents are among the documents: fail the point, draw other documents, or leave those probes out"
    )
    tokens_per_document: float | None = Field(
        default=None, gt=0, description="assumption of `plan` where the files are not at hand: tokens of a document"
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if bool(self.files) == (self.probe_set is not None):
            message = "give either files or probe_set"
            raise ValueError(message)
        if self.probe_set is None and (self.variant != "original" or self.control is not None):
            message = "variant and control belong to probe_set, and there is none"
            raise ValueError(message)
        return self


class ProbeSettings(_Section):
    """A probe set and how to read it, as `lmdissect compare` takes it."""

    path: str = Field(min_length=1, description="folder, hub id, the paper's JSON list, natural pairs, or long-form JSONL, CSV, Parquet")
    control: str | None = Field(default=None, description="file with rewrites that change nothing, merged in as the variant `paraphrase`")
    factors: dict[str, str] = Field(default_factory=dict, description="factor of variants: {plain: style}")
    writers: dict[str, str] = Field(default_factory=dict, description="who wrote a variant, whatever the set says: {casual: gpt-4}")
    default_writer: str | None = Field(default=None, description="who wrote the variants for which the set does not say")
    limit: int | None = Field(default=None, ge=1, description="use so many documents, by a seeded hash of their ids; null for all")
    seed: int = Field(default=0, ge=0, description="seed of the choice that `limit` makes")
    num_texts: int | None = Field(default=None, ge=1, description="assumption of `plan` where the set is not at hand: its texts, variants included")
    tokens_per_text: float | None = Field(default=None, gt=0, description="assumption of `plan` where the set is not at hand: tokens of a text")


class LearningRateGrid(_Section):
    """Learning rates to try. The one with the least validation loss is taken, for every setting of model, adapters and corpus apart."""

    grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="peak rates to try")
    size: int = Field(default=160, ge=1, description="documents that each of them trains on, from the first corpus")

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(grid)) < len(grid):
            message = f"the same rate twice: {', '.join(f'{rate:g}' for rate in grid)}"
            raise ValueError(message)
        return tuple(sorted(grid))


def _rate_tag(value: object) -> str:
    return "<grid>" if isinstance(value, (Mapping, LearningRateGrid)) else "<one>"


_Rates: TypeAlias = Annotated[
    Annotated[Annotated[float, Field(gt=0)] | None, Tag("<one>")] | Annotated[LearningRateGrid, Tag("<grid>")], Discriminator(_rate_tag)
]


class FinetuneSettings(FinetuneConfig):
    """Settings of every finetuning run; its seed comes from `seeds`."""

    learning_rate: _Rates = Field(  # type: ignore[assignment]  # one rate of FinetuneConfig, or several to choose from
        default=None, description="peak; {grid: [...], size: N} chooses by validation loss; default 5e-5 for full finetuning, 2e-4 for LoRA"
    )

    def with_rate(self, rate: float | None, seed: int) -> FinetuneConfig:
        """Settings of one run."""
        return FinetuneConfig.model_validate({**self.model_dump(), "learning_rate": rate, "seed": seed})


class MeasureSettings(_Section):
    """Shifts measured while training, as a curve."""

    probes: tuple[str, ...] = Field(min_length=1, description="names of probe sets")
    steps: Literal["log"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(default="log", description="log (0, 1, 2, 4, ... and the last), or steps")
    limit: int | None = Field(default=40, ge=1, description="documents of each probe set; null for as many as the set itself takes")


class Experiment(_Section):
    """One study: a grid of finetuning runs, each scored and compared with its base. Paths are relative to the folder the command is run in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="a word; names the output folder")
    description: str = Field(default="", description="what the study asks; shown by `plan`")
    store: str = Field(default="runs/store", min_length=1, description="folder of all artifacts; experiments with the same store share runs")
    out: str | None = Field(default=None, min_length=1, description="folder of this experiment's tables; default runs/NAME")
    models: ModelSettings
    corpus: CorpusSettings
    probes: dict[_ProbeName, ProbeSettings] = Field(min_length=1, description="probe sets by name: letters, digits, _ and -")
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    shift: ShiftConfig = Field(default_factory=ShiftConfig)
    measure: MeasureSettings | None = Field(default=None, description="a curve while training; null for none")
    grid: tuple[dict[str, tuple[Any, ...]], ...] = Field(
        default=({},), description="fields and the values they take, all combinations; or a list of such mappings, which are united"
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=_MAX_SEED)], ...] = Field(
        default=(0,), min_length=1, description="training seeds (order of documents, adapter init, dropout); every point is run with each"
    )
    analysis: tuple[str, ...] | None = Field(default=None, description="fields of the grid to draw curves over, or their short names; default all")

    @field_validator("grid", mode="before")
    @classmethod
    def _list_of_grids(cls, grid: object) -> object:
        return [grid] if isinstance(grid, Mapping) else grid

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_bad_grid(self)
        if len(set(self.seeds)) < len(self.seeds):
            message = f"seeds: the same seed twice: {', '.join(map(str, self.seeds))}"
            raise ValueError(message)
        if "seed" in self.finetune.model_fields_set and self.finetune.seed:
            message = "finetune.seed: give it as seeds: [...], which every point is run with"
            raise ValueError(message)
        for name in self.measure.probes if self.measure else ():
            if name not in self.probes:
                message = f"measure.probes: there is no probe set '{name}'{_nearest(name, self.probes)}"
                raise ValueError(message)
        if isinstance(self.finetune.learning_rate, LearningRateGrid) and not self.corpus.validation:
            message = "finetune.learning_rate: a grid is chosen by validation loss, and corpus.validation is 0"
            raise ValueError(message)
        self.analysed_fields()
        if os.path.abspath(self.out_folder) == os.path.abspath(self.store):  # noqa: PTH100 - links are not followed, and ".." is
            message = f"out: {self.out_folder} is the store, which other experiments share: name another folder for the tables"
            raise ValueError(message)
        return self

    @property
    def out_folder(self) -> Path:
        """Where the tables go."""
        return Path(self.out or f"runs/{self.name}")

    def varied_fields(self) -> tuple[str, ...]:
        """Fields of the grid, in the order of the file, but for assumptions."""
        return tuple(dict.fromkeys(field for grid in self.grid for field in grid if field.rpartition(".")[2] not in ASSUMPTIONS))

    def analysed_fields(self) -> tuple[str, ...]:
        """Fields of the grid to draw curves over.

        Raises:
            ValueError: One of `analysis` is not varied.
        """
        varied = self.varied_fields()
        if self.analysis is None:
            return varied
        chosen = []
        for name in self.analysis:
            found = [field for field in varied if name in {field, field.rpartition(".")[2]} or ANALYSES.get(name) == field]
            if len(found) != 1:
                why = "is not varied by the grid" if not found else f"may mean {' or '.join(found)}"
                message = f"analysis: '{name}' {why} (fields: {', '.join(varied) or 'none'}; names: {', '.join(ANALYSES)})"
                raise ValueError(message)
            chosen.append(found[0])
        return tuple(dict.fromkeys(chosen))


def _refuse_bad_grid(experiment: Experiment) -> None:
    if not experiment.grid:
        message = "grid: the list is empty: leave grid out for a single point"
        raise ValueError(message)
    known = known_fields(Experiment, probes=experiment.probes)
    for grid in experiment.grid:
        for field, values in grid.items():
            if field not in known:
                section = field.partition(".")[0]
                why = "cannot be varied; use seeds" if section == "seeds" else "cannot be varied" if section in _NOT_VARIED else "is no setting"
                message = f"grid: '{field}' {why}{_nearest(field, known)}"
                raise ValueError(message)
            if field == "finetune.seed":
                message = "grid: finetune.seed cannot be varied here: use seeds"
                raise ValueError(message)
            if not values:
                message = f"grid: {field} has no value: give a list of at least one"
                raise ValueError(message)
            if inside := [other for other in grid if other.startswith(f"{field}.")]:
                message = f"grid: {inside[0]} lies inside {field}: vary one of them"
                raise ValueError(message)


def known_fields(model: type[BaseModel] = Experiment, prefix: str = "", *, probes: Iterable[str] = ()) -> dict[str, None]:
    """Dotted path of every setting that a grid may vary, sections included, in the order of the schema."""
    found: dict[str, None] = {}
    for name, field in model.model_fields.items():
        if model is Experiment and name in _NOT_VARIED:
            continue
        path = f"{prefix}{name}"
        if model is Experiment and name == "probes":
            for probe in probes:
                found |= known_fields(ProbeSettings, f"probes.{probe}.")
            continue
        found[path] = None
        for section in _sections(field.annotation):
            found |= known_fields(section, f"{path}.")
    return found


def _sections(annotation: object) -> list[type[BaseModel]]:
    """Settings classes that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType, Annotated}:
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []


def read_experiment(path: Path, changes: Sequence[str] = ()) -> Experiment:
    """Read an experiment file.

    Args:
        path: YAML file.
        changes: Settings that replace those of the file, as ``a.b=value`` with the value in YAML.

    Raises:
        UnreadableInputError: The file is missing or not YAML.
        UserInputError: A setting is unknown, missing, or not allowed; the message names file, place and, for a misspelt name, the nearest one.
    """
    return parse_experiment(read_settings(path, changes), str(path))


def read_settings(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What an experiment file says, with ``changes`` made, not checked yet.

    Raises:
        UnreadableInputError: The file is missing or not YAML.
        UserInputError: A change is not ``a.b=value``.
    """
    try:
        settings = read_yaml(path)
    except (ValueError, OSError) as error:
        message = f"{path}: no such file" if isinstance(error, FileNotFoundError) else f"{path} cannot be read as YAML ({error})"
        raise UnreadableInputError(message) from error
    if not isinstance(settings, dict):
        message = f"{path} is no experiment: it holds a {type(settings).__name__}, and settings by name are needed"
        raise UnreadableInputError(message)
    for change in changes:
        _make_change(settings, change)
    return settings


def _make_change(settings: dict[str, Any], change: str) -> None:
    field, equals, text = change.partition("=")
    if not (field and equals):
        message = f"--set {change!r} is not FIELD=VALUE: write for example --set corpus.size=100"
        raise UserInputError(message)
    try:
        value = parse_yaml(text)
    except ValueError as error:
        message = f"--set {field}: its value is not YAML ({error})"
        raise UserInputError(message) from error
    parts = ["grid", field.removeprefix("grid.")] if field.startswith("grid.") else field.split(".")  # a key of the grid has dots of its own
    section: Any = settings
    for part in parts[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            message = f"--set {field}: {part} is a {type(section).__name__} in the file, with no setting inside"
            raise UserInputError(message)
    section[parts[-1]] = value


def parse_experiment(settings: Mapping[str, Any], source: str) -> Experiment:
    """Check settings.

    Args:
        settings: What the file says.
        source: The file, for messages.

    Raises:
        UserInputError: A setting is unknown, missing, or not allowed.
    """
    if problem := _foreign_value(settings, ""):
        raise UserInputError(f"{source}: {problem}")
    try:
        experiment = Experiment.model_validate(settings)
    except ValidationError as error:
        raise UserInputError(f"{source}: {_first_problem(error, one_grid=not isinstance(settings.get('grid'), list))}") from error
    read = experiment.model_dump()
    if problem := _foreign_value(read, "") or _misread_switch(settings, read, ""):
        raise UserInputError(f"{source}: {problem}")
    return experiment


def _foreign_value(value: object, place: str) -> str:
    """What is wrong with the first value that no setting can have: YAML knows dates, sets, NaN and names that are no text; keys and paths do not."""
    inner: list[tuple[object, str]] = []
    if isinstance(value, Mapping):
        if names := [name for name in value if not isinstance(name, str)]:
            return f"{place or 'the file'}: the name {names[0]!r} is no text: put it in quotes"
        inner = [(entry, f"{place}.{name}".lstrip(".")) for name, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        inner = [(entry, place) for entry in value]
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        return f"{place}: {value!r} is a {type(value).__name__}; settings are text, numbers, true, false, null, lists and mappings"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{place}: {value} is no finite number"
    elif isinstance(value, str) and "\0" in value:
        return f"{place}: {value!r} holds a zero byte"
    return next((found for entry, where in inner if (found := _foreign_value(entry, where))), "")


def _misread_switch(given: object, read: object, place: str) -> str:
    """What is wrong with the first ``yes`` or ``no`` that stands for a number: it would be read as 1 or 0."""
    if isinstance(given, bool) and not isinstance(read, bool):
        return f"{place}: a number is needed, and not {str(given).lower()}"
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        return next((found for name in given if (found := _misread_switch(given[name], read.get(name), f"{place}.{name}".lstrip(".")))), "")
    if isinstance(given, (list, tuple)) and isinstance(read, (list, tuple)):
        return next((found for one, other in zip(given, read, strict=False) if (found := _misread_switch(one, other, place))), "")
    return ""


_WORDS = {
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
    "dict_type": "settings by name are needed",
    "model_type": "settings by name are needed",
    "model_attributes_type": "settings by name are needed",
}
"""Kinds of mistake that pydantic words in terms of Python."""


def _first_problem(error: ValidationError, *, one_grid: bool) -> str:
    problems = error.errors()
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])  # a misspelt name explains a missing one
    parts = [part for part in first["loc"] if part not in _RATE_TAGS]
    if parts[:1] == ["grid"] and one_grid:  # the file has no list there, and no number of an entry to name
        del parts[1:2]
    place = ".".join(map(str, parts))
    if first["type"] == "extra_forbidden":
        return f"{place}: no such setting{_nearest(str(parts[-1]), _names_beside(parts))}"
    if first["type"] == "missing":
        return f"{place}: missing"
    if parts[:1] == ["probes"] and parts[2:] == ["[key]"]:
        return f"probes: {parts[1]!r} is no name of a probe set: up to 60 letters, digits, _ and -, the first a letter or digit"
    text = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    if not parts:
        return text
    shown = repr(first["input"]) if first["type"] != "value_error" else ""
    return f"{place}: {text[:1].lower()}{text[1:]}" + (f" (given: {shown if len(shown) <= 80 else shown[:79] + '…'})" if shown else "")


def _names_beside(parts: Sequence[str | int]) -> list[str]:
    """Names of the settings where the last of ``parts`` stands."""
    sections: list[type[BaseModel]] = [Experiment]
    skip = False
    for part in parts[:-1]:
        if skip:  # the name of a probe set
            skip = False
            continue
        fields = [section.model_fields[str(part)] for section in sections if str(part) in section.model_fields]
        if sections == [Experiment] and part == "probes":
            sections, skip = [ProbeSettings], True
            continue
        sections = [inner for field in fields for inner in _sections(field.annotation)]
    return [name for section in sections for name in section.model_fields]


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if found:
        return f"; did you mean {found[0]}?"
    few = 12
    return f"; there are {', '.join(names)}" if 0 < len(names) <= few else ""
