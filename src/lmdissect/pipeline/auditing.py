"""An audit with its model parts: sentence embeddings, and a judge behind a server, which audit knows as plain functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmdissect.audit import Judge, RuleBook, audit_probe_set, audit_settings
from lmdissect.interrupts import StopRequest
from lmdissect.probes import read_audit, write_audit
from lmdissect.progress import Progress
from lmdissect.recipes import Recipe
from lmdissect.records import AuditResult, ProbeSet
from lmdissect.rewrite import Generator, Outcome, Price, Question, RewriteConfig, ask_questions

__all__ = ["NO_SIMILARITY", "AuditRequest", "ask_judge", "audit_folder", "audit_probes", "check_request"]

NO_SIMILARITY = "off"
"""In place of a model reference: leave similarity out, and say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """How to audit.

    Attributes:
        similarity: Reference of a sentence embedding model, or ``off``.
        rules: Bounds by factor and variant; None for the built-in ones.
        recipes: Recipes by variant; one with rules of its own wins.
        device: Where it runs.
        judge: Whom to ask for an opinion on every pair; None asks nobody.
        judge_name: What to record as the judge.
    """

    similarity: str
    rules: RuleBook | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    device: str = "auto"
    judge: Judge | None = None
    judge_name: str | None = None


def audit_probes(probe_set: ProbeSet, request: AuditRequest, *, progress: Progress | None = None, stop: StopRequest | None = None) -> AuditResult:
    """Audit a probe set.

    Raises:
        MissingDependencyError: The embedding model is not installed.
        LmdissectError: As `audit_probe_set`.
    """
    from lmdissect.models.embedding import load_embedder  # noqa: PLC0415 - loads torch

    without = request.similarity == NO_SIMILARITY
    return audit_probe_set(
        probe_set,
        rules=request.rules,
        recipes=request.recipes,
        similarity=None if without else load_embedder(request.similarity, device=request.device),
        similarity_name=None if without else request.similarity,
        judge=request.judge,
        judge_name=request.judge_name,
        progress=progress,
        stop=stop,
    )


def audit_folder(
    probe_set: ProbeSet, folder: Path, request: AuditRequest, *, progress: Progress | None = None, stop: StopRequest | None = None
) -> AuditResult:
    """Audit a probe set and keep the outcome in its folder; one of equal settings that is there already is reused.

    Args:
        probe_set: All texts of the folder, those that an earlier audit rejected too.
        folder: A probe folder of ours that holds this set.
        request: How to audit.
        progress: Where to report to.
        stop: Looked at between pieces of work.

    Raises:
        LmdissectError: As `audit_probe_set` and `write_audit`.
    """
    similarity = None if request.similarity == NO_SIMILARITY else request.similarity
    judge_name = request.judge_name if request.judge is not None else None
    wanted = audit_settings(probe_set, rules=request.rules, recipes=request.recipes, similarity_name=similarity, judge_name=judge_name)
    there = read_audit(folder)
    if there is not None and there.settings == wanted:
        return there
    outcome = audit_probes(probe_set, request, progress=progress, stop=stop)
    write_audit(folder, outcome)
    return outcome


def check_request(request: AuditRequest) -> None:
    """Say now what would be missing later: before rewrites are paid for.

    Raises:
        MissingDependencyError: The embedding model is not installed.
        ModelReferenceError: It is not there.
    """
    if request.similarity != NO_SIMILARITY:
        from lmdissect.models.embedding import require_embedder  # noqa: PLC0415 - loads torch

        require_embedder(request.similarity)


def ask_judge(
    generator: Generator,
    config: RewriteConfig,
    folder: Path,
    *,
    price: Price | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> Judge:
    """A judge that puts its prompts to a generator and keeps every answer in the ledger of ``folder``: no opinion is paid for twice."""

    def judge(prompts: Sequence[str]) -> list[str | None]:
        outcomes = ask_questions([Question(prompt) for prompt in prompts], generator, config, folder, price=price, progress=progress, stop=stop)
        return [outcome.text if outcome.outcome is Outcome.OK else None for outcome in outcomes]

    return judge
