"""The smallest rank that reaches a share of full finetuning's shift, by hand."""

import numpy as np
import pytest

from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.capacity import capacity_rows, smallest_ranks
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


def _points(levels: dict[int | None, float], spread: float = 0.1) -> list[Panel]:
    rng = np.random.default_rng(0)
    return [
        make_panel({RANK: rank}, {"original": (level + spread * rng.normal(size=(2, 80))).tolist(), "casual": np.zeros((2, 80)).tolist()})
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
    (half, _), _ = capacity_rows(find_curves(_points({1: 0.1, 4: 0.5, 16: 0.95, None: 1.0})), CONFIG)
    assert (half["ci_low"], half["ci_high"]) == (4.0, 16.0)


def test_a_rank_that_is_not_reached_is_a_reason() -> None:
    (half,), (gap,) = capacity_rows(find_curves(_points({1: 0.1, 4: 0.7, None: 1.0})), CONFIG)
    assert half["share_of_full"] == 0.5
    assert (gap.table, gap.variant) == ("capacity", "casual")
    assert "no measured rank up to 4 reaches 90% of full finetuning's shift" in gap.reason


def test_an_open_interval_is_left_out_and_listed() -> None:
    (half,), gaps = capacity_rows(find_curves(_points({1: 0.1, 4: 0.55, None: 1.0}, spread=0.3)), CONFIG)
    assert (half["rank"], half["ci_low"], half["ci_high"]) == (4.0, None, None)
    assert any("from 4 to above 4, the largest measured" in gap.reason for gap in gaps)


@pytest.mark.parametrize(
    ("levels", "named"),
    [({1: 0.1, 4: 0.7, None: 0.0}, "covers 0: a share of it has no meaning"), ({1: 0.1, 4: 0.7}, "there is no point with all weights")],
)
def test_no_share_of_nothing(levels: dict[int | None, float], named: str) -> None:
    rows, (gap,) = capacity_rows(find_curves(_points(levels, spread=1.0)), CONFIG)
    assert rows == []
    assert named in gap.reason
