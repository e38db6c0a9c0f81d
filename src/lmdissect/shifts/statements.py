"""What may be said: one sentence per finding and analysis, written by rules from the tables of a study.

A row is *moved* where its interval leaves out 0 and its adjusted p is below 1 - level, else *not shown*; an analysis that the study has no runs for is *not
measured*, with what would be needed. Statements are about one point of every experiment, the one that was trained on most documents (of equals full
finetuning, then the first); the tables hold all of them. Learned is what is said of probe sets whose originals gain, forgotten of all others.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.shifts.moved import MIN_TOKEN_DOCUMENTS
from lmdissect.shifts.statement_words import (
    Numbers,
    basis,
    factor_noun,
    is_moved,
    over,
    print_p,
    print_x,
    seems_to_move,
)
from lmdissect.wording import format_share, join_words

__all__ = ["EARLY_TOKENS", "stated_points", "write_statements"]

EARLY_TOKENS = 16
"""The position before which the early part of a shift is stated."""

_RANK = "finetune.lora.rank"
_POINT = ("experiment", "point", "probes")
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

_Row = Mapping[str, Any]


def stated_points(runs: Iterable[_Row]) -> dict[str, str]:
    """The point of every experiment that statements speak of.

    Args:
        runs: Rows of the table `runs`.
    """
    best: dict[str, tuple[tuple[int, bool], str]] = {}
    for row in runs:
        fields = json.loads(row["fields"])
        key = (row["training_documents"] or 0, _RANK in fields and fields[_RANK] is None)
        if row["experiment"] not in best or key > best[row["experiment"]][0]:
            best[row["experiment"]] = (key, row["point"])
    return {experiment: point for experiment, (_, point) in best.items()}


def write_statements(tables: Mapping[str, Sequence[_Row]], level: float) -> list[dict[str, Any]]:
    """The table `statements`.

    Args:
        tables: All other tables of the study, as rows.
        level: Confidence level of the intervals.
    """
    writer = _Writer(tables, 1.0 - level)
    rows: list[dict[str, Any]] = []
    for analysis, state in _ANALYSES.items():
        found = list(state(writer))
        if not found:
            found = [_statement(None, f"Not measured: {_NEEDED[analysis]}", "not measured")]
        known: set[tuple[Any, ...]] = set()
        for row in found:  # a run that two experiments share is stated once
            identity = (row["probes"], row["variant"], row["estimate"], row["ci_low"], row["ci_high"])
            if row["estimate"] is not None and identity in known:
                continue
            known.add(identity)
            rows.append({"analysis": analysis, "order": len(rows), **row})
    return rows


def _statement(row: _Row | None, sentence: str, verdict: str, *, interval: bool = True) -> dict[str, Any]:
    """One row of the table, about ``row``."""
    source: _Row = row or {}
    names = (*_POINT, "variant", "factor")
    numbers = {name: source.get(name) if interval else None for name in ("estimate", "ci_low", "ci_high")}
    return {**{name: source.get(name) for name in names}, "sentence": sentence, "verdict": verdict, **numbers}


class _Writer:
    """The tables, and what all analyses ask of them."""

    def __init__(self, tables: Mapping[str, Sequence[_Row]], alpha: float) -> None:
        self.tables = tables
        self.alpha = alpha
        self.numbers = Numbers(tables["estimates"])
        self.points = stated_points(tables["runs"])
        self._headline = {
            (row["experiment"], row["probes"], row["variant"]): row["reference"]
            for row in tables["estimates"]
            if row["statistic"] == "shift" and row["is_headline"]
        }
        self.factors = {(*self.key(row), row["variant"]): row["factor"] for row in tables["estimates"]}
        normalizations = {row["normalization"] for row in tables["estimates"]}
        self.normalization = "token" if "token" in normalizations else "byte"

    @staticmethod
    def key(row: _Row) -> tuple[str, str, str]:
        return row["experiment"], row["point"], row["probes"]

    def stated(self, table: str) -> list[_Row]:
        """Rows of the points that are stated."""
        return [row for row in self.tables.get(table, ()) if self.points.get(row["experiment"]) == row["point"]]

    def gains(self) -> list[_Row]:
        """Gain on the originals of every stated probe set."""
        return [row for row in self.stated("estimates") if row["statistic"] == "gain" and row["variant"] == ORIGINAL and self.shown(row)]

    def shown(self, row: _Row) -> bool:
        return bool(row["normalization"] == self.normalization)

    def is_told(self, row: _Row) -> bool:
        """Whether a row of a curve is of a variant that changes a factor, at its headline reference."""
        wanted = self._headline.get((row["experiment"], row["probes"], row["variant"]), row["reference"])
        return bool(row["factor"] != CONTROL and row["reference"] == wanted)

    def headlines(self) -> list[_Row]:
        """The row of every variant that is read first, controls left out."""
        return [
            row
            for row in self.stated("estimates")
            if row["statistic"] == "shift" and row["is_headline"] and self.shown(row) and row["factor"] != CONTROL
        ]

    def verdict(self, row: _Row) -> str:
        return "moved" if is_moved(row, self.alpha) else "not shown"

    def fact_row(self, row: _Row, selection: str = "changed") -> _Row | None:
        """The fact-token row that judges a variant: all changed words, mean per token."""
        wanted = (*self.key(row), row["variant"], selection, "mean")
        return next((r for r in self.tables.get("facts", ()) if (*self.key(r), r["variant"], r["selection"], r["statistic"]) == wanted), None)

    def factor(self, row: _Row) -> str:
        """Factor of a row's variant, whether its table says so or not."""
        return str(row.get("factor") or self.factors.get((*self.key(row), row["variant"])) or "factor")

    def number(self, row: _Row) -> str:
        return self.numbers.with_unit(row, self.normalization)

    def judged(self, row: _Row, moved: str, still: str) -> str:
        """``moved`` with its p, or why it cannot be said."""
        if is_moved(row, self.alpha):
            return f"{moved} ({print_p(row)})" if print_p(row) else moved
        if seems_to_move(row, self.alpha):
            return f"{still}: the interval leaves 0 out, but {print_p(row)} is too weak to count as a finding"
        return still


