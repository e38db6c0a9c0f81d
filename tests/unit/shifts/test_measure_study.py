"""Runs in, every table of a study out; what cannot be used is named and the rest analysed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmdissect.errors import NothingToDoError, StaleArtifactError
from lmdissect.formats.study_tables import SCHEMAS, read_study_tables
from lmdissect.records import StudyGap, StudyRun
from lmdissect.shifts.study import measure_study
from lmdissect.store import read_manifest
from study_runs import CONFIG, save_run

GAINS = {
    "original": [0.30, 0.50, 0.40, 0.45, 0.35, 0.42],
    "casual": [0.10, 0.20, 0.15, 0.30, 0.12, 0.15],
    "counterfactual": [0.28, 0.45, 0.41, 0.40, 0.36, 0.40],
    "paraphrase": [0.20, 0.30, 0.35, 0.30, 0.25, 0.33],
}


def _grown(factor: float) -> dict[str, list[float]]:
    return {variant: [factor * gain + 0.003 * number for number, gain in enumerate(gains)] for variant, gains in GAINS.items()}


def _runs(folder: Path, *, sizes: tuple[int, ...] = (10, 20), seeds: tuple[int, ...] = (0, 1, 2), **others: Any) -> list[StudyRun]:
    return [
        save_run(
            folder,
            _grown(size / 20 + 0.01 * seed),
            point=f"size={size}",
            fields={"corpus.size": size},
            seed=seed,
            training_documents=size,
            num_target_tokens=100 * size,
            training_corpus="abstracts",
            **others,
        )
        for size in sizes
        for seed in seeds
    ]


def _measure(folder: Path, runs: list[StudyRun], **others: Any) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
    summary = measure_study(runs, CONFIG, folder / "study", **others)
    manifest, tables = read_study_tables(summary.folder)
    assert manifest.details["unavailable"] == [
        {name: getattr(gap, name) for name in ("table", "experiment", "point", "probes", "variant", "reason")} for gap in summary.gaps
    ]
    return summary, tables


def test_all_tables_of_two_points_with_three_seeds(tmp_path: Path) -> None:
    summary, tables = _measure(tmp_path, _runs(tmp_path))
    assert (summary.num_runs, summary.num_points, summary.reused) == (6, 2, False)
    assert {(row["point"], row["seed"]) for row in tables["runs"]} == {(f"size={size}", seed) for size in (10, 20) for seed in (0, 1, 2)}
    for name in ("estimates", "seeds", "curves", "positions", "facts", "fingerprint", "moved_documents", "moved_tokens", "statements"):
        assert tables[name], name
        for row in tables[name]:
            assert row.get("estimate", 0.0) is not None or name == "statements", (name, row)
    casual = next(
        row
        for row in tables["estimates"]
        if (row["point"], row["variant"], row["reference"], row["normalization"], row["statistic"])
        == ("size=20", "casual", "original", "token", "shift")
    )
    gains = [[_grown(1 + 0.01 * seed)[variant] for variant in ("original", "casual")] for seed in range(3)]
    wanted = [here - there for original, other in gains for here, there in zip(original, other, strict=True)]
    assert casual["estimate"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-5)
    assert (casual["num_seeds"], casual["num_documents"]) == (3, 6)
    assert {row["axis"] for row in tables["curves"]} == {"corpus.size"}
    _assert_facts_on_changed_words(tables, num_seeds=3)
    assert tables["independence"] == [] == tables["natural"]
    assert {row["analysis"] for row in tables["statements"] if row["verdict"] == "not measured"} >= {"independence", "natural", "capacity", "cloze"}


def _assert_facts_on_changed_words(tables: dict[str, list[dict[str, Any]]], *, num_seeds: int) -> None:
    """Along the curve they are those of every point, and their change is the difference of the means: both points have the same documents and seeds."""
    facts = {row["point"]: row for row in tables["facts"] if (row["selection"], row["statistic"]) == ("changed", "mean")}
    points = [row for row in tables["curves"] if row["selection"] == "changed"]
    names = ("variant", "num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value", "p_holm")
    assert [(row["x"], *(row[name] for name in names)) for row in points] == [
        (x, *(facts[f"size={x:g}"][name] for name in names)) for x in (10.0, 20.0)
    ]
    (change,) = [row for row in tables["changes"] if row["selection"] == "changed"]
    assert (change["variant"], change["reference"], change["num_seeds"]) == ("counterfactual", "original", num_seeds)
    assert change["estimate"] == pytest.approx(points[1]["estimate"] - points[0]["estimate"], abs=1e-9)
    assert change["ci_low"] < change["estimate"] < change["ci_high"]


def test_facts_of_single_runs_lie_on_a_curve_where_their_scores_are_kept(tmp_path: Path) -> None:
    runs = _runs(tmp_path, seeds=(0,))
    _, tables = _measure(tmp_path, runs)
    _assert_facts_on_changed_words(tables, num_seeds=1)
    bare = [replace(run, base_scores=None, tuned_scores=None) for run in runs]
    measure_study(bare, CONFIG, tmp_path / "bare")
    tables = read_study_tables(tmp_path / "bare")[1]
    assert tables["facts"]
    assert {row["selection"] for name in ("curves", "changes") for row in tables[name]} == {"all"}


def test_a_current_study_is_not_measured_again_and_another_is_refused(tmp_path: Path) -> None:
    runs = _runs(tmp_path, seeds=(0,))
    _measure(tmp_path, runs)
    before = read_manifest(tmp_path / "study").finished_at
    again, _ = _measure(tmp_path, runs)
    assert again.reused
    assert read_manifest(tmp_path / "study").finished_at == before
    with pytest.raises(StaleArtifactError, match="runs"):
        measure_study(runs[:1], CONFIG, tmp_path / "study")


def test_a_point_without_some_seed_is_named(tmp_path: Path) -> None:
    runs = [run for run in _runs(tmp_path) if (run.point, run.seed) != ("size=10", 2)]
    _, tables = _measure(tmp_path, runs)
    gap = next(row for row in read_manifest(tmp_path / "study").details["unavailable"] if row["table"] == "seeds")
    assert (gap["point"], gap["reason"]) == ("size=10", "seeds 2 are missing here; other points of the experiment have them")
    assert {row["num_seeds"] for row in tables["estimates"] if row["point"] == "size=10"} == {2}


def test_failed_runs_stay_listed(tmp_path: Path) -> None:
    gap = StudyGap("runs", "study", "size=30", "probes", "all", "seed 0: finetune/abc failed: loss became NaN")
    summary, _ = _measure(tmp_path, _runs(tmp_path, seeds=(0,)), gaps=[gap])
    assert summary.gaps[0] == gap


def test_mixed_probe_sets_and_tokenizers_are_named_and_the_rest_is_analysed(tmp_path: Path) -> None:
    good = _runs(tmp_path / "good", sizes=(20,))
    other_texts = replace(save_run(tmp_path / "texts", GAINS, num_words=5, point="size=10", seed=1), experiment="study")
    mixed = [save_run(tmp_path / "texts2", GAINS, point="size=10", seed=0), other_texts]
    words = save_run(tmp_path / "tokens", GAINS, point="size=15", seed=1, tokenizer="other")
    tokens = [save_run(tmp_path / "tokens2", GAINS, point="size=15", seed=0), words]
    summary, tables = _measure(tmp_path, [*good, *mixed, *tokens])
    reasons = {gap.point: gap.reason for gap in summary.gaps if gap.table == "runs"}
    assert "probe sets are mixed" in reasons["size=10"]
    assert "tokenizer" in reasons["size=15"]
    seeds = {(row["point"], row["seed"]) for row in tables["runs"]}
    assert seeds == {("size=10", 0), ("size=15", 0), ("size=20", 0), ("size=20", 1), ("size=20", 2)}, "of one and one the lowest seed"


def test_points_with_other_texts_or_another_tokenizer_are_no_fair_comparison(tmp_path: Path) -> None:
    runs = [
        save_run(tmp_path / "a", GAINS, point="size=10"),
        save_run(tmp_path / "b", GAINS, point="size=20", num_words=5),
        save_run(tmp_path / "c", GAINS, point="size=30", tokenizer="other"),
    ]
    summary, tables = _measure(tmp_path, runs)
    reasons = {gap.point: gap.reason for gap in summary.gaps if gap.table == "runs"}
    assert set(reasons) == {"size=20", "size=30"}
    assert "24 texts (first: d0, original) differ from those of the point size=10" in reasons["size=20"]
    assert "another tokenizer" in reasons["size=30"]
    assert {row["point"] for row in tables["estimates"]} == {"size=10", "size=20", "size=30"}, "each stands by itself"


def test_experiments_with_other_texts_or_another_tokenizer_are_named(tmp_path: Path) -> None:
    runs = [
        save_run(tmp_path / "a", GAINS, experiment="first"),
        save_run(tmp_path / "b", GAINS, experiment="second", num_words=5),
        save_run(tmp_path / "c", GAINS, experiment="third", tokenizer="other"),
        save_run(tmp_path / "c", GAINS, experiment="third", point="size=20", tokenizer="other"),
        save_run(tmp_path / "d", GAINS, experiment="fourth"),
        save_run(tmp_path / "e", GAINS, experiment="fifth", probes="others", num_words=5),
    ]
    summary, _ = _measure(tmp_path, runs)
    reasons = {gap.experiment: gap.reason for gap in summary.gaps if gap.table == "runs"}
    assert set(reasons) == {"second", "third"}
    assert "24 texts (first: d0, original) differ from those of the point size=10 of the experiment first" in reasons["second"]
    assert "another tokenizer than at the point size=10 of the experiment first" in reasons["third"]
    assert summary.left_out == (), "each stands by itself"


def test_runs_that_take_no_part_are_told_apart_from_notes_and_stay_listed(tmp_path: Path) -> None:
    runs = _runs(tmp_path, seeds=(0,))
    gap = StudyGap("runs", "study", "size=30", "probes", "all", "seed 0: finetune/abc failed: loss became NaN")
    (runs[0].shift_folder / "documents.parquet").unlink()
    summary, _ = _measure(tmp_path, runs, gaps=[gap])
    assert [left.point for left in summary.left_out] == ["size=30", "size=10"]
    again, _ = _measure(tmp_path, runs, gaps=[gap])
    assert (again.reused, again.left_out) == (True, summary.left_out)


def test_a_study_of_nothing_leaves_no_folder(tmp_path: Path) -> None:
    run = save_run(tmp_path, GAINS)
    (run.shift_folder / "documents.parquet").unlink()
    with pytest.raises(NothingToDoError, match="no run can be used"):
        measure_study([run], CONFIG, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_constant_scores_give_intervals_of_no_width_and_no_finding(tmp_path: Path) -> None:
    same = {variant: [0.0] * 6 for variant in GAINS}
    _, tables = _measure(tmp_path, [save_run(tmp_path, same, seed=seed) for seed in (0, 1)])
    shifts = [row for row in tables["estimates"] if row["statistic"] == "shift"]
    assert {(row["estimate"], row["ci_low"], row["ci_high"], row["p_value"]) for row in shifts} == {(0.0, 0.0, 0.0, 1.0)}
    assert {row["share"] for row in shifts} == {None}
    constant = read_manifest(tmp_path / "study").details["unavailable"]
    assert {row["variant"] for row in constant if "an interval of no width says nothing" in row["reason"]} == set(GAINS)
    assert not [row for row in tables["statements"] if row["verdict"] == "moved"]


def test_one_document_only_has_no_estimates_and_says_why(tmp_path: Path) -> None:
    summary, tables = _measure(tmp_path, [save_run(tmp_path, {"original": [0.3], "casual": [0.1]})])
    assert tables["estimates"] == []
    assert any("1 document with" in gap.reason for gap in summary.gaps if gap.table == "estimates")
    assert {row["verdict"] for row in tables["statements"]} == {"not measured"}
    learned = next(row["sentence"] for row in tables["statements"] if row["analysis"] == "learned")
    assert learned.startswith(
        "Not measured on probes (study, size=10, original): gain per token: 1 document with the texts whole under every seed, 2 are needed"
    )


def test_unknown_factors_are_factors_like_any_other(tmp_path: Path) -> None:
    from lmdissect.shifts import measure_shifts
    from score_tables import documents_from_gains, save_scores

    base, tuned = documents_from_gains({"original": GAINS["original"], "grumpy": GAINS["casual"]})
    for name, texts in (("base", base), ("tuned", tuned)):
        save_scores(tmp_path / name, texts, model=name, factors={"grumpy": "sentiment"})
    measure_shifts(tmp_path / "base", tmp_path / "tuned", CONFIG, tmp_path / "shift")
    run = StudyRun(
        experiment="e", point="p", fields={}, seed=0, probes="probes", base_model="base", tuned_model="tuned", shift_folder=tmp_path / "shift"
    )
    summary, tables = _measure(tmp_path, [run])
    assert {row["factor"] for row in tables["estimates"] if row["variant"] == "grumpy"} == {"sentiment"}
    assert "sentiment" in next(row for row in tables["statements"] if row["variant"] == "grumpy")["sentence"]
    assert any(gap.table == "moved_tokens" and "not at hand" in gap.reason for gap in summary.gaps)


def test_documents_that_a_point_lacks_are_counted(tmp_path: Path) -> None:
    short = {variant: gains[:4] for variant, gains in GAINS.items()}
    runs = [save_run(tmp_path / "a", GAINS, point="size=10"), save_run(tmp_path / "b", short, point="size=20")]
    summary, tables = _measure(tmp_path, runs)
    assert StudyGap("estimates", "study", "size=20", "probes", "all", "2 of the documents that other points have are missing here") in summary.gaps
    assert {row["num_documents"] for row in tables["estimates"] if row["point"] == "size=20"} == {4}


def test_a_run_of_two_experiments_counts_in_each_with_equal_numbers(tmp_path: Path) -> None:
    runs = _runs(tmp_path, sizes=(20,))
    _, tables = _measure(tmp_path, [*runs, *(replace(run, experiment="again") for run in runs)])
    for name in ("estimates", "positions", "facts", "moved_tokens"):
        here, there = ([{**row, "experiment": ""} for row in tables[name] if row["experiment"] == experiment] for experiment in ("study", "again"))
        assert here == there != []


def test_no_usable_run_is_nothing_to_do(tmp_path: Path) -> None:
    run = save_run(tmp_path, GAINS)
    with pytest.raises(NothingToDoError, match="no such folder"):
        measure_study([replace(run, shift_folder=tmp_path / "gone")], CONFIG, tmp_path / "study")


def test_tables_hold_the_columns_of_the_contract(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    _measure(tmp_path, _runs(tmp_path, seeds=(0,)))
    for name, schema in SCHEMAS.items():
        assert pq.read_table(tmp_path / "study" / f"{name}.parquet").schema.names == schema.names
        assert (tmp_path / "study" / f"{name}.csv").is_file()
