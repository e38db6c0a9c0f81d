"""Where half of the last shift is reached, by hand."""

import numpy as np
import pytest

from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.curves import find_curves
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.tempo import half_points, tempo_rows
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
    assert "1 documents that not every point has are left out" in gap.reason
