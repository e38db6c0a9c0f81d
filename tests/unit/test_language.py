"""Languages: sure, or not said."""

import pytest

from lmdissect.language import identify_language, same_language

ENGLISH = "The committee will meet on Tuesday to discuss the budget for the new library, and everybody who lives in the town may come and listen to what is said."
GERMAN = "Der Ausschuss tritt am Dienstag zusammen, um den Haushalt der neuen Bibliothek zu beraten, und alle, die in der Stadt wohnen, dürfen kommen und zuhören."


def test_the_language_is_named_with_its_probability() -> None:
    code, probability = identify_language(GERMAN)
    assert code == "de"
    assert 0.95 < probability <= 1


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (ENGLISH, ENGLISH[20:], True),
        (ENGLISH, GERMAN, False),
        (GERMAN, ENGLISH, False),
        (ENGLISH, "Der Hund", None),
        ("", ENGLISH, None),
        (ENGLISH, "7 " * 200, None),
    ],
)
def test_two_texts_are_of_one_language_of_two_or_it_is_not_sure(left: str, right: str, *, same: bool | None) -> None:
    assert same_language(left, right) is same
