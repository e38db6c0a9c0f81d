"""What a check finds in a probe set."""

import pytest

from lmdissect.alignment import kept_word_share
from lmdissect.probes import OverLongText, check_probe_set
from lmdissect.records import ProbeSet, ProbeText


def _probes(table: dict[str, dict[str, str]], factors: dict[str, str]) -> ProbeSet:
    texts = tuple(ProbeText(document_id, variant, text) for variant, column in table.items() for document_id, text in column.items())
    return ProbeSet(texts=texts, factors=factors, source="here")


PROBES = _probes(
    {
        "casual": {"1": "a b x d", "2": "a b c d e f g h", "9": "orphan"},
        "original": {"1": "a b c d", "2": "a b c d e f g h", "3": "A  b c d ", "4": "z"},
        "nonbiomedical": {"9": "orphan"},
    },
    {"casual": "style", "nonbiomedical": "topic"},
)


def test_counts_and_medians_are_by_document() -> None:
    check = check_probe_set(PROBES)
    assert (check.num_documents, check.num_originals) == (5, 4)
    assert [entry.variant for entry in check.variants] == ["nonbiomedical", "casual"]
    casual = check.variants[1]
    assert (casual.factor, casual.num_texts) == ("style", 3)
    assert (casual.num_missing, casual.missing_ids) == (2, ("3", "4"))
    assert (casual.num_orphans, casual.orphan_ids) == (1, ("9",))
    assert (casual.num_identical, casual.identical_ids) == (1, ("2",))
    assert casual.median_kept_word_share == pytest.approx((3 / 4 + 1) / 2)
    assert casual.median_length_ratio == 1.0


def test_variant_without_pairs_has_no_medians() -> None:
    topic = check_probe_set(PROBES).variants[0]
    assert (topic.num_missing, topic.num_orphans, topic.median_kept_word_share, topic.median_length_ratio) == (4, 1, None, None)


def test_same_original_under_two_ids_is_found_up_to_case_and_space() -> None:
    assert check_probe_set(PROBES).duplicate_originals == (("1", "3"),)


def test_lists_of_ids_stop_at_twenty_and_counts_do_not() -> None:
    originals = {f"{number:03d}": f"text {number}" for number in range(50)}
    [casual] = check_probe_set(_probes({"original": originals, "casual": {"000": "x"}}, {"casual": "style"})).variants
    assert casual.num_missing == 49
    assert casual.missing_ids == tuple(f"{number:03d}" for number in range(1, 21))


def test_over_long_texts_need_a_token_counter() -> None:
    without = check_probe_set(PROBES, max_tokens=3)
    assert (without.max_tokens, without.over_long) == (None, ())
    check = check_probe_set(PROBES, tokenizer=lambda text: len(text.split()), max_tokens=7)
    assert check.max_tokens == 7
    assert check.over_long == (OverLongText("2", "casual", 8), OverLongText("2", "original", 8))


@pytest.mark.parametrize(
    ("original", "variant", "share"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a b c d", "d c b a", 0.25),
        ("a b c d", "x a y c z", 0.5),
        ("a b", "", 0.0),
        (" ", "a", 1.0),
        ("a b", "a b c d", 1.0),
    ],
)
def test_kept_word_share(original: str, variant: str, share: float) -> None:
    assert kept_word_share(original, variant) == share


def test_frequent_words_of_a_long_text_count_too() -> None:
    original, variant = (" ".join(f"the {letter}{number}" for number in range(300)) for letter in "ab")
    assert kept_word_share(original, variant) == 0.5
