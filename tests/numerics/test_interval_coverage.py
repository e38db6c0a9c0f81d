"""Intervals cover what they say, in simulated studies whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest

from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.blocks import BLOCKED_FROM, blocked_means
from lmdissect.shifts.capacity import rank_interval
from lmdissect.shifts.estimate import estimate_means, resample_means
from lmdissect.shifts.position_seeds import linearised_ratio
from lmdissect.shifts.seeds import estimate_crossed
from lmdissect.shifts.tempo import half_interval, half_points

CONFIG = ShiftConfig(num_draws=1000)
NUM_STUDIES = 1500
NOISE = 3.5 * np.sqrt(0.95 * 0.05 / NUM_STUDIES)


def crossed_study(rng: np.random.Generator, num_seeds: int, num_documents: int, added: float) -> np.ndarray:
    """A study with v_D = 1 and v_E = 1/4, whose seeds add ``added`` times as much variance to the mean as its documents; the true mean is 0."""
    of_seeds = np.sqrt(added * num_seeds / num_documents)
    noise = 0.5 * rng.normal(size=(num_seeds, num_documents))
    return rng.normal(size=num_documents) + of_seeds * rng.normal(size=(num_seeds, 1)) + noise


@pytest.mark.parametrize(("num_seeds", "added"), [(2, 0.0), (5, 0.0), (5, 1.0), (10, 1.0), (10, 10.0)])
def test_an_interval_over_documents_and_seeds_covers(num_seeds: int, added: float) -> None:
    rng = np.random.default_rng(num_seeds)
    found = [estimate_crossed(crossed_study(rng, num_seeds, 100, added), CONFIG) for _ in range(NUM_STUDIES)]
    assert np.mean([estimate.covers_zero for estimate in found]) == pytest.approx(0.95, abs=NOISE + 0.01)
    assert np.mean([estimate.p_value <= 0.05 for estimate in found]) == pytest.approx(0.05, abs=NOISE + 0.01)


def test_documents_alone_would_not_cover_where_seeds_vary() -> None:
    """What the second level is for: pooling seeds as if they were one covers far less."""
    rng = np.random.default_rng(0)
    studies = [crossed_study(rng, 5, 100, 2.0) for _ in range(400)]
    naive = [abs(values.mean()) < 1.96 * values.mean(axis=0).std(ddof=1) / np.sqrt(100) for values in studies]
    assert np.mean(naive) < 0.8
    assert np.mean([estimate_crossed(values, CONFIG).covers_zero for values in studies]) > 0.92


def test_two_seeds_that_vary_much_cover_less_and_the_page_says_so() -> None:
    rng = np.random.default_rng(1)
    covered = np.mean([estimate_crossed(crossed_study(rng, 2, 100, 10.0), CONFIG).covers_zero for _ in range(NUM_STUDIES)])
    assert 0.85 < covered < 0.92


def test_components_are_unbiased_where_they_are_not_cut_off() -> None:
    rng = np.random.default_rng(2)
    found = [estimate_crossed(crossed_study(rng, 8, 60, 4.0), CONFIG) for _ in range(600)]
    expected = {"var_documents": 1.0, "var_seeds": 4.0 * 8 / 60, "var_residual": 0.25}
    for name, value in expected.items():
        values = np.array([getattr(estimate, name) for estimate in found])
        assert values.mean() == pytest.approx(value, abs=4 * values.std() / np.sqrt(len(values))), name


def test_the_interval_of_a_share_over_seeds_covers() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(600):
        gain = 1.0 + crossed_study(rng, 5, 150, 1.0)
        shift = 0.3 * gain + 0.5 * crossed_study(rng, 5, 150, 1.0)
        ratio = estimate_crossed(linearised_ratio(shift, gain), CONFIG)
        covered.append(ratio.ci_low <= 0.3 <= ratio.ci_high)
    assert np.mean(covered) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / 600) + 0.01)


def curve_study(rng: np.random.Generator, num_seeds: int, spread: float, shifts: tuple[float, ...]) -> list[np.ndarray]:
    """Shifts along a curve, shape (S, D) each: training runs stray by ``spread`` at every point, documents are the same throughout."""
    documents = 1.0 + 0.1 * rng.normal(size=60)
    shape = (num_seeds, 60)
    return [shift * documents + spread * rng.normal(size=(num_seeds, 1)) + 0.05 * rng.normal(size=shape) for shift in shifts]


@pytest.mark.parametrize(("num_seeds", "spread"), [(3, 0.1), (5, 0.03), (10, 0.1)])
def test_the_interval_of_a_half_point_covers_where_training_runs_differ(num_seeds: int, spread: float) -> None:
    """Half of the last shift is reached at 100, where the slope changes. Two factors that move alike are rarely told apart."""
    rng = np.random.default_rng(6)
    x = np.array([10.0, 100.0, 1000.0])
    found = [half_interval(x, curve_study(rng, num_seeds, spread, (0.3, 0.5, 1.0)), CONFIG) for _ in range(400)]
    assert np.mean([low <= 100.0 <= high for low, high in found]) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / 400) + 0.01)
    apart = [here[1] < there[0] or there[1] < here[0] for here, there in zip(found[::2], found[1::2], strict=True)]
    assert np.mean(apart) < 0.04


def test_documents_alone_would_not_cover_a_half_point_where_training_runs_differ() -> None:
    rng = np.random.default_rng(7)
    x = np.array([10.0, 100.0, 1000.0])
    covered = []
    for _ in range(200):
        means_DP = np.stack([values.mean(axis=0) for values in curve_study(rng, 3, 0.1, (0.3, 0.5, 1.0))], axis=1)
        low, high = np.quantile(half_points(x, resample_means(means_DP, CONFIG, "curve")), [0.025, 0.975])
        covered.append(low <= 100.0 <= high)
    assert np.mean(covered) < 0.2


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_the_interval_of_a_rank_covers_where_training_runs_differ(num_seeds: int) -> None:
    """Rank 4 is the first whose true shift is at least half of full finetuning's, and rank 1 just fails. Discrete, so it may hold more than it says."""
    rng = np.random.default_rng(8)
    ranks = np.array([1.0, 4.0, 16.0])
    found = [rank_interval(ranks, curve_study(rng, num_seeds, 0.1, (0.48, 0.52, 0.8, 1.0)), 0.5, CONFIG) for _ in range(400)]
    assert np.mean([low <= 4.0 <= high for low, high in found]) > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(("kind", "mean"), [("normal", 0.0), ("skewed", 1.0)])
