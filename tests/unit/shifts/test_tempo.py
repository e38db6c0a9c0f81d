"""Where half of the last shift is reached, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.curves import find_curves
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.seeds import estimate_crossed
from lmdissect.shifts.tempo import half_interval, half_points, tempo_rows
from study_panels import make_panel

CONFIG = ShiftConfig(num_draws=1000)
SIZE = "corpus.size"


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        pytest.param([0.2, 0.4, 0.6, 1.0], 10**1.5, id="halfway between 10 and 100 on the log axis is 0.4 -> 0.6"),
        pytest.param([0.0, 0.0, 0.5, 1.0], 100.0, id="at a measured point"),
        pytest.param([0.8, 0.9, 1.0, 1.0], 0.625, id="before the first: linear from 0 at x = 0"),
        pytest.param([-0.2, -0.4, -0.6, -1.0], 10**1.5, id="falling"),
        pytest.param([0.0, 0.75, 0.1, 1.0], 10 ** (2 / 3), id="the first time counts"),
        pytest.param([-1.0, 0.0, 0.0, 1.0], 10**2.5, id="the other way first"),
    ],
)
def test_half_points_by_hand(shifts: list[float], expected: float) -> None:
    found = half_points(np.array([1.0, 10.0, 100.0, 1000.0]), np.array([shifts, shifts]))
    assert found == pytest.approx([expected, expected])


def _curve(levels: dict[int, float], *, num_seeds: int = 1, spread: float = 0.1, num_documents: int = 60) -> list[Panel]:
    """Points whose shift is the level times a document's own factor: all of them move together."""
    rng = np.random.default_rng(0)
    factor = 1.0 + spread * rng.normal(size=num_documents)
    noise = 0.02 * rng.normal(size=(num_seeds, num_documents))
    return [
        make_panel({SIZE: size}, {"original": (level * factor + noise).tolist(), "casual": np.zeros((num_seeds, num_documents)).tolist()})
        for size, level in levels.items()
    ]


def test_a_row_with_its_interval() -> None:
    (row,), gaps = tempo_rows(find_curves(_curve({10: 0.3, 100: 0.6, 1000: 0.9}, num_seeds=2)), CONFIG)
    assert gaps == []
    assert set(row) == set(SCHEMAS["tempo"].names)
    assert (row["axis"], row["variant"], row["reference"], row["num_seeds"], row["num_documents"], row["last_x"]) == (
        SIZE,
        "casual",
        "original",
        2,
        60,
        1000,
    )
    assert (row["normalization"], row["interval_over"]) == ("token", "documents and training runs")
    assert row["half_x"] == pytest.approx(10**1.5, rel=0.05)
    assert row["ci_low"] < row["half_x"] < row["ci_high"]


def test_points_share_their_draws() -> None:
    """Every document's curve has the same shape, so whatever documents are drawn, half is reached at the same x."""
    panels = _curve({10: 0.3, 100: 0.6, 1000: 0.9}, spread=0.5)
    (row,), _ = tempo_rows(find_curves(panels), CONFIG)
    exact = [
        make_panel(panel.fields, {"original": [[level * f for f in (1.0, 5.0, 0.2, 2.0)]], "casual": [[0.0] * 4]})
        for panel, level in zip(panels, (0.3, 0.6, 0.9), strict=True)
    ]
    (same,), _ = tempo_rows(find_curves(exact), CONFIG)
    assert (same["ci_low"], same["half_x"], same["ci_high"]) == pytest.approx((10**1.5,) * 3)
    assert row["ci_high"] / row["ci_low"] < 1.2


def _straying(rng: np.random.Generator, num_seeds: int, spread: float = 0.1) -> list[Panel]:
    """Half of the last shift is there at 100; every training run strays from that at every point."""
    documents = 0.02 * rng.normal(size=60)
    gains = [level + spread * rng.normal(size=(num_seeds, 1)) + documents for level in (0.3, 0.5, 1.0)]
    return [make_panel({SIZE: 10**n}, {"original": gain.tolist(), "casual": np.zeros(gain.shape).tolist()}) for n, gain in enumerate(gains, 1)]


