"""What may be said: one sentence per finding and analysis, written by rules from the tables of a study.

A row is *moved* where its interval leaves out 0 and its adjusted p is below 1 - level, else *not shown*; an interval of no width is never moved. An analysis
without numbers is *not measured*, with the reason, or with what would be needed. Statements are about one point of every experiment and probe set, the one
that was trained on most documents (of equals full finetuning, then the first), and about all points where none differs from another in a setting: models
that were compared. The tables hold all points, and no sentence says "nowhere" without having looked at all of them. Learned is what is said of probe sets
whose originals gain, forgotten of all others.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import StudyGap
from lmdissect.shifts.moved import MIN_TOKEN_DOCUMENTS
from lmdissect.shifts.resampling import holm
from lmdissect.shifts.stated import Row, StatedTables
from lmdissect.shifts.statement_curves import state_capacity, state_curves, state_tempo
from lmdissect.shifts.statement_words import NO_WIDTH, basis, excludes_zero, factor_noun, has_no_width, is_moved, over
from lmdissect.wording import choose_decimals, equate_p, format_count, format_estimate, format_share, join_words

__all__ = ["EARLY_TOKENS", "write_statements"]

EARLY_TOKENS = 16
"""The position before which the early part of a shift is stated."""

_NARROWER = {"number": "numbers", "named": "named terms", "key_term": "key terms"}
_NEEDED = {
    "learned": "no gain on originals could be computed: probes with originals that both models scored are needed.",
    "forgotten": "probes from outside the finetuning domain (general web text, say) are needed.",
    "curves": "runs that differ in one setting, data size for example, or that were measured while training, are needed.",
    "position": "scores token by token, with one tokenizer for both models, are needed.",
    "capacity": "runs with several LoRA ranks and one with full finetuning, otherwise alike, are needed.",
    "tempo": "a curve with a shift at its end that can be told from 0 is needed.",
    "independence": "runs trained on corpora that differ in one factor alone (originals and casual rewrites of them, say) are needed.",
    "interactions": "a variant that changes two factors at once, beside the two that change one each, is needed.",
    "facts": "a variant that changes facts (counterfactual), and scores token by token, are needed.",
    "cloze": "terms scored in their context are needed, from key terms or a counterfactual variant.",
    "natural": "natural pairs (a technical and a plain text about the same, both written by people) are needed as a probe set.",
    "fingerprint": "a control (a rewrite that keeps topic, style and facts) is needed.",
    "moved": "scores token by token are needed.",
}

_REASONED = {
    "learned": ("estimates",),
    "forgotten": ("estimates",),
    "curves": ("curves",),
    "position": ("cumulative", "positions"),
    "capacity": ("capacity",),
    "tempo": ("tempo",),
    "independence": ("independence",),
    "interactions": ("interactions",),
    "facts": ("facts",),
    "cloze": ("cloze",),
    "natural": ("natural",),
    "fingerprint": ("fingerprint",),
    "moved": ("moved_tokens",),
}
"""Tables whose gaps say why an analysis has nothing to state."""


def write_statements(tables: Mapping[str, Sequence[Row]], level: float, gaps: Sequence[StudyGap] = ()) -> list[dict[str, Any]]:
    """The table `statements`.

    Args:
        tables: All other tables of the study, as rows.
        level: Confidence level of the intervals.
        gaps: What could not be computed, and why.
    """
    writer = StatedTables(tables, 1.0 - level, gaps)
    rows: list[dict[str, Any]] = []
    for analysis, state in _ANALYSES.items():
        found = list(state(writer)) or [writer.say(None, _not_measured(writer, analysis), "not measured")]
        known: set[Any] = set()
        for row in found:  # a run that two experiments share is stated once
            identity = row.pop("identity")
            if identity is None or identity not in known:
                rows.append({"analysis": analysis, "order": len(rows), **row})
            known.add(identity)
    return rows


def _not_measured(writer: StatedTables, analysis: str) -> str:
    reasons = writer.reasons(_REASONED[analysis], ORIGINAL if analysis in ("learned", "forgotten") else None)
    if not reasons:
        return f"Not measured: {_NEEDED[analysis]}"
    gap = reasons[0]
    place = ", ".join(name for name in (gap.experiment, gap.point, "" if gap.variant == "all" else gap.variant) if name)
    more = f" ({format_count(len(reasons) - 1, 'more reason')} among the numbers that could not be computed)" if len(reasons) > 1 else ""
    return f"Not measured on {gap.probes} ({place}): {gap.reason}{more}."


def _learned(writer: StatedTables) -> Iterator[dict[str, Any]]:
    gained = [row for row in writer.gains() if _is_gain(writer, row)]
    for row in gained:
        sentence = (
            f"The model learned to predict the originals of {row['probes']} better: their loss fell by {writer.number(row)} "
            f"({over(row)}; {row['experiment']}, {row['point']})."
        )
        yield writer.say(row, sentence, "moved")
        yield from _factor_statements(writer, row, whole="gain")
    if gained or not writer.gains():
        return
    elsewhere = list(_elsewhere(writer, 1))
    yield from elsewhere
    if not elsewhere:
        sentence = (
            f"Nothing was learned that can be told from 0: on no probe set ({_probes_of(writer.gains())}) is a fall of the loss on the originals "
            f"shown{_where(writer)}."
        )
        yield writer.say(None, sentence, "not shown")


def _forgotten(writer: StatedTables) -> Iterator[dict[str, Any]]:
    others = [row for row in writer.gains() if not _is_gain(writer, row)]
    for row in others:
        where = f"({over(row)}; {row['experiment']}, {row['point']})"
        moved = f"The model predicts the originals of {row['probes']} worse than before, which is what is called forgetting: gain {writer.number(row)} {where}"
        still = f"No change of the loss on the originals of {row['probes']} can be told from 0: gain {writer.number(row)} {where}"
        yield writer.say(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row))
        yield from _factor_statements(writer, row, whole="change")
    elsewhere = list(_elsewhere(writer, -1))
    yield from elsewhere
    if not others and not elsewhere and writer.gains():
        sentence = (
            f"No forgetting was seen: on every probe set ({_probes_of(writer.gains())}) the loss on the originals fell{_where(writer)}. Whether texts further from "
            "the training documents lost is not measured here."
        )
        yield writer.say(None, sentence, "not measured")


def _elsewhere(writer: StatedTables, sign: int) -> Iterator[dict[str, Any]]:
    """Where the originals of a probe set moved the given way at other points than the stated one: the point where that is surest.

    Points are many and this one is picked among them, so p is adjusted once more, by Holm over the points.
    """
    points: dict[tuple[str, str], list[Row]] = {}
    for row in writer.all_gains():
        points.setdefault((row["experiment"], row["probes"]), []).append(row)
    for rows in points.values():
        if any(writer.is_stated(row) and is_moved(row, writer.alpha) and sign * row["estimate"] > 0 for row in rows):
            continue
        p_values = holm([row["p_holm"] if row.get("p_holm") is not None else row["p_value"] for row in rows])
        moved = [(p_value, row) for p_value, row in zip(p_values, rows, strict=True) if excludes_zero(row) and sign * row["estimate"] > 0]
        moved = [(p_value, row) for p_value, row in moved if not writer.is_stated(row)]
        if moved:
            yield _say_elsewhere(writer, moved, sign, len(rows))


def _say_elsewhere(writer: StatedTables, moved: Sequence[tuple[float, Row]], sign: int, num_points: int) -> dict[str, Any]:
    p_value, row = min(moved, key=lambda found: (found[0], -abs(found[1]["estimate"])))
    sure = sum(found < writer.alpha for found, _ in moved)
    way = "better" if sign > 0 else "worse"
    stated = join_words(writer.points[row["experiment"], row["probes"]])
    number = f"gain {writer.number(row)} ({over(row)}; {row['experiment']}, {row['point']})"
    adjusted = equate_p(f"Holm-adjusted p over {num_points} points", p_value)
    if sure:
        called = "" if sign > 0 else ", which is what is called forgetting"
        sentence = (
            f"The originals of {row['probes']} are predicted {way} than before{called}, not at {stated} but at {format_count(sure, 'other point')}"
        )
        return writer.say(row, f"{sentence}; most surely by {number}, {adjusted}.", "moved")
    sentence = f"Whether the originals of {row['probes']} are predicted {way} than before at other points than {stated} cannot be told: {number}"
    return writer.say(row, f"{sentence}: the interval leaves 0 out, but {adjusted} is too weak to count as a finding.", "not shown")


def _where(writer: StatedTables) -> str:
    """The points that a sentence about all probe sets speaks of, where the study has others."""
    stated = {writer.key(row)[:2] for row in writer.gains()}
    if {writer.key(row)[:2] for row in writer.all_gains()} == stated:
        return ""
    return f", at {join_words(list(dict.fromkeys(row['point'] for row in writer.gains())))}"


def _is_gain(writer: StatedTables, row: Row) -> bool:
    return is_moved(row, writer.alpha) and bool(row["estimate"] > 0)


def _probes_of(rows: Iterable[Row]) -> str:
    return join_words(list(dict.fromkeys(row["probes"] for row in rows)))


def _factor_statements(writer: StatedTables, gain: Row, *, whole: str) -> Iterator[dict[str, Any]]:
    """One sentence for every variant of the probe set of ``gain``: facts by the changed words, all else by the whole text."""
    for row in writer.headlines():
        if writer.key(row) == writer.key(gain):
            facts = writer.fact_row(row) if row["factor"] == "factual" else None
            yield _factor_statement(writer, row, facts, whole=whole)


def _factor_statement(writer: StatedTables, row: Row, facts: Row | None, *, whole: str) -> dict[str, Any]:
    told: Row = row if facts is None else facts
    noun, variant = factor_noun(row["factor"]), row["variant"]
    measured = basis(row) if facts is None else "on the changed words"
    number = f"{writer.number(told) if facts is None else writer.numbers.with_unit(told)} {measured}, {over(told)}"
    way = "towards" if told["estimate"] > 0 else "away from"
    moved = f"On {writer.site(row)} the model moved {way} the {noun} of the originals, compared with their {variant} variants: {number}"
    still = f"On {writer.site(row)} no movement of {noun} ({variant}) can be told from 0: {number}"
    aside = "" if facts is None else _fact_doubt(writer, facts, _narrower(writer, facts))
    if facts is None and is_moved(row, writer.alpha) and row.get("share") is not None:
        aside = f"; that is {format_share(row['share'], row['share_ci_low'], row['share_ci_high'])} of the {whole} on the originals"
    found = writer.say(told, f"{writer.judged(told, moved, still)}{aside}.", writer.verdict(told))
    return {**found, "factor": row["factor"]}


def _narrower(writer: StatedTables, row: Row) -> list[tuple[str, Row]]:
    """The rows on changed words that hold facts most surely, each with its name in words."""
    return [(words, found) for selection, words in _NARROWER.items() if (found := writer.fact_row(row, selection)) is not None]


def _fact_doubt(writer: StatedTables, row: Row, narrower: Sequence[tuple[str, Row]]) -> str:
    """What must be said beside changed words that moved while nothing moved the same way where the facts are most surely."""
    same = any(excludes_zero(found) and (found["estimate"] > 0) == (row["estimate"] > 0) for _, found in narrower)
    if not is_moved(row, writer.alpha) or not narrower or same:
        return ""
    return f"; but not on its {join_words([words for words, _ in narrower])} alone, and counterfactuals reword as well as change facts"


def _position(writer: StatedTables) -> Iterator[dict[str, Any]]:
    early = {(*writer.key(row), row["variant"]): row for row in writer.stated("cumulative") if row["position"] == EARLY_TOKENS}
    if not writer.stated("positions"):
        return
    for row in writer.stated("estimates"):
        if row["statistic"] != "shift" or row["reference"] != "original" or row["factor"] == CONTROL or not writer.is_shown(row):
            continue
        found = early.get((*writer.key(row), row["variant"]))
        named = f"{factor_noun(row['factor'])} ({row['variant']}, against the original)"
        if not is_moved(row, writer.alpha):
            sentence = f"Where in a text {named} moves on {writer.site(row)} cannot be told: a shift that cannot be told from 0 has no parts."
            yield writer.say(row, sentence, "not shown", interval=False)
        elif found is None:
            sentence = f"Where in a text {named} moves on {writer.site(row)} is not measured: {_why_no_share(writer, row)}."
            yield writer.say(row, sentence, "not measured", interval=False)
        else:
            yield _position_statement(writer, row, found, named)


def _why_no_share(writer: StatedTables, row: Row) -> str:
    """Why a shift that moved has no share before the early position."""
    if any((*writer.key(found), found["variant"]) == (*writer.key(row), row["variant"]) for found in writer.stated("cumulative")):
        return f"its texts end before {EARLY_TOKENS} tokens"
    return writer.reason_at(row, ("cumulative", "positions")) or _NEEDED["position"].removesuffix(".")


def _position_statement(writer: StatedTables, row: Row, found: Row, named: str) -> dict[str, Any]:
    share = {**row, "estimate": found["share"], "ci_low": found["ci_low"], "ci_high": found["ci_high"]}
    told = format_share(found["share"], found["ci_low"], found["ci_high"])
    if excludes_zero(share):
        sentence = (
            f"Of the whole shift of {named} in a text of {writer.site(row)}, {told} is made in its first {EARLY_TOKENS} tokens ({over(found)})."
        )
        return writer.say(share, sentence, "moved")
    why = f": {NO_WIDTH}" if has_no_width(share) else ""
    sentence = (
        f"Whether {named} on {writer.site(row)} moves in the first {EARLY_TOKENS} tokens of a text cannot be told: share {told} ({over(found)}){why}."
    )
    return writer.say(share, sentence, "not shown")


def _independence(writer: StatedTables) -> Iterator[dict[str, Any]]:
    rows = [row for row in writer.tables.get("independence", ()) if row["compared_with"] is not None and row["factor"] != CONTROL]
    corpora = Counter(_corpora(row) for row in rows)
    for row in rows:
        trained = row["training_corpus"].partition(" minus ")[0]
        site = f"{row['probes']} ({row['experiment']}, {row['point']})" if corpora[_corpora(row)] > 1 else row["probes"]
        number = f"{writer.number(row)} {basis(row)}, {over(row)}"
        change = (
            f"Training on {trained} instead of {row['compared_with']} changes the shift of {factor_noun(row['factor'])} ({row['variant']}) on {site}"
        )
        if row["num_seeds"] == 1:
            sentence = f"Whether t{change[1:]} cannot be told from one training run on each: between these two by {number}."
            yield writer.say(row, sentence, "not shown")
            continue
        still = f"{change} by nothing that can be told from 0: {number}"
        yield writer.say(row, f"{writer.judged(row, f'{change} by {number}', still)}.", writer.verdict(row))


def _corpora(row: Row) -> tuple[Any, ...]:
    return row["training_corpus"], row["compared_with"], row["probes"], row["variant"]


def _interactions(writer: StatedTables) -> Iterator[dict[str, Any]]:
    for row in writer.stated("interactions"):
        if not writer.is_shown(row):
            continue
        names = f"{row['first_variant']} and {row['second_variant']} (together: {row['variant']})"
        number = f"interaction {writer.number(row)}, {over(row)}"
        moved = f"On {writer.site(row)} {names} do not move independently: {number}"
        still = f"On {writer.site(row)} no dependence between {names} can be told from 0: {number}"
        yield {**writer.say(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": writer.factor(row)}


def _facts(writer: StatedTables) -> Iterator[dict[str, Any]]:
    for row in writer.stated("facts"):
        if (row["selection"], row["statistic"]) != ("changed", "mean"):
            continue
        narrower = _narrower(writer, row)
        printed = f"; of these words, {', '.join(f'{words} {writer.numbers.bare(found)}' for words, found in narrower)}" if narrower else ""
        number = f"{writer.numbers.with_unit(row)} on the words that {row['variant']} changes, {over(row)}"
        way = "towards the true words" if row["estimate"] > 0 else "away from the true words"
        moved = f"On {writer.site(row)} the model moved {way}: {number}"
        still = f"On {writer.site(row)} no movement of facts ({row['variant']}) can be told from 0: {number}"
        doubt = _fact_doubt(writer, row, narrower)
        yield {**writer.say(row, f"{writer.judged(row, moved, still)}{printed}{doubt}.", writer.verdict(row)), "factor": writer.factor(row)}


def _cloze(writer: StatedTables) -> Iterator[dict[str, Any]]:
    rows = [row for row in writer.tables.get("cloze", ()) if row["is_headline"] and _is_told(writer, row)]
    decimals = choose_decimals([(row["ci_high"] - row["ci_low"]) / 2 for row in rows], "token")  # of terms: much smaller than a document's numbers
    for row in rows:
        unit = "nats/term" if row["normalization"] == "term" else "nats/token"
        terms = f"{row['num_terms']:,} terms ({row['selection'].replace('_', ' ')})"
        number = f"{format_estimate(row['estimate'], row['ci_low'], row['ci_high'], decimals, unit)}, {terms}, {over(row)}"
        which = (
            "prefers the true term over the counterfactual\u2019s"
            if row["estimate"] > 0
            else "prefers the counterfactual\u2019s term over the true one"
        )
        moved = f"Given a text of {writer.site(row)} up to a term, the tuned model {which} more than the base does: log odds changed by {number}"
        still = f"Given a text of {writer.site(row)} up to a term, no change of the odds of the true term against the counterfactual\u2019s can be told from 0: {number}"
        yield {**writer.say(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": writer.factor(row)}


def _is_told(writer: StatedTables, row: Row) -> bool:
    """Whether statements speak of a cloze's point, whichever probe set of it; a cloze of models that no run of the study has is always told."""
    points = [point for (experiment, _), stated in writer.points.items() if experiment == row["experiment"] for point in stated]
    return not points or row["point"] in points


