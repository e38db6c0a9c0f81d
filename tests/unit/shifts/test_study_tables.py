"""Tables that a study makes of points: facts and interactions over seeds, independence, fingerprint, natural pairs; by hand."""

from pathlib import Path
from typing import Any

import pytest

from lmdissect.shifts.fact_seeds import facts_of_one_run, facts_over_seeds
from lmdissect.shifts.fingerprint import fingerprint_rows
from lmdissect.shifts.independence import corpus_name, independence_rows
from lmdissect.shifts.interaction_seeds import interactions_over_seeds
from lmdissect.shifts.natural import natural_rows
from lmdissect.shifts.panel import read_panels
from lmdissect.shifts.run_tokens import TokenReader
from score_tables import ScoredText
from study_runs import CONFIG, estimate_row, save_run, save_texts


def _fact_run(folder: Path, seed: int, gains: list[float]) -> Any:
    """The changed word gains in the original by ``gains``; in the counterfactual it loses 0.1. The other two words gain 1 on both sides."""
    base, tuned = [], []
    for d, gain in enumerate(gains):
        for variant, word, change in (("original", "12", gain), ("counterfactual", "9", -0.1)):
            text = f"dose of {word} mg"
            base.append(ScoredText(f"d{d}", variant, text, (-3.0,) * 4))
            tuned.append(ScoredText(f"d{d}", variant, text, (-2.0, -2.0, -3.0 + change, -2.0)))
    return save_texts(folder, base, tuned, seed=seed)


def test_facts_over_seeds_are_means_over_the_changed_words(tmp_path: Path) -> None:
    runs = [_fact_run(tmp_path, 0, [0.1, 0.3, 0.2]), _fact_run(tmp_path, 1, [0.3, 0.3, 0.6])]
    reader = TokenReader()
    rows, gaps = facts_over_seeds(read_panels(runs)[0][0], [reader.read(run) for run in runs], CONFIG)
    found = {(row["selection"], row["statistic"]): row for row in rows}
    # mean over documents and seeds of gain + 0.1
    assert found["changed", "mean"]["estimate"] == pytest.approx(0.4, abs=1e-6)
    assert found["number", "mean"]["estimate"] == pytest.approx(0.4, abs=1e-6)
    assert (found["changed", "mean"]["num_original_tokens"], found["changed", "mean"]["num_variant_tokens"]) == (3, 3)
    assert {(row["num_seeds"], row["num_documents"]) for row in rows} == {(2, 3)}
    assert found["changed", "mean"]["p_holm"] == found["changed", "mean"]["p_value"], "one factual variant is one test"
    assert "named, mean: fewer than 2 documents have such tokens under every seed" in {gap.reason for gap in gaps}


def test_facts_of_one_seed_are_those_of_its_run(tmp_path: Path) -> None:
    rows = facts_of_one_run(read_panels([_fact_run(tmp_path, 0, [0.1, 0.3, 0.2])])[0][0])
    found = {(row["selection"], row["statistic"]): row for row in rows}
    assert found["changed", "mean"]["estimate"] == pytest.approx(0.3, abs=1e-6)
    assert not any(name.endswith("_contrast") for row in rows for name in row)


def test_interactions_over_seeds(tmp_path: Path) -> None:
    runs = [
        save_run(
            tmp_path,
            {"original": [0.5, 0.7, 0.6], "nonbiomedical": [0.1, 0.2, 0.1], "casual": [0.2, 0.2, 0.1], "nonbiomedical_casual": [both, 0.1, 0.1]},
            seed=seed,
        )
        for seed, both in enumerate((0.1, 0.3))
    ]
    rows, gaps = interactions_over_seeds(read_panels(runs)[0][0], CONFIG)
    token = next(row for row in rows if row["normalization"] == "token")
    # per document: 0.5-0.1-0.2+both = 0.3, 0.5; 0.7-0.2-0.2+0.1 = 0.4; 0.6-0.1-0.1+0.1 = 0.5
    assert token["estimate"] == pytest.approx((0.3 + 0.5 + 2 * 0.4 + 2 * 0.5) / 6, abs=1e-6)
    assert (token["first_variant"], token["second_variant"], token["num_seeds"], token["num_documents"]) == ("nonbiomedical", "casual", 2, 3)
    assert gaps == []


