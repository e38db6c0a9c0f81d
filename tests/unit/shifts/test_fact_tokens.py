"""Facts measured on facts: a change planted on a number is found there, in full, and nowhere else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdissect.alignment import ChangedSpan
from lmdissect.shifts import ShiftConfig, pair_scores
from lmdissect.shifts.fact_tokens import fact_token_rows, holds_key_term, holds_named_term, holds_number
from score_tables import ScoredText, save_scores

CONFIG = ShiftConfig(num_draws=300)


def _span(original: str = "", variant: str = "", *, opens: bool = False) -> ChangedSpan:
    return ChangedSpan((0, 1) if original else None, (0, 1) if variant else None, tuple(original.split()), tuple(variant.split()), opens)


@pytest.mark.parametrize(("original", "variant", "expected"), [("8", "nine", True), ("", "p=0.05", True), ("eight", "nine", False), ("", "", False)])
def test_numbers(original: str, variant: str, expected: bool) -> None:
    assert holds_number(_span(original, variant)) == expected


@pytest.mark.parametrize(
    ("words", "opens", "expected"),
    [
        ("Paris", False, True),
        ("Paris", True, False),  # its capital may be the sentence's
        ("the Paris", True, True),
        ("mRNA", True, True),
        ("(DNA)", True, True),
        ("end. The rest", False, False),
        ("risk of infection", False, False),
        ("“quoted”", False, False),
    ],
)
def test_named_terms(words: str, opens: bool, expected: bool) -> None:
    assert holds_named_term(_span(words, opens=opens)) == expected
    assert holds_named_term(_span("", words, opens=opens)) == expected


@pytest.mark.parametrize(
    ("words", "terms", "expected"),
    [
        ("Aspirin,", ["aspirin"], True),
        ("low infection", ["risk of infection"], True),
        ("of", ["risk of infection"], False),
        ("the", ["the"], False),
        ("aspirins", ["aspirin"], False),
        ("aspirin", [], False),
    ],
)
def test_key_terms(words: str, terms: list[str], expected: bool) -> None:
    assert holds_key_term(_span(words), terms) == expected
    assert not holds_key_term(_span("", words), terms)  # a key term is the original's


_PLANTED = 0.5


def _texts(*, num_documents: int = 6) -> tuple[list[ScoredText], list[ScoredText]]:
    """Originals `... fell by N mmHg with drugD`, counterfactuals with another N and another drug; only N's score moves, by _PLANTED + noise of mean 0."""
    base, tuned = [], []
    for d in range(num_documents):
        noise = 0.01 * (d - (num_documents - 1) / 2)
        for variant, number, drug, gain in (("original", 40 + d, "aspirin", _PLANTED + noise), ("counterfactual", 70 + d, "heparin", 0.0)):
            text = f"pressure {d} fell by {number} mmHg with {drug} here"
            scores = np.array([-1.0, -1.5, -2.0, -0.5, -4.0 if variant == "original" else -6.0, -1.0, -1.0, -3.0, -0.25])
            base.append(ScoredText(f"d{d}", variant, text, scores))
            tuned.append(ScoredText(f"d{d}", variant, text, scores + gain * np.eye(9)[4]))
    return base, tuned


def _rows(tmp_path: Path, base: list[ScoredText], tuned: list[ScoredText], **options: Any) -> tuple[dict[tuple[str, str], dict[str, Any]], list[Any]]:
    left = save_scores(tmp_path / "base", base, **options)
    right = save_scores(tmp_path / "tuned", tuned, model="tuned", **options)
    rows, unavailable = fact_token_rows(pair_scores(left, right), CONFIG)
    return {(row["selection"], row["statistic"]): row for row in rows}, unavailable


def test_a_planted_change_is_found_on_its_tokens(tmp_path: Path) -> None:
    base, tuned = _texts()
    rows, unavailable = _rows(tmp_path, base, tuned, key_terms={f"d{d}": ["aspirin"] for d in range(6)})
    assert rows["number", "mean"]["estimate"] == pytest.approx(_PLANTED, abs=1e-6)
    assert rows["number", "sum"]["estimate"] == pytest.approx(_PLANTED, abs=1e-6)
    assert (rows["number", "mean"]["num_original_tokens"], rows["number", "mean"]["num_variant_tokens"]) == (6, 6)
    assert rows["number", "mean"]["base_contrast"] == pytest.approx(2.0)
    assert rows["number", "mean"]["tuned_contrast"] == pytest.approx(2.5)
    assert rows["number", "mean"]["ci_low"] < _PLANTED < rows["number", "mean"]["ci_high"]
    assert rows["changed", "mean"]["estimate"] == pytest.approx(_PLANTED / 2, abs=1e-6)  # two changed words, one of which moved
    assert rows["changed", "sum"]["estimate"] == pytest.approx(_PLANTED, abs=1e-6)
    assert (rows["key_term", "mean"]["estimate"], rows["key_term", "sum"]["estimate"]) == (0.0, 0.0)
    assert rows["key_term", "mean"]["p_value"] == 1.0
    assert {row["num_documents"] for row in rows.values()} == {6}
    assert [(entry.table, entry.variant, entry.reason) for entry in unavailable] == [
        ("fact_tokens", "counterfactual", "named, mean: fewer than 2 documents have such tokens"),
        ("fact_tokens", "counterfactual", "named, sum: fewer than 2 documents have such tokens in whole texts"),
    ]


