"""Audit a probe set: measure every pair, apply the rules of its variant, and say why what is rejected is rejected."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from lmdissect.audit.judge import JUDGE, Judge, judge_prompt, judge_prompt_hash, parse_judgement, reasons_of_judgement
from lmdissect.audit.lexicon import lexicon_hash
from lmdissect.audit.measures import MEASURES, MEASURES_VERSION, measure_pair
from lmdissect.audit.rules import RuleBook, broken_rules, read_rules, rules_hash
from lmdissect.audit.similarity import Embedder, SentenceVectors, embed_sentences
from lmdissect.audit.words import plain_text
from lmdissect.errors import InterruptedRunError, NothingToDoError, RunFailedError
from lmdissect.factors import ORIGINAL, sort_variants
from lmdissect.interrupts import StopRequest
from lmdissect.progress import Progress, SilentProgress
from lmdissect.recipes import AuditRule, Recipe
from lmdissect.records import AuditResult, ProbeSet, ProbeText, Verdict

__all__ = ["audit_probe_set", "audit_settings"]

_JUDGE_BATCH = 256


def audit_probe_set(  # noqa: PLR0913 - every part may be left out
    probe_set: ProbeSet,
    *,
    rules: RuleBook | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    similarity: Embedder | None = None,
    similarity_name: str | None = None,
    judge: Judge | None = None,
    judge_name: str | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> AuditResult:
    """Check that every variant changed its factor and kept the rest.

    Args:
        probe_set: Originals and variants; a variant text without its original is not audited.
        rules: Bounds by factor and variant; the built-in ones where None.
        recipes: Recipes by variant; one with rules of its own wins over ``rules``.
        similarity: Texts to unit vectors; None leaves the similarity measures, and the rules on them, out: they are then listed as not measured.
        similarity_name: What to record as the similarity model.
        judge: Whom to ask for an opinion on every pair; None asks nobody.
        judge_name: What to record as the judge.
        progress: Where to report to.
        stop: Looked at between pieces of work.

    Raises:
        NothingToDoError: No variant text has an original.
        UserInputError: A rule names a measure that does not exist.
        InterruptedRunError: The user asked to stop; an audit keeps nothing half done.
        RunFailedError: The embedder or the judge did not answer in the agreed form.
    """
    shown = progress or SilentProgress()
    originals = probe_set.by_variant().get(ORIGINAL, {})
    audited = [text for text in probe_set.texts if text.variant != ORIGINAL and text.document_id in originals]
    if not audited:
        message = f"{probe_set.source}: no variant text has an original, so there is nothing to audit"
        raise NothingToDoError(message)
    book = rules if rules is not None else read_rules()
    by_variant = _rules_by_variant(probe_set, book, recipes or {})

    def check_stop() -> None:
        if stop:
            message = "interrupted; nothing of the audit is kept: run the same command again"
            raise InterruptedRunError(message)

    vectors = None
    if similarity is not None:
        texts = dict.fromkeys(plain_text(text) for entry in audited for text in (originals[entry.document_id], entry.text))
        vectors = embed_sentences(texts, similarity, progress=shown, stop=check_stop)
    measured = _measure(audited, originals, probe_set, vectors, shown, check_stop)
    judgements = _judge(audited, originals, probe_set.factors, judge, shown, check_stop) if judge is not None else None
    verdicts, broken = _decide(audited, measured, by_variant, judgements)
    return AuditResult(
        verdicts=tuple(verdicts),
        summaries={name: _summarize(name, verdicts, broken, rules) for name, rules in by_variant.items()},
        settings=_settings(
            by_variant,
            _served_by_any(by_variant, probe_set.factors, book, recipes or {}),
            similarity_name if similarity is not None else None,
            judge_name or "unnamed" if judge is not None else None,
        ),
    )


def audit_settings(
    probe_set: ProbeSet,
    *,
    rules: RuleBook | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    similarity_name: str | None = None,
    judge_name: str | None = None,
) -> Mapping[str, object]:
    """The settings that `audit_probe_set` would record: an audit of the same texts with equal settings need not be made again.

    Raises:
        UserInputError: A rule names a measure that does not exist.
    """
    book = rules if rules is not None else read_rules()
    by_variant = _rules_by_variant(probe_set, book, recipes or {})
    return _settings(by_variant, _served_by_any(by_variant, probe_set.factors, book, recipes or {}), similarity_name, judge_name)


def _rules_by_variant(probe_set: ProbeSet, book: RuleBook, recipes: Mapping[str, Recipe]) -> dict[str, tuple[AuditRule, ...]]:
    """Rules of every variant that has a text with an original, in report order."""
    originals = probe_set.by_variant().get(ORIGINAL, {})
    present = dict.fromkeys(text.variant for text in probe_set.texts if text.variant != ORIGINAL and text.document_id in originals)
    return {name: book.rules_for(name, probe_set.factors[name], recipes.get(name)) for name in sort_variants(present, probe_set.factors)}


def _served_by_any(variants: Iterable[str], factors: Mapping[str, str], book: RuleBook, recipes: Mapping[str, Recipe]) -> list[str]:
    """Variants that neither a recipe nor the book has rules for: a later audit by another book owes them nothing."""
    return [name for name in variants if not book.knows(name, factors[name]) and (name not in recipes or recipes[name].audit is None)]


def _settings(
    by_variant: Mapping[str, Sequence[AuditRule]], served_by_any: Sequence[str], similarity_name: str | None, judge_name: str | None
) -> dict[str, object]:
    return {
        "rules": {name: [rule.model_dump(mode="json") for rule in found] for name, found in by_variant.items()},
        "rules_of_any": list(served_by_any),
        "rules_hash": rules_hash(by_variant),
        "measures": {"version": MEASURES_VERSION, "lexicon": lexicon_hash()},
        "similarity_model": similarity_name,
        "judge": {"name": judge_name, "prompt_hash": judge_prompt_hash()} if judge_name is not None else None,
    }


def _measure(
    audited: Sequence[ProbeText],
    originals: Mapping[str, str],
    probe_set: ProbeSet,
    vectors: SentenceVectors | None,
    progress: Progress,
    check_stop: Callable[[], None],
) -> list[dict[str, float]]:
    measured = []
    with progress.task("measuring", len(audited), "pairs") as task:
        for text in audited:
            check_stop()
            listed = probe_set.metadata.get(text.document_id, {}).get("keywords")
            key_terms = [str(term) for term in listed] if isinstance(listed, (list, tuple)) else []
            measured.append(measure_pair(originals[text.document_id], text.text, key_terms=key_terms, vectors=vectors))
            task.advance(1)
    return measured


def _judge(
    audited: Sequence[ProbeText],
    originals: Mapping[str, str],
    factors: Mapping[str, str],
    judge: Judge,
    progress: Progress,
    check_stop: Callable[[], None],
) -> list[Mapping[str, float] | None]:
    judgements: list[Mapping[str, float] | None] = []
    with progress.task("judging", len(audited), "pairs") as task:
        for start in range(0, len(audited), _JUDGE_BATCH):
            check_stop()
            batch = audited[start : start + _JUDGE_BATCH]
            answers = judge([judge_prompt(originals[text.document_id], text.text, factors[text.variant]) for text in batch])
            if len(answers) != len(batch):
                message = f"the judge gave {len(answers)} answers to {len(batch)} prompts"
                raise RunFailedError(message)
            judgements += [parse_judgement(answer, factors[text.variant]) for text, answer in zip(batch, answers, strict=True)]
            task.advance(len(batch))
    return judgements


def _decide(
    audited: Sequence[ProbeText],
    measured: Sequence[Mapping[str, float]],
    rules: Mapping[str, Sequence[AuditRule]],
    judgements: Sequence[Mapping[str, float] | None] | None,
) -> tuple[list[Verdict], dict[str, Counter[str]]]:
    """Verdicts in the order of the texts, and for every variant how many texts broke a rule on each measure."""
    verdicts, broken = [], {name: Counter[str]() for name in rules}
    for index, text in enumerate(audited):
        found = broken_rules(rules[text.variant], measured[index])
        reasons = [reason for _, reason in found]
        measures = dict(measured[index])
        names = {measure for measure, _ in found}
        if judgements is not None:
            judgement = judgements[index]
            measures |= {f"{JUDGE}_{name}": value for name, value in (judgement or {}).items()}
            opinions = reasons_of_judgement(judgement)
            reasons += opinions
            names |= {JUDGE} if opinions else set()
        broken[text.variant].update(sorted(names))
        verdicts.append(Verdict(text.document_id, text.variant, not reasons, tuple(reasons), measures))
    return verdicts, broken


def _summarize(variant: str, verdicts: Sequence[Verdict], broken: Mapping[str, Counter[str]], rules: Sequence[AuditRule]) -> dict[str, object]:
    own = [verdict for verdict in verdicts if verdict.variant == variant]
    num_accepted = sum(verdict.accepted for verdict in own)
    present = [
        name for name in dict.fromkeys((*MEASURES, *(name for verdict in own for name in verdict.measures))) if any(name in v.measures for v in own)
    ]
    return {
        "num_texts": len(own),
        "num_accepted": num_accepted,
        "acceptance_rate": num_accepted / len(own),
        "rejected_by_rule": dict(sorted(broken[variant].items(), key=lambda entry: (-entry[1], entry[0]))),
        "not_measured": sorted({rule.measure for rule in rules} - set(present)),
        "medians": {name: statistics.median(verdict.measures[name] for verdict in own if name in verdict.measures) for name in present},
    }
