"""Documents and tokens that moved most, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from lmdissect.formats.scores import read_scores
from lmdissect.records import StudyRun
from lmdissect.shifts import pair_scores
from lmdissect.shifts.moved import MIN_TOKEN_DOCUMENTS, NUM_MOVED_DOCUMENTS, moved_document_rows, moved_token_rows
from lmdissect.shifts.panel import read_panels
from lmdissect.shifts.run_tokens import TokenReader, sum_token_gains
from score_tables import ScoredText
from study_runs import CONFIG, save_run, save_texts


def test_documents_are_ranked_by_their_mean_over_seeds(tmp_path: Path) -> None:
    runs = [
        save_run(tmp_path, {"original": gains, "casual": [0.0] * 5}, seed=seed)
        for seed, gains in ((0, [0.2, 0.6, 0.4, 0.1, 0.3]), (1, [0.4, 0.2, 0.6, 0.1, 0.1]))
    ]
    rows = moved_document_rows(read_panels(runs)[0][0])
    ranked = {row["rank"]: (row["document_id"], round(row["shift"], 6), round(row["gain"], 6)) for row in rows}
    assert ranked == {1: ("d2", 0.5, 0.5), 2: ("d1", 0.4, 0.4), 3: ("d0", 0.3, 0.3), -1: ("d3", 0.1, 0.1), -2: ("d4", 0.2, 0.2)}


def test_at_most_twenty_documents_at_either_end_and_none_in_both(tmp_path: Path) -> None:
    run = save_run(tmp_path, {"original": [0.1 + number / 100 for number in range(50)], "casual": [0.0] * 50})
    rows = moved_document_rows(read_panels([run])[0][0])
    assert len(rows) == 2 * NUM_MOVED_DOCUMENTS == len({row["document_id"] for row in rows})
    assert rows[0]["document_id"] == "d49"
    assert min(row["rank"] for row in rows) == -NUM_MOVED_DOCUMENTS


def _token_run(folder: Path, seed: int, up: float) -> StudyRun:
    """Six documents: `up` gains, `down` loses 0.2, `scarce` gains much in too few documents. Words of one length would be one token here."""
    base, tuned = [], []
    for d in range(6):
        words = ["up", "down", "up", f"ownxxx{d}"] + (["scarce"] if d < MIN_TOKEN_DOCUMENTS - 1 else ["everything"])
        gains = {"up": up + 0.02 * d, "down": -0.2, "scarce": 9.0, "everything": 0.0}
        for variant in ("original", "casual"):
            text = " ".join(words)
            base.append(ScoredText(f"d{d}", variant, text, (-3.0,) * 5))
            tuned.append(ScoredText(f"d{d}", variant, text, [-3.0 + (gains.get(word, 0.0) if variant == "original" else 0.0) for word in words]))
    return save_texts(folder, base, tuned, seed=seed)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_tokens_by_mean_gain_over_occurrences(tmp_path: Path, num_seeds: int) -> None:
    runs = [_token_run(tmp_path, seed, 0.4 + 0.1 * seed) for seed in range(num_seeds)]
    reader = TokenReader()
    rows = moved_token_rows(read_panels(runs)[0][0], [reader.read(run) for run in runs], CONFIG)
    found = {(row["token"], row["direction"]): row for row in rows if row["variant"] == "original"}
    assert (" scarce", "up") not in found, "it is in four documents"
    assert found[" down", "down"]["estimate"] == pytest.approx(-0.2)
    assert (found[" down", "down"]["num_occurrences"], found[" down", "down"]["num_documents"]) == (6, 6)
    up = found[" up", "up"]
    assert up["estimate"] == pytest.approx(0.45 + 0.05 * (num_seeds - 1), abs=1e-6)
    assert up["ci_low"] < up["estimate"] < up["ci_high"]
    assert all(row["estimate"] != 0 for row in rows)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_text_that_one_seed_lacks_takes_no_part_under_any(tmp_path: Path, lacking: int) -> None:
    """Every token gains 1, but in the texts that one seed lacks it gains 9 under the other."""
    texts = [ScoredText(f"d{d}", variant, "aaa bbbb", (-3.0, -3.0)) for d in range(12) for variant in ("original", "casual")]
    runs = []
    for seed in (0, 1):
        gains = {text: 9.0 if text.variant == "casual" and int(text.document_id[1:]) >= 7 else 1.0 for text in texts}
        tuned = [replace(text, logprob_nats=(-3.0 + gain,) * 2) for text, gain in gains.items() if seed != lacking or gain == 1.0]
        runs.append(save_texts(tmp_path, texts, tuned, seed=seed))
    reader = TokenReader()
    rows = moved_token_rows(read_panels(runs)[0][0], [reader.read(run) for run in runs], CONFIG)
    found = {(row["variant"], row["token"]): (row["estimate"], row["ci_low"], row["num_occurrences"], row["num_documents"]) for row in rows}
    assert found["casual", "aaa"] == (1.0, 1.0, 7, 7)
    assert found["original", "aaa"] == (1.0, 1.0, 12, 12)


def test_sums_by_string_and_document(tmp_path: Path) -> None:
    run = _token_run(tmp_path, 0, 0.4)
    assert run.base_scores is not None
    assert run.tuned_scores is not None
    paired = pair_scores(read_scores(run.base_scores), read_scores(run.tuned_scores))
    sums = sum_token_gains(paired, "original")
    string = list(sums.strings).index(" down")
    assert sums.count[sums.string == string].tolist() == [1] * 6
    assert sums.document[sums.string == string].tolist() == list(range(6))
    assert sums.gain.sum() == pytest.approx(2 * sum(0.4 + 0.02 * d for d in range(6)) - 1.2 + 4 * 9.0, abs=1e-5)
