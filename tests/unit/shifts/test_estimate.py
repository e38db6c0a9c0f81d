"""Contrast, shift, net shift, gain and share, by hand."""

from pathlib import Path

import numpy as np
import pytest

from lmdissect.records import FactorShift, UnavailableRow
from lmdissect.shifts import ShiftConfig, bootstrap_means, estimate_gains, estimate_shifts, holm, pair_scores
from lmdissect.shifts.estimate import ratio_interval, seeded_rng
from score_tables import ScoredText, documents_from_gains, save_scores

CONFIG = ShiftConfig(num_draws=2000)


def _shifts(
    tmp_path: Path, base: list[ScoredText], tuned: list[ScoredText], **options: object
) -> tuple[dict[tuple[str, str, str], FactorShift], list[UnavailableRow]]:
    left = save_scores(tmp_path / "base", base)
    right = save_scores(tmp_path / "tuned", tuned, model="tuned", **options)  # type: ignore[arg-type]
    rows, unavailable = estimate_shifts(pair_scores(left, right), CONFIG)
    return {(row.variant, row.reference, row.normalization): row for row in rows}, unavailable


# Three documents; texts of different length, so that the three normalizations differ. Scores per word, base then tuned.
_HAND = {
    ("d1", "original"): ("aa bb", (-2.0, -4.0), (-1.0, -3.0)),
    ("d2", "original"): ("cc", (-5.0,), (-4.5,)),
    ("d3", "original"): ("dd ee ff gg", (-1.0, -1.0, -2.0, -2.0), (-1.0, -1.0, -1.0, -1.0)),
    ("d1", "casual"): ("hh", (-3.0,), (-3.5,)),
    ("d2", "casual"): ("ii jj", (-2.0, -2.0), (-2.0, -1.0)),
    ("d3", "casual"): ("kk ll", (-4.0, -6.0), (-4.0, -5.0)),
    ("d1", "paraphrase"): ("mm nn", (-2.0, -2.0), (-1.75, -1.75)),
    ("d2", "paraphrase"): ("oo", (-3.0,), (-2.75,)),
    ("d3", "paraphrase"): ("pp", (-4.0,), (-3.0,)),
}


def _hand() -> tuple[list[ScoredText], list[ScoredText]]:
    return tuple(  # type: ignore[return-value]
        [ScoredText(document, variant, values[0], values[model]) for (document, variant), values in _HAND.items()] for model in (1, 2)
    )


def _by_hand(normalization: str, reference: str) -> tuple[float, float, float]:
    """base contrast, tuned contrast and gain of the originals, as means over the three documents, in plain Python."""

    def value(document: str, variant: str, model: int) -> float:
        text, *scores = _HAND[document, variant]
        divisor = {"token": len(scores[model]), "byte": len(text), "document": 1}[normalization]
        return sum(scores[model]) / divisor

    documents = ("d1", "d2", "d3")
    contrasts = [sum(value(d, reference, model) - value(d, "casual", model) for d in documents) / 3 for model in (0, 1)]
    return contrasts[0], contrasts[1], sum(value(d, "original", 1) - value(d, "original", 0) for d in documents) / 3


@pytest.mark.parametrize("normalization", ["token", "byte", "document"])
@pytest.mark.parametrize(("reference", "reference_text"), [("original", "original"), ("control", "paraphrase")])
def test_formulas_by_hand(tmp_path: Path, normalization: str, reference: str, reference_text: str) -> None:
    rows, _ = _shifts(tmp_path, *_hand())
    row = rows["casual", reference, normalization]
    base_contrast, tuned_contrast, gain = _by_hand(normalization, reference_text)
    assert row.base_contrast == pytest.approx(base_contrast)
    assert row.tuned_contrast == pytest.approx(tuned_contrast)
    assert row.estimate == pytest.approx(tuned_contrast - base_contrast)
    assert row.gain == pytest.approx(gain)
    assert (row.num_documents, row.factor, row.base_model, row.tuned_model, row.level) == (3, "style", "base", "tuned", 0.95)
    assert row.ci_low <= row.estimate <= row.ci_high


def test_signs_by_hand(tmp_path: Path) -> None:
    """Per token: gains of originals 1, 0.5, 0.5; of casual -0.5, 0.5, 0.5; of the control 0.25, 0.25, 1."""
    rows, _ = _shifts(tmp_path, *_hand())
    assert rows["casual", "original", "token"].estimate == pytest.approx((1.5 + 0.0 + 0.0) / 3)
    assert rows["casual", "control", "token"].estimate == pytest.approx((0.75 - 0.25 + 0.5) / 3)  # g(control) - g(v)
    assert rows["paraphrase", "original", "token"].estimate == pytest.approx((0.75 + 0.25 - 0.5) / 3)
    assert ("paraphrase", "control", "token") not in rows