def _learned(writer: _Writer) -> Iterator[dict[str, Any]]:
    gained = [row for row in writer.gains() if _is_gain(writer, row)]
    for row in gained:
        sentence = (
            f"The model learned to predict the originals of {row['probes']} better: their loss fell by {writer.number(row)} "
            f"({over(row)}; {row['experiment']}, {row['point']})."
        )
        yield _statement(row, sentence, "moved")
        yield from _factor_statements(writer, row, whole="gain")
    if not gained and writer.gains():
        names = _probes_of(writer.gains())
        yield _statement(
            None, f"Nothing was learned that can be told from 0: on no probe set ({names}) did the loss on the originals fall.", "not shown"
        )


def _forgotten(writer: _Writer) -> Iterator[dict[str, Any]]:
    others = [row for row in writer.gains() if not _is_gain(writer, row)]
    for row in others:
        where = f"({over(row)}; {row['experiment']}, {row['point']})"
        moved = f"The model predicts the originals of {row['probes']} worse than before, which is what is called forgetting: gain {writer.number(row)} {where}"
        still = f"No change of the loss on the originals of {row['probes']} can be told from 0: gain {writer.number(row)} {where}"
        yield _statement(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row))
        yield from _factor_statements(writer, row, whole="change")
    if not others and writer.gains():
        sentence = (
            f"No forgetting was seen: on every probe set ({_probes_of(writer.gains())}) the loss on the originals fell. Whether texts further from the training "
            "documents lost is not measured here."
        )
        yield _statement(None, sentence, "not shown")


def _is_gain(writer: _Writer, row: _Row) -> bool:
    return is_moved(row, writer.alpha) and bool(row["estimate"] > 0)


def _probes_of(rows: Iterable[_Row]) -> str:
    return join_words(list(dict.fromkeys(row["probes"] for row in rows)))


def _factor_statements(writer: _Writer, gain: _Row, *, whole: str) -> Iterator[dict[str, Any]]:
    """One sentence for every variant of the probe set of ``gain``: facts by the changed words, all else by the whole text."""
    for row in writer.headlines():
        if writer.key(row) == writer.key(gain):
            facts = writer.fact_row(row) if row["factor"] == "factual" else None
            yield _factor_statement(writer, row, facts, whole=whole)


