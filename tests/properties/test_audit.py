"""What holds of the audit's measures for every text."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from lmdissect.audit import MEASURES, measure_pair
from lmdissect.audit.numbers import find_numbers, match_numbers
from lmdissect.audit.terms import lost_names, new_names
from lmdissect.audit.words import plain_text, split_sentences

WORDS = (
    "the",
    "rats",
    "DNA",
    "IL-6",
    "Scotland",
    "increased",
    "not",
    "30%",
    "1,000",
    "two weeks",
    "0.5 mg",
    "10(6)",
    "half",
    ".",
    "\n",
    "don't",
    "3-4 days",
    "<sub>2</sub>",
)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text(max_size=200)


@given(TEXTS)
def test_a_text_accounts_for_itself(text: str) -> None:
    plain = plain_text(text)
    match = match_numbers(plain, plain)
    assert (match.added, match.dropped, match.unit_changed, match.displacing) == ((), (), (), ())
    assert (lost_names(plain, plain), new_names(plain, plain)) == ([], [])


@given(TEXTS, TEXTS)
@settings(deadline=None)  # the first text loads the language model
def test_measures_are_finite_and_shares_are_shares(original: str, variant: str) -> None:
    found = measure_pair(original, variant)
    assert set(found) <= set(MEASURES)
    assert all(math.isfinite(value) for value in found.values())
    assert all(0 <= value <= 1 for name, value in found.items() if name.endswith("_share"))


@given(TEXTS)
def test_plain_text_is_stable_and_sentences_hold_all_its_words(text: str) -> None:
    plain = plain_text(text)
    assert "".join("".join(split_sentences(plain)).split()).count("rats") == plain.count("rats")
    assert all(number.start >= 0 and plain[number.start :].startswith(number.written) for number in find_numbers(plain))


@given(st.integers(0, 10**9))
def test_an_integer_is_read_in_any_form(value: int) -> None:
    for written in (str(value), f"{value:,}"):
        assert [number.value for number in find_numbers(f"it was {written} in all") if number.kind != "weak"] == [float(value)]