def test_net_is_the_shift_less_the_controls(tmp_path: Path) -> None:
    rows, _ = _shifts(tmp_path, *_hand())
    for normalization in ("token", "byte", "document"):
        net = rows["casual", "original", normalization].estimate - rows["paraphrase", "original", normalization].estimate
        assert rows["casual", "control", normalization].estimate == pytest.approx(net)


def _many(gains: dict[str, np.ndarray]) -> tuple[list[ScoredText], list[ScoredText]]:
    return documents_from_gains({variant: values.tolist() for variant, values in gains.items()})


def test_share_and_its_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gain = rng.normal(0.4, 0.05, 50)
    rows, unavailable = _shifts(tmp_path, *_many({"original": gain, "casual": 0.75 * gain + rng.normal(0, 0.01, 50)}))
    row = rows["casual", "original", "token"]
    assert row.share == pytest.approx(row.estimate / row.gain)
    assert row.share == pytest.approx(0.25, abs=0.02)
    assert row.share_ci_low is not None
    assert row.share_ci_high is not None
    assert row.share_ci_low < row.share < row.share_ci_high
    assert row.share_ci_high - row.share_ci_low < (row.ci_high - row.ci_low) / row.gain + 0.02  # numerator and denominator keep their draws
    assert unavailable == []


def test_share_interval_is_that_of_the_resampled_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    gains = {"original": rng.normal(0.4, 0.2, 30), "casual": rng.normal(0.1, 0.2, 30)}
    base, tuned = _many(gains)
    left, right = save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned")
    paired = pair_scores(left, right)
    [row] = [row for row in estimate_shifts(paired, CONFIG)[0] if row.normalization == "token"]
    gain = paired.gains("token", "original")
    means = bootstrap_means(np.stack([gain - paired.gains("token", "casual"), gain], axis=1), 2000, seeded_rng(CONFIG, "bootstrap"))
    assert (row.share_ci_low, row.share_ci_high) == pytest.approx(np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975]))


def test_no_share_where_the_gain_is_not_apart_from_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows, unavailable = _shifts(tmp_path, *_many({"original": rng.normal(0.0, 0.3, 40), "casual": rng.normal(-0.5, 0.1, 40)}))
    for normalization in ("token", "byte", "document"):
        row = rows["casual", "original", normalization]
        assert (row.share, row.share_ci_low, row.share_ci_high) == (None, None, None)
        assert row.estimate > 0.3 or normalization != "token"
    reasons = [entry for entry in unavailable if entry.table == "shifts.share"]
    assert [(entry.variant, entry.reference, entry.normalization) for entry in reasons] == [
        ("casual", "original", n) for n in ("token", "byte", "document")
    ]
    assert all("covers 0" in entry.reason for entry in reasons)


def test_identical_models_give_exactly_nothing(tmp_path: Path) -> None:
    base, _ = _hand()
    rows, unavailable = _shifts(tmp_path, base, base)
    assert len(rows) == 9
    for row in rows.values():
        assert (row.estimate, row.ci_low, row.ci_high, row.gain) == (0.0, 0.0, 0.0, 0.0)
        assert (row.p_value, row.p_holm) == (1.0, 1.0)
        assert row.share is None
        assert row.base_contrast == row.tuned_contrast
        assert row.ci_method == "percentile (bca undefined)"
    assert len([entry for entry in unavailable if entry.table == "shifts.share"]) == 9


def test_holm_is_taken_within_reference_and_normalization(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    gains = {
        name: rng.normal(mean, 0.5, 25)
        for name, mean in (("original", 0.3), ("casual", 0.0), ("rap", 0.2), ("counterfactual", 0.3), ("paraphrase", 0.1))
    }
    rows, _ = _shifts(tmp_path, *_many(gains))
    for normalization in ("token", "byte", "document"):
        for reference, size in (("original", 4), ("control", 3)):
            family = [row for row in rows.values() if (row.reference, row.normalization) == (reference, normalization)]
            assert len(family) == size
            assert [row.p_holm for row in family] == holm([row.p_value for row in family])


def test_a_missing_variant_leaves_out_its_pair_alone(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2, 0.3, 0.4], "casual": [0.0, 0.0, 0.0, 0.0], "rap": [0.1, 0.1, 0.1, 0.1]})
    lost = ("d2", "casual")
    rows, _ = _shifts(tmp_path, [t for t in base if (t.document_id, t.variant) != lost], [t for t in tuned if (t.document_id, t.variant) != lost])
    casual, rap = rows["casual", "original", "token"], rows["rap", "original", "token"]
    assert (casual.num_documents, rap.num_documents) == (3, 4)
    assert casual.estimate == pytest.approx((0.1 + 0.2 + 0.4) / 3, abs=1e-6)
    assert casual.gain == pytest.approx((0.1 + 0.2 + 0.4) / 3, abs=1e-6)  # over the same documents
    assert rap.estimate == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("cut", ["original", "casual"])
