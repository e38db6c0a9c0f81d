"""What the instrument must reach, beside what it reached. A goal that is missed is said to be missed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmdissect.calibration.config import CalibrationConfig
from lmdissect.calibration.plants import PLANTS

__all__ = ["BIAS_LIMIT", "COVERAGE_RANGE", "LEAK_RANGE", "MIN_PROBE_SETS", "check_goals"]

BIAS_LIMIT = 0.01
"""Bias of a planted shift, as a share of it."""

COVERAGE_RANGE = (0.93, 0.97)
LEAK_RANGE = (0.035, 0.065)
MIN_PROBE_SETS = 2000
MIN_SEEDS = 20
_UNIT = "token"
_NAMED = 4

_Rows = Sequence[Mapping[str, Any]]


def check_goals(tables: Mapping[str, _Rows], config: CalibrationConfig) -> list[dict[str, Any]]:
    """Rows of the table `goals`. A goal holds for every row it speaks of, in nats per token: the worst row decides. The other units stand beside it.

    A rate is measured with an error of its own. The goal is met where the rate itself lies in the range; the interval is printed beside it.

    Args:
        tables: What `tally_trials` gives.
        config: Sizes, to say where too few trials were made for a goal to be judged.
    """
    checks: tuple[tuple[str, Callable[[], tuple[str, str, bool | None, str]]], ...] = (
        ("size", lambda: _size(config)),
        ("bias", lambda: _bias(tables["recovery"])),
        ("coverage", lambda: _rates(tables["coverage"], COVERAGE_RANGE, "intervals that hold the truth", "cover")),
        ("leak", lambda: _rates([row for row in tables["leak"] if row["num_exact"] == 0], LEAK_RANGE, "unplanted factors called moved", "reject")),
        ("identical models", lambda: _identical(tables["leak"])),
        ("trained coverage", lambda: _trained(tables["trained"])),
    )
    rows = []
    for name, check in checks:
        goal, measured, is_met, sentence = check()
        if is_met is not None and not _is_full(config):
            is_met, sentence = None, f"{sentence} Too few trials were made to judge by." if name != "size" else sentence
        rows.append({"name": name, "goal": goal, "measured": measured, "is_met": is_met, "sentence": sentence})
    return rows


def _is_full(config: CalibrationConfig) -> bool:
    return config.num_probe_sets >= MIN_PROBE_SETS and config.num_seeds >= MIN_SEEDS


def _size(config: CalibrationConfig) -> tuple[str, str, bool | None, str]:
    goal = f"at least {MIN_PROBE_SETS:,} probe sets of 200 documents, {MIN_SEEDS} trained models for every planted change, 20,000 fresh documents"
    measured = f"{config.num_probe_sets:,} probe sets of {config.num_documents} documents, {config.num_seeds} models, {config.num_truth_documents:,} fresh documents"
    met = _is_full(config) and config.num_documents >= 200 and config.num_truth_documents >= 20_000
    return (
        goal,
        measured,
        met,
        "Enough trials were made to judge by." if met else "This was a small run: it shows that everything works, not how well.",
    )


def _bias(recovery: _Rows) -> tuple[str, str, bool | None, str]:
    goal = f"bias of a planted shift under {_percent(BIAS_LIMIT, 0)} of it"
    rows = [row for row in recovery if row["bias_share"] is not None and row["normalization"] == _UNIT]
    if not rows:
        return goal, "nothing was measured", None, "No planted shift was measured."
    worst = max(rows, key=lambda row: abs(row["bias_share"]))
    met = abs(worst["bias_share"]) < BIAS_LIMIT
    measured = f"at most {_percent(abs(worst['bias_share']), 2)} (standard error {_percent(worst['bias_share_se'], 2)})"
    return goal, measured, met, f"The worst of {len(rows)} rows is {_name(worst)}."


def _rates(rows: _Rows, allowed: tuple[float, float], what: str, verb: str) -> tuple[str, str, bool | None, str]:
    goal = f"{what}: {_percent(allowed[0])} to {_percent(allowed[1])}"
    chosen = [row for row in rows if row["normalization"] == _UNIT]
    if not chosen:
        return goal, "nothing was measured", None, "There was no such row."
    outside = [row for row in chosen if not allowed[0] <= row["rate"] <= allowed[1]]
    low, high = min(chosen, key=lambda row: row["rate"]), max(chosen, key=lambda row: row["rate"])
    measured = f"{_percent(low['rate'])} to {_percent(high['rate'])} over {len(chosen)} rows, {_percent(sum(row['rate'] for row in chosen) / len(chosen))} on average"
    others = _other_units(rows)
    if not outside:
        return goal, measured, True, f"All {len(chosen)} rows {verb} at a rate inside. {others}"
    outside.sort(key=lambda row: -max(allowed[0] - row["rate"], row["rate"] - allowed[1]))
    names = "; ".join(f"{_name(row)} {_percent(row['rate'])} [{_percent(row['ci_low'])}, {_percent(row['ci_high'])}]" for row in outside[:_NAMED])
    more = f"; and {len(outside) - _NAMED} more" if len(outside) > _NAMED else ""
    return goal, measured, False, f"{len(outside)} of {len(chosen)} rows are outside: {names}{more}. {others}"


def _other_units(rows: _Rows) -> str:
    """What the normalizations that are not judged show."""
    found = []
    for unit in ("byte", "document"):
        rates = [row["rate"] for row in rows if row["normalization"] == unit]
        if rates:
            found.append(f"per {unit} {_percent(min(rates))} to {_percent(max(rates))}")
    return f"Not judged: {', '.join(found)}." if found else ""


def _identical(leak: _Rows) -> tuple[str, str, bool | None, str]:
    goal = "two equal models: every shift exactly 0, nothing called moved"
    rows = [row for row in leak if row["plant"] == "nothing"]
    if not rows:
        return goal, "nothing was measured", None, "There was no such row."
    number, exact = sum(row["num_trials"] for row in rows), sum(row["num_exact"] for row in rows)
    moved = sum(round(row["rate"] * row["num_trials"]) for row in rows)
    return goal, f"{exact:,} of {number:,} shifts exactly 0, {moved} called moved", exact == number and moved == 0, "Nothing planted, nothing found."


def _trained(trained: _Rows) -> tuple[str, str, bool | None, str]:
    goal = f"trained models: intervals that hold the model's own shift, {_percent(COVERAGE_RANGE[0], 0)} to {_percent(COVERAGE_RANGE[1], 0)} over all rows"
    rows = [row for row in trained if row["normalization"] == _UNIT]
    if not rows:
        return goal, "nothing was measured", None, "No model was trained."
    number = sum(row["num_trials"] for row in rows)
    rate = sum(row["rate"] * row["num_trials"] for row in rows) / number
    met = COVERAGE_RANGE[0] <= rate <= COVERAGE_RANGE[1]
    return (
        goal,
        f"{_percent(rate)} of {number:,} intervals",
        met,
        "The rows of one model share its probe documents, so they are fewer than they look.",
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['variant']} against the {row['reference']} where {PLANTS[row['plant']].text} was planted"


def _percent(value: float, decimals: int = 1) -> str:
    return f"{100 * value:.{decimals}f} %"
