"""Runs of one point -> arrays: what all seeds share, and what is refused by name while the rest goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmdissect.errors import StaleArtifactError
from lmdissect.formats.shift_tables import FORMAT_VERSION, read_document_values, read_shift_tables
from lmdissect.records import StudyRun
from lmdissect.shifts import measure_shifts
from lmdissect.shifts.panel import read_panels
from lmdissect.store import read_json, write_json
from score_tables import ScoredText
from study_runs import CONFIG, save_run, save_texts

GAINS = {"original": [0.3, 0.2, 0.4, 0.1], "casual": [0.1, 0.1, 0.2, 0.0], "paraphrase": [0.2, 0.3, 0.3, 0.1]}


def _more(offset: float) -> dict[str, list[float]]:
    return {variant: [gain + offset for gain in gains] for variant, gains in GAINS.items()}


def test_gains_and_shifts_by_hand(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, _more(0.1), seed=3), save_run(tmp_path, GAINS, seed=1)]
    (panel,), gaps = read_panels(runs)
    assert gaps == []
    assert (panel.seeds, panel.document_ids, panel.left_out) == ((1, 3), ("d0", "d1", "d2", "d3"), ())
    assert (panel.factors, panel.control) == ({"casual": "style", "paraphrase": "control"}, "paraphrase")
    np.testing.assert_allclose(panel.gain["token"]["original"], [GAINS["original"], _more(0.1)["original"]], atol=1e-6)
    np.testing.assert_allclose(panel.gain["document"]["original"], 4 * panel.gain["token"]["original"], atol=1e-9)  # four words each
    np.testing.assert_allclose(panel.shift("token", "casual", "original"), [[0.2, 0.1, 0.2, 0.1]] * 2, atol=1e-6)
    np.testing.assert_allclose(panel.shift("token", "casual", "control"), [[0.1, 0.2, 0.1, 0.1]] * 2, atol=1e-6)
    assert panel.pairings == (("casual", "original"), ("casual", "control"), ("paraphrase", "original"))
    assert panel.headline == {"casual": "control", "paraphrase": "original"}  # no word is kept
    assert panel.kept_words["casual"].tolist() == [0.0] * 4
    assert (panel.experiment, panel.point, panel.step, panel.label) == ("study", "size=10", None, "size=10")


def test_a_panel_of_one_seed_has_the_shifts_of_its_run(tmp_path: Path) -> None:
    run = save_run(tmp_path, GAINS)
    (panel,), _ = read_panels([run])
    rows = read_shift_tables(run.shift_folder)[1]["shifts"]
    assert len(rows) == 3 * len(panel.pairings)
    for row in rows:
        assert panel.shift(row["normalization"], row["variant"], row["reference"]).mean() == pytest.approx(row["estimate"], abs=1e-12)


def test_only_documents_of_every_seed_count(tmp_path: Path) -> None:
    full = save_run(tmp_path, GAINS, seed=0)
    base = [ScoredText(f"d{d}", v, f"{v}{d}w0 {v}{d}w1 {v}{d}w2 {v}{d}w3", (-3.0,) * 4) for v in GAINS for d in range(4)]
    tuned = [
        replace(text, logprob_nats=(-2.5,) * 4) for text in base if (text.document_id, text.variant) not in {("d1", "original"), ("d2", "casual")}
    ]
    fewer = save_texts(tmp_path, base, tuned, seed=1)
    (panel,), gaps = read_panels([full, fewer])
    assert gaps == []
    assert (panel.document_ids, panel.left_out, panel.texts_left_out) == (("d0", "d2", "d3"), ("d1",), {"casual": 1})
    assert np.isnan(panel.gain["token"]["casual"]).tolist() == [[False, True, False]] * 2
    assert np.isnan(panel.gain["token"]["paraphrase"]).sum() == 0


def test_texts_cut_by_a_limit_have_no_number_per_document(tmp_path: Path) -> None:
    words = {(v, d): f"{v} {d} three four" for v in ("original", "casual") for d in range(3)}
    base = [ScoredText(f"d{d}", v, text, (-3.0,) * (2 if (v, d) == ("casual", 1) else 4)) for (v, d), text in words.items()]
    run = save_texts(tmp_path, base, [replace(text, logprob_nats=[-2.0] * len(text.logprob_nats)) for text in base])
    (panel,), _ = read_panels([run])
    assert panel.truncated["casual"].tolist() == [False, True, False]
    assert np.isnan(panel.gain["document"]["casual"]).tolist() == [[False, True, False]]
    assert np.isnan(panel.gain["token"]["casual"]).sum() == 0


def test_other_tokenizers_leave_bytes(tmp_path: Path) -> None:
    base = save_run(tmp_path, GAINS)
    tuned = save_run(tmp_path / "other", GAINS, tokenizer="other")
    assert base.base_scores is not None
    assert tuned.tuned_scores is not None
    measure_shifts(base.base_scores, tuned.tuned_scores, CONFIG, tmp_path / "mixed")
    (panel,), gaps = read_panels([replace(base, shift_folder=tmp_path / "mixed")])
    assert (panel.normalizations, list(panel.gain), gaps) == (("byte",), ["byte"], [])


def _other_text(tmp_path: Path) -> StudyRun:
    return save_run(tmp_path / "longer", GAINS, num_words=5, seed=1)


def _other_tokenizer(tmp_path: Path) -> StudyRun:
    return save_run(tmp_path / "tokenizer", GAINS, tokenizer="other", seed=1)


def _same_seed(tmp_path: Path) -> StudyRun:
    return save_run(tmp_path / "again", GAINS, seed=0)


def _other_variants(tmp_path: Path) -> StudyRun:
    return save_run(tmp_path / "variants", {name: GAINS[name] for name in ("original", "casual")}, seed=1)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_other_text, "4 documents (d0, d1, d2) have another original text under seed 1"),
        (_other_tokenizer, "seeds 0 and 1 differ in tokenizer (words, and other)"),
        (_other_variants, "seeds 0 and 1 differ in the factor of 'paraphrase' (control, and not there)"),
    ],
)
def test_a_run_that_differs_is_left_out_by_name_and_the_rest_goes_on(tmp_path: Path, make: object, named: str) -> None:
    odd = make(tmp_path)  # type: ignore[operator]
    runs = [save_run(tmp_path, GAINS, seed=seed) for seed in (0, 2, 3)]
    panels, gaps = read_panels([odd, *runs, save_run(tmp_path, GAINS, point="size=20")])
    assert [(panel.point, panel.seeds) for panel in panels] == [("size=10", (0, 2, 3)), ("size=20", (0,))]
    (gap,) = gaps
    assert (gap.table, gap.experiment, gap.point, gap.probes, gap.variant) == ("runs", "study", "size=10", "probes", "all")
    assert gap.reason.startswith("seed 1 is left out: ")
    assert named in gap.reason
    (panel,), _ = read_panels([odd, runs[0]])
    assert panel.seeds == (0,), "of one and one the lowest seed"


def test_the_larger_set_stays_though_the_lowest_seed_is_the_odd_one(tmp_path: Path) -> None:
    odd = save_run(tmp_path / "tokenizer", GAINS, tokenizer="other", seed=0)
    (panel,), (gap,) = read_panels([odd, *(save_run(tmp_path, GAINS, seed=seed) for seed in (1, 2))])
    assert panel.seeds == (1, 2)
    assert gap.reason.startswith("seed 0 is left out: seeds 1 and 0 differ in tokenizer")


def test_a_seed_given_twice_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, GAINS), save_run(tmp_path, GAINS, seed=1), _same_seed(tmp_path)]
    (panel,), (gap,) = read_panels(runs)
    assert panel.seeds == (1,)
    assert gap.reason.startswith("seed 0 is there twice")
    panels, _ = read_panels([runs[0], runs[2]])
    assert panels == []


def test_a_run_without_a_document_of_the_others_is_left_out(tmp_path: Path) -> None:
    base = [ScoredText(f"d{d}", v, f"{v} {d}", (-3.0, -3.0)) for d in range(4) for v in ("original", "casual")]
    halves = [[text for text in base if (text.document_id < "d2") == first] for first in (True, False)]
    runs = [save_texts(tmp_path, base, half, seed=seed) for seed, half in enumerate(halves)]
    (panel,), (gap,) = read_panels(runs)
    assert (panel.seeds, gap.reason) == ((0,), "seed 1 is left out: seeds 0, 1 have no document in common")


def test_a_run_that_cannot_be_read_is_named_and_the_other_seeds_stand(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, GAINS, seed=seed) for seed in range(3)]
    (runs[0].shift_folder / "documents.parquet").write_bytes(b"damaged")
    panels, gaps = read_panels([*runs, replace(runs[1], seed=7, shift_folder=tmp_path / "nowhere")])
    assert [panel.seeds for panel in panels] == [(1, 2)]
    assert [gap.reason.split(":")[0] for gap in gaps] == ["seed 0", "seed 7"]
    assert "documents.parquet" in gaps[0].reason


def test_an_older_shift_artifact_is_refused_and_made_again_elsewhere(tmp_path: Path) -> None:
    """One without the table of documents has another key: it is neither reused nor read as if it had it."""
    run = save_run(tmp_path, GAINS)
    path = run.shift_folder / "manifest.json"
    manifest = read_json(path)
    assert manifest["inputs"].pop("format_version") == FORMAT_VERSION
    write_json(path, manifest | {"key": "of the older version"})
    panels, (gap,) = read_panels([run])
    assert panels == []
    assert "was made by another version" in gap.reason
    assert run.base_scores is not None
    assert run.tuned_scores is not None
    with pytest.raises(StaleArtifactError, match="format_version: nothing there, 2 here"):
        measure_shifts(run.base_scores, run.tuned_scores, CONFIG, run.shift_folder)


def test_the_table_of_documents_by_hand(tmp_path: Path) -> None:
    base = [
        ScoredText("d1", "original", "a b c", (-1.0, -2.0, -3.0)),
        ScoredText("d1", "casual", "a x c", (-1.0, -1.0)),  # cut by a limit
        ScoredText("d2", "original", "e", (-1.0,)),
    ]
    tuned = [replace(text, logprob_nats=[value + 0.5 for value in text.logprob_nats]) for text in base]
    run = save_texts(tmp_path, base, tuned)
    _, table = read_document_values(run.shift_folder)
    rows = {(row["document_id"], row["variant"], row["normalization"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows == 3 * 3
    casual = rows["d1", "casual", "token"]
    assert (casual["base_value"], casual["tuned_value"], casual["truncated"], casual["kept_words"]) == (-1.0, -0.5, True, pytest.approx(2 / 3))
    original = rows["d1", "original", "document"]
    assert (original["base_value"], original["tuned_value"], original["truncated"], original["kept_words"]) == (-6.0, -4.5, False, None)
    assert rows["d1", "original", "byte"]["base_value"] == pytest.approx(-6 / 5)
    assert len({row["text_hash"] for row in rows.values()}) == 3


def test_steps_are_points_of_their_own(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, GAINS, step=step) for step in (None, 4, 8)]
    panels, _ = read_panels(runs)
    assert [(panel.step, panel.label) for panel in panels] == [(None, "size=10"), (4, "size=10 step 4"), (8, "size=10 step 8")]