def test_an_interval_over_training_runs_holds_what_one_over_documents_misses() -> None:
    rng = np.random.default_rng(0)
    held = {"documents": 0, "documents and training runs": 0}
    for _ in range(25):
        panels = _straying(rng, 3)
        apart = [replace(panel, seeds=tuple(3 * number + seed for seed in panel.seeds)) for number, panel in enumerate(panels)]
        for points in (panels, apart):
            (row,), gaps = tempo_rows(find_curves(points), CONFIG)
            held[row["interval_over"]] += row["ci_low"] <= 100 <= row["ci_high"]
            assert (gaps, row["num_seeds"]) == ([], 3)
    assert held["documents"] < 10
    assert held["documents and training runs"] >= 22


def test_the_interval_ends_where_the_margin_can_be_told_from_0() -> None:
    """Two runs, one above the other by as much at every point: at the ends of the interval the margin's own interval touches 0."""
    rng = np.random.default_rng(1)
    values = [level + 0.05 * rng.normal(size=(3, 1)) + 0.05 * rng.normal(size=(3, 40)) for level in (0.2, 0.4, 0.7, 1.0)]
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    low, high = half_interval(x, values, CONFIG)
    for end, bound in ((low, "ci_high"), (high, "ci_low")):
        place = np.log10(end)
        before, after = values[int(place)], values[int(place) + 1]
        part = place - int(place)
        margin = estimate_crossed((1 - part) * before + part * after - 0.5 * values[-1], CONFIG)
        assert getattr(margin, bound) == pytest.approx(0.0, abs=1e-4)
    assert half_interval(x, [-shift_SD for shift_SD in values], CONFIG) == pytest.approx((low, high))
    before_the_first, _ = half_interval(x, [0.9 * values[-1], values[-1], values[-1], values[-1]], CONFIG)
    assert 0.0 < before_the_first < 1.0


def test_runs_of_seeds_that_a_point_lacks_are_counted() -> None:
    panels = _straying(np.random.default_rng(2), 4, spread=0.01)
    fewer = replace(
        panels[0], seeds=(0, 1, 2), runs=panels[0].runs[:3], gain={"token": {name: gain[:3] for name, gain in panels[0].gain["token"].items()}}
    )
    (row,), (gap,) = tempo_rows(find_curves([fewer, *panels[1:]]), CONFIG)
    assert (row["num_seeds"], row["interval_over"]) == (3, "documents and training runs")
    assert gap.reason.endswith("2 training runs that not every point has: left out")


def test_a_curve_stands_in_one_unit() -> None:
    """Where one point's tokenizers differ, all points are taken per byte."""
    panels = _curve({10: 0.3, 100: 0.6})
    bytes_too = [replace(panel, normalizations=("token", "byte"), gain={**panel.gain, "byte": panel.gain["token"]}) for panel in panels]
    bytes_only = replace(bytes_too[0], normalizations=("byte",), gain={"byte": panels[0].gain["token"]})
    for points, unit in ((bytes_too, "token"), ([bytes_only, bytes_too[1]], "byte")):
        (row,), _ = tempo_rows(find_curves(points), CONFIG)
        assert row["normalization"] == unit


def test_no_number_where_the_last_shift_covers_zero() -> None:
    rng = np.random.default_rng(1)
    panels = [make_panel({SIZE: size}, {"original": rng.normal(0, 1, (1, 40)).tolist(), "casual": np.zeros((1, 40)).tolist()}) for size in (10, 100)]
    rows, (gap,) = tempo_rows(find_curves(panels), CONFIG)
    assert rows == []
    assert (gap.table, gap.point, gap.variant) == ("tempo", "along corpus.size", "casual")
    assert "covers 0: half of it is reached nowhere" in gap.reason


def test_other_axes_have_no_tempo() -> None:
    panels = [make_panel({"finetune.lora.rank": rank}) for rank in (1, 4)]
    assert tempo_rows(find_curves(panels), CONFIG) == ([], [])


def test_documents_that_a_point_lacks_are_counted() -> None:
    first, last = _curve({10: 0.3, 100: 0.6})
    first.gain["token"]["casual"][:, 5] = np.nan
    (row,), (gap,) = tempo_rows(find_curves([first, last]), CONFIG)
    assert row["num_documents"] == 59
    assert "1 document that not every point has: left out" in gap.reason
