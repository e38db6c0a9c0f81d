"""What holds for any scores: the order of rows means nothing, swapping the models turns every sign, and shifts add up."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmdissect.alignment import changed_spans, kept_word_share
from lmdissect.records import FactorShift
from lmdissect.shifts import ShiftConfig, estimate_shifts, holm, pair_scores
from score_tables import ScoredText, save_scores

CONFIG = ShiftConfig(num_draws=100)
VARIANTS = ("original", "casual", "counterfactual", "paraphrase")
SCORES = st.integers(-400, 0).map(lambda hundredths: hundredths / 64)  # exact in float32
DOCUMENT = st.dictionaries(st.sampled_from(VARIANTS), st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=4), min_size=1)
DOCUMENTS = st.lists(DOCUMENT, min_size=2, max_size=6)


def _texts(documents: list[dict[str, list[tuple[float, float]]]]) -> tuple[list[ScoredText], list[ScoredText]]:
    pair: tuple[list[ScoredText], list[ScoredText]] = ([], [])
    for number, document in enumerate(documents):
        for variant, scores in document.items():
            words = " ".join(f"{variant}{number}{word}" for word in range(len(scores)))
            for model in (0, 1):
                pair[model].append(ScoredText(f"d{number}", variant, words, [score[model] for score in scores]))
    return pair


def _estimates(base: list[ScoredText], tuned: list[ScoredText]) -> dict[tuple[str, str, str], FactorShift]:
    with tempfile.TemporaryDirectory() as folder:
        left, right = save_scores(Path(folder) / "base", base), save_scores(Path(folder) / "tuned", tuned, model="tuned")
        rows, _ = estimate_shifts(pair_scores(left, right), CONFIG)
    return {(row.variant, row.reference, row.normalization): row for row in rows}


def _comparable(documents: list[dict[str, list[tuple[float, float]]]]) -> bool:
    return any("original" in document and len(document) > 1 for document in documents)


@settings(max_examples=20, deadline=None)
@given(DOCUMENTS, st.integers(0, 1_000_000))
def test_the_order_of_rows_means_nothing(documents: list[dict[str, list[tuple[float, float]]]], seed: int) -> None:
    """Variants that are missing here and there must not shift the pairing either."""
    assume(_comparable(documents))
    base, tuned = _texts(documents)
    rng = np.random.default_rng(seed)
    straight = _estimates(base, tuned)
    shuffled = _estimates([base[i] for i in rng.permutation(len(base))], [tuned[i] for i in rng.permutation(len(tuned))])
    assert set(straight) == set(shuffled)
    for key, row in straight.items():
        for name in ("estimate", "base_contrast", "tuned_contrast", "gain"):
            assert getattr(shuffled[key], name) == pytest.approx(getattr(row, name), abs=1e-12), (key, name)
        assert shuffled[key].num_documents == row.num_documents


@settings(max_examples=12, deadline=None)
@given(DOCUMENTS)
def test_swapping_the_models_turns_every_sign(documents: list[dict[str, list[tuple[float, float]]]]) -> None:
    assume(_comparable(documents))
    base, tuned = _texts(documents)
    forth, back = _estimates(base, tuned), _estimates(tuned, base)
    for key, row in forth.items():
        assert back[key].estimate == pytest.approx(-row.estimate, abs=1e-12)
        assert back[key].gain == pytest.approx(-row.gain, abs=1e-12)
        assert back[key].p_value == row.p_value
        assert back[key].base_contrast == row.tuned_contrast


@settings(max_examples=12, deadline=None)
@given(DOCUMENTS)
def test_a_model_against_itself_is_exactly_zero(documents: list[dict[str, list[tuple[float, float]]]]) -> None:
    assume(_comparable(documents))
    base, _ = _texts(documents)
    for row in _estimates(base, base).values():
        assert (row.estimate, row.ci_low, row.ci_high, row.p_value, row.p_holm, row.share) == (0.0, 0.0, 0.0, 1.0, 1.0, None)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.fixed_dictionaries({v: st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=3) for v in VARIANTS}), min_size=2, max_size=5))
def test_net_is_shift_less_control(documents: list[dict[str, list[tuple[float, float]]]]) -> None:
    rows = _estimates(*_texts(documents))
    for (variant, reference, normalization), row in rows.items():
        if reference == "control":
            difference = rows[variant, "original", normalization].estimate - rows["paraphrase", "original", normalization].estimate
            assert row.estimate == pytest.approx(difference, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_helps(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "8", "Paris."]), max_size=12)


@given(WORDS, WORDS)
def test_spans_and_kept_words_make_up_the_text(left: list[str], right: list[str]) -> None:
    original, variant = " ".join(left), "\n".join(right)
    spans = changed_spans(original, variant)
    changed = sum(len(span.original_words) for span in spans)
    assert kept_word_share(original, variant) == pytest.approx((len(left) - changed) / len(left) if left else 1.0)
    kept = [original, variant]
    for span in reversed(spans):
        for side, place in enumerate((span.original, span.variant)):
            if place:
                kept[side] = kept[side][: place[0]] + kept[side][place[1] :]
    assert kept[0].split() == kept[1].split()  # what is left is common to both
