"""Intervals and tests against scipy, exact enumeration, hand examples and brute force."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from lmdissect.shifts.resampling import bootstrap_means, confidence_interval, holm, sign_flip_p_values


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_resampled_means_are_means_of_rows() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    means = bootstrap_means(values, 500, _rng())
    assert means.shape == (500, 2)
    np.testing.assert_allclose(means[:, 1], 10 * means[:, 0])  # columns share each draw
    possible = {sum(combination) / 3 for combination in itertools.product([1.0, 2.0, 4.0], repeat=3)}
    assert all(min(abs(mean - value) for value in possible) < 1e-12 for mean in means[:, 0])
    assert means[:, 0].mean() == pytest.approx(7 / 3, abs=0.2)


def test_resampled_means_have_the_right_spread() -> None:
    values = _rng(1).normal(size=(200, 1))
    means = bootstrap_means(values, 20_000, _rng(2))
    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.02)


def test_a_missing_value_is_left_out_of_its_own_column_only() -> None:
    values = np.array([[1.0, 1.0], [2.0, np.nan], [4.0, 4.0], [8.0, 8.0]])
    means = bootstrap_means(values, 4000, _rng(3))
    complete = bootstrap_means(values[:, :1], 4000, _rng(3))
    np.testing.assert_array_equal(means[:, 0], complete[:, 0])
    assert np.isnan(means[:, 1]).mean() == pytest.approx((1 / 4) ** 4, abs=0.004)  # draws of the second document alone
    assert np.nanmin(means[:, 1]) >= 1.0
    assert np.nanmean(means[:, 1]) == pytest.approx(13 / 3, abs=0.1)


def test_draws_do_not_depend_on_how_they_are_cut_into_blocks() -> None:
    values = _rng(4).normal(size=(5000, 2))
    many = bootstrap_means(values, 1700, _rng(5))  # 8.5 M indices: three blocks
    np.testing.assert_allclose(many[:800], bootstrap_means(values, 800, _rng(5)))
    assert np.unique(many[:, 0]).size == 1700


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_intervals_are_scipys(method: str, kind: str) -> None:
    values = _rng(6).normal(0.3, 1.0, 80) if kind == "normal" else _rng(6).exponential(1.0, 80) ** 2
    means = bootstrap_means(values[:, None], 40_000, _rng(7))[:, 0]
    low, high, used = confidence_interval(values, means, 0.9, method)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, confidence_level=0.9, method={"bca": "BCa"}.get(method, method), rng=_rng(8), batch=2000
    ).confidence_interval
    assert used == method
    width = theirs.high - theirs.low
    assert (low, high) == (pytest.approx(theirs.low, abs=0.03 * width), pytest.approx(theirs.high, abs=0.03 * width))


def test_bca_moves_with_the_skew() -> None:
    values = _rng(9).exponential(1.0, 50) ** 2
    means = bootstrap_means(values[:, None], 20_000, _rng(10))[:, 0]
    percentile, bca = (confidence_interval(values, means, 0.95, method) for method in ("percentile", "bca"))
    assert bca[0] > percentile[0]
    assert bca[1] > percentile[1]


@pytest.mark.parametrize(
    "values", [np.zeros(10), np.full(10, 0.1), np.full(7, -3.0)], ids=["zero", "constant that is no binary fraction", "constant"]
)
def test_bca_of_a_constant_falls_back_and_says_so(values: np.ndarray) -> None:
    means = bootstrap_means(values[:, None], 200, _rng())[:, 0]
    low, high, used = confidence_interval(values, means, 0.95, "bca")
    assert used == "percentile (bca undefined)"
    assert (low, high) == (pytest.approx(values[0]), pytest.approx(values[0]))


def test_bca_with_all_means_on_one_side_falls_back() -> None:
    values = np.array([0.0, 1.0])
    low, high, used = confidence_interval(values, np.array([0.6, 0.7, 0.8]), 0.95, "bca")
    assert used == "percentile (bca undefined)"
    assert 0.6 <= low <= high <= 0.8


def test_bca_never_turns_an_interval_round() -> None:
    """Two documents and one extreme outlier, at every level: ends stay finite and in order."""
    for level in (0.6, 0.95, 0.999, 0.999999):
        for values in (np.array([0.0, 1.0]), np.array([0.0] * 40 + [100.0]), np.array([0.0] * 9 + [-7.0])):
            means = bootstrap_means(values[:, None], 3000, _rng(1))[:, 0]
            low, high, _ = confidence_interval(values, means, level, "bca")
            assert np.isfinite([low, high]).all()
            assert values.min() <= low <= high <= values.max()
    skewed = np.array([0.0] * 40 + [100.0])
    one_above = np.r_[50.0, np.zeros(99_999)]  # a bias of 4.3 beside nearly the strongest skew there is: the correction passes its pole
    assert confidence_interval(skewed, one_above, 1 - 1e-12, "bca")[2] == "percentile (bca undefined)"


@pytest.mark.parametrize("num_documents", [2, 5, 12])
def test_sign_flip_is_exact_enumeration_within_monte_carlo_error(num_documents: int) -> None:
    values = _rng(num_documents).normal(0.4, 1.0, num_documents)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=num_documents)))
    exact = float((np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())
    [found] = sign_flip_p_values(values[:, None], 20_000, _rng(11))
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_sign_flip_of_nothing_is_one_and_of_much_is_the_least_possible() -> None:
    values = np.stack([np.zeros(30), np.full(30, 0.1), np.r_[np.full(29, 0.1), np.nan]], axis=1)
    p_values = sign_flip_p_values(values, 999, _rng())
    assert p_values[0] == 1.0
    assert p_values[1] == p_values[2] == 1 / 1000


def test_sign_flip_ignores_scale_and_sign() -> None:
    values = _rng(12).normal(0.2, 1.0, (40, 1))
    both = sign_flip_p_values(np.concatenate([values, -1e6 * values, 1e-9 * values], axis=1), 999, _rng(13))
    assert both[0] == both[1] == both[2]


def test_sign_flip_p_values_are_uniform_under_the_null() -> None:
    values = _rng(14).standard_t(3, size=(30, 2000))
    p_values = sign_flip_p_values(values, 999, _rng(15))
    for level in (0.01, 0.05, 0.2, 0.5):
        assert float((p_values <= level).mean()) == pytest.approx(level, abs=0.05 * 0.5 + 0.01)
    assert stats.kstest(p_values, "uniform").statistic < 0.06


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def _holm_by_rejection(p_values: list[float]) -> list[float]:
    """Smallest level at which the step-down procedure rejects each hypothesis, found by trying levels."""
    levels = sorted({min(1.0, factor * p) for p in p_values for factor in range(1, len(p_values) + 1)})
    adjusted = [1.0] * len(p_values)
    for level in reversed(levels):
        for rank, index in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
            if p_values[index] * (len(p_values) - rank) > level:
                break
            adjusted[index] = level
    return adjusted


def test_holm_is_the_least_level_that_rejects() -> None:
    rng = _rng(16)
    for size in (1, 2, 3, 5, 8):
        for _ in range(20):
            p_values = [float(p) for p in np.round(rng.uniform(0, 0.4, size), 2)]  # with ties
            assert holm(p_values) == pytest.approx(_holm_by_rejection(p_values))


def test_memory_is_bounded_whatever_the_number_of_documents() -> None:
    values = _rng(17).normal(size=(100_000, 2))
    tracemalloc.start()
    try:
        bootstrap_means(values, 200, _rng(18))
        sign_flip_p_values(values, 200, _rng(18))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 260_000_000  # 200 x 100,000 indices at once would be 160 MB, and as many for each of the four arrays made of them


@pytest.mark.slow
def test_speed_of_the_usual_size() -> None:
    """1000 documents, 10,000 draws, as many columns as the shift table has rows."""
    values = _rng(19).normal(size=(1000, 1))
    started_s = time.monotonic()
    for _ in range(30):
        bootstrap_means(values, 10_000, _rng(20))
        sign_flip_p_values(values, 10_000, _rng(20))
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_coverage_of_the_interval(method: str) -> None:
    """The 95 % interval of a mean over 60 documents covers the true mean in 93-97 % of 2000 simulated sets."""
    rng = _rng(21)
    covered = 0
    for _ in range(2000):
        values = rng.normal(0.02, 0.05, 60)
        low, high, _used = confidence_interval(values, bootstrap_means(values[:, None], 400, rng)[:, 0], 0.95, method)
        covered += low <= 0.02 <= high
    assert 0.93 <= covered / 2000 <= 0.97
