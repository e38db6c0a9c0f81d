"""The main job: score a probe set under two models, measure the shifts, write the report.

OUT/scores/base, OUT/scores/tuned     scores artifacts
OUT/*.csv, *.parquet, manifest.json   shift artifact
OUT/report.html, figures/, tables.tex report
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdissect.corpus import read_corpus
from lmdissect.errors import InterruptedRunError, NothingToDoError, StaleArtifactError
from lmdissect.factors import ORIGINAL
from lmdissect.interrupts import StopRequest
from lmdissect.models import ResolvedModel, TrustOptions, resolve_together
from lmdissect.models.processes import ask_main_process
from lmdissect.probes import find_overlap
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ProbeSet
from lmdissect.report import write_report
from lmdissect.scoring import ScoringConfig, score_probe_set, scores_key
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import read_manifest

__all__ = ["CompareRequest", "CompareSummary", "check_overlap", "compare"]

_NAMED_OVERLAPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """What to compare and how.

    Attributes:
        base: Model reference of the base.
        tuned: Model reference of the tuned model.
        probe_set: Originals and variants.
        scoring: How to score; the same for both models.
        shift: How to do the statistics.
        trust: What may be loaded.
        corpus: Training corpus files, to look for probes in them; empty for no look.
        notes: Sentences every report of these numbers must show.
        shared_scores: Folder where comparisons share their scores, so that a base model is scored once for many tuned ones; None keeps them in the
            output folder.
    """

    base: str
    tuned: str
    probe_set: ProbeSet
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    trust: TrustOptions = field(default_factory=TrustOptions)
    corpus: Sequence[Path] = ()
    notes: Sequence[str] = ()
    shared_scores: Path | None = None


@dataclass(frozen=True, slots=True)
class CompareSummary:
    """Where the outcome is.

    Attributes:
        folder: The shift artifact.
        report: The HTML report.
        reused: Whether shifts of the same request were found and nothing was measured.
    """

    folder: Path
    report: Path
    reused: bool


def compare(request: CompareRequest, folder: Path, *, progress: Progress | None = None, stop: StopRequest | None = None) -> CompareSummary:
    """Score, measure, report. Whatever is finished already is reused, whatever was begun goes on.

    Started by torchrun, every process makes this same call: they share the scoring, and the first one measures and reports while the others wait.

    Raises:
        LmdissectError: As the stages raise it; finished stages are kept.
    """
    shown = progress or SilentProgress()
    _check_pairs(request.probe_set)
    base, tuned = resolve_together(request.base, request.trust), resolve_together(request.tuned, request.trust)
    checks = check_overlap(request.probe_set, request.corpus) if request.corpus else {}
    base_scores, tuned_scores = _scores_folders(request, (base, tuned), folder)
    for resolved, target in ((base, base_scores), (tuned, tuned_scores)):
        score_probe_set(resolved, request.probe_set, request.scoring, target, progress=shown, stop=stop)
        if stop:
            message = "stopped between two stages; run the same command again to go on from there"
            raise InterruptedRunError(message)

    def measure_and_report() -> list[Any]:
        summary = measure_shifts(base_scores, tuned_scores, request.shift, folder, notes=request.notes, extra_checks=checks, progress=shown)
        return [str(write_report(folder, progress=shown)), summary.reused]

    report, reused = ask_main_process(measure_and_report)
    return CompareSummary(folder, Path(report), reused)


def _check_pairs(probe_set: ProbeSet) -> None:
    """Say before anything is scored that there is nothing to compare.

    Raises:
        NothingToDoError: No document has both an original and a variant.
    """
    table = probe_set.by_variant()
    originals = set(table.get(ORIGINAL, {}))
    if any(originals & set(texts) for variant, texts in table.items() if variant != ORIGINAL):
        return
    rejected = sum(int(str(audit.get("num_texts", 0))) - int(str(audit.get("num_accepted", 0))) for audit in probe_set.audits.values())
    why = f"; its audit rejected {rejected} texts, and `lmdissect probes show {probe_set.source} --rejected` shows them" if rejected else ""
    message = f"{probe_set.source}: no document has both an original and a variant{why}"
    raise NothingToDoError(message)


def _scores_folders(request: CompareRequest, models: tuple[ResolvedModel, ResolvedModel], folder: Path) -> tuple[Path, Path]:
    """Where the scores of base and tuned model go. In a shared folder the name is the artifact's own key.

    Raises:
        StaleArtifactError: ``folder`` holds a comparison of other scores: said before anything is scored, because shared scores refuse nothing.
    """
    if request.shared_scores is None:
        return folder / "scores" / "base", folder / "scores" / "tuned"
    keys = [scores_key(model, request.probe_set, request.scoring) for model in models]
    if (folder / "manifest.json").is_file() and read_manifest(folder).details.get("scores_keys", keys) != keys:
        message = f"{folder} holds a comparison of other scores (another model, probe set, --limit, or setting of scoring): choose another --out"
        raise StaleArtifactError(message)
    return request.shared_scores / keys[0][:16], request.shared_scores / keys[1][:16]


def check_overlap(probe_set: ProbeSet, corpus: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
    """Look for probes in the training corpus, as a self-check: a probe the model was trained on measures memory.

    Raises:
        UnreadableInputError: A corpus file cannot be read.
    """
    documents, rejected = read_corpus(corpus)
    overlap = find_overlap(probe_set, documents)
    found = sorted({match.document_id for match in overlap.matches})
    named = f": {', '.join(found[:_NAMED_OVERLAPS])}{' …' if len(found) > _NAMED_OVERLAPS else ''}" if found else ""
    unread = f"; {len(rejected)} corpus records could not be read (first: {rejected[0].record}: {rejected[0].reason})" if rejected else ""
    text = (
        f"{len(found)} probe documents found among {overlap.num_corpus_documents} training documents (by id, text or near-duplicate){named}{unread}"
    )
    return {"no probe document in the training corpus": {"passed": not found and not rejected, "text": text}}
