"""Tables that a study makes of points: facts and interactions over seeds, independence, fingerprint, natural pairs; by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdissect.shifts.fact_seeds import facts_of_one_run, facts_over_seeds
from lmdissect.shifts.fingerprint import fingerprint_rows
from lmdissect.shifts.independence import corpus_name, independence_rows
from lmdissect.shifts.interaction_seeds import interactions_over_seeds
from lmdissect.shifts.moved import moved_document_rows
from lmdissect.shifts.natural import natural_rows
from lmdissect.shifts.one_run import tables_of_one_run
from lmdissect.shifts.panel import Panel, read_panels
from lmdissect.shifts.pooled import point_rows
from lmdissect.shifts.resampling import holm
from lmdissect.shifts.run_tokens import TokenReader
from lmdissect.store import read_table
from score_tables import ScoredText
from study_panels import make_panel
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


def test_one_seed_at_another_level_is_measured_again(tmp_path: Path) -> None:
    """An interval must not be called what it is not: made again from the scores, or left out with the reason."""
    run = _fact_run(tmp_path, 0, [0.1, 0.3, 0.2])
    (panel,), _ = read_panels([run])
    reader = TokenReader()
    own, gaps = tables_of_one_run(panel, CONFIG, reader)
    narrow, narrow_gaps = tables_of_one_run(panel, CONFIG.model_copy(update={"level": 0.6}), reader)
    percentile, _ = tables_of_one_run(panel, CONFIG.model_copy(update={"ci_method": "percentile"}), reader)
    assert own["facts"][0]["estimate"] == pytest.approx(narrow["facts"][0]["estimate"], abs=1e-6)
    assert own["facts"][0]["ci_low"] < narrow["facts"][0]["ci_low"] < narrow["facts"][0]["ci_high"] < own["facts"][0]["ci_high"]
    assert percentile["facts"][0]["p_holm"] == own["facts"][0]["p_holm"]
    for name, rows in own.items():
        assert [set(row) for row in narrow[name]] == [set(row) for row in rows], name
    assert {gap.table for gap in gaps} == {gap.table for gap in narrow_gaps} == {"positions", "facts"}


def test_one_seed_at_another_level_without_scores_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run = _fact_run(tmp_path, 0, [0.1, 0.3, 0.2])
    (panel,), _ = read_panels([replace(run, base_scores=None)])
    tables, gaps = tables_of_one_run(panel, CONFIG.model_copy(update={"level": 0.99}), TokenReader())
    assert tables == {}
    assert [gap.table for gap in gaps] == ["positions", "cumulative", "facts"]
    assert "made at level 0.95 by bca, the study's at 0.99 by bca; made again they cannot be: the scores of" in gaps[0].reason


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
    run = _fact_run(tmp_path, 0, [0.1, 0.3, 0.2])
    rows = facts_of_one_run(read_table(run.shift_folder / "fact_tokens.parquet").to_pylist())
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


def _corpus_panel(corpus: str, size: int = 10, *, control: str | None = "paraphrase", source: str = "pubmed") -> Panel:
    rng = np.random.default_rng(0)
    gains = {"original": 0.5 + 0.05 * rng.standard_normal((1, 30)), "casual": 0.3 + 0.05 * rng.standard_normal((1, 30))}
    if control is not None:
        gains[control] = 0.3 + 0.05 * rng.standard_normal((1, 30))
    panel = make_panel({"corpus.variant": corpus, "corpus.size": size}, gains, point=f"{corpus} {size}")
    factors = {"casual": "style", **({control: "control"} if control else {})}
    headline = {"casual": "control" if control else "original", **({control: "original"} if control else {})}
    runs = tuple(replace(run, training_corpus=corpus_name(source, corpus)) for run in panel.runs)
    return replace(panel, runs=runs, factors=factors, control=control, headline=headline)


def _rows_of(panels: list[Panel]) -> list[dict[str, Any]]:
    return [
        {"experiment": panel.experiment, "point": panel.point, "probes": panel.probes, **row}
        for panel in panels
        for row in point_rows(panel, CONFIG)[0]
    ]


@pytest.mark.parametrize("other_control", [None, "everyday"])
def test_a_difference_has_one_reference_on_both_sides(other_control: str | None) -> None:
    """The two points differ in nothing but their control: net of it on one side alone, the difference would be the control's own shift."""
    panels = [_corpus_panel("original", control=other_control), _corpus_panel("casual")]
    rows, gaps = independence_rows(panels, _rows_of(panels), CONFIG)
    casual = next(row for row in rows if row["compared_with"] and row["variant"] == "casual")
    assert (casual["reference"], casual["estimate"]) == ("original", pytest.approx(0.0, abs=1e-12))
    reasons = {gap.variant: gap.reason for gap in gaps}
    assert "both are taken against the original" in reasons["casual"]
    assert reasons["paraphrase"].endswith("that point has no such variant")