def _factor_statement(writer: _Writer, row: _Row, facts: _Row | None, *, whole: str) -> dict[str, Any]:
    told: _Row = row if facts is None else facts
    noun, variant = factor_noun(row["factor"]), row["variant"]
    measured = basis(row) if facts is None else "on the changed words"
    number = f"{writer.number(told) if facts is None else writer.numbers.with_unit(told)} {measured}, {over(told)}"
    way = "towards" if told["estimate"] > 0 else "away from"
    moved = f"On {row['probes']} the model moved {way} the {noun} of the originals, compared with their {variant} variants: {number}"
    still = f"On {row['probes']} no movement of {noun} ({variant}) can be told from 0: {number}"
    aside = "" if facts is None else _fact_doubt(writer, facts, _narrower(writer, facts))
    if facts is None and is_moved(row, writer.alpha) and row.get("share") is not None:
        aside = f"; that is {format_share(row['share'], row['share_ci_low'], row['share_ci_high'])} of the {whole} on the originals"
    found = _statement(told, f"{writer.judged(told, moved, still)}{aside}.", writer.verdict(told))
    return {**found, "factor": row["factor"]}


def _narrower(writer: _Writer, row: _Row) -> list[tuple[str, _Row]]:
    """The rows on changed words that hold facts most surely, each with its name in words."""
    return [(words, found) for selection, words in _NARROWER.items() if (found := writer.fact_row(row, selection)) is not None]


def _fact_doubt(writer: _Writer, row: _Row, narrower: Sequence[tuple[str, _Row]]) -> str:
    """What must be said beside changed words that moved while nothing moved the same way where the facts are most surely."""
    same = any(found["ci_low"] > 0 if row["estimate"] > 0 else found["ci_high"] < 0 for _, found in narrower)
    if not is_moved(row, writer.alpha) or not narrower or same:
        return ""
    return f"; but not on its {join_words([words for words, _ in narrower])} alone, and counterfactuals reword as well as change facts"


def _curves(writer: _Writer) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[_Row]] = {}
    for row in writer.tables.get("curves", ()):
        if row["statistic"] == "shift" and row["is_headline"] and writer.shown(row) and row["factor"] != CONTROL and row["x"] is not None:
            lines.setdefault((row["experiment"], row["axis"], row["group"], row["probes"], row["variant"]), []).append(row)
    for (_, axis, group, probes, variant), rows in lines.items():
        first, last = min(rows, key=lambda row: row["x"]), max(rows, key=lambda row: row["x"])
        if first["x"] == last["x"]:
            continue
        apart = first["ci_high"] < last["ci_low"] or last["ci_high"] < first["ci_low"]
        changed = apart and (is_moved(last, writer.alpha) or is_moved(first, writer.alpha))
        grown = abs(last["estimate"]) > abs(first["estimate"])
        noun = factor_noun(last["factor"])
        ends = f"{writer.numbers.bare(first, writer.normalization)} at {print_x(first['x'])}, {writer.number(last)} at {print_x(last['x'])}"
        of_group = f", {group}" if group else ""
        says = (
            f"{'grows' if grown else 'shrinks'} along {axis}"
            if changed
            else f"shows no change along {axis} that can be told (the intervals at its ends overlap)"
        )
        sentence = f"The shift of {noun} ({variant}, {basis(last)}) on {probes} {says}: {ends}{of_group}."
        yield _statement(last, sentence, "moved" if changed else "not shown")


def _position(writer: _Writer) -> Iterator[dict[str, Any]]:
    early = {(*writer.key(row), row["variant"]): row for row in writer.stated("cumulative") if row["position"] == EARLY_TOKENS}
    if not writer.stated("positions"):
        return
    for row in writer.stated("estimates"):
        if row["statistic"] != "shift" or row["reference"] != "original" or row["factor"] == CONTROL or not writer.shown(row):
            continue
        found = early.get((*writer.key(row), row["variant"]))
        named = f"{factor_noun(row['factor'])} ({row['variant']}, against the original)"
        if found is None or not is_moved(row, writer.alpha):
            sentence = f"Where in a text {named} moves on {row['probes']} cannot be told: a shift that cannot be told from 0 has no parts."
            yield _statement(row, sentence, "not shown", interval=False)
            continue
        share = {**row, "estimate": found["share"], "ci_low": found["ci_low"], "ci_high": found["ci_high"]}
        told = format_share(found["share"], found["ci_low"], found["ci_high"])
        if not found["ci_low"] <= 0.0 <= found["ci_high"]:
            sentence = (
                f"Of the whole shift of {named} in a text of {row['probes']}, {told} is made in its first {EARLY_TOKENS} tokens ({over(found)})."
            )
            yield _statement(share, sentence, "moved")
        else:
            sentence = (
                f"Whether {named} on {row['probes']} moves in the first {EARLY_TOKENS} tokens of a text cannot be told: share {told} ({over(found)})."
            )
            yield _statement(share, sentence, "not shown")