def test_cut_pairs_are_left_out_of_the_per_document_rows_alone(tmp_path: Path, cut: str) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2, 0.3, 0.4], "casual": [0.0, 0.0, 0.0, 0.0]})
    base, tuned = (
        [ScoredText(t.document_id, t.variant, t.text, t.logprob_nats[:2]) if (t.document_id, t.variant) == ("d3", cut) else t for t in texts]
        for texts in (base, tuned)
    )
    rows, _ = _shifts(tmp_path, base, tuned)
    assert {name: rows["casual", "original", name].num_documents for name in ("token", "byte", "document")} == {"token": 4, "byte": 4, "document": 3}
    assert rows["casual", "original", "document"].estimate == pytest.approx(4 * 0.2, abs=1e-5)
    assert rows["casual", "original", "token"].estimate == pytest.approx(0.25, abs=1e-6)


def test_a_net_row_needs_a_whole_original_too_for_its_gain(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2, 0.3], "casual": [0.0] * 3, "paraphrase": [0.1] * 3})
    base, tuned = (
        [ScoredText(t.document_id, t.variant, t.text, t.logprob_nats[:1]) if (t.document_id, t.variant) == ("d0", "original") else t for t in texts]
        for texts in (base, tuned)
    )
    rows, _ = _shifts(tmp_path, base, tuned)
    assert rows["casual", "control", "document"].num_documents == 2
    assert rows["casual", "control", "document"].gain == pytest.approx(4 * 0.25, abs=1e-5)
    assert rows["casual", "control", "token"].num_documents == 3


def test_other_tokenizers_leave_per_byte_rows_and_say_so(tmp_path: Path) -> None:
    rows, unavailable = _shifts(tmp_path, *_hand(), tokenizer="other")
    assert {normalization for _, _, normalization in rows} == {"byte"}
    assert rows["casual", "original", "byte"].estimate == pytest.approx(_by_hand("byte", "original")[1] - _by_hand("byte", "original")[0])
    said = [(entry.table, entry.normalization) for entry in unavailable if "tokenizers differ" in entry.reason]
    assert said == [("shifts", "token"), ("shifts", "document")]


def test_a_row_of_one_document_is_left_out_with_a_reason(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2], "casual": [0.0]})
    rows, unavailable = _shifts(tmp_path, base, tuned)
    assert rows == {}
    assert [(entry.table, entry.variant, entry.normalization) for entry in unavailable] == [
        ("shifts", "casual", n) for n in ("token", "byte", "document")
    ]
    assert all(entry.reason.startswith("both texts are whole for 1 document;") for entry in unavailable)


def test_gains_by_hand_and_the_ones_that_are_missing(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2, 0.6], "casual": [-0.5]})
    paired = pair_scores(save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned"))
    rows, unavailable = estimate_gains(paired, CONFIG)
    assert [(row["variant"], row["normalization"], row["num_documents"]) for row in rows] == [
        ("original", n, 3) for n in ("token", "byte", "document")
    ]
    assert rows[0]["estimate"] == pytest.approx(0.3, abs=1e-6)
    assert rows[2]["estimate"] == pytest.approx(1.2, abs=1e-5)
    assert rows[0]["ci_low"] <= 0.3 <= rows[0]["ci_high"]
    assert [(entry.table, entry.variant, entry.normalization) for entry in unavailable] == [
        ("gains", "casual", n) for n in ("token", "byte", "document")
    ]


def test_seed_and_purpose_make_the_draws() -> None:
    first, again = (seeded_rng(CONFIG, "bootstrap").integers(0, 1 << 30, 5).tolist() for _ in range(2))
    assert first == again
    assert seeded_rng(CONFIG, "sign-flip").integers(0, 1 << 30, 5).tolist() != first
    assert seeded_rng(ShiftConfig(seed=1), "bootstrap").integers(0, 1 << 30, 5).tolist() != first


@pytest.mark.parametrize(
    ("bottoms", "expected"),
    [([2.0] * 100, (1.0, 1.0)), ([0.0] * 50 + [2.0] * 50, None), ([0.0] + [2.0] * 99, (1.0, 1.0))],
    ids=["plain", "half of the draws have nothing below", "one in a hundred"],
)
def test_a_ratio_to_nothing_has_no_interval(bottoms: list[float], expected: tuple[float, float] | None) -> None:
    assert ratio_interval(np.full(100, 2.0), np.array(bottoms), 0.95) == expected