def test_a_corpus_without_its_originals_or_a_common_seed_is_named() -> None:
    alone = [_corpus_panel("casual"), _corpus_panel("original", source="c4")]
    rows, (gap,) = independence_rows(alone, _rows_of(alone), CONFIG)
    assert [row["compared_with"] for row in rows] == [None] * 4
    assert gap.reason == "difference to pubmed: original: no such point that is otherwise alike"
    apart = [_corpus_panel("original"), replace(_corpus_panel("casual"), seeds=(7,))]
    _, (gap,) = independence_rows(apart, [], CONFIG)
    assert gap.reason.endswith("the two points have no training seed in common")


def test_holm_is_over_all_matrices_of_one_experiment_and_probe_set() -> None:
    panels = [_corpus_panel(corpus, size) for size in (10, 100) for corpus in ("original", "casual")]
    rows, _ = independence_rows(panels, _rows_of(panels), CONFIG)
    for family in ([row for row in rows if row["compared_with"] is None], [row for row in rows if row["compared_with"]]):
        assert [row["p_holm"] for row in family] == holm([row["p_value"] for row in family])
    assert len(rows) == 8 + 4


def _in_bytes(panel: Panel) -> Panel:
    """The same point where the two models' tokenizers differ."""
    return replace(panel, normalizations=("byte",), gain={"byte": {name: gain / 5 for name, gain in panel.gain["token"].items()}})


def _in_both(panel: Panel) -> Panel:
    return replace(panel, normalizations=("token", "byte"), gain={**panel.gain, **_in_bytes(panel).gain})


def test_every_table_names_the_unit_of_its_rows_and_compares_in_one() -> None:
    panels = [_in_both(_corpus_panel("original")), _in_bytes(_corpus_panel("casual"))]
    estimates = _rows_of(panels)
    rows, _ = independence_rows(panels, estimates, CONFIG)
    assert {row["normalization"] for row in rows} == {"byte"}, "a matrix has one unit"
    points = {row["point"]: row["normalization"] for row in fingerprint_rows(panels, estimates, [])}
    assert points == {"original 10": "token", "casual 10": "byte"}, "points by themselves have their own"
    curves = [{**row, "axis": "corpus.size", "group": "", "x": 10.0, "x_label": "10"} for row in estimates]
    assert {row["normalization"] for row in fingerprint_rows(panels, [], curves)} == {"byte"}
    natural = replace(panels[0], runs=tuple(replace(run, natural=True, probes="pairs", point="casual 10") for run in panels[0].runs))
    beside = [natural, panels[1]]
    assert [(row["kind"], row["normalization"]) for row in natural_rows(beside, _rows_of(beside))] == [("natural", "byte"), ("synthetic", "byte")]
    assert {row["normalization"] for row in moved_document_rows(panels[1])} == {"byte"}


def test_the_fingerprint_of_a_point_is_not_that_of_its_steps() -> None:
    final, step = (make_panel({}, {"original": [[0.5, 0.4]], "paraphrase": [[0.3, 0.1]]}, point="p", step=step) for step in (None, 10))
    final = replace(final, kept_words={"paraphrase": np.array([0.4, 0.4])}, factors={"paraphrase": "control"})
    step = replace(step, kept_words={"paraphrase": np.array([0.9, 0.9])}, factors={"paraphrase": "control"})
    shift = {"point": "p", "variant": "paraphrase", "factor": "control"}
    curves = [
        estimate_row(**shift, axis="step", group="", x=10.0, x_label="10"),
        estimate_row(**shift, axis="corpus.size", group="", x=5.0, x_label="5"),
    ]
    rows = fingerprint_rows([final, step], [estimate_row(**shift)], curves)
    assert [(row["axis"], row["kept_words_median"]) for row in rows] == [(None, 0.4), ("step", 0.9), ("corpus.size", 0.4)]


def test_corpora_that_differ_in_more_than_themselves_are_no_matrix(tmp_path: Path) -> None:
    runs = _corpus_runs(tmp_path)
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
