"""Word spans, kept words, and the tokens that belong to a span."""

import numpy as np
import pytest

from lmdissect.alignment import changed_spans, kept_word_share, overlapping_tokens


def _pieces(original: str, variant: str) -> list[tuple[str, str]]:
    """What each span covers on both sides, cut out by its character ranges."""
    found = []
    for span in changed_spans(original, variant):
        left = original[slice(*span.original)] if span.original else ""
        right = variant[slice(*span.variant)] if span.variant else ""
        assert left.split() == list(span.original_words)
        assert right.split() == list(span.variant_words)
        found.append((left, right))
    return found


@pytest.mark.parametrize(
    ("original", "variant", "expected"),
    [
        ("a b c", "a b c", []),
        ("fell by 8 mmHg today", "fell by 12 mmHg today", [("8", "12")]),
        ("in 42  white mice\nwe", "in 17 rats\nwe", [("42  white mice", "17 rats")]),
        ("one two three", "one three", [("two", "")]),
        ("one three", "one two three", [("", "two")]),
        ("x b y", "z b w", [("x", "z"), ("y", "w")]),
        ("", "new words", [("", "new words")]),
        ("old words", "", [("old words", "")]),
        ("risk,", "risk", [("risk,", "risk")]),
        ("é-rays of 25 µg", "é-rays of 30 µg", [("25", "30")]),
        ("", "", []),
    ],
)
def test_changed_spans(original: str, variant: str, expected: list[tuple[str, str]]) -> None:
    assert _pieces(original, variant) == expected


def test_common_words_of_a_long_text_are_aligned_too() -> None:
    """difflib's autojunk would drop words that make up over 1 % of 200 words and more."""
    original = " ".join(f"the w{number}" for number in range(300))
    assert _pieces(original, original.replace("w150 ", "other ")) == [("w150", "other")]
    assert kept_word_share(original, original) == 1.0


@pytest.mark.parametrize(
    ("original", "variant", "expected"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a b c d", "a x c d", 0.75),
        ("a b", "b a", 0.5),
        ("a b", "", 0.0),
        ("", "a", 1.0),
        ("a a", "a b c d", 0.5),
        ("A", "a", 0),
    ],
)
def test_kept_word_share(original: str, variant: str, expected: float) -> None:
    assert kept_word_share(original, variant) == expected


@pytest.mark.parametrize(
    ("text", "opens"),
    [("Aspirin helps us", True), ("Mice ate. Aspirin helps us", True), ('He said "no!" Aspirin helps us', True), ("Then Aspirin helps us", False)],
)
def test_sentence_starts(text: str, opens: bool) -> None:
    [span] = changed_spans(text, text.replace("Aspirin", "Heparin"))
    assert span.opens_sentence == opens


def test_tokens_of_a_range() -> None:
    """`fell by 1,200 mmHg` in tokens: fell | _by | _1 | , | 200 | _mm | Hg, each with the space before it."""
    start = np.array([0, 4, 7, 9, 10, 13, 16], np.int32)
    end = np.array([4, 7, 9, 10, 13, 16, 18], np.int32)
    number = (8, 13)
    assert np.flatnonzero(overlapping_tokens(start, end, [number])).tolist() == [2, 3, 4]
    assert np.flatnonzero(overlapping_tokens(start, end, [(14, 18)])).tolist() == [5, 6]
    assert np.flatnonzero(overlapping_tokens(start, end, [number, (0, 4)])).tolist() == [0, 2, 3, 4]
    assert np.flatnonzero(overlapping_tokens(start, end, [(11, 12)])).tolist() == [4]  # part of a token is enough
    assert not overlapping_tokens(start, end, []).any()


def test_a_token_of_the_space_alone_is_not_the_words() -> None:
    start, end = np.array([0, 1, 2], np.int32), np.array([1, 2, 3], np.int32)  # "a", " ", "b"
    assert overlapping_tokens(start, end, [(2, 3)]).tolist() == [False, False, True]


def test_all_tokens_of_a_split_character_count() -> None:
    start, end = np.array([0, 1, 1, 1], np.int32), np.array([1, 2, 2, 2], np.int32)  # "a", then three bytes of one character
    assert overlapping_tokens(start, end, [(1, 2)]).tolist() == [False, True, True, True]