def test_intervals_drawn_in_blocks_cover(kind: str, mean: float) -> None:
    """Each column is a study of its own; percentile intervals of 1,000 draws."""
    rng = np.random.default_rng(4)
    draw: Callable[[tuple[int, int]], np.ndarray] = rng.standard_normal if kind == "normal" else lambda shape: rng.exponential(1.0, shape)
    covered = []
    for _ in range(3):
        values = draw((2000, 500))
        low, high = np.quantile(blocked_means(values, 1000, rng, block_documents=100), [0.025, 0.975], axis=0)
        covered.append(((low <= mean) & (mean <= high)).mean())
    assert np.mean(covered) == pytest.approx(0.95, abs=NOISE)


def test_large_columns_cover_and_reject_as_often_as_they_say() -> None:
    """The whole path at the size from which blocks are used: BCa interval and sign-flip test."""
    values = np.random.default_rng(5).standard_t(4, (BLOCKED_FROM, 400))
    estimates, _ = estimate_means(values, CONFIG)
    assert {estimate.ci_method for estimate in estimates} == {"bca, drawn in blocks"}
    assert np.mean([estimate.covers_zero for estimate in estimates]) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / 400))
    assert np.mean([estimate.p_value <= 0.05 for estimate in estimates]) == pytest.approx(0.05, abs=3.5 * np.sqrt(0.95 * 0.05 / 400))
