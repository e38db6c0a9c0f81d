"""Numbers as they are printed."""
# ruff: noqa: RUF001 - the report prints true minus signs

import pytest

from lmdissect import wording


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.0461, 3, "+0.046"), (-0.0461, 3, "−0.046"), (0.0, 3, "0.000"), (-0.0001, 3, "0.000"), (0.0001, 3, "0.000"), (1234.5, 1, "+1,234.5")],
)
def test_signs_are_true_and_zero_has_none(value: float, decimals: int, text: str) -> None:
    assert wording.format_signed(value, decimals) == text


def test_an_interval_that_leaves_zero_out_never_shows_a_zero_bound() -> None:
    assert wording.format_interval(0.00004, 0.031, 3) == "[0.00004, 0.03100]"
    assert wording.format_interval(-0.031, -0.0004, 3) == "[−0.0310, −0.0004]"
    assert wording.format_interval(-0.0004, 0.0004, 3) == "[0.000, 0.000]"
    assert wording.format_interval(4e-8, 0.04, 3) == "[> 0, 0.040]"
    assert wording.format_interval(-0.04, -4e-8, 3) == "[−0.040, < 0]"
    assert wording.format_interval(1e-8, 4e-8, 3) == "[> 0, < 0.001]"
    assert wording.format_interval(-4e-8, -1e-8, 3) == "[> −0.001, < 0]"


def test_an_estimate_has_the_decimals_of_its_interval() -> None:
    assert wording.format_estimate(0.046, 0.034, 0.058, 3, "nats/token") == "+0.046 nats/token [0.034, 0.058]"
    assert wording.format_estimate(0.015, 0.0002, 0.03, 3) == "+0.0150 [0.0002, 0.0300]"
    assert wording.format_estimate(0.02, 4e-8, 0.04, 3) == "+0.020 [> 0, 0.040]"


@pytest.mark.parametrize(
    ("value", "text"), [(48.0, "48"), (9.90194, "9.9"), (1234.5, "1,234"), (0.25, "0.25"), (2e-5, "2e-05"), (-2.5, "−2.5"), (123.4, "123")]
)
def test_amounts_have_three_digits_or_are_whole(value: float, text: str) -> None:
    assert wording.print_x(value) == text


def test_shares_are_per_cent() -> None:
    assert wording.format_share(0.163, 0.09, 0.241) == "16 % [9, 24]"
    assert wording.format_share(0.02, 0.001, 0.04) == "2.0 % [0.1, 4.0]"


def test_p_values() -> None:
    assert wording.format_p(0.0001) == "< 0.001"
    assert wording.format_p(0.0409) == "0.041"
    assert [wording.format_p(value) for value in (0.0497, 0.05, 0.0504, 0.0505)] == ["0.0497", "0.0500", "0.0504", "0.051"]
    assert wording.equate_p("p", 0.0409) == "p = 0.041"
    assert wording.equate_p("Holm-adjusted p", 0.0001) == "Holm-adjusted p < 0.001"


@pytest.mark.parametrize(
    ("half_widths", "normalization", "decimals"),
    [([0.012, 0.015], "token", 3), ([0.0012], "token", 4), ([3.8], "document", 1), ([0.3], "token", 3), ([], "byte", 4), ([0.0, 0.0], "token", 3)],
)
def test_precision_follows_the_intervals(half_widths: list[float], normalization: str, decimals: int) -> None:
    assert wording.choose_decimals(half_widths, normalization) == decimals


def test_counts_have_separators_and_plurals() -> None:
    assert wording.format_count(1024, "document") == "1,024 documents"
    assert wording.format_count(1, "document") == "1 document"
