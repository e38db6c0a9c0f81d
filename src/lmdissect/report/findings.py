"""What the numbers say, in words with numbers. Pure functions of the tables; nothing is called a finding whose interval covers 0."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift
from lmdissect.report.content import SELECTIONS, FactTokenShift, ReportContent, Variant
from lmdissect.report.text import capitalize_first, join_words
from lmdissect.wording import (
    ALPHA,
    UNITS,
    equate_p,
    format_count,
    format_estimate,
    format_interval,
    format_level,
    format_plain,
    format_share,
    format_signed,
)

__all__ = [
    "HEADLINE_RULE",
    "Direction",
    "Headline",
    "VariantFinding",
    "audit_sentence",
    "control_sentence",
    "fact_doubt",
    "fact_headline",
    "fact_unit",
    "factor_noun",
    "gain_sentence",
    "headlines",
    "narrower_facts",
    "print_headline",
    "run_sentence",
    "select_headline",
    "state_findings",
    "tokenizer_sentence",
    "verdict",
    "writer_sentence",
]

Direction = Literal["towards", "away", "unsettled", "still"]

HEADLINE_RULE = (
    "Headline rule: net of the control if the variant keeps under half of the original\u2019s words (median over documents, word diff), "
    "else against the original; for factual variants, the words that were changed."
)

_NOUNS = {"topic": "topic", "style": "style", "factual": "facts", CONTROL: "wording"}
_BASES = {ORIGINAL: "against the original", CONTROL: "net of the control"}
_CHANGED_WORDS = "on the changed words"
_FEW_DOCUMENTS = 20


@dataclass(frozen=True, slots=True)
class Headline:
    """The number by which one variant is judged.

    Attributes:
        variant: The variant.
        basis: Against what it is measured, in words.
        unit: Unit of the estimate, in words.
        estimate: Shift; positive is towards the original's value of the factor.
        ci_low: Lower end of the interval.
        ci_high: Upper end.
        p_value: Of the paired test.
        p_holm: Adjusted, where the row belongs to a family of tests.
        row: The row of the shift table, unless the number is over fact tokens.
    """

    variant: Variant
    basis: str
    unit: str
    estimate: float
    ci_low: float
    ci_high: float
    p_value: float
    p_holm: float | None
    row: FactorShift | None

    @property
    def direction(self) -> Direction:
        """``still`` where the interval covers 0, ``unsettled`` where the (adjusted) p does not support what the interval says."""
        if self.ci_low <= 0 <= self.ci_high:
            return "still"
        if (self.p_value if self.p_holm is None else self.p_holm) >= ALPHA:
            return "unsettled"
        return "towards" if self.estimate > 0 else "away"


@dataclass(frozen=True, slots=True)
class VariantFinding:
    """One variant's finding: ``label`` says which number, ``sentence`` what it says."""

    variant: str
    factor: str
    label: str
    direction: Direction
    sentence: str


def factor_noun(factor: str) -> str:
    """``topic+style`` as ``topic and style``, ``factual`` as ``facts``."""
    return join_words([_NOUNS.get(part, part) for part in factor.split("+")])


def fact_headline(content: ReportContent, variant: str, selection: str = "changed") -> FactTokenShift | None:
    """The fact-token row that counts: the mean per token, or the sum per document where the tokenizers differ."""
    return content.fact_tokens.get((variant, selection, "mean" if content.tokenizers_equal else "sum"))


def fact_unit(content: ReportContent) -> str:
    """Unit of `fact_headline`."""
    return UNITS["token" if content.tokenizers_equal else "document"]


def select_headline(content: ReportContent, variant: Variant) -> Headline | None:
    """The headline number of ``variant`` by `HEADLINE_RULE`; where its row is missing, the next best that exists."""
    facts = fact_headline(content, variant.name) if variant.factor == "factual" else None
    if facts is not None:
        return Headline(
            variant, _CHANGED_WORDS, fact_unit(content), facts.estimate, facts.ci_low, facts.ci_high, facts.p_value, p_holm=None, row=None
        )
    references = [variant.headline_reference, ORIGINAL]
    rows = [row for reference in references if (row := content.shifts.get((variant.name, reference, content.normalization))) is not None]
    return _row_headline(content, variant, rows[0]) if rows else None


