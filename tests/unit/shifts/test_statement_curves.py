"""What a study says along an axis: one reference and unit per curve, no share of a shift that is no finding, and what an interval is over."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lmdissect.formats.study_tables import OVER_DOCUMENTS, OVER_RUNS, SCHEMAS
from lmdissect.records import StudyGap
from lmdissect.shifts.statements import write_statements
from study_runs import estimate_row

AXIS = {"axis": "corpus.size", "group": "", "x_label": "", "selection": "all"}
UP = {"estimate": 0.05, "ci_low": 0.04, "ci_high": 0.06}
DOWN = {"estimate": -0.04, "ci_low": -0.05, "ci_high": -0.03}
LINE = {"experiment": "study", "group": "", "probes": "probes", "variant": "casual", "factor": "style", "reference": "original", "selection": "all"}
TEMPO = {**LINE, "axis": "step", "normalization": "token", "num_seeds": 3, "num_documents": 40, "last_x": 64.0, "last_estimate": 0.1}
STYLE = {**TEMPO, "half_x": 4.0, "ci_low": 2.0, "ci_high": 8.0, "interval_over": OVER_RUNS}
FACTS = {**STYLE, "variant": "counterfactual", "factor": "factual", "half_x": 30.0, "ci_low": 20.0, "ci_high": 60.0}
RANK = {
    **LINE,
    "axis": "finetune.lora.rank",
    "normalization": "token",
    "num_seeds": 1,
    "num_documents": 80,
    "share_of_full": 0.9,
    "full_estimate": 0.1,
    "largest_rank": 64.0,
    "rank": 4.0,
}
CAPACITY = {**RANK, "ci_low": 2.0, "ci_high": 16.0, "interval_over": OVER_DOCUMENTS}


def _state(analysis: str, **tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = write_statements({**{name: [] for name in SCHEMAS}, "estimates": [estimate_row()], **tables}, 0.95)
    return [row for row in rows if row["analysis"] == analysis]


def _curve(*points: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [estimate_row(**{**AXIS, **point}) for point in points]


def _last(row: Mapping[str, Any], x: float | None = 64.0, **fields: Any) -> dict[str, Any]:
    return estimate_row(
        **{
            **AXIS,
            "axis": row["axis"],
            "group": row["group"],
            "variant": row["variant"],
            "factor": row["factor"],
            "selection": row["selection"],
            "x": x,
            **fields,
        }
    )


def _change(first_x: float, last_x: float, **fields: Any) -> dict[str, Any]:
    told = {"normalization": "token", "num_seeds": 3, "num_documents": 40, "first_x": first_x, "last_x": last_x, "interval_over": OVER_RUNS}
    test = {"estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p_value": 0.001, "p_holm": 0.002}
    return {**LINE, "axis": "corpus.size", **told, **test, **fields}


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (
            {},
            "moved",
            "grows along corpus.size: by +0.100 nats/token [0.050, 0.150], 40 documents, over 3 training runs (Holm-adjusted p = 0.002); ",
        ),
        (
            {"ci_low": -0.01},
            "not shown",
            "shows no change along corpus.size that can be told from 0: +0.100 nats/token [\u22120.010, 0.150], 40 documents",
        ),
        ({"p_holm": 0.08}, "not shown", "the interval leaves 0 out, but Holm-adjusted p = 0.080 is too weak to count as a finding; "),
        ({"ci_low": 0.1, "ci_high": 0.1}, "not shown", "every document has the same value"),
        ({"interval_over": OVER_DOCUMENTS}, "not shown", ", 40 documents, over documents alone, for these 3 training runs; "),
        (
            {"interval_over": OVER_DOCUMENTS, "num_seeds": 1},
            "not shown",
            "one training run at each point: between these it changes by +0.100 nats/token [0.050, 0.150], 40 documents, over documents alone, for these ",
        ),
    ],
)
def test_a_curve_changes_where_its_ends_differ_document_by_document(change: Mapping[str, Any], verdict: str, words: str) -> None:
    ends = _curve({"x": 60.0}, {"x": 300.0, "estimate": 9.0}, {"x": 600.0, "estimate": 0.2, "ci_low": 0.05, "ci_high": 0.3})
    (row,) = _state("curves", curves=ends, changes=[_change(60.0, 300.0), _change(60.0, 600.0, **change)])
    assert row["verdict"] == verdict
    assert words in row["sentence"]
    assert row["sentence"].endswith("at 60, +0.200 [0.050, 0.300] at 600.")
    assert (row["estimate"], row["ci_high"]) == (0.1, {"ci_high": 0.15, **change}["ci_high"])


def test_a_change_that_was_not_computed_is_not_measured() -> None:
    gap = StudyGap("changes", "study", "along corpus.size", "probes", "casual", "common to all points: 1 document")
    curves = _curve({"x": 60.0}, {"x": 600.0, **UP})
    for gaps, words in (((gap,), "is not measured: common to all points: 1 document ("), ((), "its two ends have too few documents in common (")):
        tables = {**{name: [] for name in SCHEMAS}, "estimates": [estimate_row()], "curves": curves, "changes": [_change(60.0, 300.0)]}
        (row,) = [row for row in write_statements(tables, 0.95, gaps) if row["analysis"] == "curves"]
        assert (row["verdict"], row["estimate"]) == ("not measured", None)
        assert words in row["sentence"]


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (UP, DOWN, "turns round, from towards the originals to away from them, along corpus.size: by "),
        (DOWN, {**UP, "estimate": 0.03, "ci_low": 0.02}, "turns round, from away from them to towards the originals, along corpus.size"),
        ({**DOWN, "estimate": -0.06, "ci_low": -0.13, "ci_high": 0.01}, {**UP, "ci_low": 0.02}, "moves towards the originals along corpus.size"),
        ({"estimate": -0.01, "ci_low": -0.018, "ci_high": -0.002}, {**UP, "ci_low": -0.009}, "moves towards the originals along corpus.size"),
        (UP, {**DOWN, "ci_low": -0.1, "ci_high": 0.01}, "moves away from them along corpus.size"),
        (UP, {**UP, "estimate": 0.045}, "shrinks along corpus.size"),
        (DOWN, {**DOWN, "estimate": -0.045}, "grows along corpus.size"),
        ({**UP, "ci_low": -0.01}, {**UP, "estimate": 0.06}, "grows along corpus.size"),
        ({**DOWN, "ci_high": 0.01}, {**UP, "ci_low": -0.01}, "moves towards the originals along corpus.size"),
    ],
)
def test_a_change_of_sign_is_no_growth(first: Mapping[str, Any], last: Mapping[str, Any], words: str) -> None:
    change = last["estimate"] - first["estimate"]
    test = {"estimate": change, "ci_low": 0.9 * change, "ci_high": 1.1 * change}
    (row,) = _state("curves", curves=_curve({"x": 10.0, **first}, {"x": 1000.0, **last}), changes=[_change(10.0, 1000.0, **test)])
    assert words in row["sentence"]
    assert row["verdict"] == "moved"


def test_a_curve_is_told_at_the_reference_of_its_last_point() -> None:
    raw, net = {"reference": "original", "is_headline": False}, {"reference": "control", "is_headline": True}
    late = [{"x": x, **net, **UP} for x in (100.0, 1000.0)] + [{"x": x, **raw} for x in (100.0, 1000.0)]
    early = {"x": 10.0, "reference": "original", "estimate": 0.3, "ci_low": 0.2, "ci_high": 0.4}
    changes = [_change(10.0, 1000.0), _change(100.0, 1000.0, reference="control", estimate=0.07)]
    told = _state("curves", curves=_curve(early, *late), changes=changes)
    assert [(row["verdict"], row["estimate"]) for row in told] == [("moved", 0.07)]
    assert "(casual, net of the control)" in told[0]["sentence"]
    assert "at 100, " in told[0]["sentence"]
    alone = _state("curves", curves=_curve(early, late[1], late[3]))
    assert [row["verdict"] for row in alone] == ["not measured"]
    assert "fewer than two of its points have it in this form" in alone[0]["sentence"]


def test_a_curve_is_told_in_the_unit_that_its_points_share() -> None:
    both = [{"x": 10.0, "normalization": unit} for unit in ("token", "byte")]
    changes = [_change(10.0, 1000.0, normalization=unit) for unit in ("byte", "token")]
    told = _state("curves", curves=_curve(*both, {"x": 1000.0, "normalization": "byte", **UP}), changes=changes)
    assert "nats/byte" in told[0]["sentence"]
    assert "per byte" in told[0]["sentence"]
    assert "nats/token" not in told[0]["sentence"]


def test_curves_that_end_in_one_point_are_each_told() -> None:
    ends = [{"x": x, "axis": axis} for axis in ("corpus.size", "finetune.lora.rank") for x in (1.0, 8.0)]
    assert len(_state("curves", curves=_curve(*ends))) == 2


def test_facts_are_told_on_the_changed_words_where_they_are_known_there() -> None:
    whole = {"variant": "counterfactual", "factor": "factual"}
    words = {**whole, "selection": "changed"}
    of_whole = [_curve({"x": 10.0, **whole}, {"x": 1000.0, **whole}), [_change(10.0, 1000.0, **whole)]]
    (row,) = _state("curves", curves=of_whole[0], changes=of_whole[1])
    assert "facts (counterfactual, against the original, whole text)" in row["sentence"]
    curves, changes = (
        [*of_whole[0], *_curve({"x": 10.0, **words}, {"x": 1000.0, **words})],
        [*of_whole[1], _change(10.0, 1000.0, **words, estimate=0.07)],
    )
    (row,) = _state("curves", curves=curves, changes=changes)
    assert "facts (counterfactual, against the original, on the changed words)" in row["sentence"]
    assert row["estimate"] == 0.07
    ends = [_last(FACTS), _last({**FACTS, **words})]
    (row,) = _state("tempo", tempo=[FACTS, {**FACTS, **words, "half_x": 31.0}], curves=ends)
    assert (row["estimate"], "on the changed words" in row["sentence"]) == (31.0, True)
    (row,) = _state("tempo", tempo=[FACTS], curves=ends)
    assert (row["verdict"], row["variant"]) == ("not measured", None), "over the whole text facts are diluted: no half of that shift is told"


def test_tempo_compares_factors_only_where_half_points_are_apart() -> None:
    curves = [_last(STYLE), _last(FACTS)]
    rows = _state("tempo", tempo=[STYLE, FACTS], curves=curves)
    assert [row["verdict"] for row in rows] == ["moved"] * 3
    assert "style (casual) moves faster along step than facts (counterfactual)" in rows[-1]["sentence"]
    assert "(40 documents, over 3 training runs)" in rows[0]["sentence"]
    assert _state("tempo", tempo=[STYLE, {**FACTS, "ci_low": 7.0}], curves=curves)[-1]["verdict"] == "not shown"


@pytest.mark.parametrize("over", [OVER_DOCUMENTS, None])
def test_tempo_over_documents_alone_is_no_ground_to_call_a_factor_faster(over: str | None) -> None:
    tempo = [{**row, "interval_over": over} for row in (STYLE, FACTS)]
    rows = _state("tempo", tempo=tempo, curves=[_last(STYLE), _last(FACTS)])
    assert "(40 documents, over documents alone, for these 3 training runs)" in rows[0]["sentence"]
    assert [row["verdict"] for row in rows] == ["not shown"] * 3
    assert "do not overlap, but are over documents alone, for these 3 training runs" in rows[-1]["sentence"]
    single = [{**row, "num_seeds": 1} for row in tempo]
    rows = _state("tempo", tempo=single, curves=[_last(STYLE), _last(FACTS)])
    assert "(40 documents, for one training run)" in rows[0]["sentence"]
    assert [row["verdict"] for row in rows] == ["moved"] * 3, "steps of one run compare no training runs"
    sizes = [{**row, "axis": "corpus.size"} for row in single]
    rows = _state("tempo", tempo=sizes, curves=[_last(row) for row in sizes])
    assert [row["verdict"] for row in rows] == ["not shown"] * 3
    assert "(40 documents, over documents alone, for these training runs, one at each point)" in rows[0]["sentence"]
    assert "do not overlap, but are over documents alone, for one training run at each point" in rows[-1]["sentence"]


def test_the_factors_furthest_apart_are_compared_where_the_extremes_are_of_one() -> None:
    """Two variants of style, one faster and one slower than topic."""
    slow = {**STYLE, "variant": "rap", "half_x": 900.0, "ci_low": 800.0, "ci_high": 950.0}
    topic = {**STYLE, "variant": "nonbiomedical", "factor": "topic", "half_x": 30.0, "ci_low": 25.0, "ci_high": 35.0}
    tempo = [STYLE, topic, slow]
    rows = _state("tempo", tempo=tempo, curves=[_last(row) for row in tempo])
    assert "style (casual) moves faster along step than topic (nonbiomedical)" not in rows[-1]["sentence"]
    assert "topic (nonbiomedical) moves faster along step than style (rap)" in rows[-1]["sentence"]
    rows = _state("tempo", tempo=[STYLE, slow], curves=[_last(row) for row in (STYLE, slow)])
    assert len(rows) == 2, "one factor is not compared with itself"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"p_holm": 0.3}, "the interval leaves 0 out, but Holm-adjusted p = 0.300 is too weak"),
        ({"ci_low": 0.1, "ci_high": 0.1}, "every document has the same value"),
        ({"ci_low": -0.1}, "cannot be told from 0: +0.10"),
    ],
)
def test_no_share_is_told_of_a_shift_that_is_no_finding(end: Mapping[str, Any], words: str) -> None:
    tempo = _state("tempo", tempo=[STYLE, FACTS], curves=[_last(STYLE, **end), _last(FACTS)])
    assert [(row["verdict"], row["estimate"]) for row in tempo] == [("not shown", None), ("moved", 30.0)]
    assert tempo[0]["sentence"].startswith(
        "Where along step half of the last shift of style (casual, against the original) on probes is reached cannot be told"
    )
    capacity = _state("capacity", capacity=[{**CAPACITY, "share_of_full": 0.5}, CAPACITY], curves=[_last(CAPACITY, None, **end)])
    assert [(row["verdict"], row["estimate"]) for row in capacity] == [("not shown", None)]
    assert capacity[0]["sentence"].startswith(
        "Which rank of LoRA is enough for the shift of style (casual, against the original) on probes cannot be told"
    )
    for row in (tempo[0], capacity[0]):
        assert words in row["sentence"]


def test_tempo_is_told_at_the_reference_of_the_last_point() -> None:
    net = _last(STYLE, reference="control")
    raw = _last(STYLE, is_headline=False)
    rows = _state("tempo", tempo=[STYLE, {**STYLE, "reference": "control", "half_x": 6.0}], curves=[raw, net])
    assert [(row["verdict"], row["estimate"]) for row in rows] == [("moved", 6.0)]


def test_capacity_names_the_rank_the_share_and_the_group_of_every_row() -> None:
    runs = {"num_seeds": 3, "interval_over": OVER_RUNS}
    rows = [{**CAPACITY, **runs, "group": group, "share_of_full": share} for group in ("lr=0.1", "lr=0.2") for share in (0.5, 0.9)]
    said = _state("capacity", capacity=rows, curves=[_last(rows[0], None), _last(rows[2], None)])
    assert [row["verdict"] for row in said] == ["moved"] * 4
    assert len({row["sentence"] for row in said}) == 4
    assert said[1]["sentence"] == (
        "LoRA of rank 4 [2, 16] reaches 90 % of full finetuning\u2019s shift of style (casual, against the original) on probes "
        "(80 documents, over 3 training runs; lr=0.1)."
    )
    byte = _state("capacity", capacity=[{**CAPACITY, "normalization": "byte"}], curves=[_last(CAPACITY, None, normalization="byte")])
    assert "(casual, against the original, per byte)" in byte[0]["sentence"]


@pytest.mark.parametrize(
    ("fields", "verdict", "words"),
    [
        ({}, "moved", "LoRA of rank 4 [2, 16] reaches 90 %"),
        ({"interval_over": OVER_DOCUMENTS}, "not shown", "over documents alone, for these 3 training runs"),
        ({"interval_over": OVER_DOCUMENTS, "num_seeds": 1}, "not shown", "over documents alone, for these training runs, one at each point"),
        ({"ci_high": None}, "not shown", "LoRA of rank 4 [2, above 64] reaches 90 %"),
        ({"rank": None, "ci_high": None}, "not shown", "No measured rank of LoRA, up to 64, reaches 90 %"),
        ({"rank": None, "ci_high": None}, "not shown", ": the interval begins at rank 2."),
        ({"rank": None, "ci_low": None, "ci_high": None}, "moved", ": the interval leaves all of them out."),
    ],
)
def test_a_rank_is_a_finding_only_with_an_interval_that_is_closed_and_over_runs(fields: Mapping[str, Any], verdict: str, words: str) -> None:
    row = {**CAPACITY, "num_seeds": 3, "interval_over": OVER_RUNS, **fields}
    (said,) = _state("capacity", capacity=[row], curves=[_last(CAPACITY, None)])
    assert (said["verdict"], said["share_of_full"], said["axis"]) == (verdict, 0.9, "finetune.lora.rank")
    assert words in said["sentence"]
