"""An audit with its model parts: sentence embeddings, and a judge behind a server, which audit knows as plain functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdissect.audit import OWN_FACTOR, Judge, RuleBook, audit_probe_set, audit_settings, read_rules
from lmdissect.errors import DamagedArtifactError, RunFailedError, UnreadableInputError
from lmdissect.interrupts import StopRequest
from lmdissect.probes import read_audit, write_audit
from lmdissect.progress import Progress
from lmdissect.recipes import AuditRule, Recipe
from lmdissect.records import AuditResult, ProbeSet
from lmdissect.rewrite import Generator, Outcome, Price, Question, RewriteConfig, ask_questions

__all__ = ["NO_SIMILARITY", "AuditRequest", "ask_judge", "audit_folder", "audit_probes", "check_request", "check_rules", "intact_audit"]

_NO_OPINION = frozenset(
    {Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CONNECTION_LOST, Outcome.MALFORMED_RESPONSE, Outcome.NOT_ASKED, Outcome.BAD_REQUEST}
)
"""Ends that say something of the server and nothing of the pair: a text must not be rejected for them."""

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

    name = _similarity_name(request)
    return audit_probe_set(
        probe_set,
        rules=request.rules,
        recipes=request.recipes,
        similarity=None if name is None else load_embedder(request.similarity, device=request.device),
        similarity_name=name,
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
    there = intact_audit(folder)
    request = replace(request, rules=_with_remembered(request, probe_set, there))
    wanted = audit_settings(
        probe_set,
        rules=request.rules,
        recipes=request.recipes,
        similarity_name=_similarity_name(request),
        judge_name=request.judge_name if request.judge is not None else None,
    )
    if there is not None and there.settings == wanted:
        return there
    if there is not None and progress is not None:
        differing = [name for name in wanted if there.settings.get(name) != wanted[name]]
        progress.say(f"{folder}: an audit by other settings ({', '.join(differing)}) is replaced")
    outcome = audit_probes(probe_set, request, progress=progress, stop=stop)
    write_audit(folder, outcome)
    return outcome


def _with_remembered(request: AuditRequest, probe_set: ProbeSet, there: AuditResult | None) -> RuleBook:
    """The rules, and for factors that they do not know those of the folder's last audit: a recipe need not be named twice.

    A book that the user names and that has rules for any factor knows all of them.
    """
    book = request.rules if request.rules is not None else read_rules()
    if there is None or (request.rules is not None and OWN_FACTOR in request.rules.factors):
        return book
    recorded: Mapping[str, Sequence[Mapping[str, object]]] = there.settings["rules"]  # type: ignore[assignment] # JSON types
    remembered = {
        variant: tuple(AuditRule.model_validate(rule) for rule in rules)
        for variant, rules in recorded.items()
        if variant in probe_set.factors and not book.knows(variant, probe_set.factors[variant]) and not _has_rules(request.recipes.get(variant))
    }
    return book.model_copy(update={"variants": {**remembered, **book.variants}}) if remembered else book


def _has_rules(recipe: Recipe | None) -> bool:
    return recipe is not None and recipe.audit is not None


def _similarity_name(request: AuditRequest) -> str | None:
    from lmdissect.models.embedding import describe_embedder  # noqa: PLC0415 - loads torch

    return None if request.similarity == NO_SIMILARITY else describe_embedder(request.similarity)


def intact_audit(folder: Path) -> AuditResult | None:
    """The audit in the folder; None where there is none, or a damaged one, which is made again."""
    try:
        return read_audit(folder)
    except (DamagedArtifactError, UnreadableInputError):
        return None


def check_rules(request: AuditRequest, factors: Mapping[str, str]) -> None:
    """Check the rules of variants before these are written.

    Args:
        request: How to audit.
        factors: Factor of every variant that will be audited.

    Raises:
        UserInputError: A rule names a measure that does not exist.
    """
    book = request.rules if request.rules is not None else read_rules()
    for variant, factor in factors.items():
        book.rules_for(variant, factor, request.recipes.get(variant))


def check_request(request: AuditRequest, factors: Mapping[str, str]) -> None:
    """Say now what would be missing later: before rewrites are paid for.

    Args:
        request: How to audit.
        factors: Factor of every variant that will be audited.

    Raises:
        MissingDependencyError: The embedding model is not installed.
        ModelReferenceError: It is not there.
        UserInputError: A rule names a measure that does not exist.
    """
    check_rules(request, factors)
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
        if missing := [outcome for outcome in outcomes if outcome.outcome in _NO_OPINION]:
            message = (
                f"the judge at {generator.location} did not answer {len(missing)} of {len(outcomes)} questions (first: {missing[0].outcome}"
                f" {missing[0].detail or ''}): nothing was written; run the same command again, answers are kept"
            )
            raise RunFailedError(" ".join(message.split()))
        return [outcome.text if outcome.outcome is Outcome.OK else None for outcome in outcomes]

    return judge