def _row_headline(content: ReportContent, variant: Variant, row: FactorShift) -> Headline:
    unit = UNITS[content.normalization]
    return Headline(variant, _BASES[row.reference], unit, row.estimate, row.ci_low, row.ci_high, row.p_value, row.p_holm, row)


def headlines(content: ReportContent) -> list[Headline]:
    """The headline of every variant that changes a factor, in report order."""
    found = [select_headline(content, variant) for variant in content.changed()]
    return [headline for headline in found if headline is not None]


def print_headline(content: ReportContent, headline: Headline, unit: str) -> str:
    """The headline's estimate and interval, with ``unit`` in words (or none)."""
    return format_estimate(headline.estimate, headline.ci_low, headline.ci_high, _decimals(content, headline.unit), unit)


def _decimals(content: ReportContent, unit: str) -> int:
    return next(content.decimals[name] for name, text in UNITS.items() if text == unit)


def verdict(content: ReportContent, describe: Callable[[Headline], str] = lambda headline: headline.variant.name) -> str:
    """Which factors moved and which cannot be told from 0, in one to three sentences.

    Args:
        content: The tables.
        describe: How a variant is named inside the brackets.
    """
    if content.is_unmoved():
        return "Nothing moved: every shift is exactly 0, because both models give every token the same score."
    found = headlines(content)

    def name(headline: Headline) -> str:
        return describe(headline) + fact_doubt(content, headline)

    groups = {
        direction: _name_factors([h for h in found if h.direction == direction], name) for direction in ("towards", "away", "unsettled", "still")
    }
    return " ".join(
        sentence for sentence in (_moved_sentence(groups["towards"], groups["away"]), _unmoved_sentences(groups, moved=bool(found))) if sentence
    )


def narrower_facts(content: ReportContent, variant: str) -> list[tuple[str, FactTokenShift]]:
    """The rows on changed words that hold a number, a named term or a key term, each with its name in words."""
    rows = [(words, fact_headline(content, variant, selection)) for selection, words in SELECTIONS.items() if selection != "changed"]
    return [(words, row) for words, row in rows if row is not None]


def fact_doubt(content: ReportContent, headline: Headline) -> str:
    """What must be said beside changed words that moved: counterfactuals reword too, and nothing moved where the facts are most surely."""
    if headline.basis != _CHANGED_WORDS or headline.direction not in {"towards", "away"}:
        return ""
    rows = narrower_facts(content, headline.variant.name)
    if not rows or any(row.ci_low > 0 if headline.estimate > 0 else row.ci_high < 0 for _, row in rows):
        return ""  # at least one of them moved the same way
    return f"; not on its {join_words([words for words, _ in rows])} alone"


def _name_factors(found: Iterable[Headline], describe: Callable[[Headline], str]) -> str:
    by_factor: dict[str, list[str]] = {}
    for headline in found:
        by_factor.setdefault(headline.variant.factor, []).append(describe(headline))
    return join_words([f"{factor_noun(factor)} ({', '.join(names)})" for factor, names in by_factor.items()])


def _moved_sentence(towards: str, away: str) -> str:
    if towards and away:
        return f"Finetuning moved {towards} towards the originals, and {away} away from them."
    if towards:
        return f"Finetuning moved {towards} towards the originals."
    return f"Finetuning moved {away} away from the originals." if away else ""


def _unmoved_sentences(groups: dict[str, str], *, moved: bool) -> str:
    sentences = []
    if groups["still"]:
        sentences.append(f"No movement of {groups['still']} can be told from 0.")
    if groups["unsettled"]:
        sentences.append(f"For {groups['unsettled']} the interval leaves 0 out, but the test does not support it (p at or above {ALPHA}).")
    if not moved:
        sentences.append("No shift could be computed; the self-check lists why.")
    return " ".join(sentences)


