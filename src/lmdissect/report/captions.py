"""Captions that say the finding of their figure or table, written from its numbers."""

from collections.abc import Sequence

from lmdissect.factors import ORIGINAL
from lmdissect.report.content import CumulativeShare, FactTokenShift, Interaction, PositionBin, ReportContent, Variant
from lmdissect.report.findings import Headline, fact_headline, fact_unit, narrower_facts, print_headline, verdict
from lmdissect.report.text import join_words
from lmdissect.wording import ALPHA, UNITS, equate_p, format_count, format_estimate, format_level, format_share

__all__ = [
    "EARLY_TOKENS",
    "cumulative_caption",
    "cumulative_curves",
    "fact_caption",
    "gain_profile",
    "interaction_sentences",
    "loss_caption",
    "position_caption",
    "position_profile",
    "shift_caption",
]

EARLY_TOKENS = 16
"""The position before which the early part of a shift is stated."""

_UNIT = UNITS["token"]


def shift_caption(content: ReportContent) -> str:
    """What the shift figure shows."""
    unit = UNITS[content.normalization]

    def describe(headline: Headline) -> str:
        return f"{headline.variant.name} {print_headline(content, headline, '' if headline.unit == unit else headline.unit)}"

    numbers = f"Numbers are {unit} with {format_level(content.level)} intervals over {format_count(content.num_documents, 'document')}."
    marks = " A filled mark is the headline of its variant, a hollow one its other row." if content.control or content.fact_tokens else ""
    return f"{verdict(content, describe)} {numbers}{marks}"


def position_profile(content: ReportContent, variant: str, document_set: str) -> list[PositionBin]:
    """The bins of one variant and document set, by position."""
    rows = [row for row in content.positions if row.variant == variant and row.document_set == document_set]
    return sorted(rows, key=lambda row: row.bin_start)


def gain_profile(content: ReportContent, document_set: str) -> list[PositionBin]:
    """Bins whose gain stands for the originals: those of the variant that covers most documents in the first bin."""
    profiles = [profile for variant in content.variants if (profile := position_profile(content, variant.name, document_set))]
    return max(profiles, key=lambda profile: profile[0].num_documents, default=[])


def position_caption(content: ReportContent) -> str:
    """Where in the text the gain and the shifts were made."""
    profile = gain_profile(content, "all")
    if not profile:
        return "No shift by token position could be computed."
    decimals = content.decimals["token"]
    ends = [
        f"{format_estimate(row.gain, row.gain_ci_low, row.gain_ci_high, decimals, _UNIT)} at {_place(row)}"
        for row in dict.fromkeys((profile[0], profile[-1]))
    ]
    sentences = [f"Gain on the originals: {join_words(ends)}.", *_variant_places(content)]
    fixed = [rows[0].num_documents for variant in content.variants if (rows := position_profile(content, variant.name, "fixed"))]
    if fixed:
        same = f"{min(fixed):,}" if min(fixed) == max(fixed) else f"{min(fixed):,} to {max(fixed):,}"
        sentences.append(
            f"Solid: all documents that reach the bin ({profile[0].num_documents:,} in the first, {profile[-1].num_documents:,} in the last for the gain). "
            f"Dashed: the same documents in every bin ({same}, by variant), so that a trend is no change of documents."
        )
    return " ".join(sentences)


def _place(row: PositionBin) -> str:
    return f"position {row.name}" if row.name == str(row.bin_start) else f"positions {row.name}"


def _variant_places(content: ReportContent) -> list[str]:
    """In how many bins each variant's shift can be told from 0, and where it is largest."""
    decimals = content.decimals["token"]
    moved, still = [], []
    for variant in content.variants:
        profile = position_profile(content, variant.name, "all")
        told = [row for row in profile if not row.ci_low <= 0 <= row.ci_high]
        if told:
            peak = max(told, key=lambda row: abs(row.estimate))
            number = format_estimate(peak.estimate, peak.ci_low, peak.ci_high, decimals)
            moved.append(f"{variant.name} in {len(told)} of {len(profile)} bins, most at {_place(peak)}, {number}")
        elif profile:
            still.append(variant.name)
    sentences = [f"Shifts whose interval leaves 0 out: {'; '.join(moved)}."] if moved else []
    if still:
        sentences.append(f"In no bin can the shift of {join_words(still)} be told from 0.")
    return sentences


def cumulative_curves(content: ReportContent) -> list[tuple[Variant, list[CumulativeShare]]]:
    """The curve of every variant that has one, by position."""
    curves = [
        (variant, sorted((row for row in content.cumulative if row.variant == variant.name), key=lambda row: row.position))
        for variant in content.variants
    ]
    return [(variant, curve) for variant, curve in curves if curve]


