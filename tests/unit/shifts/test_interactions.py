"""Do two factors move independently: by hand, and which two variants a combination is made of."""

from pathlib import Path

import pytest

from lmdissect.shifts import ShiftConfig, pair_scores
from lmdissect.shifts.interactions import interaction_rows, single_variants
from score_tables import ScoredText, documents_from_gains, save_scores

CONFIG = ShiftConfig(num_draws=300)


@pytest.mark.parametrize(
    ("both", "factors", "expected"),
    [
        ("nonbiomedical_casual", {"nonbiomedical": "topic", "casual": "style", "rap": "style"}, ("nonbiomedical", "casual")),
        ("nonbiomedical_casual", {"nonbiomedical": "topic", "rap": "style"}, ("nonbiomedical", "rap")),
        ("mixed", {"nonbiomedical": "topic", "casual": "style"}, ("nonbiomedical", "casual")),
        ("mixed", {"nonbiomedical": "topic", "casual": "style", "rap": "style"}, None),
        ("mixed", {"nonbiomedical": "topic"}, None),
    ],
)
def test_single_variants(both: str, factors: dict[str, str], expected: tuple[str, str] | None) -> None:
    assert single_variants(both, {**factors, both: "topic+style"}) == expected


def test_three_factors_together_are_not_taken_apart() -> None:
    assert single_variants("all", {"all": "topic+style+factual", "a": "topic", "b": "style", "c": "factual"}) is None


_GAINS = {
    "original": [0.5, 0.7, 0.9],
    "nonbiomedical": [0.3, 0.3, 0.3],
    "casual": [0.2, 0.4, 0.3],
    "nonbiomedical_casual": [0.1, 0.1, 0.3],
}


def test_by_hand(tmp_path: Path) -> None:
    base, tuned = documents_from_gains(_GAINS)
    paired = pair_scores(save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned"))
    rows, unavailable = interaction_rows(paired, CONFIG)
    assert unavailable == []
    assert [(row["variant"], row["first_variant"], row["second_variant"], row["normalization"]) for row in rows] == [
        ("nonbiomedical_casual", "nonbiomedical", "casual", name) for name in ("token", "byte", "document")
    ]
    # 0.5 - 0.3 - 0.2 + 0.1, 0.7 - 0.3 - 0.4 + 0.1, 0.9 - 0.3 - 0.3 + 0.3
    assert rows[0]["estimate"] == pytest.approx((0.1 + 0.1 + 0.6) / 3, abs=1e-6)
    assert rows[2]["estimate"] == pytest.approx(4 * (0.1 + 0.1 + 0.6) / 3, abs=1e-5)
    assert rows[0]["num_documents"] == 3
    assert rows[0]["ci_low"] <= rows[0]["estimate"] <= rows[0]["ci_high"]


def test_independent_factors_interact_by_nothing(tmp_path: Path) -> None:
    base, tuned = documents_from_gains(
        {"original": [0.75, 0.5], "nonbiomedical": [0.5, 0.25], "casual": [0.25, 0.0], "nonbiomedical_casual": [0.0, -0.25]}
    )
    paired = pair_scores(save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned"))
    [row] = [row for row in interaction_rows(paired, CONFIG)[0] if row["normalization"] == "token"]
    assert (row["estimate"], row["p_value"]) == (0.0, 1.0)


def test_all_four_texts_are_needed_and_whole(tmp_path: Path) -> None:
    texts = documents_from_gains(_GAINS)
    for single in texts:
        single[:] = [t for t in single if (t.document_id, t.variant) != ("d0", "casual")]
        single[:] = [
            ScoredText(t.document_id, t.variant, t.text, t.logprob_nats[:1]) if (t.document_id, t.variant) == ("d1", "original") else t
            for t in single
        ]
    paired = pair_scores(save_scores(tmp_path / "b", texts[0]), save_scores(tmp_path / "t", texts[1], model="tuned"))
    rows, unavailable = interaction_rows(paired, CONFIG)
    assert {row["normalization"]: row["num_documents"] for row in rows} == {"token": 2, "byte": 2}
    assert [(entry.normalization, entry.reason) for entry in unavailable] == [("document", "fewer than 2 documents have all four texts whole")]


def test_a_combination_that_cannot_be_told_says_so(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1, 0.2], "nonbiomedical_casual": [0.0, 0.0]})
    paired = pair_scores(save_scores(tmp_path / "b", base), save_scores(tmp_path / "t", tuned, model="tuned"))
    rows, unavailable = interaction_rows(paired, CONFIG)
    assert rows == []
    assert [entry.variant for entry in unavailable] == ["nonbiomedical_casual"]
    assert "cannot be told" in unavailable[0].reason