def _natural(writer: StatedTables) -> Iterator[dict[str, Any]]:
    for row in writer.stated("natural"):
        if row["kind"] != "natural":
            continue
        others = [other for other in writer.tables["natural"] if other["kind"] == "synthetic" and writer.key(other)[:2] == writer.key(row)[:2]]
        listed = ", ".join(
            f"{other['variant']} on {other['probes']} "
            + (writer.numbers.bare(other, writer.unit(other)) if writer.unit(other) == writer.unit(row) else writer.number(other))
            for other in others
        )
        beside = f"; by synthetic variants of the same models: {listed}" if listed else "; no synthetic style variant was measured beside them"
        number = f"{writer.number(row)} against the original, {over(row)}"
        way = "towards" if row["estimate"] > 0 else "away from"
        moved = (
            f"By the natural pairs of {writer.site(row)}, written by people on both sides, the model moved {way} the style of the originals: {number}"
        )
        still = f"By the natural pairs of {writer.site(row)}, written by people on both sides, no movement of style can be told from 0: {number}"
        yield {**writer.say(row, f"{writer.judged(row, moved, still)}{beside}.", writer.verdict(row)), "factor": "style"}


def _fingerprint(writer: StatedTables) -> Iterator[dict[str, Any]]:
    for row in writer.stated("fingerprint"):
        if row["axis"] is not None or writer.factor(row) != CONTROL:
            continue
        by = f", written by {row['writer']}" if row["writer"] else ", writer not recorded"
        kept = "" if row["kept_words_median"] is None else f", keeps {100 * row['kept_words_median']:.0f} % of the original\u2019s words"
        who = f"the control ({row['variant']}{by}{kept}), which changes no factor, has {writer.number(row)}, {over(row)}"
        moved = f"Rewriting alone moved too on {writer.site(row)}: {who}; a shift against the original holds this as well, a net shift takes it away"
        still = f"Rewriting alone shows no movement on {writer.site(row)} that can be told from 0: {who}"
        yield {**writer.say(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": CONTROL}


def _moved(writer: StatedTables) -> Iterator[dict[str, Any]]:
    tops: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in writer.stated("moved_tokens"):
        if row["variant"] == ORIGINAL and row["rank"] == 1:
            tops.setdefault(writer.key(row), {})[row["direction"]] = row
    for ends in tops.values():
        row = next(iter(ends.values()))
        words = {"up": "gained most", "down": "lost most"}
        parts = [
            f"{_quoted(end['token'])} {words[way]} ({writer.numbers.with_unit(end)}, {end['num_occurrences']:,} occurrences)"
            for way, end in ends.items()
        ]
        sentence = (
            f"Of the tokens in at least {MIN_TOKEN_DOCUMENTS} originals of {writer.site(row)}, {join_words(parts)}. They are the extremes of many, picked for "
            "their size: expect less of each in a repetition; no single one is called a finding."
        )
        yield writer.say({**row, "factor": None}, sentence, "not shown", interval=False)


def _quoted(token: str) -> str:
    return json.dumps("".join(character if character.isprintable() else "\ufffd" for character in token), ensure_ascii=False)


_ANALYSES = {
    "learned": _learned,
    "forgotten": _forgotten,
    "curves": state_curves,
    "position": _position,
    "capacity": state_capacity,
    "tempo": state_tempo,
    "independence": _independence,
    "interactions": _interactions,
    "facts": _facts,
    "cloze": _cloze,
    "natural": _natural,
    "fingerprint": _fingerprint,
    "moved": _moved,
}
