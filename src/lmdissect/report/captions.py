"""Captions that say the finding of their figure or table, written from its numbers."""

from collections.abc import Sequence
from itertools import groupby

from lmdissect.factors import ORIGINAL
from lmdissect.report.content import CumulativeShare, PositionBin, ReportContent, Variant
from lmdissect.report.findings import Headline, fact_headline, fact_unit, print_headline, verdict
from lmdissect.report.numbers import ALPHA, UNITS, format_count, format_estimate, format_share
from lmdissect.report.text import join_words

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

    def describe(headline: Headline) -> str:
        return f"{headline.variant.name} {print_headline(content, headline)}"

    marks = "Filled marks are the headline numbers, hollow marks the other row of the same variant." if content.control else ""
    return f"{verdict(content, describe)} {marks} Whiskers are intervals over {format_count(content.num_documents, 'document')}.".replace("  ", " ")


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
    fixed = gain_profile(content, "fixed")
    if fixed:
        sentences.append(
            f"Solid lines: all documents that reach the bin ({profile[0].num_documents:,} in the first, {profile[-1].num_documents:,} in the last); "
            f"dashed lines: the {format_count(fixed[-1].num_documents, 'document')} that {'reaches' if fixed[-1].num_documents == 1 else 'reach'} the last bin."
        )
    return " ".join(sentences)


def _place(row: PositionBin) -> str:
    return f"position {row.name}" if row.name == str(row.bin_start) else f"positions {row.name}"


def _variant_places(content: ReportContent) -> list[str]:
    decimals = content.decimals["token"]
    sentences, still = [], []
    for variant in content.variants:
        profile = position_profile(content, variant.name, "all")
        moved = [row for row in profile if not row.ci_low <= 0 <= row.ci_high]
        if moved:
            peak = max(moved, key=lambda row: abs(row.estimate))
            number = format_estimate(peak.estimate, peak.ci_low, peak.ci_high, decimals)
            sentences.append(
                f"Shift of {variant.name}: most at {_place(peak)}, {number}; the interval leaves 0 out in {len(moved)} of {len(profile)} bins."
            )
        elif profile:
            still.append(variant.name)
    if still:
        sentences.append(f"Shift of {join_words(still)}: in no bin can it be told from 0.")
    return sentences


def cumulative_curves(content: ReportContent) -> tuple[list[tuple[Variant, list[CumulativeShare]]], list[Variant]]:
    """The curves to draw, and the variants left out because their total shift cannot be told from 0, so that its parts mean nothing as shares."""
    by_variant = {
        name: list(rows) for name, rows in groupby(sorted(content.cumulative, key=lambda row: (row.variant, row.position)), lambda row: row.variant)
    }
    curves, left_out = [], []
    for variant in content.variants:
        if variant.name not in by_variant:
            continue
        total = next((row for name in ("document", "token") if (row := content.shifts.get((variant.name, ORIGINAL, name))) is not None), None)
        if total is None or total.ci_low <= 0 <= total.ci_high:
            left_out.append(variant)
        else:
            curves.append((variant, by_variant[variant.name]))
    return curves, left_out


def cumulative_caption(content: ReportContent) -> str:
    """How much of each shift was made early."""
    curves, left_out = cumulative_curves(content)
    if not curves and not left_out:
        return "No cumulative share could be computed."
    early = [(variant, row) for variant, curve in curves if (row := _early_point(curve)) is not None]
    sentences = [
        f"{variant.name}: {format_share(row.share, row.ci_low, row.ci_high)} of the shift per document is made in the first "
        f"{format_count(row.position, 'token')}."
        for variant, row in early
    ]
    if left_out:
        names = join_words([variant.name for variant in left_out])
        sentences.append(f"Not drawn: {names}, whose total shift cannot be told from 0, so that parts of it have no meaning.")
    return " ".join(sentences)


def _early_point(curve: Sequence[CumulativeShare]) -> CumulativeShare | None:
    return max((row for row in curve if 0 < row.position <= EARLY_TOKENS), key=lambda row: row.position, default=None)


def fact_caption(content: ReportContent) -> str:
    """What the changed words say, beside the whole text."""
    sentences = []
    for variant in content.variants:
        row = fact_headline(content, variant.name)
        if row is None:
            continue
        unit = fact_unit(content)
        number = format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals["token" if content.tokenizers_equal else "document"], unit)
        says = (
            "cannot be told from 0"
            if row.ci_low <= 0 <= row.ci_high
            else ("towards the originals" if row.estimate > 0 else "away from the originals")
        )
        sentences.append(
            f"{variant.name}: on the words it changes ({row.num_original_tokens:,} tokens of the originals, {row.num_variant_tokens:,} of the variant, "
            f"{format_count(row.num_documents, 'document')}) the shift is {number}, {_cautious(says, row.p_value)}; {_whole_text(content, variant.name)}."
        )
    return " ".join(sentences) or "No fact tokens: these probes hold no factual variant whose words could be aligned."


def _cautious(says: str, p_value: float) -> str:
    return f"{says}, though p is not below {ALPHA}" if says != "cannot be told from 0" and p_value >= ALPHA else says


def _whole_text(content: ReportContent, variant: str) -> str:
    row = content.shifts.get((variant, ORIGINAL, content.normalization))
    if row is None:
        return "over the whole text it could not be computed"
    return f"over the whole text {format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[content.normalization], UNITS[content.normalization])}"


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
        f"Pooled over all scored tokens, the originals' loss is {pair[0]:.{decimals}f} {unit} under the base model and {pair[1]:.{decimals}f} under the tuned one. "
        "Gains are means over documents, so they need not equal the difference of two pooled losses."
    )


def interaction_sentences(content: ReportContent) -> list[str]:
    """Whether pairs of factors move independently, at the headline normalization."""
    return [
        f"{row.first_variant} and {row.second_variant} (together: {row.variant}): interaction "
        f"{format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[row.normalization], UNITS[row.normalization])}, "
        + ("no dependence that can be told from 0." if row.ci_low <= 0 <= row.ci_high else "so they do not move independently here.")
        for row in content.interactions
        if row.normalization == content.normalization
    ]
