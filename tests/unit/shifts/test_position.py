"""Bins, their contrasts by hand, and the cumulative share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdissect.shifts import ShiftConfig, pair_scores
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.position import bin_edges, bin_of_position, cumulative_rows, position_rows
from score_tables import ScoredText, save_scores

NAN = float("nan")
CONFIG = ShiftConfig(num_draws=500)


def _paired(tmp_path: Path, texts: dict[tuple[str, str], tuple[list[float], list[float]]], **options: object) -> PairedScores:
    tables = [
        save_scores(
            tmp_path / name,
            [ScoredText(d, v, " ".join(f"{d}{v}{n}" for n in range(len(scores[0]))), scores[number]) for (d, v), scores in texts.items()],
            model=name,
            **(options if number else {}),  # type: ignore[arg-type]
        )
        for number, name in enumerate(("base", "tuned"))
    ]
    return pair_scores(*tables)


def test_bins_are_powers_of_two() -> None:
    positions = np.array([0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 1023, 1024])
    assert bin_of_position(positions).tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 10, 11]
    assert [bin_edges(number) for number in range(5)] == [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16)]


def test_every_position_is_inside_its_bin() -> None:
    for position in range(5000):
        start, end = bin_edges(int(bin_of_position(np.array([position]))[0]))
        assert start <= position < end


def _by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["document_set"], row["bin_start"]): row for row in rows}


def test_bin_contrasts_by_hand(tmp_path: Path) -> None:
    """Means within a document first, then over documents; a document counts in a bin that both its texts reach."""
    paired = _paired(
        tmp_path,
        {
            ("d1", "original"): ([-1.0, -2.0, -3.0, -5.0], [-0.5, -2.0, -2.0, -4.0]),
            ("d1", "casual"): ([-2.0, -2.0, -6.0], [-2.0, -1.0, -6.5]),
            ("d2", "original"): ([-4.0, -4.0, -4.0], [-3.0, -3.5, -4.0]),
            ("d2", "casual"): ([-1.0, -1.0, -1.0, -3.0, -9.0], [-1.0, -1.0, -1.0, -1.0, -1.0]),
            ("d3", "original"): ([-1.0], [0.0]),
            ("d3", "casual"): ([-1.0, -1.0], [-1.0, -1.0]),
        },
    )
    rows = _by_key(position_rows(paired, CONFIG)[0])
    assert sorted(rows) == [("all", 0), ("all", 1), ("all", 2)]  # under ten documents: no fixed set; one text alone reaches bin 4-7
    first, second, third = rows["all", 0], rows["all", 1], rows["all", 2]
    assert (first["bin_end"], second["bin_end"], third["bin_end"]) == (1, 2, 4)
    assert (first["num_documents"], second["num_documents"], third["num_documents"]) == (3, 2, 2)
    assert first["base_contrast"] == pytest.approx((1.0 - 3.0 + 0.0) / 3)
    assert first["tuned_contrast"] == pytest.approx((1.5 - 2.0 + 1.0) / 3)
    assert first["estimate"] == pytest.approx((0.5 + 1.0 + 1.0) / 3)
    assert first["gain"] == pytest.approx((0.5 + 1.0 + 1.0) / 3)
    assert second["estimate"] == pytest.approx(((0.0 - 1.0) + (0.5 - 0.0)) / 2)
    assert second["gain"] == pytest.approx(0.25)
    # bin 2-3: d1 (-4 -> -3) - (-6 -> -6.5), d2 (-4 -> -4) - (-2 -> -1)
    assert third["base_contrast"] == pytest.approx((2.0 - 2.0) / 2)
    assert third["tuned_contrast"] == pytest.approx((3.5 - 3.0) / 2)
    assert third["estimate"] == pytest.approx(0.25)
    assert third["gain"] == pytest.approx(0.5)
    for row in rows.values():
        assert row["ci_low"] <= row["estimate"] <= row["ci_high"]
        assert row["gain_ci_low"] <= row["gain"] <= row["gain_ci_high"]


def _lengths(lengths: list[int], *, first_scored: bool = True) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    rng = np.random.default_rng(0)
    texts = {}
    for number, length in enumerate(lengths):
        for variant, gain in (("original", 1.0), ("casual", 0.25)):
            base = rng.normal(-3.0, 0.5, length)
            tuned = base + gain * (1.0 if number % 2 else 3.0)
            if not first_scored:
                base[0] = tuned[0] = NAN
            texts[f"d{number}", variant] = (base.tolist(), tuned.tolist())
    return texts


def test_the_fixed_set_is_the_same_documents_in_every_bin(tmp_path: Path) -> None:
    """30 documents, 12 of which reach bin 8-15 and 3 bin 16-31: a quarter and ten reach 8-15."""
    paired = _paired(tmp_path, _lengths([3] * 10 + [6] * 8 + [12] * 9 + [20] * 3))
    rows = _by_key(position_rows(paired, CONFIG)[0])
    everyone = {start: rows["all", start]["num_documents"] for start in (0, 1, 2, 4, 8, 16)}
    assert everyone == {0: 30, 1: 30, 2: 30, 4: 20, 8: 12, 16: 3}
    fixed = {start: row["num_documents"] for (name, start), row in rows.items() if name == "fixed"}
    assert fixed == {0: 12, 1: 12, 2: 12, 4: 12, 8: 12}
    estimates = [rows["fixed", start]["estimate"] for start in (0, 1, 2, 4, 8)]
    assert estimates == pytest.approx([estimates[0]] * 5, abs=1e-5)  # the shift per token does not depend on position here


def test_a_first_token_without_score_has_no_bin(tmp_path: Path) -> None:
    rows = _by_key(position_rows(_paired(tmp_path, _lengths([6] * 12, first_scored=False)), CONFIG)[0])
    assert sorted(rows) == [("all", 1), ("all", 2), ("all", 4), ("fixed", 1), ("fixed", 2), ("fixed", 4)]
    assert rows["fixed", 4]["num_documents"] == 12


def test_cumulative_share_by_hand(tmp_path: Path) -> None:
    """Token gains of originals less those of variants: per document, summed up to t, over the mean of the whole."""
    texts: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for number in range(8):
        bonus = 0.01 * number
        texts[f"d{number}", "original"] = ([-3.0] * 5, [-2.0, -2.5 + bonus, -3.0, -3.0, -2.75])
        texts[f"d{number}", "casual"] = ([-3.0] * 3, [-3.0, -3.0, -2.75])
    rows, unavailable = cumulative_rows(_paired(tmp_path, texts), CONFIG)
    assert unavailable == []
    assert [row["position"] for row in rows] == [1, 2, 4, 8]
    total = 1.0 + 0.5 + 0.035 + 0.25 - 0.25
    assert [row["share"] for row in rows] == pytest.approx([1.0 / total, 1.535 / total, 1.285 / total, 1.0])
    assert rows[-1]["share"] == rows[-1]["ci_low"] == rows[-1]["ci_high"] == 1.0
    assert {row["num_documents"] for row in rows} == {8}
    for row in rows:
        assert row["ci_low"] <= row["share"] <= row["ci_high"]


def test_no_cumulative_share_of_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = {
        (f"d{number}", variant): ([-3.0] * 4, (-3.0 + rng.normal(0, 1, 4)).tolist()) for number in range(20) for variant in ("original", "casual")
    }
    rows, unavailable = cumulative_rows(_paired(tmp_path, texts), CONFIG)
    assert rows == []
    assert [(entry.table, entry.variant, entry.normalization) for entry in unavailable] == [("cumulative", "casual", "document")]
    assert "covers 0" in unavailable[0].reason


def test_other_tokenizers_have_no_positions(tmp_path: Path) -> None:
    paired = _paired(tmp_path, _lengths([6] * 12), tokenizer="other")
    assert position_rows(paired, CONFIG) == ([], [])
    assert cumulative_rows(paired, CONFIG) == ([], [])
