"""Numbers of a pair: what is the same number, and what has no source."""

import math
import time

import pytest

from lmdissect.audit.measures import measure_pair
from lmdissect.audit.numbers import find_numbers, match_numbers


def _values(text: str) -> list[tuple[float, str]]:
    return [(number.value, number.unit) for number in find_numbers(text) if number.kind != "weak"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,000 rats", [(1000, "")]),
        ("0,05 and 7.02%", [(0.05, "%"), (7.02, "%")]),  # a list has the unit of its last number
        ("p < .05", [(0.05, "")]),
        ("thirty-two patients", [(32, "")]),
        ("two hundred and sixty three cases", [(263, "")]),
        ("1.2 million people", [(1.2e6, "")]),
        ("2.5 x 10(6) cells", [(2.5e6, "")]),
        ("10^6 cells", [(1e6, "")]),
        ("aged 61-88 years", [(61, "year"), (88, "year")]),
        ("500mg t.i.d.", [(500, "mg")]),
        ("a 10-day course", [(10, "day")]),
        ("the 1990s", [(1990, "")]),
        ("60 bucks, $100", [(60, "$"), (100, "$")]),
        ("12, 15 and 20 %", [(12, "%"), (15, "%"), (20, "%")]),
        ("IL-6, P-450, Cu2+, 3D, B12 and 30B", []),
        ("nm s^-1", []),
    ],
)
def test_numbers_are_read_as_values_with_units(text: str, values: list[tuple[float, str]]) -> None:
    assert [value for value, _ in _values(text)] == pytest.approx([value for value, _ in values])
    assert [unit for _, unit in _values(text)] == [unit for _, unit in values]


@pytest.mark.parametrize(
    ("original", "variant"),
    [
        ("1,038 adults", "1038 adults"),
        ("twelve rats", "12 rats"),
        ("for 14 days", "for two weeks"),
        ("24 h", "a full 1 day"),
        ("50 % of them", "half of them"),
        ("a third of the cases", "33% of the cases"),
        ("a share of 0.25", "25% of it"),
        ("88.9 %", "89 %"),
        ("64 adults", "over 60 adults"),
        ("0.5 g", "500 mg"),
        ("a 4-fold dose", "a dose four times higher"),
        ("phase II", "phase 2"),
        ("the nineteenth century", "the 1800s"),
        ("the late nineteenth and early twentieth centuries", "the late 1800s and early 1900s"),
        ("over 20 years", "two decades"),
        ("60 000 species", "60,000 species"),
        ("nothing counted", "these two, and all three of them"),
        ("Twenty-five patients aged 61 to 88", "25 patients"),
    ],
)
def test_another_form_of_a_number_is_no_new_number(original: str, variant: str) -> None:
    match = match_numbers(original, variant)
    assert (match.added, match.unit_changed, match.displacing) == ((), (), ())


@pytest.mark.parametrize(
    ("original", "variant", "added"),
    [
        ("30 rats", "31 rats", ["31"]),
        ("7.02 %", "7.12 %", ["7.12"]),
        ("64 adults", "60 adults", ["60"]),  # rounded without a word of caution
        ("in 1992", "in 1990", ["1990"]),
        ("some rats", "twelve rats", ["twelve"]),
        ("no number", "1,200 people", ["1,200"]),
        ("0.5 g", "0.5 mg", ["0.5"]),
    ],
)
def test_a_number_without_source_is_added(original: str, variant: str, added: list[str]) -> None:
    assert [number.written for number in match_numbers(original, variant).added] == added


def test_a_value_with_another_unit_is_a_changed_unit() -> None:
    match = match_numbers("for 5 days", "for 5 years")
    assert [number.written for number in match.unit_changed] == ["5"]


def test_a_number_in_another_ones_place_displaces_it() -> None:
    match = match_numbers("8 of 20 had fever and 9 had none", "9 of 20 had fever and 9 had none")
    assert [number.written for number in match.dropped] == ["8"]
    assert [number.written for number in match.displacing] == ["9"]


def test_a_small_spelled_number_is_held_against_a_dropped_one_only() -> None:
    assert match_numbers("four groups of rats", "five groups of rats").displacing
    assert not match_numbers("some groups of rats", "five groups of rats").displacing