def _capacity(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in filter(writer.is_told, writer.tables.get("capacity", ())):
        closed = row["ci_low"] is not None
        interval = f" [{print_x(row['ci_low'])}, {print_x(row['ci_high'])}]" if closed else ", with an interval that is open upwards,"
        sentence = (
            f"LoRA of rank {print_x(row['rank'])}{interval} reaches {100 * row['share_of_full']:g} % of full finetuning\u2019s shift of {factor_noun(row['factor'])} "
            f"({row['variant']}, {basis(row)}) on {row['probes']} ({over(row)})."
        )
        yield {**_statement(row, sentence, "moved" if closed else "not shown"), "estimate": row["rank"]}


def _tempo(writer: _Writer) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[_Row]] = {}
    for row in filter(writer.is_told, writer.tables.get("tempo", ())):
        sentence = (
            f"Half of the last shift of {factor_noun(row['factor'])} ({row['variant']}, {basis(row)}) on {row['probes']} is there at {row['axis']} "
            f"{print_x(row['half_x'])} [{print_x(row['ci_low'])}, {print_x(row['ci_high'])}], of {print_x(row['last_x'])} ({over(row)})."
        )
        yield {**_statement(row, sentence, "moved"), "estimate": row["half_x"]}
        lines.setdefault((row["experiment"], row["axis"], row["group"], row["probes"]), []).append(row)
    for rows in lines.values():
        fast, slow = min(rows, key=lambda row: row["half_x"]), max(rows, key=lambda row: row["half_x"])
        if fast["factor"] != slow["factor"]:
            yield _compare_tempo(fast, slow)


def _compare_tempo(fast: _Row, slow: _Row) -> dict[str, Any]:
    names = [f"{factor_noun(row['factor'])} ({row['variant']})" for row in (fast, slow)]
    if fast["ci_high"] < slow["ci_low"]:
        sentence = (
            f"On {fast['probes']} {names[0]} moves faster along {fast['axis']} than {names[1]}: the intervals of their half points do not overlap."
        )
        return _statement(fast, sentence, "moved", interval=False)
    sentence = f"Which of {names[0]} and {names[1]} moves faster on {fast['probes']} cannot be told: the intervals of their half points overlap."
    return _statement(fast, sentence, "not shown", interval=False)


def _independence(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in writer.tables.get("independence", ()):
        if row["compared_with"] is None or row["factor"] == CONTROL:
            continue
        noun = factor_noun(row["factor"])
        trained = row["training_corpus"].partition(" minus ")[0]
        number = f"{writer.number(row)} {basis(row)}, {over(row)}"
        moved = (
            f"Training on {trained} instead of {row['compared_with']} changes the shift of {noun} ({row['variant']}) on {row['probes']} by {number}"
        )
        still = (
            f"Training on {trained} instead of {row['compared_with']} changes the shift of {noun} ({row['variant']}) on {row['probes']} by nothing that can be "
            f"told from 0: {number}"
        )
        yield _statement(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row))


