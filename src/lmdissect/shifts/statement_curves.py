"""What may be said along an axis: whether a shift grows, where half of it is reached, and which rank reaches a share of full finetuning's.

Points are compared at one reference and in one unit: those that the last point of a curve is read at first. Where a curve ends in no finding, nothing is
said of how it got there.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lmdissect.factors import CONTROL
from lmdissect.formats.study_tables import CHANGED_WORDS, OVER_DOCUMENTS, WHOLE_TEXT
from lmdissect.shifts.curves import curve_label
from lmdissect.shifts.stated import Row, StatedTables
from lmdissect.shifts.statement_words import basis, excludes_zero, factor_noun, is_moved, is_over_documents_alone, over
from lmdissect.wording import print_x

__all__ = ["state_capacity", "state_curves", "state_tempo"]

_LINE = ("experiment", "axis", "group", "probes", "variant", "selection")
_UNITS = ("token", "byte")
_INTERVAL = ("estimate", "ci_low", "ci_high")
_FEWEST_POINTS = 2
_WAYS = {True: "towards the originals", False: "away from them"}


def state_curves(writer: StatedTables) -> Iterator[dict[str, Any]]:
    """One sentence per curve: how far its last point lies from its first."""
    for rows in _lines(writer).values():
        if len({row["x"] for row in rows if row["x"] is not None}) < _FEWEST_POINTS:
            continue
        line = _comparable(rows)
        if not line or line[0]["x"] == line[-1]["x"]:
            yield _incomparable(writer, line, rows)
            continue
        yield _say_change(writer, line)


def _say_change(writer: StatedTables, line: Sequence[Row]) -> dict[str, Any]:
    first, last = line[0], line[-1]
    shift = f"The shift of {_named(last)} on {last['probes']}"
    ends = f"{writer.numbers.bare(first, writer.unit(first))} at {print_x(first['x'])}, {writer.numbers.bare(last, writer.unit(last))} at {print_x(last['x'])}"
    change = _change_row(writer, first, last)
    if change is None:
        why = (
            writer.reason_at({**last, "point": curve_label(last["axis"], last["group"])}, ("changes",))
            or "its two ends have too few documents in common"
        )
        return writer.say(
            last, f"How {_lowered(shift)} changes along {last['axis']} is not measured: {why} ({ends}).", "not measured", interval=False, along=line
        )
    told = {**last, **{name: change[name] for name in (*_INTERVAL, "num_documents", "num_seeds", "p_value", "p_holm", "interval_over")}}
    by = f"{writer.number(told)}, {_aside(writer, told)}"
    still = f"{shift} shows no change along {last['axis']} that can be told from 0: {by}"
    if is_over_documents_alone(told):
        if told["num_seeds"] == 1:
            still = f"Whether {_lowered(shift)} changes along {last['axis']} cannot be told from one training run at each point: between these it changes by {by}"
        return writer.say(told, f"{still}; {ends}.", "not shown", along=line)
    moved = f"{shift} {_describe_change(first, last, told)} along {last['axis']}: by {by}"
    return writer.say(told, f"{writer.judged(told, moved, still)}; {ends}.", writer.verdict(told), along=line)


def _change_row(writer: StatedTables, first: Row, last: Row) -> Row | None:
    """The row of `changes` between two points of a curve."""
    wanted = (*(last[name] for name in (*_LINE, "reference", "normalization")), first["x"], last["x"])
    columns = (*_LINE, "reference", "normalization", "first_x", "last_x")
    return next((row for row in writer.tables.get("changes", ()) if tuple(row[name] for name in columns) == wanted), None)


def _lowered(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _lines(writer: StatedTables) -> dict[tuple[Any, ...], list[Row]]:
    """Shifts of every variant along every curve, controls left out; those of facts on the changed words, where they are known there."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in writer.tables.get("curves", ()):
        if row["statistic"] == "shift" and row["factor"] != CONTROL:
            lines.setdefault(tuple(row[name] for name in _LINE), []).append(row)
    return {line: rows for line, rows in lines.items() if line[-1] != WHOLE_TEXT or (*line[:-1], CHANGED_WORDS) not in lines}


