"""Draws in blocks have the distribution of plain draws: spread, skew, pairing, missing documents, p-values; and large columns alone are drawn so."""

import numpy as np
import pytest
from scipy import stats

from lmdissect.shifts import ShiftConfig, bootstrap_means, sign_flip_p_values
from lmdissect.shifts.blocks import BLOCKED_FROM, blocked_means, blocked_sign_flip_p_values
from lmdissect.shifts.estimate import estimate_means, seeded_rng

NAN = float("nan")


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _correlated(num_documents: int, seed: int) -> np.ndarray:
    """Three columns of which the second is skewed and the third is nearly the first."""
    rng = _rng(seed)
    first = rng.normal(0.2, 1.0, num_documents)
    return np.stack([first, rng.exponential(1.0, num_documents), first + 0.1 * rng.normal(size=num_documents)], axis=1)


@pytest.mark.parametrize(("block_documents", "num_resamples"), [(4, 400), (20, 20)], ids=["tiny blocks", "few resamples"])
def test_the_spread_is_exact_however_small_the_blocks(block_documents: int, num_resamples: int) -> None:
    """Blocks of 4 hold a quarter of the variance fixed, and 20 resamples lose a twentieth of it; both are given back, for covariances too."""
    values = _correlated(4000, 1)
    expected = np.cov(values.T, bias=True) / len(values)
    options = {"block_documents": block_documents, "num_resamples": num_resamples}
    found = np.mean([np.cov(blocked_means(values, 4000, _rng(seed), **options).T, bias=True) for seed in range(10)], axis=0)
    noise = np.sqrt(2 / 10 * (1 / 4000 + block_documents / (4000 * num_resamples)))  # 1/R + 1/(N B)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert 3.5 * noise < 0.04
    assert (np.abs(found - expected) / scale < 3.5 * noise).all()


def test_draws_are_centred_on_the_mean() -> None:
    """Few resamples of a block must not move all draws together."""
    values = _correlated(2000, 2)
    error = values.std(axis=0) / np.sqrt(len(values))
    means = blocked_means(values, 20_000, _rng(3), block_documents=500, num_resamples=20)
    assert (np.abs(means.mean(axis=0) - values.mean(axis=0)) < 4 * error / np.sqrt(20_000)).all()


def test_the_skew_is_kept() -> None:
    values = _rng(4).exponential(1.0, (200, 1))
    means = blocked_means(values, 100_000, _rng(5), block_documents=50, num_resamples=2000)
    plain = stats.skew(values[:, 0]) / np.sqrt(200)
    assert stats.skew(means[:, 0]) == pytest.approx(plain * (1 - 3 / 50), abs=4 * np.sqrt(6 / 100_000))


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy tail"])
def test_quantiles_are_those_of_plain_draws(kind: str) -> None:
    rng = _rng(6)
    draw = {"normal": rng.standard_normal, "skewed": lambda n: rng.exponential(1.0, n) ** 2, "heavy tail": lambda n: rng.standard_t(3, n)}[kind]
    values = np.asarray(draw(4000))[:, None]
    blocked, plain = blocked_means(values, 5000, _rng(7), block_documents=250), bootstrap_means(values, 5000, _rng(8))
    error = values.std() / np.sqrt(len(values))
    for quantile, density in ((0.025, 0.0584), (0.5, 0.3989), (0.975, 0.0584)):
        noise = np.sqrt(2 * quantile * (1 - quantile) / 5000) / density * error  # of the difference of two quantiles of 5,000 draws
        assert np.quantile(blocked, quantile) == pytest.approx(np.quantile(plain, quantile), abs=4 * noise)


def test_missing_documents_are_left_out_of_their_own_column_only() -> None:
    values = _correlated(6000, 9)
    values[:2500, 1] = NAN
    values[3000:3100, 2] = NAN
    means = blocked_means(values, 20_000, _rng(10), block_documents=300)
    for column in range(3):
        own = values[~np.isnan(values[:, column]), column]
        assert means[:, column].mean() == pytest.approx(own.mean(), abs=4 * own.std() / np.sqrt(len(own) * 20_000))
        assert means[:, column].std() == pytest.approx(own.std() / np.sqrt(len(own)), rel=0.03)
    both = ~np.isnan(values[:, 2])
    assert np.corrcoef(means[:, 0], means[:, 2])[0, 1] == pytest.approx(np.corrcoef(values[both, 0], values[both, 2])[0, 1], abs=0.02)


def test_what_else_is_drawn_changes_nothing() -> None:
    values = _correlated(2000, 11)
    together, alone = (blocked_means(chosen, 500, _rng(12), block_documents=100) for chosen in (values, values[:, :1]))
    np.testing.assert_allclose(together[:, :1], alone, rtol=0, atol=1e-12)


def test_p_values_are_those_of_plain_signs() -> None:
    rng = _rng(13)
    values = rng.standard_t(4, (3000, 6)) + np.array([0.0, 0.01, 0.03, 0.05, 0.06, 0.3])
    values[:300, 4] = NAN
    blocked = blocked_sign_flip_p_values(values, 20_000, _rng(14), block_documents=100)
    plain = sign_flip_p_values(values, 20_000, _rng(15))
    noise = np.sqrt(2 * plain * (1 - plain) / 20_000)
    assert (np.abs(blocked - plain) <= 4 * noise + 1e-4).all()
    assert blocked[5] == 1 / 20_001
    assert 0.001 < plain[3] < 0.2


def test_zeros_are_never_significant_in_blocks() -> None:
    assert blocked_sign_flip_p_values(np.zeros((2000, 2)), 500, _rng(), block_documents=100).tolist() == [1.0, 1.0]
    assert (blocked_means(np.zeros((2000, 2)), 500, _rng(), block_documents=100) == 0.0).all()


def test_large_columns_alone_are_drawn_in_blocks_and_say_so() -> None:
    config = ShiftConfig(num_draws=300)
    values = _rng(16).normal(0.1, 1.0, (BLOCKED_FROM, 3))
    values[5:, 1] = NAN
    values[0, 2] = NAN
    estimates, means = estimate_means(values, config)
    assert [estimate.ci_method for estimate in estimates[:2]] == ["bca, drawn in blocks", "bca"]
    assert [estimate.num_documents for estimate in estimates] == [BLOCKED_FROM, 5, BLOCKED_FROM - 1]
    assert estimates[2].ci_method == "bca"
    np.testing.assert_array_equal(means[:, 1:2], bootstrap_means(values[:5, 1:2], 300, seeded_rng(config, "bootstrap")))
    assert estimates[0].ci_low < 0.1 < estimates[0].ci_high
    assert estimates[0].p_value == 1 / 301