def test_kept_and_dropped_count_the_original() -> None:
    match = match_numbers("10 of 20 patients (50 %) after 3 weeks", "half of the 20 patients")
    assert [number.written for number in match.kept] == ["20", "50"]
    assert [number.written for number in match.dropped] == ["10", "3"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("two and three weeks", [2, 3]),
        ("twenty and thirty patients", [20, 30]),
        ("three four-week cycles", [3, 4]),
        ("a hundred and twenty patients", [120]),
        ("a thousand cells", [1000]),
        ("two hundred and fifty thousand", [250_000]),
        ("one hundred twenty-five", [125]),
        ("a man and a dog", []),
    ],
)
def test_numbers_in_words_are_joined_only_where_they_are_one(text: str, values: list[float]) -> None:
    assert [number.value for number in find_numbers(text)] == values


@pytest.mark.parametrize(
    ("original", "variant"),
    [
        ("20 and 30 patients", "twenty and thirty patients"),
        ("120 mice", "a hundred and twenty mice"),
        ("12,000 cells", "12 000 cells"),
        ("A thousand mice", "1,000 mice"),
    ],
)
def test_a_number_said_in_another_form_is_accounted_for(original: str, variant: str) -> None:
    assert match_numbers(original, variant).added == ()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("half a million dollars", [(500_000, "$")]),
        ("a half-million people", [(500_000, "")]),
        ("a quarter of a million cells", [(250_000, "")]),
        ("three quarters of a million", [(750_000, "")]),
        ("two and a half million", [(2_500_000, "")]),
        ("in the third quarter a million came", []),
    ],
)
def test_parts_of_a_million_are_read_whole(text: str, values: list[tuple[float, str]]) -> None:
    assert _values(text) == values


@pytest.mark.parametrize(
    ("original", "variant"),
    [
        ("500,000 dollars", "half a million dollars"),
        ("About half a million people", "Some 500,000 people"),
        ("480,000 people", "nearly half a million people"),
        ("250,000 cells", "a quarter of a million cells"),
        ("30 rats", "thanks a million, 30 rats, a hundred times over"),
        ("groups of 100 and 20", "groups of a hundred and twenty"),
        ("a million cells", "1,000,000 cells"),
    ],
)
def test_a_figure_of_speech_is_no_new_number(original: str, variant: str) -> None:
    match = match_numbers(original, variant)
    assert (match.added, match.unit_changed, match.displacing, match.dropped) == ((), (), (), ())


@pytest.mark.parametrize(
    ("original", "variant", "added"),
    [
        ("480,000 people", "half a million people", ["half a million"]),
        ("130 mice", "a hundred and twenty mice", ["a hundred and twenty"]),
        ("100 mice, 30 rats", "a hundred and twenty mice", ["a hundred and twenty"]),
        ("100 mice", "one million mice", ["one million"]),
    ],
)
def test_a_definite_number_in_words_needs_a_source(original: str, variant: str, added: list[str]) -> None:
    assert [number.written for number in match_numbers(original, variant).added] == added


@pytest.mark.parametrize(
    "text",
    [
        "1" * 5_000,
        "1" + "0" * 5_000,
        "0." + "1" * 5_000,
        "1" * 5_000 + "^" + "9" * 5_000,
        "10000^99",
        "0.0001^-99",
        "9" * 400 + " x 10^99",
        "123" + " 000" * 2_000,
        "two" + " hundred" * 500,
    ],
)
def test_no_run_of_digits_ends_the_audit_or_accounts_for_anything(text: str) -> None:
    measured = measure_pair("They gave 30 rats halothane.", f"They gave 31 rats halothane: {text}.")
    assert math.isfinite(measured["numbers_unaccounted"])
    assert [number.written for number in match_numbers(f"{text}, that is all", "31 rats").added] == ["31"]
    assert match_numbers(text, text).added == ()


def test_reading_numbers_takes_time_in_step_with_the_text() -> None:
    started = time.process_time()
    assert len(find_numbers("half a million and 3 mice, " * 10_000)) == 20_000
    assert time.process_time() - started < 8
