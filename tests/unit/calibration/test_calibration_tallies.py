"""Trials counted, goals judged: hand-made trials with known counts."""

import numpy as np
import pyarrow as pa
import pytest

from lmdissect.calibration import TALLIES, CalibrationConfig, check_goals, list_jobs, tally_trials
from lmdissect.calibration.jobs import PARTS
from lmdissect.calibration.tallies import rate_interval
from lmdissect.formats.calibration_tables import SCHEMAS

CONFIG = CalibrationConfig()
FULL = CONFIG


def trial(**values: object) -> dict[str, object]:
    row: dict[str, object] = {
        "part": "oracle",
        "plant": "topic",
        "size": None,
        "slips": 0.0,
        "number": 0,
        "variant": "nontopic",
        "factor": "topic",
        "reference": "original",
        "normalization": "token",
        "num_documents": 100,
        "estimate": 0.1,
        "ci_low": 0.05,
        "ci_high": 0.15,
        "p_value": 0.01,
        "p_holm": 0.04,
        "truth": 0.1,
        "world_shift": 0.1,
        "truth_se": None,
    }
    return {**row, **values}


def tally(*rows: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    return tally_trials(pa.Table.from_pylist(list(rows), schema=SCHEMAS["trials"]), CONFIG)


def test_recovery_is_bias_with_its_standard_error() -> None:
    (row,) = tally(*(trial(estimate=value) for value in (0.09, 0.11, 0.13)))["recovery"]
    assert row["bias"] == pytest.approx(0.01)
    assert row["bias_se"] == pytest.approx(0.02 / np.sqrt(3))
    assert row["bias_share"] == pytest.approx(0.1)
    assert row["num_trials"] == 3


def test_coverage_counts_misses_on_both_sides() -> None:
    rows = [trial()] * 6 + [trial(ci_low=0.0, ci_high=0.09)] + [trial(ci_low=0.11, ci_high=0.2)] * 3
    (row,) = tally(*rows)["coverage"]
    assert (row["rate"], row["below"], row["above"]) == (pytest.approx(0.6), pytest.approx(0.1), pytest.approx(0.3))
    assert row["num_exact"] == 0


def test_a_row_without_any_width_has_no_coverage_but_is_counted_in_leak() -> None:
    tables = tally(*[trial(truth=0.0, estimate=0.0, ci_low=0.0, ci_high=0.0, p_value=1.0, p_holm=1.0)] * 4)
    assert tables["coverage"] == []
    (row,) = tables["leak"]
    assert (row["rate"], row["num_exact"]) == (0.0, 4)


def test_leak_takes_rows_without_truth_alone_and_counts_both_p_values() -> None:
    tables = tally(
        trial(),
        trial(),
        *[trial(variant="restyled", factor="style", truth=0.0)] * 2,
        trial(variant="restyled", factor="style", truth=0.0, p_value=0.5, p_holm=0.9),
    )
    (row,) = tables["leak"]
    assert row["variant"] == "restyled"
    assert (row["rate"], row["rate_holm"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_power_says_how_many_documents_the_formula_asks_for() -> None:
    rows = [trial(part="power", plant="topic", size="small", estimate=value, truth=0.1, p_value=p) for value, p in ((0.08, 0.2), (0.12, 0.01))]
    (row,) = tally(*rows)["power"]
    spread = np.std([0.08, 0.12], ddof=1) * 10
    assert row["rate"] == 0.5
    assert row["document_sd"] == pytest.approx(spread)
    assert row["needed_documents"] == pytest.approx(7.849 * (spread / 0.1) ** 2)


def test_slips_stand_beside_what_was_planted() -> None:
    rows = [trial(), trial(), *[trial(part="slips", slips=0.2, variant="restyled", factor="style", truth=0.01, estimate=0.012)] * 2]
    (row,) = tally(*rows)["slips"]
    assert (row["planted"], row["truth"], row["mean_estimate"]) == (0.1, 0.01, pytest.approx(0.012))


def test_trained_share_is_of_the_worlds_shift() -> None:
    (row,) = tally(*(trial(part="trained", truth=value, world_shift=0.2) for value in (0.08, 0.12)))["trained"]
    assert row["learned"] == pytest.approx(0.5)
    assert row["sd_truth"] == pytest.approx(np.std([0.08, 0.12], ddof=1))


def test_every_tally_has_the_columns_of_its_table() -> None:
    rows = [trial(part=part, size="small" if part == "power" else None, truth=truth) for part in PARTS for truth in (0.1, 0.1)]
    rows += [trial(variant="restyled", factor="style", truth=0.0)] * 2
    for name, content in tally(*rows).items():
        assert name in TALLIES
        assert content
        assert pa.Table.from_pylist(content, schema=SCHEMAS[name]).num_rows == len(content)
        assert set(content[0]) == set(SCHEMAS[name].names)


@pytest.mark.parametrize(("count", "number", "low", "high"), [(0, 10, 0.0, 0.30850), (10, 10, 0.69150, 1.0), (5, 10, 0.18709, 0.81291)])
def test_rate_interval_is_clopper_pearson(count: int, number: int, low: float, high: float) -> None:
    """Table values of the binomial with 10 trials."""
    assert rate_interval(count, number) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def tables_with(*, bias: float = 0.001, coverage: float = 0.95, leak: float = 0.05, trained: float = 0.95) -> dict[str, list[dict[str, object]]]:
    label = {"plant": "topic", "variant": "nontopic", "factor": "topic", "reference": "original", "normalization": "token", "num_trials": 2000}
    rate = {"ci_low": 0.0, "ci_high": 1.0}
    return {
        "recovery": [{**label, "bias_share": bias, "bias_share_se": 0.001}],
        "coverage": [{**label, "rate": 0.95, **rate}, {**label, "rate": coverage, **rate}],
        "leak": [{**label, "rate": leak, "num_exact": 0, **rate}, {**label, "plant": "nothing", "rate": 0.0, "num_exact": 2000, **rate}],
        "trained": [{**label, "rate": trained, **rate}],
    }


def verdicts(tables: dict[str, list[dict[str, object]]], config: CalibrationConfig = FULL) -> dict[str, bool | None]:
    return {row["name"]: row["is_met"] for row in check_goals(tables, config)}


def test_all_goals_can_be_met() -> None:
    assert set(verdicts(tables_with()).values()) == {True}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"bias": -0.011}, "bias"),
        ({"coverage": 0.929}, "coverage"),
        ({"coverage": 0.971}, "coverage"),
        ({"leak": 0.066}, "leak"),
        ({"leak": 0.034}, "leak"),
        ({"trained": 0.92}, "trained coverage"),
    ],
)
def test_one_bad_row_misses_its_goal_and_no_other(change: dict[str, float], missed: str) -> None:
    found = verdicts(tables_with(**change))
    assert [name for name, met in found.items() if not met] == [missed]