def cumulative_caption(content: ReportContent) -> str:
    """How much of each shift was made early, and which variants have no curve."""
    early = [(variant, row) for variant, curve in cumulative_curves(content) if (row := _early_point(curve)) is not None]
    parts = [f"{variant.name} {format_share(row.share, row.ci_low, row.ci_high)}" for variant, row in early]
    max_tokens = content.details.get("max_tokens")
    limit = "" if max_tokens is None else f" within the first {max_tokens} tokens, where scoring stopped,"
    sentences = (
        [f"Share of the summed shift per document{limit} that is made in the first {EARLY_TOKENS} tokens: {'; '.join(parts)}."] if parts else []
    )
    missing = join_words([str(entry["variant"]) for entry in content.unavailable("cumulative")])
    if missing:
        sentences.append(f"No curve for {missing}: a whole shift that cannot be told from 0 has no parts (reasons in the self-check).")
    return " ".join(sentences) or "No cumulative share could be computed."


def _early_point(curve: Sequence[CumulativeShare]) -> CumulativeShare | None:
    return next((row for row in curve if row.position == EARLY_TOKENS), None)


def fact_caption(content: ReportContent) -> str:
    """What the changed words say, beside the whole text."""
    sentences = [_fact_sentence(content, variant, row) for variant in content.variants if (row := fact_headline(content, variant.name)) is not None]
    return " ".join(sentences) or "No fact tokens: these probes hold no factual variant whose words could be aligned."


def _judge_interaction(row: Interaction) -> str:
    if row.ci_low <= 0 <= row.ci_high:
        return "no dependence that can be told from 0."
    if row.p_value >= ALPHA:
        return f"though {equate_p('p', row.p_value)} is too weak to say that they depend on each other."
    return "so they do not move independently here."


def _fact_sentence(content: ReportContent, variant: Variant, row: FactTokenShift) -> str:
    decimals = content.decimals["token" if content.tokenizers_equal else "document"]
    where = (
        f"On the words that {variant.name} changes ({row.num_original_tokens:,} tokens of the originals, {row.num_variant_tokens:,} of the variant)"
    )
    number = format_estimate(row.estimate, row.ci_low, row.ci_high, decimals, fact_unit(content))
    narrower = [
        f"{words} {format_estimate(other.estimate, other.ci_low, other.ci_high, decimals)}" for words, other in narrower_facts(content, variant.name)
    ]
    of_these = f"; where they hold facts most surely: {', '.join(narrower)}" if narrower else ""
    return f"{where} the shift is {number}, {_judge(row)}{of_these}; {_whole_text(content, variant.name)}."


def _judge(row: FactTokenShift) -> str:
    if row.ci_low <= 0 <= row.ci_high:
        return "which cannot be told from 0"
    way = "towards the originals" if row.estimate > 0 else "away from the originals"
    return f"{way}, though {equate_p('p', row.p_value)} is too weak to count as a finding" if row.p_value >= ALPHA else way


def _whole_text(content: ReportContent, variant: str) -> str:
    row = content.shifts.get((variant, ORIGINAL, content.normalization))
    if row is None:
        return "over the whole text it could not be computed"
    return f"over the whole text it is {format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[content.normalization])}"


def loss_caption(content: ReportContent) -> str:
    """The originals' loss under both models."""
    row = content.losses.get(ORIGINAL)
    if row is None:
        return "The loss of the originals could not be computed."
    if row.base_loss_nats is None or row.tuned_loss_nats is None:
        pair, unit, decimals = (row.base_nats_per_byte, row.tuned_nats_per_byte), UNITS["byte"], 4
    else:
        pair, unit, decimals = (row.base_loss_nats, row.tuned_loss_nats), _UNIT, 3
    return (
        f"Pooled over all scored tokens, the originals\u2019 loss is {pair[0]:.{decimals}f} {unit} under the base model and {pair[1]:.{decimals}f} under the tuned one. "
        "Gains are means over documents, so they need not equal the difference of two pooled losses."
    )


def interaction_sentences(content: ReportContent) -> list[str]:
    """Whether pairs of factors move independently, at the headline normalization."""
    return [
        f"{row.first_variant} and {row.second_variant} (together: {row.variant}): interaction "
        f"{format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[row.normalization], UNITS[row.normalization])}, "
        + _judge_interaction(row)
        for row in content.interactions
        if row.normalization == content.normalization
    ]
