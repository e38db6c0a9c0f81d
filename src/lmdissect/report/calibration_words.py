"""Captions of the calibration page. Each is written from the numbers, and says what was missed as plainly as what was met."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmdissect.report.text import join_words
from lmdissect.store import Manifest
from lmdissect.wording import format_count, format_plain, format_signed

__all__ = ["BIAS_LIMIT", "COVERAGE_BAND", "LEAK_BAND", "Captions", "plant_words"]

_PLANTS = {
    "nothing": "nothing",
    "topic": "topic prior",
    "style": "style prior",
    "new_facts": "new facts",
    "changed_facts": "changed facts",
    "topic_style": "topic and style",
    "hand": "writer\u2019s hand",
}
_FACTORS = {"factual": "facts"}
_POWER = 0.8
BIAS_LIMIT, COVERAGE_BAND, LEAK_BAND = 0.01, (0.93, 0.97), (0.035, 0.065)
"""The goals, as the table `goals` has them."""

_Rows = Sequence[Mapping[str, Any]]


def plant_words(plant: str) -> str:
    """A planted change in words."""
    return _PLANTS.get(plant, plant.replace("_", " "))


class Captions:
    """What each figure and table says."""

    def __init__(self, manifest: Manifest, tables: Mapping[str, _Rows]) -> None:
        self._manifest = manifest
        self._tables = {name: [row for row in rows if row.get("normalization", "token") == "token"] for name, rows in tables.items()}
        self._config = manifest.config

    def of(self, name: str) -> str:
        """Caption of figure ``name``."""
        written: str = getattr(self, name)()
        return written

    def verdict(self) -> str:
        """The first sentence of the page."""
        goals = self._tables["goals"]
        judged = [goal for goal in goals if goal["is_met"] is not None]
        missed = [goal["name"] for goal in judged if not goal["is_met"]]
        if not any(goal["name"] == "size" and goal["is_met"] for goal in goals):
            return "This was a small run: it shows that every part works. How far the numbers can be trusted is for the full calibration to say."
        left = [goal["name"] for goal in goals if goal["is_met"] is None]
        unjudged = f" Not judged, because nothing was measured: {join_words(left)}." if left else ""
        if not missed:
            all_met = f"All {len(judged)} goals that could be judged were met" if left else f"All {len(judged)} goals were met"
            return f"{all_met}: where the truth is known, the instrument finds it, and its intervals mean what they say.{unjudged}"
        return (
            f"{len(judged) - len(missed)} of {len(judged)} goals were met; missed: {join_words(missed)}. What that means for a report is said below."
            f"{unjudged}"
        )

    def recovery(self) -> str:
        """How far the mean estimate is from the truth."""
        rows = [row for row in self._tables["recovery"] if row["bias_share"] is not None]
        worst = max(rows, key=lambda row: abs(row["bias_share"]))
        limit = "inside" if abs(worst["bias_share"]) < BIAS_LIMIT else "outside"
        where = f"{worst['variant']}, {plant_words(worst['plant'])}"
        return (
            f"Planted shifts come back with a bias of at most {_rate(abs(worst['bias_share']), 2)} of their size ({where}), {limit} the goal of 1 %. "
            f"Mean of {format_count(worst['num_trials'])} probe sets of {format_count(worst['num_documents'], 'document')} less the exact expectation; "
            "whiskers: 1.96 standard errors of that mean. Band: the goal."
        )

    def coverage(self) -> str:
        """How often intervals hold the truth."""
        rows = self._tables["coverage"]
        below, above = (sum(row[name] for row in rows) / len(rows) for name in ("below", "above"))
        return (
            f"{self._level()} intervals hold the truth in {_range(rows, 'rate')} of the probe sets, {_rate(_mean(rows, 'rate'))} on average: "
            f"{_outside(rows, COVERAGE_BAND)} of 93 to 97 %. Of all intervals {_rate(below)} lie wholly below the truth and {_rate(above)} above. "
            "Whiskers: 95 % intervals of the rate."
        )

    def leak(self) -> str:
        """How often an unplanted factor is called moved."""
        rows = [row for row in self._tables["leak"] if not row["num_exact"]]
        return (
            f"A factor that was not planted is called moved in {_range(rows, 'rate')} of the probe sets at a raw p below 5 %, "
            f"{_rate(_mean(rows, 'rate'))} on average: {_outside(rows, LEAK_BAND)} of 3.5 to 6.5 %. "
            f"With p adjusted over the variants (Holm), as in every report, {_rate(_mean(rows, 'rate_holm'))}."
        )

    def power(self) -> str:
        """How many probe documents are needed."""
        parts = []
        for factor in dict.fromkeys(row["factor"] for row in self._tables["power"]):
            rows = [row for row in self._tables["power"] if row["factor"] == factor and row["size"] == "medium" and row["reference"] == "original"]
            last = max(rows, key=lambda row: row["num_documents"])
            shift, needed = format_signed(last["truth"], 4), format_plain(last["needed_documents"], 0)
            parts.append(f"{_FACTORS.get(factor, factor)} ({shift} nats/token): {self._enough(rows)} (the formula says {needed})")
        return (
            f"How many probe documents find a medium change in four of five cases: {'; '.join(parts)}. The formula is D = 7.85 (sd / shift)\u00b2 with the "
            "standard deviation over documents: half the shift takes four times the documents. It carries over to real probes with their own standard "
            f"deviation. {self._small_sets()} Bands: 95 % intervals of the rate; dashed: 80 %."
        )

    def _small_sets(self) -> str:
        """What intervals are worth with the fewest documents."""
        rows = [row for row in self._tables["power"] if row["reference"] == "original"]
        fewest = min(row["num_documents"] for row in rows)
        return f"With {fewest} documents intervals hold the truth in {_rate(_mean([row for row in rows if row['num_documents'] == fewest], 'coverage'))}."

    def _enough(self, rows: _Rows) -> str:
        found = sorted(row["num_documents"] for row in rows if row["rate"] >= _POWER)
        most = max(row["num_documents"] for row in rows)
        return f"{found[0]:,} were enough" if found else f"not even {most:,} were enough"

    def slips(self) -> str:
        """What a careless rewriter does."""
        rates = sorted({row["slips"] for row in self._tables["slips"]})
        rows = [
            row
            for row in self._tables["slips"]
            if row["slips"] == rates[-1] and row["planted"] and row["factor"] != "control" and not self._owns(row)
        ]
        raw, net = ([row for row in rows if row["reference"] == reference] for reference in ("original", "control"))
        shares = [sum(row["mean_estimate"] / row["planted"] for row in chosen) / len(chosen) for chosen in (raw, net)]
        documents = format_count(raw[0]["num_documents"])
        return (
            f"A rewriter who also changes another factor in {_rate(rates[-1], 0)} of the documents puts {_rate(shares[0])} of a planted shift into the variants of "
            f"the others (net of an equally careless control {_rate(shares[1])}); with {documents} documents the test calls that moved in {_range(raw, 'rate')} of "
            "the probe sets. Such a shift is in the texts, not in the estimate: audit the probes. Solid: measured; dashed: exact expectation."
        )

    def _owns(self, row: Mapping[str, Any]) -> bool:
        return bool(row["factor"] == {"new_facts": "factual"}.get(row["plant"], row["plant"]))

    def trained(self) -> str:
        """What tiny transformers learned."""
        rows = self._tables["trained"]
        planted = [row for row in rows if row["learned"] is not None and row["reference"] == "original"]
        learned = join_words([f"{_rate(row['learned'], 0)} ({plant_words(row['plant'])}, {row['variant']})" for row in planted])
        number = sum(row["num_trials"] for row in rows)
        held = round(sum(row["rate"] * row["num_trials"] for row in rows))
        fresh = format_count(self._config["num_truth_documents"])
        return (
            f"{held:,} of {number:,} intervals ({_rate(held / number)}) hold the model\u2019s own shift, which is its mean over {fresh} fresh documents; "
            f"{format_count(rows[0]['num_trials'])} models for each change. Of the shift that the world\u2019s exact likelihoods have, the models learned {learned}."
        )

    def _level(self) -> str:
        return f"{100 * self._config['level']:g} %"


def _rate(value: float, decimals: int = 1) -> str:
    return f"{format_plain(100 * value, decimals)} %"


def _mean(rows: _Rows, column: str) -> float:
    return float(sum(row[column] for row in rows) / len(rows))


def _range(rows: _Rows, column: str) -> str:
    values = [row[column] for row in rows]
    return f"{format_plain(100 * min(values), 1)} to {_rate(max(values))}"


def _outside(rows: _Rows, band: tuple[float, float]) -> str:
    number = sum(not band[0] <= row["rate"] <= band[1] for row in rows)
    return "all inside the goal" if not number else f"{number} of {len(rows)} rows outside the goal"
