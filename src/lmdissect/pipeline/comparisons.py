"""Models that were compared one by one -> runs of one study: which probe sets are the same, and which models are seeds of one training.

A comparison stands alone: it says where its probe set was read and what the tuned model is called. Names come from what the texts are and never from the order
of the folders, so that one name means one probe set for every model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lmdissect.errors import LmdissectError
from lmdissect.formats.shift_tables import read_document_values
from lmdissect.records import StudyRun
from lmdissect.store import Manifest, fingerprint, read_manifest

__all__ = ["COMPARISONS", "name_comparisons", "read_training", "source_name"]

COMPARISONS = "comparisons"
"""Name of the experiment that compared models make together."""

_ENDINGS = frozenset({".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".xml", ".yaml", ".gz", ".zst", ".bz2", ".xz"})
"""Endings of files that hold texts. Anything else behind a dot is part of the name (``pubmed-1.2``)."""

_WITH_CONTROL = " with the control "

_Texts = Mapping[tuple[str, str], str]
"""Hash of every text, by document and variant."""


def source_name(source: str) -> str:
    """Short name of a file, folder or hub id: its last part without the endings of files."""
    return _named_from(source, 1)


def _named_from(source: str, num_parts: int) -> str:
    """The last ``num_parts`` parts of a path or hub id, without the endings of files."""
    first = source.partition(_WITH_CONTROL)[0]
    parts = [part for part in first.split("/") if part and part != "."]
    if not parts:
        return first
    last = PurePosixPath(parts[-1])
    while last.suffix.lower() in _ENDINGS:
        last = last.with_suffix("")
    return "/".join([*parts[-num_parts:-1], last.name])


def read_training(model: str) -> Manifest | None:
    """Manifest of a model folder that was finetuned here; None for every other model."""
    try:
        manifest = read_manifest(Path(model))
    except (LmdissectError, OSError, ValueError):  # a reference need not be a path at all
        return None
    return manifest if manifest.stage == "finetune" else None


def name_comparisons(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The same runs, each under its probe set's name, its point and its training seed.

    Probe sets are one where all their texts are the same, or where they were read from the same place and no text differs (a limit took fewer of them). Equal short
    names of different probe sets are told apart by the folders above, then by the folder of the comparison. Models whose trainings differ in the seed alone
    are one point.

    Args:
        runs: Comparisons, as they were found: ``probes`` is where the probe set was read, ``point`` the tuned model.
    """
    compared = [_Compared.of(run) for run in runs]
    named = _trained_alike(compared)
    for members, name in _name_probe_sets(compared):
        for number in members:
            named[number] = replace(named[number], probes=name)
    return _told_apart(named)


@dataclass(frozen=True, slots=True)
class _Compared:
    """A comparison, and what tells it from others."""

    run: StudyRun
    texts: _Texts
    """Empty where they cannot be read: the study will say why."""
    settings: str
    """What two seeds of one point must agree in."""
    training: str | None
    """Everything that decides the training but its seed; None where it is not known."""
    seed: int

    @classmethod
    def of(cls, run: StudyRun) -> "_Compared":
        texts: _Texts = {}
        settings = ""
        try:
            manifest, table = read_document_values(run.shift_folder)
            places = zip(table["document_id"].to_pylist(), table["variant"].to_pylist(), strict=True)
            texts = dict(zip(places, table["text_hash"].to_pylist(), strict=True))
            base = manifest.details["base_model"]
            agreed = {name: base.get(name) for name in ("weights", "config", "adapter", "tokenizer")}
            settings = fingerprint({**agreed, **{name: manifest.details.get(name) for name in ("bos", "max_tokens")}})
        except LmdissectError:
            pass
        trained = read_training(run.tuned_model)
        config: dict[str, Any] = dict(trained.config) if trained is not None else {}
        seed = config.pop("seed", None)
        if trained is None or not isinstance(seed, int):
            return cls(run, texts, settings, None, run.seed)
        return cls(run, texts, settings, fingerprint({"config": config, "inputs": trained.inputs}), seed)


def _trained_alike(compared: Sequence[_Compared]) -> list[StudyRun]:
    """Runs with their seeds; those of one training but for the seed share a point."""
    models: dict[tuple[str | None, str], set[tuple[int, str]]] = {}
    for found in compared:
        models.setdefault((found.training, found.settings), set()).add((found.seed, found.run.tuned_model))
    named: list[StudyRun] = []
    for found in compared:
        alike = models[found.training, found.settings]
        has_one_each = len({seed for seed, _ in alike}) == len(alike)
        point = found.run.tuned_model
        if found.training is not None and has_one_each and len(alike) > 1:
            point = f"{min(alike)[1]} ({len(alike)} seeds)"
        named.append(replace(found.run, point=point, seed=found.seed))
    return named


def _name_probe_sets(compared: Sequence[_Compared]) -> list[tuple[list[int], str]]:
    """Numbers of the comparisons of every probe set, and its name."""
    sets = _group(compared)
    sources = [min(compared[number].run.probes for number in members) for members in sets]
    depths = [1] * len(sets)
    longest = max((source.count("/") for source in sources), default=0) + 1
    for _ in range(longest):
        names = [_named_from(source, depth) for source, depth in zip(sources, depths, strict=True)]
        depths = [depth + (names.count(name) > 1) for depth, name in zip(depths, names, strict=True)]
    names = [_named_from(source, depth) for source, depth in zip(sources, depths, strict=True)]
    shared = {name for name in names if names.count(name) > 1}
    ends = _shortest_ends([found.run.shift_folder for found in compared])
    folders = [min(ends[number] for number in members) for members in sets]
    names = [f"{source_name(name)} ({folder})" if name in shared else name for name, folder in zip(names, folders, strict=True)]
    return list(zip(sets, names, strict=True))


def _group(compared: Sequence[_Compared]) -> list[list[int]]:
    """Numbers of the comparisons of every probe set."""
    groups: list[list[int]] = []
    for number, found in enumerate(compared):
        same = [group for group in groups if any(_is_same_set(found, compared[other]) for other in group)]
        groups = [*(group for group in groups if group not in same), sorted([number, *(other for group in same for other in group)])]
    return sorted(groups)


def _is_same_set(here: _Compared, there: _Compared) -> bool:
    if here.run.probes != there.run.probes:
        return bool(here.texts) and here.texts == there.texts
    if not here.texts or not there.texts:
        return True
    shared = here.texts.keys() & there.texts.keys()
    return bool(shared) and all(here.texts[key] == there.texts[key] for key in shared)


def _told_apart(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """One model compared twice on one probe set (with other settings) is two runs that no seed tells apart: each is named with its folder."""
    places = [(run.point, run.seed, run.probes) for run in runs]
    ends = _shortest_ends([run.shift_folder for run in runs])
    return [
        replace(run, probes=f"{run.probes} ({end})") if places.count(place) > 1 else run for run, place, end in zip(runs, places, ends, strict=True)
    ]


def _shortest_ends(folders: Sequence[Path]) -> list[str]:
    """The fewest last parts of each folder's path that tell all of them apart."""
    ends = [folder.name for folder in folders]
    for num_parts in range(2, max((len(folder.parts) for folder in folders), default=0) + 1):
        if len(set(ends)) == len(ends):
            break
        ends = ["/".join(folder.parts[-num_parts:]) for folder in folders]
    return ends
