"""Trials counted: bias, coverage, leak, power, slips, and what trained models learned.

Rates have Clopper-Pearson (1934) intervals at 95 %: with 2,000 trials a rate of 95 % is known to one point. A trial in which every document has exactly the same
value (`num_exact`) needs no interval and no test; such rows are counted apart, because they would flatter every rate.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import beta

from lmdissect.calibration.config import CalibrationConfig

__all__ = ["TALLIES", "rate_interval", "tally_trials"]

TALLIES = ("recovery", "coverage", "leak", "power", "slips", "trained")
_RATE_LEVEL = 0.95
_ROW = ("plant", "variant", "factor", "reference", "normalization", "num_documents")
_NEEDED = 7.849
"""(z_0.975 + z_0.8)^2: documents for a power of 80 % are this times the square of sd / shift."""

_Group = Mapping[str, Any]


def rate_interval(count: int, number: int) -> tuple[float, float]:
    """Clopper-Pearson interval of ``count`` out of ``number`` at 95 %.

    Source: Clopper & Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26.
    """
    tail = (1.0 - _RATE_LEVEL) / 2.0
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, number - count + 1))
    high = 1.0 if count == number else float(beta.ppf(1.0 - tail, count + 1, number - count))
    return low, high


def tally_trials(trials: pa.Table, config: CalibrationConfig) -> dict[str, list[dict[str, Any]]]:
    """All tables but `trials` and `goals`.

    Args:
        trials: The table `trials`.
        config: Level of the intervals.
    """
    tally: Mapping[str, tuple[str, Sequence[str], Callable[[_Group], dict[str, Any] | None]]] = {
        "recovery": ("oracle", _ROW, _recover),
        "coverage": ("oracle", _ROW, _cover),
        "leak": ("oracle", _ROW, lambda group: _leak(group, config)),
        "power": ("power", ("size", *_ROW), lambda group: _power(group, config)),
        "slips": ("slips", ("slips", *_ROW), lambda group: _slip(group, config)),
        "trained": ("trained", _ROW, _learn),
    }
    tables = {
        name: [
            {**label, "num_trials": len(group["estimate"]), **row}
            for label, group in _groups(trials, part, keys)
            if (row := count(group)) is not None
        ]
        for name, (part, keys, count) in tally.items()
    }
    planted = {(row["plant"], row["reference"], row["normalization"]): row for row in tables["recovery"] if _is_planted(row["plant"], row["factor"])}
    for row in tables["slips"]:
        found = planted.get((row["plant"], row["reference"], row["normalization"]))
        row["planted"] = None if found is None else found["truth"]
    return tables


def _is_planted(plant: str, factor: str) -> bool:
    return factor == {"topic": "topic", "style": "style", "new_facts": "factual"}.get(plant)


def _groups(trials: pa.Table, part: str, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], _Group]]:
    """Trials of one part that share ``keys``, in order of appearance, as arrays."""
    columns = {name: trials[name].to_pylist() for name in ("part", *keys)}
    rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, found in enumerate(columns["part"]):
        if found == part:
            rows[tuple(columns[key][index] for key in keys)].append(index)
    names = ("estimate", "ci_low", "ci_high", "p_value", "p_holm", "truth", "world_shift", "num_documents")
    values = {name: trials[name].to_numpy() for name in names}
    for label, indices in rows.items():
        yield dict(zip(keys, label, strict=True)), {name: column[indices] for name, column in values.items()}


def _exact(group: _Group) -> npt.NDArray[np.bool_]:
    """Trials whose interval has no width."""
    found: npt.NDArray[np.bool_] = group["ci_high"] - group["ci_low"] <= 1e-12 * np.maximum(1.0, np.abs(group["estimate"]))
    return found


def _rate(hits: npt.NDArray[np.bool_]) -> dict[str, Any]:
    low, high = rate_interval(int(hits.sum()), len(hits))
    return {"rate": float(hits.mean()), "ci_low": low, "ci_high": high}


def _covered(group: _Group) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (group["ci_low"] <= group["truth"]) & (group["truth"] <= group["ci_high"])
    return found


def _half_width(group: _Group) -> float:
    return float((group["ci_high"] - group["ci_low"]).mean() / 2.0)


def _recover(group: _Group) -> dict[str, Any]:
    truth, estimates = float(group["truth"][0]), group["estimate"]
    bias, error = float(estimates.mean()) - truth, float(estimates.std(ddof=1) / np.sqrt(len(estimates)))
    share = None if abs(truth) < 1e-12 else bias / abs(truth)
    share_se = None if abs(truth) < 1e-12 else error / abs(truth)
    return {"truth": truth, "mean_estimate": float(estimates.mean()), "bias": bias, "bias_se": error, "bias_share": share, "bias_share_se": share_se}


def _cover(group: _Group) -> dict[str, Any] | None:
    exact = _exact(group)
    kept = {name: values[~exact] for name, values in group.items()}
    if not len(kept["truth"]):
        return None
    return {
        "truth": float(group["truth"][0]),
        **_rate(_covered(kept)),
        "below": float((kept["ci_high"] < kept["truth"]).mean()),
        "above": float((kept["ci_low"] > kept["truth"]).mean()),
        "mean_half_width": _half_width(kept),
        "num_exact": int(exact.sum()),
    }


def _leak(group: _Group, config: CalibrationConfig) -> dict[str, Any] | None:
    if abs(float(group["truth"][0])) > 1e-12:
        return None
    alpha = 1.0 - config.level
    return {**_rate(group["p_value"] < alpha), "rate_holm": float((group["p_holm"] < alpha).mean()), "num_exact": int(_exact(group).sum())}


def _power(group: _Group, config: CalibrationConfig) -> dict[str, Any]:
    truth = float(group["truth"][0])
    num_documents = int(group["num_documents"][0])
    spread = float(group["estimate"].std(ddof=1) * np.sqrt(num_documents))
    return {
        "truth": truth,
        "document_sd": spread,
        "needed_documents": _NEEDED * (spread / truth) ** 2,
        **_rate(group["p_value"] < 1.0 - config.level),
        "coverage": float(_covered(group).mean()),
        "mean_half_width": _half_width(group),
    }


def _slip(group: _Group, config: CalibrationConfig) -> dict[str, Any]:
    return {
        "truth": float(group["truth"][0]),
        "mean_estimate": float(group["estimate"].mean()),
        **_rate(group["p_value"] < 1.0 - config.level),
        "coverage": float(_covered(group).mean()),
    }


def _learn(group: _Group) -> dict[str, Any]:
    planted = float(group["world_shift"][0])
    truths = group["truth"]
    return {
        "world_shift": planted,
        "mean_truth": float(truths.mean()),
        "sd_truth": float(truths.std(ddof=1)) if len(truths) > 1 else None,
        "learned": None if abs(planted) < 1e-12 else float(truths.mean()) / planted,
        "mean_estimate": float(group["estimate"].mean()),
        **_rate(_covered(group)),
    }
