"""Which point of a study the rows of `lmdissect cloze` belong to.

A cloze artifact was made apart from the runs, from models and probe sets as its user named them. Both sides hold what the names stand for: the hashes of the weights and
of every text. These decide, never the spelling of a path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdissect.errors import LmdissectError
from lmdissect.factors import ORIGINAL
from lmdissect.formats.cloze_terms import ClozeTerm
from lmdissect.formats.shift_tables import read_document_values
from lmdissect.pipeline.comparisons import source_name
from lmdissect.records import StudyGap, StudyRun
from lmdissect.store import Manifest, read_manifest

__all__ = ["BETWEEN_MODELS", "ClozeAnswers", "name_cloze"]

BETWEEN_MODELS = ", "
"""Between the names of several tuned models, where they name the rows."""

_IDENTITY = ("weights", "config", "adapter")
_NAMES = ("experiment", "point", "probes")


@dataclass(frozen=True, slots=True)
class ClozeAnswers:
    """What a cloze artifact holds.

    Attributes:
        manifest: Its manifest.
        terms: Terms that were asked about.
        rows: Its table.
    """

    manifest: Manifest
    terms: Sequence[ClozeTerm]
    rows: Sequence[Mapping[str, Any]]


def name_cloze(answers: ClozeAnswers, runs: Iterable[StudyRun]) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Rows of the table `cloze`, and what could not be computed, under the names of the point whose runs have all its models and most of its texts.

    A point that the user named, instead of leaving it to the models' names, keeps that name. Where no point has the models, all names stay.

    Args:
        answers: What was measured.
        runs: Runs of the study, each under its final name. One whose files cannot be read gives no name.
    """
    config, details = answers.manifest.config, answers.manifest.details
    names = {name: str(config[name]) for name in _NAMES}
    by_models = names["point"] == BETWEEN_MODELS.join(str(model["reference"]) for model in details["tuned_models"])
    points = _points_with(details, runs)
    if not by_models:
        points = {point: found for point, found in points.items() if point == (names["experiment"], names["point"])}
    ranked = [(*_probes_asked(answers.terms, found), point) for point, found in points.items()]
    num_shared, probes, point = max(ranked, key=lambda entry: entry[0], default=(0, "", None))
    if point is not None:
        names.update(experiment=point[0], point=point[1])
    if config["probes"] == details["probes"]:
        names["probes"] = probes if num_shared else source_name(names["probes"])
    gaps = [StudyGap(table="cloze", variant=row["variant"], reason=row["reason"], **names) for row in details["unavailable"]]
    return [{**row, **names} for row in answers.rows], gaps


def _points_with(details: Mapping[str, Any], runs: Iterable[StudyRun]) -> dict[tuple[str, str], list[StudyRun]]:
    """Runs of the same base with one of the tuned models, by point; points that have all of these models alone."""
    base, wanted = _identity(details["base_model"]), {_identity(model) for model in details["tuned_models"]}
    runs_of: dict[tuple[str, str], list[StudyRun]] = {}
    models_of: dict[tuple[str, str], set[tuple[Any, ...]]] = {}
    for run in runs:
        if run.step is not None:
            continue
        try:
            measured = read_manifest(run.shift_folder).details
        except LmdissectError:
            continue
        tuned = _identity(measured["tuned_model"])
        if tuned in wanted and _identity(measured["base_model"]) == base:
            runs_of.setdefault((run.experiment, run.point), []).append(run)
            models_of.setdefault((run.experiment, run.point), set()).add(tuned)
    return {point: found for point, found in runs_of.items() if models_of[point] == wanted}


def _identity(model: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a model is, whatever folder it lies in. Weights alone would not do: adapters of one base share them."""
    return tuple(model.get(name) for name in _IDENTITY)


def _probes_asked(terms: Sequence[ClozeTerm], runs: Sequence[StudyRun]) -> tuple[int, str]:
    """How many of the documents asked about the best of the runs' probe sets has, word for word, and its name."""
    asked = {term.document_id: term.text_hash for term in terms}
    shared = {run.probes: 0 for run in runs}
    for run in {run.probes: run for run in reversed(runs)}.values():
        try:
            table = read_document_values(run.shift_folder)[1]
        except LmdissectError:
            continue
        columns = (table[name].to_pylist() for name in ("document_id", "variant", "text_hash"))
        originals = {document_id: start for document_id, variant, start in zip(*columns, strict=True) if variant == ORIGINAL}
        shared[run.probes] = sum(asked[name].startswith(start) for name, start in originals.items() if name in asked)
    best = max(shared, key=lambda name: shared[name])
    return shared[best], best
