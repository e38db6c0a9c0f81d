"""The smallest rank that reaches a share of full finetuning's shift, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.capacity import capacity_rows, rank_interval, smallest_ranks
from lmdissect.shifts.curves import find_curves
from lmdissect.shifts.panel import Panel
from study_panels import make_panel

CONFIG = ShiftConfig(num_draws=1000)
RANK = "finetune.lora.rank"


@pytest.mark.parametrize(
    ("shifts", "share", "expected"),
    [
        ([0.2, 0.5, 0.8, 1.0], 0.5, 4.0),
        ([0.2, 0.5, 0.8, 1.0], 0.9, np.inf),
        ([-0.2, -0.95, -0.8, -1.0], 0.9, 4.0),  # the first that reaches it
        ([0.6, 0.5, 0.8, -1.0], 0.5, np.inf),  # the other way is not reached
        ([0.0, 0.0, 0.0, 0.0], 0.5, np.inf),
    ],
)
def test_smallest_ranks_by_hand(shifts: list[float], share: float, expected: float) -> None:
    assert smallest_ranks(np.array([1.0, 4.0, 16.0]), np.array([shifts, shifts]), share).tolist() == [expected] * 2


def _points(levels: dict[int | None, float], spread: float = 0.1, *, num_seeds: int = 2, stray: float = 0.0) -> list[Panel]:
    """Shifts at every rank: documents that differ by ``spread``, and runs that stray by ``stray`` as a whole."""
    rng = np.random.default_rng(0)
    shape = (num_seeds, 80)
    runs = stray * np.linspace(-1.0, 1.0, num_seeds)[:, None] if stray else 0.0
    return [
        make_panel({RANK: rank}, {"original": (level + runs + spread * rng.normal(size=shape)).tolist(), "casual": np.zeros(shape).tolist()})
        for rank, level in levels.items()
    ]


def test_rows_with_their_intervals() -> None:
    (half, most), gaps = capacity_rows(find_curves(_points({1: 0.1, 4: 0.7, 16: 0.95, None: 1.0})), CONFIG)
    assert gaps == []
    assert set(half) == set(SCHEMAS["capacity"].names)
    assert (half["share_of_full"], half["rank"], half["ci_low"], half["ci_high"]) == (0.5, 4.0, 4.0, 4.0)
    assert (most["share_of_full"], most["rank"], most["num_seeds"], most["num_documents"]) == (0.9, 16.0, 2, 80)
    assert most["full_estimate"] == pytest.approx(1.0, abs=0.05)


def test_an_uncertain_rank_has_a_wide_interval() -> None:
    (half, _), _ = capacity_rows(find_curves(_points({1: 0.1, 4: 0.5, 16: 0.95, None: 1.0}, num_seeds=1)), CONFIG)
    assert (half["ci_low"], half["ci_high"], half["interval_over"]) == (4.0, 16.0, "documents")


def test_runs_that_stray_make_a_rank_uncertain_that_documents_alone_call_sure() -> None:
    levels = {1: 0.3, 4: 0.6, 16: 0.95, None: 1.0}
    points = _points(levels, num_seeds=3, stray=0.3)
    (half, _), _ = capacity_rows(find_curves(points), CONFIG)
    assert (half["rank"], half["ci_low"], half["ci_high"], half["interval_over"]) == (4.0, 1.0, 16.0, "documents and training runs")
    other_seeds = replace(points[0], seeds=(7, 8, 9))
    (half, _), _ = capacity_rows(find_curves([other_seeds, *points[1:]]), CONFIG)
    assert (half["ci_low"], half["ci_high"], half["interval_over"]) == (4.0, 4.0, "documents")


def test_a_rank_interval_is_where_the_margin_cannot_be_told_from_0() -> None:
    """Margins to half of full finetuning's shift: at rank 1 below 0 in every run and document, at 4 on both sides, at 16 above."""
    full, tie = np.full((2, 4), 1.0), np.array([[0.4, 0.6, 0.4, 0.6], [0.6, 0.4, 0.5, 0.7]])
    values = [0.3 + 0.1 * tie, tie, 0.8 + 0.1 * tie, full]
    assert rank_interval(np.array([1.0, 4.0, 16.0]), values, 0.5, CONFIG) == (4.0, 16.0)
    assert rank_interval(np.array([1.0, 4.0]), [values[0], tie, full], 0.5, CONFIG) == (4.0, np.inf)
    assert rank_interval(np.array([1.0, 4.0, 16.0]), [-shift_SD for shift_SD in values], 0.5, CONFIG) == (4.0, 16.0)


def test_a_share_that_no_rank_reaches_has_a_row_without_a_rank() -> None:
    (half, most), gaps = capacity_rows(find_curves(_points({1: 0.1, 4: 0.7, None: 1.0})), CONFIG)
    assert gaps == []
    assert (half["share_of_full"], half["rank"]) == (0.5, 4.0)
    assert [most[name] for name in ("share_of_full", "largest_rank", "rank", "ci_low", "ci_high")] == [0.9, 4.0, None, None, None]


def test_an_interval_may_hold_ranks_above_the_largest_measured() -> None:
    (half, most), _ = capacity_rows(find_curves(_points({1: 0.1, 4: 0.55, None: 1.0}, spread=0.3, num_seeds=1)), CONFIG)
    assert [half[name] for name in ("largest_rank", "rank", "ci_low", "ci_high")] == [4.0, 4.0, 4.0, None]
    assert (most["rank"], most["ci_high"]) == (None, None)


@pytest.mark.parametrize(
    ("levels", "named"),
    [({1: 0.1, 4: 0.7, None: 0.0}, "covers 0: a share of it has no meaning"), ({1: 0.1, 4: 0.7}, "there is no point with all weights")],
)
def test_no_share_of_nothing(levels: dict[int | None, float], named: str) -> None:
    rows, (gap,) = capacity_rows(find_curves(_points(levels, spread=1.0)), CONFIG)
    assert rows == []
    assert named in gap.reason