def _corpus_runs(folder: Path) -> list[Any]:
    gains = {"original": {"original": [0.5, 0.7, 0.3], "casual": [0.1, 0.2, 0.1]}, "casual": {"original": [0.2, 0.2, 0.2], "casual": [0.4, 0.3, 0.6]}}
    return [
        save_run(
            folder,
            found,
            point=f"variant={corpus}",
            fields={"corpus.variant": corpus},
            training_corpus=corpus_name("pubmed", corpus),
        )
        for corpus, found in gains.items()
    ]


def test_independence_holds_each_corpus_and_its_difference_to_the_originals(tmp_path: Path) -> None:
    panels, _ = read_panels(_corpus_runs(tmp_path))
    estimates = [estimate_row(point=panel.point, p_value=0.02) for panel in panels]
    rows, gaps = independence_rows(panels, estimates, CONFIG)
    assert [(row["training_corpus"], row["compared_with"]) for row in rows] == [
        ("pubmed: original", None),
        ("pubmed: casual", None),
        ("pubmed: casual minus pubmed: original", "pubmed: original"),
    ]
    assert [row["p_holm"] for row in rows[:2]] == [0.04, 0.04], "Holm over the two cells"
    # shift after casual: -0.2, -0.1, -0.4; after originals: 0.4, 0.5, 0.2
    assert rows[2]["estimate"] == pytest.approx(-0.6, abs=1e-6)
    assert rows[2]["num_documents"] == 3
    assert gaps == []


def test_a_document_that_one_corpus_lacks_is_named_in_the_difference(tmp_path: Path) -> None:
    runs = _corpus_runs(tmp_path / "a")
    gains = {"original": [0.5, 0.7], "casual": [0.1, 0.2]}
    short = save_run(tmp_path / "b", gains, point="variant=original", training_corpus="pubmed: original", fields={"corpus.variant": "original"})
    panels, _ = read_panels([short, runs[1]])
    rows, gaps = independence_rows(panels, [], CONFIG)
    assert rows[0]["num_documents"] == 2
    assert "0 runs and 1 documents" in gaps[0].reason


def test_corpora_that_differ_in_more_than_themselves_are_no_matrix(tmp_path: Path) -> None:
    runs = _corpus_runs(tmp_path)
    from dataclasses import replace

    other = replace(runs[1], fields={"corpus.variant": "casual", "corpus.size": 20})
    panels, _ = read_panels([runs[0], other])
    assert independence_rows(panels, [estimate_row(point=panel.point) for panel in panels], CONFIG) == ([], [])


def test_fingerprint_is_the_control_everywhere_and_kept_words_of_all(tmp_path: Path) -> None:
    run = save_run(tmp_path, {"original": [0.3, 0.2], "casual": [0.1, 0.2], "paraphrase": [0.1, 0.1]}, generators={"paraphrase": "gpt"})
    panels, _ = read_panels([run])
    control = {"variant": "paraphrase", "factor": "control", "is_headline": True}
    estimates = [estimate_row(), estimate_row(**control, estimate=0.07), estimate_row(reference="control"), estimate_row(normalization="byte")]
    curves = [
        estimate_row(**control, axis="corpus.size", group="", x=10.0, x_label="10"),
        estimate_row(axis="corpus.size", group="", x=10.0, x_label="10"),
    ]
    rows = fingerprint_rows(panels, estimates, curves)
    assert [(row["variant"], row["axis"], row["writer"]) for row in rows] == [
        ("casual", None, None),
        ("paraphrase", None, "gpt"),
        ("paraphrase", "corpus.size", "gpt"),
    ]
    assert rows[1]["estimate"] == 0.07
    assert rows[0]["kept_words_median"] == 0.0, "no word of these variants is one of the original's"


def test_natural_pairs_stand_beside_synthetic_ones(tmp_path: Path) -> None:
    natural = save_run(tmp_path, {"original": [0.3, 0.2], "plain": [0.1, 0.2]}, probes="natural", natural=True)
    synthetic = save_run(tmp_path, {"original": [0.3, 0.2], "casual": [0.1, 0.2]})
    panels, _ = read_panels([synthetic, natural])
    estimates = [
        estimate_row(p_value=0.03),
        estimate_row(probes="natural", variant="plain", p_value=0.01),
        estimate_row(variant="counterfactual", factor="factual"),
    ]
    rows = natural_rows(panels, estimates)
    assert [(row["kind"], row["variant"], row["p_holm"]) for row in rows] == [("natural", "plain", 0.02), ("synthetic", "casual", 0.03)]
    assert natural_rows(panels[:1], estimates) == []
