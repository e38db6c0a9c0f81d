"""Cloze scoring of a base and a tuned model: draw the terms, score every context + candidate as an ordinary probe set, write the table.

OUT/scores/base, OUT/scores/tuned       scores artifacts; of several tuned models tuned-1, tuned-2 ...
OUT/terms.parquet, cloze.parquet, .csv  cloze artifact (`lmdissect.formats.cloze_terms`)
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.errors import InterruptedRunError, NothingToDoError, UserInputError
from lmdissect.formats.cloze_terms import STAGE, ClozeTerm, candidate_texts, read_cloze, term_table
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.formats.study_tables import SCHEMAS, write_study_table
from lmdissect.interrupts import StopRequest
from lmdissect.models import TrustOptions, resolve_together
from lmdissect.models.processes import ask_main_process
from lmdissect.pipeline.cloze_names import BETWEEN_MODELS
from lmdissect.pipeline.cloze_terms import ClozeConfig, draw_terms
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ProbeSet
from lmdissect.scoring import ScoringConfig, score_probe_set
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.cloze import cloze_rows
from lmdissect.store import fingerprint, open_artifact

__all__ = ["ClozeRequest", "ClozeSummary", "measure_cloze"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClozeRequest:
    """What to ask of which models.

    Attributes:
        base: Model reference of the base.
        tuned: Model references of the tuned model: one, or one for each training seed.
        probe_set: Originals, counterfactuals, key terms.
        cloze: Which terms.
        scoring: How to score; a limit of tokens is not allowed, because a text ends with its term.
        shift: How to do the statistics.
        trust: What may be loaded.
        experiment: Names the rows, as in a study.
        point: Names the rows; default: the tuned models.
        probes: Names the rows; default: the source of the probe set.
    """

    base: str
    tuned: Sequence[str]
    probe_set: ProbeSet
    cloze: ClozeConfig = field(default_factory=ClozeConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    trust: TrustOptions = field(default_factory=TrustOptions)
    experiment: str = "cloze"
    point: str | None = None
    probes: str | None = None


@dataclass(frozen=True, slots=True)
class ClozeSummary:
    """What came of it.

    Attributes:
        folder: The cloze artifact.
        reused: Whether it was there before.
        num_terms: Terms that were asked about.
        rows: The table `cloze`.
        left_out: Places and terms that took no part, by reason.
    """

    folder: Path
    reused: bool
    num_terms: int
    rows: tuple[Mapping[str, Any], ...]
    left_out: Mapping[str, int]


def measure_cloze(request: ClozeRequest, folder: Path, *, progress: Progress | None = None, stop: StopRequest | None = None) -> ClozeSummary:
    """Draw terms, score them under both models, write the cloze artifact. What is finished is reused, what was begun goes on.

    Raises:
        UserInputError: The scoring settings hold a limit of tokens.
        NothingToDoError: The probe set has neither a counterfactual with a changed term nor a listed key term.
        LmdissectError: As scoring raises it; finished scores are kept.
    """
    shown = progress or SilentProgress()
    if request.scoring.max_tokens is not None:
        message = f"max_tokens {request.scoring.max_tokens} would cut the terms off: leave it out, and shorten contexts with max_context_words"
        raise UserInputError(message)
    terms, not_drawn = draw_terms(request.probe_set, request.cloze)
    if not terms:
        message = f"{request.probe_set.source}: no term to ask about: it needs originals with a variant that changes facts, or with key terms"
        raise NothingToDoError(message)
    texts = candidate_texts(terms, request.probe_set.source)
    shown.say(
        f"cloze: {len(terms)} terms of {len({term.document_id for term in terms})} documents, {len(texts.texts)} texts to score under each model"
    )
    scores = folder / "scores"
    for name, reference in _models(request).items():
        score_probe_set(resolve_together(reference, request.trust), texts, request.scoring, scores / name, progress=shown, stop=stop)
        if stop:
            message = "stopped between two stages; run the same command again to go on from there"
            raise InterruptedRunError(message)
    reused = ask_main_process(lambda: _write(request, terms, not_drawn, folder, shown))
    manifest, _, rows = read_cloze(folder)
    return ClozeSummary(folder, reused, len(terms), tuple(rows), manifest.details["left_out"])


def _models(request: ClozeRequest) -> dict[str, str]:
    """Reference of every model by the folder of its scores."""
    tuned = {"tuned" if len(request.tuned) == 1 else f"tuned-{number}": reference for number, reference in enumerate(request.tuned, start=1)}
    return {"base": request.base, **tuned}


def _write(request: ClozeRequest, terms: Sequence[ClozeTerm], not_drawn: Mapping[str, int], folder: Path, progress: Progress) -> bool:
    """Make the artifact of scores that are finished.

    Returns:
        Whether it was there before.
    """
    base, *tuned = [read_scores(folder / "scores" / name) for name in _models(request)]
    labels = {
        "experiment": request.experiment,
        "point": BETWEEN_MODELS.join(table.model for table in tuned) if request.point is None else request.point,
        "probes": request.probe_set.source if request.probes is None else request.probes,
    }
    config = {"cloze": request.cloze.model_dump(mode="json"), "shift": request.shift.model_dump(mode="json"), **labels}
    inputs = {
        "base_scores": _identify(base),
        "tuned_scores": [_identify(table) for table in tuned],
        "terms": fingerprint([asdict(term) for term in terms]),
    }
    with open_artifact(folder, stage=STAGE, config=config, inputs=inputs) as artifact:
        if artifact.finished is not None:
            progress.say(f"{folder}: made before from the same scores; reused")
            return True
        for line in artifact.describe_damage():
            progress.say(line)
        rows, unavailable, not_scored = cloze_rows(base, tuned, terms, request.shift, num_candidates=request.cloze.num_candidates)
        artifact.write_table("terms.parquet", term_table(terms))
        table = pa.Table.from_pylist([{**labels, **row} for row in rows], schema=SCHEMAS["cloze"])
        files = ["terms.parquet", *write_study_table(artifact, "cloze", table)]
        details = {
            "base_model": base.manifest.details["model"],
            "tuned_models": [table.manifest.details["model"] for table in tuned],
            "probes": request.probe_set.source,
            "level": request.shift.level,
            "left_out": {**not_drawn, **not_scored},
            "unavailable": [asdict(row) for row in unavailable],
        }
        counts = {
            "terms": len(terms),
            "documents": len({term.document_id for term in terms}),
            "copied_terms": sum(term.copied for term in terms),
            "cut_contexts": sum(term.context_cut for term in terms),
        }
        artifact.finish(counts=counts, details=details, files=files)
        return False


def _identify(table: ScoreTable) -> str:
    return fingerprint([table.manifest.key, {name: record.sha256 for name, record in table.manifest.files.items()}])
