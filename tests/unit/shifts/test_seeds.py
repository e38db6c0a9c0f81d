"""Mean over crossed documents and seeds: components, degrees of freedom and interval by hand."""

import numpy as np
import pytest
from scipy import stats

from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.estimate import estimate_means
from lmdissect.shifts.seeds import estimate_crossed, estimate_crossed_each, seed_hint

CONFIG = ShiftConfig(num_draws=500)
NAN = float("nan")


def test_components_and_interval_by_hand() -> None:
    found = estimate_crossed(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 3.0]]), CONFIG)
    # document means 1.5, 3, 3; seed means 2, 3; residuals +-0.5 four times: MS_D = 3/2, MS_S = 3/2, MS_E = 1/2
    assert (found.var_documents, found.var_seeds, found.var_residual) == pytest.approx((0.5, 1 / 3, 0.5))
    assert found.df == pytest.approx(2.5**2 / (1.5**2 / 2 + 1.5**2 / 1 + 0.5**2 / 2))
    reach = stats.t.ppf(0.975, found.df) * np.sqrt(2.5 / 6)
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((2.5, 2.5 - reach, 2.5 + reach))
    assert found.p_value == pytest.approx(2 * stats.t.sf(2.5 / np.sqrt(2.5 / 6), found.df))
    assert (found.ci_method, found.num_seeds, found.num_documents, found.num_left_out) == ("t over documents and seeds", 2, 3, 0)
    assert found.to_row()["var_seeds"] == found.var_seeds


def test_a_negative_component_is_zero_and_its_mean_square_is_left_out() -> None:
    values = np.array([[1.0, 5.0, 0.0], [0.0, 6.0, 0.0]])  # seed means are equal
    found = estimate_crossed(values, CONFIG)
    assert found.var_seeds == 0.0
    # MS_D = 2 * (1.5^2 + 3.5^2 + 2^2) / 2, MS_S = 0: what is left is the variance of the documents' means, with their degrees of freedom
    of_means = values.mean(axis=0).var(ddof=1)
    assert found.df == pytest.approx(2)
    assert found.ci_high - found.estimate == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(of_means / 3))


def test_noise_alone_keeps_the_residual() -> None:
    values = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])  # no document and no seed differs from another
    found = estimate_crossed(values, CONFIG)
    assert (found.var_documents, found.var_seeds) == (0.0, 0.0)
    assert (found.df, found.var_residual) == pytest.approx((2, 2.0))
    assert found.covers_zero


def test_one_seed_is_the_bootstrap_over_documents() -> None:
    values = np.random.default_rng(0).normal(0.2, 1.0, (1, 40))
    found, (expected,) = estimate_crossed(values, CONFIG), estimate_means(values.T, CONFIG)[0]
    for name in ("estimate", "ci_low", "ci_high", "ci_method", "p_value", "num_documents"):
        assert getattr(found, name) == getattr(expected, name), name
    assert (found.num_seeds, found.df, found.var_documents, found.var_seeds, found.var_residual) == (1, None, None, None, None)


def test_a_document_that_one_seed_lacks_is_left_out_and_counted() -> None:
    values = np.array([[1.0, 2.0, 3.0, 9.0, NAN], [2.0, 4.0, 3.0, NAN, NAN]])
    found, complete = estimate_crossed(values, CONFIG), estimate_crossed(values[:, :3], CONFIG)
    assert (found.num_documents, found.num_left_out) == (3, 1)  # the last document is in no seed: nothing was left out
    assert (found.ci_low, found.ci_high, found.df) == (complete.ci_low, complete.ci_high, complete.df)


@pytest.mark.parametrize("values", [np.full((2, 3), [[1.0, NAN, NAN]]), np.array([[1.0, NAN], [NAN, 1.0]]), np.array([[1.0, NAN]])])
def test_too_few_shared_documents_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="common to all seeds"):
        estimate_crossed(values, CONFIG)


@pytest.mark.parametrize(("value", "p_value"), [(0.0, 1.0), (0.1, 1 / 501)])
def test_constant_values_have_no_interval_but_a_test(value: float, p_value: float) -> None:
    found = estimate_crossed(np.full((3, 30), value), CONFIG)
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((value, value, value))
    assert (found.df, found.ci_method) == (None, "none (all values are equal)")
    assert found.p_value == pytest.approx(p_value, abs=1e-9)


def test_documents_that_are_all_alike_have_no_interval_though_the_runs_differ() -> None:
    found = estimate_crossed(np.repeat([[0.28], [0.281], [0.279]], 50, axis=1), CONFIG)
    assert (found.ci_low, found.ci_high) == (found.estimate, found.estimate)


def test_the_order_of_seeds_and_documents_says_nothing() -> None:
    values = np.random.default_rng(1).normal(size=(4, 20))
    found, turned = estimate_crossed(values, CONFIG), estimate_crossed(values[::-1, ::-1], CONFIG)
    for name in ("estimate", "ci_low", "ci_high", "df", "var_documents", "var_seeds", "var_residual"):
        assert getattr(found, name) == pytest.approx(getattr(turned, name)), name


def test_another_order_of_documents_is_another_set_of_draws_for_one_seed() -> None:
    rng = np.random.default_rng(3)
    values_D = 0.05 + 0.2 * rng.standard_normal(40)
    found = [estimate_crossed(np.random.default_rng(number).permutation(values_D)[None], ShiftConfig()) for number in range(20)]
    ends = np.array([(estimate.ci_low, estimate.ci_high) for estimate in found])
    assert (ends.std(axis=0) / (np.ptp(ends.mean(axis=0)) / 2) < 0.03).all()
    assert len({estimate.ci_low for estimate in found}) > 1


def test_many_quantities_are_estimated_as_one_by_one() -> None:
    rng = np.random.default_rng(2)
    columns = [rng.normal(size=(1, 12)), rng.normal(size=(3, 12)), np.where(np.arange(12) < 2, NAN, rng.normal(size=(1, 12)))]
    assert estimate_crossed_each(columns, CONFIG) == [estimate_crossed(values, CONFIG) for values in columns]
    assert estimate_crossed_each([], CONFIG) == []


def test_captions_say_what_an_interval_is_over() -> None:
    assert seed_hint(1) == "over documents, for this one training run"
    assert "3 training seeds: few" in seed_hint(3)
    assert seed_hint(5) == "over documents and 5 training seeds"