def state_findings(content: ReportContent) -> list[VariantFinding]:
    """One finding per variant that changes a factor, in report order; variants without any number say so."""
    return [_state_finding(content, variant) for variant in content.changed()]


def _state_finding(content: ReportContent, variant: Variant) -> VariantFinding:
    headline = select_headline(content, variant)
    if headline is None:
        return VariantFinding(variant.name, variant.factor, variant.name, "still", "no shift could be computed; the self-check says why.")
    parts = [_movement(content, headline), *_share_part(headline), *_narrower_part(content, headline), *_aside_part(content, headline)]
    label = f"{variant.name}, {headline.basis}"
    return VariantFinding(variant.name, variant.factor, label, headline.direction, f"{'; '.join(parts)}.")


def _movement(content: ReportContent, headline: Headline) -> str:
    decimals = _decimals(content, headline.unit)
    name, p_value = ("p", headline.p_value) if headline.p_holm is None else ("Holm-adjusted p", headline.p_holm)
    if headline.direction == "still":
        interval = format_interval(headline.ci_low, headline.ci_high, decimals)
        return f"no movement that can be told from 0 (interval {interval} around {format_signed(headline.estimate, decimals)} {headline.unit})"
    way = "towards" if headline.estimate > 0 else "away from"
    number = f"{print_headline(content, headline, headline.unit)} {way} the {factor_noun(headline.variant.factor)} of the originals"
    if headline.direction == "unsettled":
        return f"{number}, but {equate_p(name, p_value)}: too weak to count as a finding"
    return f"moved by {number} ({equate_p(name, p_value)})"


def _share_part(headline: Headline) -> list[str]:
    row = headline.row
    if row is None or row.share is None or row.share_ci_low is None or row.share_ci_high is None:
        return []
    whole = "gain" if row.gain > 0 else "change"
    return [f"share of the {whole} on the originals {format_share(row.share, row.share_ci_low, row.share_ci_high)}"]


def _narrower_part(content: ReportContent, headline: Headline) -> list[str]:
    """Where the changed words hold a number, a named term or a key term: counterfactuals reword as well, and these are facts most surely."""
    if headline.basis != _CHANGED_WORDS:
        return []
    decimals = _decimals(content, headline.unit)
    rows = narrower_facts(content, headline.variant.name)
    printed = [f"{words} {format_estimate(row.estimate, row.ci_low, row.ci_high, decimals)}" for words, row in rows]
    return [f"of these words, {', '.join(printed)}"] if printed else []


def _aside_part(content: ReportContent, headline: Headline) -> list[str]:
    """The variant's other rows, so that the headline never stands alone."""
    name, decimals = headline.variant.name, content.decimals[content.normalization]
    shown = headline.row.reference if headline.row is not None else ""
    rows = [content.shifts.get((name, reference, content.normalization)) for reference in (ORIGINAL, CONTROL) if reference != shown]
    prefix = "" if headline.row is not None else "over the whole text "
    printed = [f"{_BASES[row.reference]} {format_estimate(row.estimate, row.ci_low, row.ci_high, decimals)}" for row in rows if row is not None]
    return [prefix + ", ".join(printed)] if printed else []


def gain_sentence(content: ReportContent) -> str:
    """Whether the loss on the originals fell or rose."""
    gain = content.gains.get((ORIGINAL, content.normalization))
    if gain is None:
        return "The gain on the originals could not be computed."
    number = format_estimate(gain.estimate, gain.ci_low, gain.ci_high, content.decimals[content.normalization], UNITS[content.normalization])
    where = f"the {format_count(gain.num_documents, 'original')}"
    if gain.ci_low > 0:
        return f"The loss on {where} fell: gain {number}."
    if gain.ci_high < 0:
        return f"The loss on {where} rose, which is what is called forgetting: gain {number}."
    if content.is_unmoved():
        return f"The loss on {where} is unchanged."
    return f"No change of the loss on {where} can be told from 0 (gain {number}), so no share of it is given."