def _interactions(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in writer.stated("interactions"):
        if not writer.shown(row):
            continue
        names = f"{row['first_variant']} and {row['second_variant']} (together: {row['variant']})"
        number = f"interaction {writer.number(row)}, {over(row)}"
        moved = f"On {row['probes']} {names} do not move independently: {number}"
        still = f"On {row['probes']} no dependence between {names} can be told from 0: {number}"
        yield {**_statement(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": writer.factor(row)}


def _facts(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in writer.stated("facts"):
        if (row["selection"], row["statistic"]) != ("changed", "mean"):
            continue
        narrower = _narrower(writer, row)
        printed = f"; of these words, {', '.join(f'{words} {writer.numbers.bare(found)}' for words, found in narrower)}" if narrower else ""
        number = f"{writer.numbers.with_unit(row)} on the words that {row['variant']} changes, {over(row)}"
        way = "towards the true words" if row["estimate"] > 0 else "away from the true words"
        moved = f"On {row['probes']} the model moved {way}: {number}"
        still = f"On {row['probes']} no movement of facts ({row['variant']}) can be told from 0: {number}"
        doubt = _fact_doubt(writer, row, narrower)
        yield {**_statement(row, f"{writer.judged(row, moved, still)}{printed}{doubt}.", writer.verdict(row)), "factor": writer.factor(row)}


def _cloze(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in writer.tables.get("cloze", ()):
        if not row["is_headline"] or writer.points.get(row["experiment"], row["point"]) != row["point"]:
            continue
        unit = "nats/term" if row["normalization"] == "term" else "nats/token"
        number = f"{writer.numbers.with_unit(row, 'document', unit)}, {row['num_terms']:,} terms ({row['selection'].replace('_', ' ')}), {over(row)}"
        which = (
            "prefers the true term over the counterfactual\u2019s"
            if row["estimate"] > 0
            else "prefers the counterfactual\u2019s term over the true one"
        )
        moved = f"Given a text of {row['probes']} up to a term, the tuned model {which} more than the base does: log odds changed by {number}"
        still = f"Given a text of {row['probes']} up to a term, no change of the odds of the true term against the counterfactual\u2019s can be told from 0: {number}"
        yield {**_statement(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": writer.factor(row)}


def _natural(writer: _Writer) -> Iterator[dict[str, Any]]:
    rows = writer.stated("natural")
    for row in rows:
        if row["kind"] != "natural":
            continue
        others = [other for other in rows if other["kind"] == "synthetic" and other["experiment"] == row["experiment"]]
        listed = ", ".join(f"{other['variant']} on {other['probes']} {writer.numbers.bare(other, writer.normalization)}" for other in others)
        beside = f"; by synthetic variants of the same models: {listed}" if listed else "; no synthetic style variant was measured beside them"
        number = f"{writer.number(row)} against the original, {over(row)}"
        way = "towards" if row["estimate"] > 0 else "away from"
        moved = f"By natural pairs, written by people on both sides ({row['probes']}), the model moved {way} the style of the originals: {number}"
        still = f"By natural pairs, written by people on both sides ({row['probes']}), no movement of style can be told from 0: {number}"
        yield {**_statement(row, f"{writer.judged(row, moved, still)}{beside}.", writer.verdict(row)), "factor": "style"}


def _fingerprint(writer: _Writer) -> Iterator[dict[str, Any]]:
    for row in writer.stated("fingerprint"):
        if row["axis"] is not None or writer.factor(row) != CONTROL:
            continue
        by = f", written by {row['writer']}" if row["writer"] else ", writer not recorded"
        kept = "" if row["kept_words_median"] is None else f", keeps {100 * row['kept_words_median']:.0f} % of the original\u2019s words"
        who = f"the control ({row['variant']}{by}{kept}), which changes no factor, has {writer.number(row)}, {over(row)}"
        moved = f"Rewriting alone moved too on {row['probes']}: {who}; a shift against the original holds this as well, a net shift takes it away"
        still = f"Rewriting alone shows no movement on {row['probes']} that can be told from 0: {who}"
        yield {**_statement(row, f"{writer.judged(row, moved, still)}.", writer.verdict(row)), "factor": CONTROL}


def _moved(writer: _Writer) -> Iterator[dict[str, Any]]:
    tops: dict[tuple[str, str, str], dict[str, _Row]] = {}
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
            f"Of the tokens in at least {MIN_TOKEN_DOCUMENTS} originals of {row['probes']}, {join_words(parts)}. They are the extremes of many, picked for their size: "
            "expect less of each in a repetition; no single one is called a finding."
        )
        yield _statement({**row, "factor": None}, sentence, "not shown", interval=False)


def _quoted(token: str) -> str:
    return json.dumps("".join(character if character.isprintable() else "\ufffd" for character in token), ensure_ascii=False)


_ANALYSES = {
    "learned": _learned,
    "forgotten": _forgotten,
    "curves": _curves,
    "position": _position,
    "capacity": _capacity,
    "tempo": _tempo,
    "independence": _independence,
    "interactions": _interactions,
    "facts": _facts,
    "cloze": _cloze,
    "natural": _natural,
    "fingerprint": _fingerprint,
    "moved": _moved,
}
