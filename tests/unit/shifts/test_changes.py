"""The change of a shift along a curve, document by document, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lmdissect.formats.study_tables import OVER_DOCUMENTS, OVER_RUNS, SCHEMAS
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.changes import change_rows
from lmdissect.shifts.curves import find_curves
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.seeds import estimate_crossed
from study_panels import make_panel

CONFIG = ShiftConfig(num_draws=1000)
SIZE, RANK = "corpus.size", "finetune.lora.rank"


def _point(x: float | None, shift_SD: Floats, axis: str = SIZE) -> Panel:
    return make_panel({axis: x}, {"original": shift_SD.tolist(), "casual": np.zeros(shift_SD.shape).tolist()})


def _documents(num_seeds: int = 3, num_documents: int = 40, seed: int = 0) -> Floats:
    """Shifts of documents that differ much, which every point of a curve shares, and a little noise of its own."""
    rng = np.random.default_rng(seed)
    values: Floats = rng.normal(size=num_documents) + 0.01 * rng.normal(size=(num_seeds, num_documents))
    return values


def test_the_change_is_the_mean_of_differences_with_their_interval() -> None:
    first, last = _documents(seed=0), _documents(seed=0) + 0.1 + 0.02 * np.random.default_rng(5).normal(size=(3, 40))
    middle = _documents(seed=9)
    (row,), gaps = change_rows(find_curves([_point(10, first), _point(100, middle), _point(1000, last)]), CONFIG)
    expected = estimate_crossed(last - first, CONFIG)
    assert gaps == []
    assert set(row) == set(SCHEMAS["changes"].names)
    assert (row["first_x"], row["last_x"], row["variant"], row["factor"], row["reference"]) == (10.0, 1000.0, "casual", "style", "original")
    assert (row["num_seeds"], row["num_documents"], row["normalization"], row["interval_over"]) == (3, 40, "token", OVER_RUNS)
    assert (row["estimate"], row["ci_low"], row["ci_high"], row["p_value"]) == pytest.approx(
        (expected.estimate, expected.ci_low, expected.ci_high, expected.p_value)
    )


def test_a_change_is_seen_where_the_intervals_of_the_ends_overlap() -> None:
    first = _documents()
    last = first + 0.1
    ends = [estimate_crossed(values, CONFIG) for values in (first, last)]
    assert ends[0].ci_high > ends[1].ci_low, "documents differ by far more than the shift changes"
    (row,), _ = change_rows(find_curves([_point(10, first), _point(100, last + 0.001 * _documents(seed=3))]), CONFIG)
    assert row["ci_low"] > 0.0
    assert row["p_holm"] < 0.05


def test_runs_of_a_seed_are_held_together() -> None:
    """A run that lies high does so at both ends: that is no change."""
    high = np.array([[0.3], [0.0], [-0.3]])
    first, last = _documents() + high, _documents(seed=1) * 0.01 + _documents() + high + 0.1
    (row,), _ = change_rows(find_curves([_point(10, first), _point(100, last)]), CONFIG)
    assert row["ci_high"] - row["ci_low"] < 0.05


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_without_common_seeds_the_interval_is_over_documents(num_seeds: int) -> None:
    first, last = _documents(num_seeds), _documents(num_seeds, seed=2)
    points = [_point(10, first), _point(100, last)]
    points[1] = replace(points[1], seeds=tuple(seed + 10 for seed in points[1].seeds))
    (row,), gaps = change_rows(find_curves(points), CONFIG)
    expected = estimate_crossed((last.mean(axis=0) - first.mean(axis=0))[None], CONFIG)
    assert (row["interval_over"], row["num_seeds"], gaps) == (OVER_DOCUMENTS, num_seeds, [])
    assert (row["estimate"], row["ci_low"]) == pytest.approx((expected.estimate, expected.ci_low))


def test_p_is_adjusted_over_the_variants_of_a_curve() -> None:
    rng = np.random.default_rng(4)
    gains = [
        {"original": np.zeros((1, 30)), **{name: -size * level + 0.1 * rng.normal(size=(1, 30)) for name, size in (("casual", 0.2), ("rap", 0.02))}}
        for level in (0.1, 1.0)
    ]
    curves = find_curves(
        [make_panel({SIZE: x}, {name: values.tolist() for name, values in gain.items()}) for x, gain in zip((10, 100), gains, strict=True)]
    )
    rows, _ = change_rows(curves, CONFIG)
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows])
    assert rows[0]["p_holm"] == pytest.approx(2 * rows[0]["p_value"])


def test_full_finetuning_is_no_end_of_a_curve_over_ranks() -> None:
    first = _documents()
    points = [_point(1, first, RANK), _point(16, first + 0.1 + 0.01 * _documents(seed=1), RANK), _point(None, first + 5.0, RANK)]
    (row,), _ = change_rows(find_curves(points), CONFIG)
    assert (row["first_x"], row["last_x"]) == (1.0, 16.0)
    assert row["estimate"] == pytest.approx(0.1, abs=0.01)


def test_points_without_the_variant_are_passed_over_and_one_alone_is_named() -> None:
    values = _documents()
    bare = make_panel({SIZE: 1}, {"original": values.tolist()})
    lone = make_panel({SIZE: 1}, {"original": values.tolist(), "rap": (values * 0.0).tolist()})
    late = [_point(10, values), _point(100, values + 0.1)]
    for first in (bare, lone):
        (row,), gaps = change_rows(find_curves([first, *late]), CONFIG)
        assert (row["variant"], row["first_x"], row["last_x"]) == ("casual", 10.0, 100.0)
        assert [(gap.table, gap.point, gap.variant) for gap in gaps] == ([("changes", "along corpus.size", "rap")] if first is lone else [])


def test_a_variant_that_all_weights_alone_lack_has_its_change() -> None:
    shifts = _documents()
    ends = [
        make_panel({RANK: rank}, {"original": (shifts + level).tolist(), "casual": (shifts * 0.0).tolist()}) for rank, level in ((1, 0.0), (16, 0.1))
    ]
    full = make_panel({RANK: None}, {"original": shifts.tolist()})
    (row,), gaps = change_rows(find_curves([*ends, full]), CONFIG)
    assert (row["variant"], row["factor"], row["last_x"]) == ("casual", "style", 16.0)
    assert row["estimate"] == pytest.approx(0.1)
    assert gaps == []


def test_documents_and_runs_that_an_end_lacks_are_counted() -> None:
    first, last = _point(10, _documents()), _point(100, _documents(seed=1))
    first.gain["token"]["casual"][:, 5] = np.nan
    (row,), (gap,) = change_rows(find_curves([first, last]), CONFIG)
    assert row["num_documents"] == 39
    assert gap.reason.endswith("1 document that not every point has: left out")
    last.gain["token"]["casual"][:, np.arange(40) != 5] = np.nan
    rows, (gap,) = change_rows(find_curves([first, last]), CONFIG)
    assert rows == []
    assert gap.reason.endswith("common to all points: 0 documents; at least 2 are needed")