def test_a_change_beside_the_facts_is_not_found_on_them(tmp_path: Path) -> None:
    base, _ = _texts()
    tuned = [ScoredText(t.document_id, t.variant, t.text, np.asarray(t.logprob_nats) + (t.variant == "original") * np.eye(9)[2]) for t in base]
    rows, _ = _rows(tmp_path, base, tuned)
    assert rows["changed", "mean"]["estimate"] == rows["number", "sum"]["estimate"] == 0.0


def test_mean_and_sum_differ_where_the_spans_differ_in_length(tmp_path: Path) -> None:
    base, tuned = [], []
    for d in range(3):
        for variant, words in (("original", "took 5 mg daily"), ("counterfactual", "took 12 whole grams daily")):
            num = len(words.split())
            base.append(ScoredText(f"d{d}", variant, words, (-1.0,) + (-2.0,) * (num - 2) + (-1.0,)))
            tuned.append(ScoredText(f"d{d}", variant, words, (-1.0,) + (-1.5,) * (num - 2) + (-1.0,)))
    rows, _ = _rows(tmp_path, base, tuned)
    assert rows["number", "mean"]["estimate"] == 0.0
    assert rows["number", "sum"]["estimate"] == pytest.approx(2 * 0.5 - 3 * 0.5)
    assert rows["number", "sum"]["base_contrast"] == pytest.approx(-4.0 + 6.0)


def test_changes_beyond_a_token_limit_are_compared_on_neither_side(tmp_path: Path) -> None:
    """The counterfactual is longer, so its last change lies beyond the cut and the original's does not; sums need whole texts on both sides."""
    base, tuned = [], []
    for d in range(4):
        cut = d < 2
        for variant, words in (("original", "took 5 mg and 7 mg"), ("counterfactual", "took 12 mg and then and then 9 mg")):
            num = len(words.split())
            kept = 6 if cut else num
            number = np.array([any(character.isdigit() for character in word) for word in words.split()][:kept])
            base.append(ScoredText(f"d{d}", variant, words, np.full(kept, -2.0)))
            tuned.append(ScoredText(f"d{d}", variant, words, np.full(kept, -2.0) + 0.5 * number * (variant == "original")))
    rows, _ = _rows(tmp_path, base, tuned)
    assert rows["number", "mean"]["num_documents"] == 4
    assert rows["number", "mean"]["num_original_tokens"] == 1 + 1 + 2 + 2  # "7" of the cut documents has no counterpart within the limit
    assert rows["number", "sum"]["num_documents"] == 2
    assert rows["number", "sum"]["num_original_tokens"] == 4
    assert rows["number", "sum"]["estimate"] == pytest.approx(1.0)


def test_words_left_out_or_put_in_have_no_counterpart(tmp_path: Path) -> None:
    texts = [ScoredText(f"d{d}", v, t, (-1.0,) * len(t.split())) for d in range(3) for v, t in (("original", "a 5 b"), ("counterfactual", "a b"))]
    rows, unavailable = _rows(tmp_path, texts, texts)
    assert rows == {}
    assert len(unavailable) == 8


def test_an_unscored_first_word_is_no_fact_token(tmp_path: Path) -> None:
    texts = [ScoredText(f"d{d}", v, t, (float("nan"), -1.0, -2.0)) for d in range(3) for v, t in (("original", "5 b 7"), ("counterfactual", "6 b 8"))]
    rows, _ = _rows(tmp_path, texts, texts)
    assert rows["number", "mean"]["num_original_tokens"] == 3
    assert rows["number", "mean"]["base_contrast"] == 0.0


def test_only_variants_that_change_facts_have_rows(tmp_path: Path) -> None:
    texts = [ScoredText(f"d{d}", v, f"{v} {d} x", (-1.0,) * 3) for d in range(3) for v in ("original", "casual", "mixed")]
    rows, _ = _rows(tmp_path, texts, texts, factors={"mixed": "topic+factual"})
    assert {row["variant"] for row in rows.values()} == {"mixed"}


def test_other_tokenizers_have_no_fact_tokens(tmp_path: Path) -> None:
    base, tuned = _texts()
    paired = pair_scores(save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned", tokenizer="other"))
    rows, unavailable = fact_token_rows(paired, CONFIG)
    assert rows == []
    assert [(entry.variant, entry.reason) for entry in unavailable] == [("counterfactual", "the models' tokenizers differ")]
