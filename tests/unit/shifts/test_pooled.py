"""Rows of `estimates` and `seeds`: what a pair of models gets for one seed, the crossed estimate for several, shares, Holm, and what is missing."""

from pathlib import Path

import numpy as np
import pytest

from lmdissect.formats.shift_tables import read_shift_tables
from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts import holm
from lmdissect.shifts.panel import Panel, read_panels
from lmdissect.shifts.pooled import point_rows, seed_rows
from lmdissect.shifts.seeds import estimate_crossed
from study_runs import CONFIG, save_run

RNG = np.random.default_rng(5)
VARIANTS = {"original": 0.5, "casual": 0.2, "rap": 0.45, "paraphrase": 0.4}
NOT_HERE = {"experiment", "point", "probes", "fields"}


def _gains(seed: int, num_documents: int = 20, scale: float = 1.0) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    documents = rng.normal(0, 0.1, num_documents)
    return {name: (scale * gain + documents + rng.normal(0, 0.05, num_documents)).tolist() for name, gain in VARIANTS.items()}


def _panel(tmp_path: Path, num_seeds: int, scale: float = 1.0) -> Panel:
    (panel,), gaps = read_panels([save_run(tmp_path, _gains(seed, scale=scale), seed=seed) for seed in range(num_seeds)])
    assert gaps == []
    return panel


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return row["statistic"], row["variant"], row["reference"], row["normalization"]


def test_one_seed_has_the_rows_of_its_run(tmp_path: Path) -> None:
    """The same numbers to the last draw: documents, columns and seeds of the draws are the same."""
    panel = _panel(tmp_path, 1)
    rows, gaps = point_rows(panel, CONFIG)
    tables = read_shift_tables(panel.runs[0].shift_folder)[1]
    found = {_key(row): row for row in rows}
    assert len(found) == len(rows) == len(tables["shifts"]) + len(tables["gains"])
    for row in tables["shifts"]:
        mine = found["shift", row["variant"], row["reference"], row["normalization"]]
        for name in ("estimate", "ci_low", "ci_high", "p_value", "p_holm", "share", "share_ci_low", "share_ci_high"):
            assert mine[name] == pytest.approx(row[name], abs=1e-9), name
        assert (mine["ci_method"], mine["num_documents"], mine["num_seeds"], mine["df"]) == (row["ci_method"], 20, 1, None)
    for row in tables["gains"]:
        mine = found["gain", row["variant"], None, row["normalization"]]
        assert (mine["estimate"], mine["ci_low"], mine["ci_high"]) == pytest.approx((row["estimate"], row["ci_low"], row["ci_high"]), abs=1e-9)
    assert gaps == []


def test_rows_hold_every_column_of_the_table(tmp_path: Path) -> None:
    panel = _panel(tmp_path, 2)
    rows, _ = point_rows(panel, CONFIG)
    assert {frozenset(row) for row in rows} == {frozenset(set(SCHEMAS["estimates"].names) - NOT_HERE)}
    assert {frozenset(row) for row in seed_rows(panel, CONFIG)} == {frozenset(set(SCHEMAS["seeds"].names) - NOT_HERE)}


def test_several_seeds_are_crossed_with_documents(tmp_path: Path) -> None:
    panel = _panel(tmp_path, 3)
    found = {_key(row): row for row in point_rows(panel, CONFIG)[0]}
    row = found["shift", "casual", "original", "token"]
    expected = estimate_crossed(panel.gain["token"]["original"] - panel.gain["token"]["casual"], CONFIG)
    assert {name: row[name] for name in expected.to_row()} == expected.to_row()
    gain = panel.gain["token"]["original"].mean()
    assert row["share"] == pytest.approx(row["estimate"] / gain)
    assert row["share_ci_low"] < row["share"] < row["share_ci_high"]
    assert row["share_ci_high"] - row["share_ci_low"] < 2 * (row["ci_high"] - row["ci_low"]) / gain
    assert found["gain", "original", None, "token"]["share"] is None


def test_holm_is_over_the_variants_of_one_reference_and_normalization(tmp_path: Path) -> None:
    rows, _ = point_rows(_panel(tmp_path, 2), CONFIG)
    family = [row for row in rows if (row["statistic"], row["reference"], row["normalization"]) == ("shift", "original", "token")]
    assert [row["variant"] for row in family] == ["casual", "rap", "paraphrase"]
    assert [row["p_holm"] for row in family] == holm([row["p_value"] for row in family])


def test_the_row_to_read_first_is_marked(tmp_path: Path) -> None:
    rows, _ = point_rows(_panel(tmp_path, 1), CONFIG)
    assert {(row["variant"], row["reference"]) for row in rows if row["statistic"] == "shift" and row["is_headline"]} == {
        ("casual", "control"),
        ("rap", "control"),
        ("paraphrase", "original"),
    }


def test_every_seed_has_rows_of_its_own(tmp_path: Path) -> None:
    panel = _panel(tmp_path, 2)
    rows = seed_rows(panel, CONFIG)
    assert [row["seed"] for row in rows] == sorted(row["seed"] for row in rows)
    for number, seed in enumerate(panel.seeds):
        tables = read_shift_tables(panel.runs[number].shift_folder)[1]
        own = {_key(row): row for row in rows if row["seed"] == seed}
        for row in tables["shifts"]:
            mine = own["shift", row["variant"], row["reference"], row["normalization"]]
            assert (mine["estimate"], mine["ci_low"], mine["ci_high"]) == pytest.approx((row["estimate"], row["ci_low"], row["ci_high"]), abs=1e-9)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_no_share_of_a_gain_that_cannot_be_told_from_zero(tmp_path: Path, num_seeds: int) -> None:
    rows, gaps = point_rows(_panel(tmp_path, num_seeds, scale=0.0), CONFIG)
    assert {row["share"] for row in rows} == {row["share_ci_low"] for row in rows} == {None}
    assert len(gaps) == len([row for row in rows if row["statistic"] == "shift"])
    assert all("covers 0, and a share of it has no meaning" in gap.reason and gap.table == "estimates" for gap in gaps)


def test_one_document_only_is_listed_not_estimated(tmp_path: Path) -> None:
    (panel,), _ = read_panels([save_run(tmp_path, {name: [gain] for name, gain in VARIANTS.items()})])
    rows, gaps = point_rows(panel, CONFIG)
    assert rows == seed_rows(panel, CONFIG) == []
    assert len(gaps) == 3 * (4 + 5)
    assert "1 document with the texts whole under every seed, 2 are needed" in gaps[0].reason


def test_constant_scores_are_estimated_without_a_spread(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, {name: [0.25] * 8 for name in VARIANTS}, seed=seed) for seed in range(2)]
    (panel,), _ = read_panels(runs)
    rows, _ = point_rows(panel, CONFIG)
    assert {row["ci_method"] for row in rows if row["normalization"] == "token"} == {"none (all values are equal)"}
    assert {(row["estimate"], row["p_value"]) for row in rows if (row["statistic"], row["normalization"]) == ("shift", "token")} == {(0.0, 1.0)}
