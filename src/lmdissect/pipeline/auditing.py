"""An audit with its model parts: sentence embeddings, and a judge behind a server, which audit knows as plain functions."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdissect.audit import OWN_FACTOR, Judge, RuleBook, audit_probe_set, audit_settings, read_rules
from lmdissect.audit.judge import JUDGE, judge_prompt, parse_judgement
from lmdissect.errors import DamagedArtifactError, RunFailedError, UnreadableInputError, UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.interrupts import StopRequest
from lmdissect.probes import read_audit, write_audit
from lmdissect.progress import Progress, SilentProgress
from lmdissect.recipes import AuditRule, Recipe
from lmdissect.records import AuditResult, ProbeSet
from lmdissect.rewrite import Generator, Outcome, Price, Question, RewriteConfig, ask_questions

__all__ = ["NO_SIMILARITY", "AuditRequest", "ask_judge", "audit_folder", "audit_probes", "check_request", "check_rules", "intact_audit"]

_NO_OPINION = frozenset(
    {
        Outcome.SERVER_ERROR,
        Outcome.TIMEOUT,
        Outcome.CONNECTION_LOST,
        Outcome.MALFORMED_RESPONSE,
        Outcome.NOT_ASKED,
        Outcome.BAD_REQUEST,
        Outcome.FORBIDDEN,
    }
)
"""Ends that say nothing of the pair. Where the server answers nothing at all, a text must not be rejected for them; one among others is not judged."""

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
        UserInputError: A rule that the folder's last audit had, and that would be used again, names a measure that does not exist.
        LmdissectError: As `audit_probe_set` and `write_audit`.
    """
    there = intact_audit(folder)
    request = _with_remembered(request, probe_set, folder, there)
    wanted = audit_settings(
        probe_set,
        rules=request.rules,
        recipes=request.recipes,
        similarity_name=_similarity_name(request),
        judge_name=request.judge_name if request.judge is not None else None,
    )
    if there is not None and there.settings == wanted and not _can_be_completed(there, probe_set, request.judge):
        return there
    if there is not None and progress is not None:
        differing = [name for name in wanted if there.settings.get(name) != wanted[name]]
        what = f"an audit by other settings ({', '.join(differing)})" if differing else "an audit in which some texts were not judged"
        progress.say(f"{folder}: {what} is replaced")
    outcome = audit_probes(probe_set, request, progress=progress, stop=stop)
    write_audit(folder, outcome)
    return outcome


def _can_be_completed(there: AuditResult, probe_set: ProbeSet, judge: Judge | None) -> bool:
    """Whether the judge has an opinion now on a text that an audit has as not judged; what it answered is not asked again.

    Raises:
        LmdissectError: As the judge.
    """
    texts = probe_set.by_variant()
    unjudged = [verdict for verdict in there.verdicts if not any(name.startswith(f"{JUDGE}_") for name in verdict.measures)]
    if judge is None or not unjudged:
        return False
    factors = [probe_set.factors[verdict.variant] for verdict in unjudged]
    prompts = [
        judge_prompt(texts[ORIGINAL][verdict.document_id], texts[verdict.variant][verdict.document_id], factor)
        for verdict, factor in zip(unjudged, factors, strict=True)
    ]
    return any(parse_judgement(answer, factor) is not None for answer, factor in zip(judge(prompts), factors, strict=True))


def _with_remembered(request: AuditRequest, probe_set: ProbeSet, folder: Path, there: AuditResult | None) -> AuditRequest:
    """The request, and for factors that its rules do not know the rules of the folder's last audit: a recipe need not be named twice.

    A book that the user names and that has rules for any factor knows all of them. Rules for any factor belong to their book: they are not remembered.
    """
    book = request.rules if request.rules is not None else read_rules()
    if there is None or (request.rules is not None and OWN_FACTOR in request.rules.factors):
        return request
    recorded: Mapping[str, Sequence[Mapping[str, object]]] = there.settings["rules"]  # type: ignore[assignment] # JSON types
    of_any: Container[str] = there.settings.get("rules_of_any") or ()  # type: ignore[assignment] # JSON types
    remembered = {
        variant: _as_recipe(rules)
        for variant, rules in recorded.items()
        if variant in probe_set.factors
        and variant not in of_any
        and not book.knows(variant, probe_set.factors[variant])
        and not _has_rules(request.recipes.get(variant))
    }
    for variant, recipe in remembered.items():
        try:
            book.rules_for(variant, probe_set.factors[variant], recipe)
        except UserInputError as error:
            message = f"{folder}: rules of its last audit: {error}; give the rules to use with --rules or --recipes"
            raise UserInputError(message) from error
    return replace(request, recipes={**request.recipes, **remembered})


def _as_recipe(rules: Sequence[Mapping[str, object]]) -> Recipe:
    """Rules that are all a variant has, as a recipe's are; a book would add those for any factor."""
    return Recipe(variant="remembered", factor="remembered", instruction="-", audit=tuple(AuditRule.model_validate(rule) for rule in rules))


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
    """A judge that puts its prompts to a generator and keeps every answer in the ledger of ``folder``: no opinion is paid for twice.

    A prompt that a server does not answer, while it answers others, has no opinion. The judge raises a `RunFailedError` where the server answers nothing.
    """

    def judge(prompts: Sequence[str]) -> list[str | None]:
        asked = ask_questions([Question(prompt) for prompt in prompts], generator, config, folder, price=price, progress=progress, stop=stop)
        if missing := [outcome for outcome in asked.outcomes if outcome.outcome in _NO_OPINION]:
            counts = ", ".join(f"{name} {number}" for name, number in Counter(outcome.outcome.value for outcome in missing).most_common())
            what = (
                f"the judge at {generator.location} did not answer {len(missing)} of {len(asked.outcomes)} questions"
                f" ({counts}; first: {' '.join((missing[0].detail or '').split())})"
            )
            if not asked.has_answered:
                message = f"{what}: nothing was written; run the same command again, answers are kept"
                raise RunFailedError(message)
            (progress or SilentProgress()).say(
                f"{what}: these texts are not judged, and so not accepted; the same command asks again what was not rejected"
            )
        return [outcome.text if outcome.outcome is Outcome.OK else None for outcome in asked.outcomes]

    return judge