def control_sentence(content: ReportContent) -> str:
    """What rewriting alone did, by the control's own shift."""
    if content.is_unmoved():
        return ""
    if content.control is None:
        return (
            "These probes have no control (a rewrite that keeps topic, style and facts), so what rewriting alone does is not known, "
            "and every shift is against the original only."
        )
    row = content.shifts.get((content.control, ORIGINAL, content.normalization))
    if row is None:
        return f"The shift of the control ({content.control}) could not be computed; the self-check says why."
    number = format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[content.normalization], UNITS[content.normalization])
    if row.ci_low <= 0 <= row.ci_high:
        still = f"Rewriting alone shows no movement that can be told from 0: the control ({content.control}) has {number}."
        return f"{still} {writer_sentence(content)}".rstrip()
    doubt = f", though {equate_p('Holm-adjusted p', row.p_holm)}" if row.p_holm >= ALPHA else ""
    return (
        f"Rewriting alone moved too: the control ({content.control}), which changes no factor, has {number}{doubt}. "
        f"A row against the original holds this as well; a net row takes it away. {writer_sentence(content)}".rstrip()
    )


def writer_sentence(content: ReportContent) -> str:
    """Whether a net row holds the variants' writer constant: only if control and variant were written by the same one."""
    groups: dict[str | None, list[str]] = {}
    for variant in content.changed():
        groups.setdefault(variant.writer_match, []).append(variant.name)
    reasons = {
        "another writer": "the control was written by another writer",
        "same writer, another prompt frame": "the control was written by the same writer with another prompt",
        "not recorded": "who wrote variant and control is not recorded",
    }
    sentences = []
    if held := groups.get("same writer and prompt frame"):
        sentences.append(
            f"One writer wrote {join_words([*held, 'the control'])} with one prompt frame: a net row holds the writer\u2019s habits constant."
        )
    if likely := groups.get("same writer, prompts not recorded"):
        sentences.append(
            f"One writer wrote {join_words([*likely, 'the control'])}; the prompts are not recorded, and a net row holds the writer\u2019s habits "
            "constant only as far as they agreed."
        )
    doubtful = [f"for {join_words(groups[match])} {reason}" for match, reason in reasons.items() if match in groups]
    if doubtful:
        sentences.append(
            f"{capitalize_first(join_words(doubtful))}: there a net row is a check of how much the writer may matter, not the true value."
        )
    return " ".join(sentences)


def audit_sentence(content: ReportContent) -> str:
    """What is known of the variants themselves: how many an audit accepted, or that nobody looked."""
    audits: Mapping[str, Mapping[str, Any]] = content.details.get("audits", {})
    accepted = [
        f"{audits[name]['num_accepted']} of {audits[name]['num_texts']} {name} ({format_plain(100 * audits[name]['acceptance_rate'], 0)} %)"
        for name in dict.fromkeys([*(variant.name for variant in content.variants), *audits])
        if "acceptance_rate" in audits.get(name, {})
    ]
    unseen = [variant.name for variant in content.variants if "acceptance_rate" not in audits.get(variant.name, {})]
    sentences = []
    if accepted:
        sentences.append(f"Whether only the factor changed was audited; accepted were {join_words(accepted)}, and rejected texts took no part.")
    if unseen:
        sentences.append(
            f"Not audited: {join_words(unseen)}; nothing here shows that only the factor changed (lmdissect audit checks it)."
            if accepted
            else "These variants were not audited: nothing here shows that only their factor changed (lmdissect audit checks it)."
        )
    return " ".join(sentences)


def tokenizer_sentence(content: ReportContent) -> str:
    """Why the headline is per byte, where it is."""
    if content.tokenizers_equal:
        return ""
    return "The two models cut text into different tokens, so the headline numbers are per byte."


def run_sentence(content: ReportContent) -> str:
    """What the intervals are over."""
    few = (
        f" With {content.num_documents} documents an interval is a rough guess, too narrow rather than too wide: take at least {_FEW_DOCUMENTS}."
        if content.num_documents < _FEW_DOCUMENTS
        else ""
    )
    return f"All intervals are {format_level(content.level)}. Intervals are over documents, for this one training run.{few}"