def test_a_missed_goal_names_the_row() -> None:
    rows = check_goals(tables_with(coverage=0.91), FULL)
    assert "nontopic against the original where topic prior was planted 91.0 %" in next(row["sentence"] for row in rows if row["name"] == "coverage")


def test_a_shift_between_equal_models_misses_the_goal() -> None:
    tables = tables_with()
    tables["leak"][1]["num_exact"] = 1999
    assert verdicts(tables)["identical models"] is False


def test_a_small_run_judges_nothing() -> None:
    assert set(verdicts(tables_with(), CalibrationConfig.quick()).values()) <= {None, False}
    assert verdicts(tables_with(bias=0.5), CalibrationConfig.quick())["bias"] is None


def test_jobs_make_the_sets_that_the_settings_ask_for() -> None:
    jobs = list_jobs(CONFIG)
    oracle = [job for job in jobs if job.part == "oracle" and job.name == "topic"]
    assert sum(job.num_sets for job in oracle) == CONFIG.num_probe_sets
    numbers = [number for job in oracle for number in range(job.first, job.first + job.num_sets)]
    assert numbers == list(range(CONFIG.num_probe_sets))
    assert sum(job.part == "trained" for job in jobs) == 6 * CONFIG.num_seeds
    assert {job.num_documents for job in jobs if job.part == "power"} == set(CONFIG.power_documents)


def test_probe_sets_have_draws_of_their_own() -> None:
    jobs = [job for job in list_jobs(CONFIG) if job.part in {"oracle", "slips"}]
    drawn = {job.rng(CONFIG, number).integers(0, 2**62) for job in jobs for number in (job.first, job.first + 1)}
    assert len(drawn) == 2 * len(jobs)
