"""Krippendorff's alpha against published worked examples and by hand; intervals; raters against the automatic audit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.audit.agreement import (
    METRICS,
    Metric,
    compare_verdicts,
    krippendorff_alpha,
    majority,
    measure_agreement,
    wilson_interval,
)

NAN = math.nan


def _by_rater(*rows: str) -> np.ndarray:
    """One string a rater, one character a unit, ``.`` where there is no rating."""
    codes = [[NAN if mark == "." else float(mark) if mark.isdigit() else float(ord(mark)) for mark in row.replace(" ", "")] for row in rows]
    return np.array(codes).T


# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": examples A, B and C, with the values printed there.
BINARY = _by_rater("0100000010", "1110010000")
NOMINAL = _by_rater("aabbdcccedda", "babbbcccéddd".replace("é", "e"))
FOUR_RATERS = _by_rater("1233214 12...", "1233224125.3", ".33323422 51.", "123324412 51.")


@pytest.mark.parametrize(
    ("ratings", "metric", "published"),
    [
        (BINARY, "nominal", 0.095),
        (NOMINAL, "nominal", 0.692),
        (FOUR_RATERS, "nominal", 0.743),
        (FOUR_RATERS, "ordinal", 0.815),
        (FOUR_RATERS, "interval", 0.849),
    ],
)
def test_published_examples(ratings: np.ndarray, metric: Metric, published: float) -> None:
    alpha = krippendorff_alpha(ratings, metric)
    assert alpha is not None
    assert abs(alpha - published) < 0.0005


def test_by_hand() -> None:
    # Two raters: (0, 0), (0, 1), (1, 1). Coincidences o_00 = 2, o_01 = o_10 = 1, o_11 = 2; n_0 = n_1 = 3, n = 6.
    # alpha = 1 - (6 - 1) * 1 / (3 * 3)
    assert krippendorff_alpha(_by_rater("001", "011"), "nominal") == pytest.approx(1 - 5 / 9)
    # A third rating in the first unit: six ordered pairs / 2. Ratings (0, 0, 1), (1, 1): o_01 = o_10 = (2 + 2) / 2 / 2 = 1, o_00 = 1, o_11 = 2.
    # n_0 = 2, n_1 = 3, n = 5: alpha = 1 - 4 * 1 / (2 * 3)
    assert krippendorff_alpha(_by_rater("01", "01", "1."), "nominal") == pytest.approx(1 - 4 / 6)


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 4), st.integers(2, 4))
def test_equals_the_definition_by_pairs_of_ratings(seed: int, num_units: int, num_raters: int, num_values: int) -> None:
    """D_o over pairs within units, D_e over pairs of all ratings in use: no coincidence matrix."""
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, num_values, size=(num_units, num_raters)).astype(float)
    ratings[rng.random(ratings.shape) < 0.3] = NAN
    units = [found for row in ratings if len(found := row[~np.isnan(row)]) > 1]
    values = np.concatenate(units) if units else np.array([])
    for metric in ("nominal", "interval"):

        def distances(some: np.ndarray, metric: str = metric) -> float:
            apart = some[:, None] - some[None, :]
            return float((apart != 0).sum() if metric == "nominal" else (apart**2).sum())

        alpha = krippendorff_alpha(ratings, metric)
        expected = distances(values) / (len(values) * (len(values) - 1)) if len(values) else 0.0
        if expected == 0.0:
            assert alpha is None
        else:
            observed = sum(distances(unit) / (len(unit) - 1) for unit in units) / len(values)
            assert alpha == pytest.approx(1 - observed / expected)


@pytest.mark.parametrize("metric", METRICS)
def test_all_equal_is_not_defined_and_full_agreement_is_one(metric: Metric) -> None:
    assert krippendorff_alpha(_by_rater("1111", "1111"), metric) is None
    assert krippendorff_alpha(_by_rater("....", "1212"), metric) is None
    assert krippendorff_alpha(np.empty((0, 2)), metric) is None
    assert krippendorff_alpha(_by_rater("1122", "1122"), metric) == 1.0
    assert krippendorff_alpha(_by_rater("1212", "2121"), metric) < 0


def test_units_without_a_second_rating_do_not_count() -> None:
    alone = _by_rater("1233214125", "....224125")
    paired = alone[~np.isnan(alone).any(axis=1)]
    for metric in METRICS:
        assert krippendorff_alpha(alone, metric) == krippendorff_alpha(paired, metric)


def test_metrics_see_how_far_apart_answers_are() -> None:
    near, far = _by_rater("0120120", "0121120"), _by_rater("0120120", "0122120")
    assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(far, "ordinal")
    assert krippendorff_alpha(near, "interval") > krippendorff_alpha(far, "interval")
    stretched = np.where(near == 2, 50.0, near)
    assert krippendorff_alpha(stretched, "ordinal") == krippendorff_alpha(near, "ordinal")
    assert krippendorff_alpha(stretched, "interval") != krippendorff_alpha(near, "interval")


def _measure(ratings: np.ndarray, documents: list[str], seed: int = 0, **settings: object):
    settings = {"metric": "nominal", "num_draws": 2000, "level": 0.95} | settings
    return measure_agreement(ratings, documents, rng=np.random.default_rng(seed), **settings)


def test_interval_covers_alpha_and_is_seeded() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, size=60)
    ratings = np.stack([np.where(rng.random(60) < 0.8, truth, rng.integers(0, 3, size=60)) for _ in range(3)], axis=1).astype(float)
    documents = [str(unit) for unit in range(60)]
    found = _measure(ratings, documents)
    assert found == _measure(ratings, documents)
    assert found != _measure(ratings, documents, seed=1)
    assert found.ci_low < found.alpha["nominal"] < found.ci_high
    assert found.reason == ""
    assert (found.num_units, found.num_ratings) == (60, 180)
    assert _measure(ratings, documents, level=0.5).ci_high < found.ci_high


def test_interval_draws_documents_and_not_units() -> None:
    """Five copies of each unit tell nothing new: drawn by document the interval stays, drawn by unit it would shrink."""
    rng = np.random.default_rng(6)
    ratings = rng.integers(0, 2, size=(40, 2)).astype(float)
    documents = [str(unit) for unit in range(40)]
    once = _measure(ratings, documents)
    copies = _measure(np.tile(ratings, (5, 1)), documents * 5)
    taken_apart = _measure(np.tile(ratings, (5, 1)), [f"{copy}-{name}" for copy in range(5) for name in documents])
    assert copies.ci_high - copies.ci_low == pytest.approx(once.ci_high - once.ci_low, rel=0.1)
    assert taken_apart.ci_high - taken_apart.ci_low < 0.6 * (once.ci_high - once.ci_low)


@pytest.mark.slow
@pytest.mark.parametrize(("num_documents", "lowest"), [(15, 0.83), (50, 0.89)])
def test_how_often_the_interval_covers(num_documents: int, lowest: float) -> None:
    """Four variants a document with an effect in common, three raters, three grades: about 0.89 at 15 documents, 0.94 at 50, for 95 % intervals."""
    rng = np.random.default_rng(0)

    def draw(num: int) -> np.ndarray:
        seen = rng.normal(size=(num, 1, 1)) + rng.normal(size=(num, 4, 1)) + rng.normal(size=(num, 4, 3))
        return np.digitize(seen.reshape(num * 4, 3), [-1, 1]).astype(float)

    truth = krippendorff_alpha(draw(20_000), "ordinal")
    documents = [str(unit // 4) for unit in range(num_documents * 4)]
    found = [_measure(draw(num_documents), documents, seed, metric="ordinal", num_draws=500) for seed in range(200)]
    assert lowest <= np.mean([one.ci_low <= truth <= one.ci_high for one in found]) <= 0.99


@pytest.mark.parametrize(
    ("ratings", "documents", "reason"),
    [
        (_by_rater("1111", "1111"), "abcd", "only one answer was ever given: nothing could have disagreed"),
        (_by_rater("12..", "..12"), "abcd", "no text has ratings by two raters"),
        (_by_rater("12", "11"), "aa", "one document only: no interval over documents"),
        (_by_rater("1112", "1112"), "abcd", "no interval: in 3"),  # the 2 is missed by (3/4)^4 = 32 % of the draws
    ],
)
def test_what_is_not_defined_says_why(ratings: np.ndarray, documents: str, reason: str) -> None:
    found = _measure(ratings, list(documents))
    assert found.reason.startswith(reason)
    assert found.ci_low is None
    assert found.ci_high is None


def test_percent_agreement_counts_pairs_of_ratings() -> None:
    assert _measure(_by_rater("01", "01", "1."), ["a", "b"]).percent_agreement == pytest.approx(100 * 2 / 4)
    assert _measure(_by_rater("1.", ".1"), ["a", "b"]).percent_agreement is None


def test_wilson_interval_matches_the_literature_and_its_edges() -> None:
    found = wilson_interval(81, 263, 0.95)  # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 0.2553 to 0.3662
    assert (round(found.ci_low, 4), round(found.ci_high, 4)) == (0.2553, 0.3662)
    none = wilson_interval(0, 20, 0.95)  # the same table: 0.0000 to 0.1611
    assert (round(none.ci_low, 4), round(none.ci_high, 4)) == (0.0, 0.1611)
    assert wilson_interval(0, 0, 0.95).share is None
    assert wilson_interval(5, 5, 0.95).ci_high == 1.0


@pytest.mark.parametrize(("accepts", "expected"), [([True], True), ([True, False], None), ([True, False, False], False), ([], None)])
def test_majority(accepts: list[bool], expected: bool | None) -> None:
    assert majority(accepts) is expected


def test_raters_against_the_audit() -> None:
    pairs = [(True, True)] * 5 + [(False, False)] * 3 + [(False, True)] * 2 + [(True, False)] * 1 + [(None, False)] * 4
    table = compare_verdicts(pairs, level=0.95)
    assert (table.both_accept, table.both_reject, table.only_raters_reject, table.only_checks_reject, table.num_tied) == (5, 3, 2, 1, 4)
    assert (table.precision.count, table.precision.total) == (3, 4)
    assert (table.recall.count, table.recall.total) == (3, 5)
    # n = 22, accepted 6 + 7 = 13, rejected 5 + 4 = 9, disagreements 3: alpha = 1 - 21 * 3 / (13 * 9)
    assert table.alpha == pytest.approx(1 - 21 * 3 / (13 * 9))
    empty = compare_verdicts([], level=0.95)
    assert (empty.alpha, empty.precision.share, empty.recall.share) == (None, None, None)