def _comparable(rows: Iterable[Row]) -> list[Row]:
    """Points with a place on the axis, ascending, at the reference that the last of them is read at first; in the unit that most of them have."""
    placed = sorted((row for row in rows if row["x"] is not None), key=lambda row: row["x"])
    best: list[Row] = []
    for unit in _UNITS:
        alike = [row for row in placed if row["normalization"] == unit]
        reference = next((row["reference"] for row in reversed(alike) if row["is_headline"]), None)
        line = [row for row in alike if row["reference"] == reference]
        best = line if len(line) > len(best) else best
    return best


def _incomparable(writer: StatedTables, line: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    """A curve whose last point is read at a reference, or in a unit, that no other point has."""
    last = line[-1] if line else rows[-1]
    sentence = f"How the shift of {_named(last)} on {last['probes']} changes along {last['axis']} is not measured: fewer than two of its points have it in this form."
    return writer.say(last, sentence, "not measured", interval=False, along=line)


def _describe_change(first: Row, last: Row, change: Row) -> str:
    """In words, how a shift changed that did. One that is on the other side of 0 at the end, or is told from 0 nowhere, neither grows nor shrinks."""
    is_positive = [row["estimate"] > 0 for row in (first, last, change)]
    are_told = [excludes_zero(row) for row in (first, last)]
    if all(are_told) and is_positive[0] != is_positive[1]:
        return f"turns round, from {_WAYS[is_positive[0]]} to {_WAYS[is_positive[1]]},"
    if not any(are_told) or is_positive[0] != is_positive[1]:
        return f"moves {_WAYS[is_positive[2]]}"
    return "grows" if is_positive[2] == is_positive[1] else "shrinks"


def _named(row: Row) -> str:
    """Factor, variant and how it is read; of facts, whether on the changed words or over the whole text."""
    words = ", on the changed words" if row["selection"] == CHANGED_WORDS else ", whole text" if row["factor"] == "factual" else ""
    return f"{factor_noun(row['factor'])} ({row['variant']}, {basis(row)}{words}{', per byte' if row.get('normalization') == 'byte' else ''})"


def _end(rows: Iterable[Row], row: Row, x: float | None) -> Row | None:
    """The point that a tempo or capacity is a share of: the row at ``x`` with the same reference and unit."""
    alike = [found for found in rows if found["x"] == x and found["reference"] == row["reference"]]
    wanted = [row["normalization"]] if row.get("normalization") else _UNITS
    return next((found for unit in wanted for found in alike if found["normalization"] == unit), None)


def _ends(writer: StatedTables, table: str) -> Iterator[tuple[Row, Row | None]]:
    """Rows of `tempo` or `capacity` at the reference that their curve's end is read at first, each with that end.

    Intervals are taken to be over documents alone where the row does not say.
    """
    lines = _lines(writer)
    for row in writer.tables.get(table, ()):
        if row["factor"] == CONTROL:
            continue
        told = {**row, "interval_over": row.get("interval_over") or OVER_DOCUMENTS}
        if (*(told[name] for name in _LINE[:-1]), CHANGED_WORDS) in lines and told["selection"] == WHOLE_TEXT:
            continue
        end = _end(lines.get(tuple(told[name] for name in _LINE), ()), row, row["last_x"] if table == "tempo" else None)
        if end is None or end["is_headline"]:
            yield told, end


def _aside(writer: StatedTables, row: Row) -> str:
    return "; ".join(part for part in (over(row), writer.line(row)) if part)


def _untold(writer: StatedTables, row: Row, end: Row | None, sentence: str) -> dict[str, Any]:
    """Why nothing is said of a share of a shift that is no finding."""
    if end is not None:
        sentence = writer.judged(end, sentence, f"{sentence}: {writer.number(end)} ({_aside(writer, {**end, 'group': row['group']})})")
    return writer.say(row, f"{sentence}.", "not shown", interval=False)


def state_capacity(writer: StatedTables) -> Iterator[dict[str, Any]]:
    """One sentence per curve along rank, variant and share of full finetuning's shift."""
    untold: set[tuple[Any, ...]] = set()
    for row, end in _ends(writer, "capacity"):
        if end is None or not is_moved(end, writer.alpha):
            line = tuple(row[name] for name in _LINE)
            if line not in untold:
                still = (
                    f"Which rank of LoRA is enough for the shift of {_named(row)} on {row['probes']} cannot be told, because full finetuning\u2019s"
                )
                yield _untold(writer, row, end, f"{still} cannot be told from 0")
            untold.add(line)
            continue
        is_sure = (row["rank"] is None) == (row["ci_low"] is None) == (row["ci_high"] is None)
        said = writer.say(row, _say_rank(writer, row), "moved" if is_sure and not is_over_documents_alone(row) else "not shown")
        yield {**said, "estimate": row["rank"]}


def _say_rank(writer: StatedTables, row: Row) -> str:
    """Which rank reaches the share, or that none does; an interval may hold ranks above those that were measured."""
    share = f"{100 * row['share_of_full']:g} % of full finetuning\u2019s shift of {_named(row)} on {row['probes']} ({_aside(writer, row)})"
    largest = print_x(row["largest_rank"])
    if row["rank"] is None:
        low = "the interval leaves all of them out" if row["ci_low"] is None else f"the interval begins at rank {print_x(row['ci_low'])}"
        return f"No measured rank of LoRA, up to {largest}, reaches {share}: {low}."
    high = f"above {largest}" if row["ci_high"] is None else print_x(row["ci_high"])
    return f"LoRA of rank {print_x(row['rank'])} [{print_x(row['ci_low'])}, {high}] reaches {share}."


def state_tempo(writer: StatedTables) -> Iterator[dict[str, Any]]:
    """One sentence per curve and variant, and one that compares the factors of each curve."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row, end in _ends(writer, "tempo"):
        if end is None or not is_moved(end, writer.alpha):
            still = (
                f"Where along {row['axis']} half of the last shift of {_named(row)} on {row['probes']} is reached cannot be told, because that shift"
            )
            yield _untold(writer, row, end, f"{still} cannot be told from 0")
            continue
        sentence = (
            f"Half of the last shift of {_named(row)} on {row['probes']} is there at {row['axis']} {print_x(row['half_x'])} "
            f"[{print_x(row['ci_low'])}, {print_x(row['ci_high'])}], of {print_x(row['last_x'])} ({_aside(writer, row)})."
        )
        yield {**writer.say(row, sentence, "not shown" if is_over_documents_alone(row) else "moved"), "estimate": row["half_x"]}
        lines.setdefault((row["experiment"], row["axis"], row["group"], row["probes"]), []).append(row)
    for rows in lines.values():
        pairs = [(fast, slow) for fast in rows for slow in rows if fast["factor"] != slow["factor"] and fast["half_x"] < slow["half_x"]]
        if pairs:
            yield _compare_tempo(writer, *max(pairs, key=lambda pair: pair[1]["half_x"] / pair[0]["half_x"]))


def _compare_tempo(writer: StatedTables, fast: Row, slow: Row) -> dict[str, Any]:
    names = [f"{factor_noun(row['factor'])} ({row['variant']})" for row in (fast, slow)]
    aside = f" ({told})" if (told := writer.line(fast)) else ""
    still = f"Which of {names[0]} and {names[1]} moves faster on {fast['probes']}{aside} cannot be told: the intervals of their half points"
    if fast["ci_high"] >= slow["ci_low"]:
        return writer.say(fast, f"{still} overlap.", "not shown", interval=False)
    if any(is_over_documents_alone(row) for row in (fast, slow)):
        these = "one training run at each point" if fast["num_seeds"] == 1 else f"these {fast['num_seeds']} training runs"
        sentence = f"{still} do not overlap, but are over documents alone, for {these}."
        return writer.say(fast, sentence, "not shown", interval=False)
    sentence = (
        f"On {fast['probes']} {names[0]} moves faster along {fast['axis']} than {names[1]}{aside}: the intervals of their half points do not overlap."
    )
    return writer.say(fast, sentence, "moved", interval=False)
