"""Positions and cumulative shares over seeds, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmdissect.records import StudyRun
from lmdissect.shifts.panel import Panel, read_panels
from lmdissect.shifts.position import cumulative_rows, position_rows
from lmdissect.shifts.position_seeds import cumulative_over_seeds, linearised_ratio, positions_of_one_run, positions_over_seeds
from lmdissect.shifts.run_tokens import RunTokens, TokenReader
from lmdissect.store import read_table
from score_tables import ScoredText
from study_runs import CONFIG, save_texts

# Token gains of the original at positions 0, 1, 2, 3 (bins 0, 1, 2-3) by document and seed; variants do not gain.
GAINS = {
    0: [[0.9, 0.1, 0.2, 0.4], [0.7, 0.3, 0.0, 0.2], [0.8, 0.1, 0.2, 0.2]],
    1: [[1.1, 0.1, 0.4, 0.4], [0.9, 0.1, 0.2, 0.2], [1.0, 0.3, 0.0, 0.0]],
}


def _run(folder: Path, seed: int, gains: list[list[float]]) -> StudyRun:
    texts = {variant: [f"{variant}{d}a b c d" for d in range(len(gains))] for variant in ("original", "casual")}
    base = [ScoredText(f"d{d}", variant, text, (-3.0,) * 4) for variant, found in texts.items() for d, text in enumerate(found)]
    tuned = [
        ScoredText(text.document_id, text.variant, text.text, [-3.0 + gain for gain in gains[int(text.document_id[1:])]])
        if text.variant == "original"
        else text
        for text in base
    ]
    return save_texts(folder, base, tuned, seed=seed)


@pytest.fixture
def two_seeds(tmp_path: Path) -> tuple[Panel, list[RunTokens]]:
    runs = [_run(tmp_path, seed, gains) for seed, gains in GAINS.items()]
    panels, gaps = read_panels(runs)
    assert gaps == []
    reader = TokenReader()
    return panels[0], [reader.read(run) for run in runs]


def test_bins_are_means_over_documents_and_seeds(two_seeds: tuple[Panel, list[RunTokens]]) -> None:
    rows, gaps = positions_over_seeds(*two_seeds, CONFIG)
    found = {row["bin_start"]: row for row in rows if row["document_set"] == "all"}
    assert {start: round(row["estimate"], 6) for start, row in found.items()} == {0: 0.9, 1: round(1.0 / 6, 6), 2: 0.2}
    assert {row["gain"] for row in found.values()} == {row["estimate"] for row in found.values()}  # variants do not gain
    assert {(row["num_seeds"], row["num_documents"], row["reference"]) for row in rows} == {(2, 3, "original")}
    assert all(row["ci_low"] < row["estimate"] < row["ci_high"] for row in found.values())
    assert [gap.reason for gap in gaps] == ["fixed: no bin is reached by 10 documents and a quarter of them"]


def test_cumulative_share_is_the_ratio_of_the_means(two_seeds: tuple[Panel, list[RunTokens]]) -> None:
    rows, gaps = cumulative_over_seeds(*two_seeds, CONFIG)
    assert gaps == []
    # sums before the end of each bin, over six cells: 5.4, 6.4, 8.8
    assert {row["position"]: round(row["share"], 5) for row in rows} == {1: round(5.4 / 8.8, 5), 2: round(6.4 / 8.8, 5), 4: 1.0}
    last = rows[-1]
    assert last["ci_low"] == pytest.approx(1.0)
    assert last["ci_high"] == pytest.approx(1.0)
    assert rows[0]["ci_low"] < rows[0]["share"] < rows[0]["ci_high"]


def test_a_shift_that_may_be_0_has_no_shares(tmp_path: Path) -> None:
    flat = {
        0: [[0.1, -0.1, 0.0, 0.1], [-0.1, 0.1, 0.0, -0.1], [0.1, 0.0, 0.0, 0.0]],
        1: [[0.0, 0.0, 0.1, 0.0], [0.0, 0.1, 0.0, 0.0], [0.0, 0.0, -0.2, 0.0]],
    }
    runs = [_run(tmp_path, seed, gains) for seed, gains in flat.items()]
    reader = TokenReader()
    rows, gaps = cumulative_over_seeds(read_panels(runs)[0][0], [reader.read(run) for run in runs], CONFIG)
    assert rows == []
    assert "covers 0" in gaps[0].reason


def test_a_document_that_one_seed_lacks_may_be_the_longest(tmp_path: Path) -> None:
    """Bases scored apart: the second seed knows no text of more than four tokens, so its tables have fewer bins."""
    reader, runs = TokenReader(), []
    for seed, gains in ((0, [*GAINS[0], [0.1] * 40]), (1, GAINS[1])):
        base = [
            ScoredText(f"d{d}", variant, " ".join(f"{variant}{d}w{word}" for word in range(len(found))), (-3.0,) * len(found))
            for variant in ("original", "casual")
            for d, found in enumerate(gains)
        ]
        tuned = [
            replace(text, logprob_nats=[-3.0 + gain for gain in gains[int(text.document_id[1:])]]) if text.variant == "original" else text
            for text in base
        ]
        runs.append(save_texts(tmp_path / str(seed), base, tuned, seed=seed))
    (panel,), _ = read_panels(runs)
    assert panel.left_out == ("d3",)
    tokens = [reader.read(run) for run in runs]
    rows, _ = positions_over_seeds(panel, tokens, CONFIG)
    assert {row["bin_start"]: round(row["estimate"], 6) for row in rows} == {0: 0.9, 1: round(1.0 / 6, 6), 2: 0.2}
    shares, _ = cumulative_over_seeds(panel, tokens, CONFIG)
    assert {row["position"]: round(row["share"], 5) for row in shares} == {1: round(5.4 / 8.8, 5), 2: round(6.4 / 8.8, 5), 4: 1.0}


def test_one_seed_keeps_the_rows_of_its_run(tmp_path: Path) -> None:
    run = _run(tmp_path, 0, GAINS[0])
    positions, cumulative = positions_of_one_run(
        *(read_table(run.shift_folder / f"{name}.parquet").to_pylist() for name in ("position", "cumulative"))
    )
    from lmdissect.formats.scores import read_scores
    from lmdissect.shifts import pair_scores

    assert run.base_scores is not None
    assert run.tuned_scores is not None
    paired = pair_scores(read_scores(run.base_scores), read_scores(run.tuned_scores))
    wanted, _ = position_rows(paired, CONFIG)
    assert [row["estimate"] for row in positions] == [row["estimate"] for row in wanted]
    assert [row["share"] for row in cumulative] == [row["share"] for row in cumulative_rows(paired, CONFIG)[0]]
    assert {row["num_seeds"] for row in positions + cumulative} == {1}
    assert not any(name.endswith("_contrast") for row in positions for name in row)


def test_linearised_values_have_the_ratio_as_their_mean_and_its_spread() -> None:
    rng = np.random.default_rng(0)
    bottom = rng.normal(2.0, 0.1, (1, 400))
    top = 0.5 * bottom + rng.normal(0.0, 0.05, (1, 400))
    values = linearised_ratio(top, bottom)
    assert values.mean() == pytest.approx(top.mean() / bottom.mean())
    drawn = [(top[0, pick].mean() / bottom[0, pick].mean()) for pick in rng.integers(0, 400, (2000, 400))]
    assert values.std() / np.sqrt(400) == pytest.approx(np.std(drawn), rel=0.08)
