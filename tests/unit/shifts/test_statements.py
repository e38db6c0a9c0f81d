"""What a study says: a finding only where interval and test support it, in words that stand alone, and what was not measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lmdissect.formats.study_tables import ANALYSES, SCHEMAS, VERDICTS
from lmdissect.shifts.statements import stated_points, write_statements
from study_runs import estimate_row

GAIN = {"statistic": "gain", "variant": "original", "factor": None, "reference": None}
RUN = {"experiment": "study", "point": "size=10", "probes": "probes", "fields": "{}", "training_documents": 10}
STILL = {"estimate": 0.01, "ci_low": -0.02, "ci_high": 0.04, "p_value": 0.5, "p_holm": 0.6}
WEAK = {"p_value": 0.03, "p_holm": 0.09}


def _state(analysis: str, *, runs: Sequence[Mapping[str, Any]] = (RUN,), **tables: Any) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {name: [] for name in SCHEMAS}
    rows = write_statements({**empty, "runs": list(runs), **tables}, 0.95)
    return [row for row in rows if row["analysis"] == analysis]


def test_every_analysis_without_rows_says_what_would_be_needed() -> None:
    rows = write_statements({name: [] for name in SCHEMAS}, 0.95)
    assert [row["analysis"] for row in rows] == list(ANALYSES)
    assert {row["verdict"] for row in rows} == {"not measured"}
    assert all("needed" in row["sentence"] for row in rows)
    assert [row["order"] for row in rows] == list(range(len(ANALYSES)))
    assert all(set(row) == set(SCHEMAS["statements"].names) for row in rows)


def test_learned_and_forgotten_by_the_sign_of_the_gain() -> None:
    lost = estimate_row(**GAIN, probes="c4", estimate=-0.2, ci_low=-0.3, ci_high=-0.1)
    estimates = [estimate_row(**GAIN, estimate=0.21, ci_low=0.18, ci_high=0.24), lost, estimate_row(), estimate_row(probes="c4", **STILL)]
    learned, forgotten = (_state(name, estimates=estimates) for name in ("learned", "forgotten"))
    assert [(row["verdict"], row["probes"], row["variant"]) for row in learned] == [("moved", "probes", "original"), ("moved", "probes", "casual")]
    assert [(row["verdict"], row["probes"], row["variant"]) for row in forgotten] == [("moved", "c4", "original"), ("not shown", "c4", "casual")]
    assert "their loss fell by +0.210 nats/token [0.180, 0.240]" in learned[0]["sentence"]
    assert "for one training run" in learned[0]["sentence"]
    assert "forgetting" in forgotten[0]["sentence"]
    assert learned[1]["sentence"] == (
        "On probes the model moved towards the style of the originals, compared with their casual variants: +0.100 nats/token [0.050, 0.150] against the "
        "original, 80 documents, for one training run (Holm-adjusted p = 0.002)."
    )


@pytest.mark.parametrize(("row", "words"), [(STILL, "can be told from 0"), ({**WEAK}, "too weak to count as a finding")])
def test_no_finding_where_interval_or_test_says_otherwise(row: dict[str, float], words: str) -> None:
    estimates = [estimate_row(**GAIN), estimate_row(**row)]
    found = next(entry for entry in _state("learned", estimates=estimates) if entry["variant"] == "casual")
    assert found["verdict"] == "not shown"
    assert words in found["sentence"]
    assert " moved " not in found["sentence"]


def test_no_forgetting_is_claimed_where_all_gain_and_nothing_learned_where_none_does() -> None:
    assert "No forgetting was seen" in _state("forgotten", estimates=[estimate_row(**GAIN)])[0]["sentence"]
    nothing = _state("learned", estimates=[estimate_row(**{**GAIN, **STILL})])
    assert nothing[0]["verdict"] == "not shown"
    assert "Nothing was learned that can be told from 0" in nothing[0]["sentence"]


def test_facts_are_judged_by_the_changed_words_and_doubted_where_no_number_moved() -> None:
    fact = {**RUN, "variant": "counterfactual", "statistic": "mean", "num_seeds": 3, "num_documents": 60, "p_value": 0.01, "p_holm": 0.01}
    changed = {**fact, "selection": "changed", "estimate": 0.2, "ci_low": 0.1, "ci_high": 0.3}
    number = {**fact, "selection": "number", "estimate": 0.01, "ci_low": -0.1, "ci_high": 0.12}
    estimates = [estimate_row(**GAIN), estimate_row(variant="counterfactual", factor="factual", **STILL)]
    rows = _state("facts", estimates=estimates, facts=[changed, number])
    assert rows[0]["verdict"] == "moved"
    assert rows[0]["factor"] == "factual"
    assert "towards the true words" in rows[0]["sentence"]
    assert "but not on its numbers alone" in rows[0]["sentence"]
    assert "over 3 training runs" in rows[0]["sentence"]
    learned = next(row for row in _state("learned", estimates=estimates, facts=[changed]) if row["variant"] == "counterfactual")
    assert (learned["verdict"], learned["estimate"]) == ("moved", 0.2)
    assert "on the changed words" in learned["sentence"]


def test_stated_point_is_the_one_trained_on_most_then_full_finetuning() -> None:
    rows = [
        {**RUN, "point": "size=10"},
        {**RUN, "point": "size=600", "training_documents": 600},
        {**RUN, "experiment": "capacity", "point": "rank=1", "fields": '{"finetune.lora.rank":1}'},
        {**RUN, "experiment": "capacity", "point": "full", "fields": '{"finetune.lora.rank":null}'},
        {**RUN, "experiment": "unknown", "point": "a", "training_documents": None},
        {**RUN, "experiment": "unknown", "point": "b", "training_documents": None},
    ]
    assert stated_points(rows) == {"study": "size=600", "capacity": "full", "unknown": "a"}


def test_a_run_of_two_experiments_is_stated_once() -> None:
    runs = [RUN, {**RUN, "experiment": "again"}]
    estimates = [estimate_row(**GAIN), estimate_row(**GAIN, experiment="again")]
    assert len(_state("learned", runs=runs, estimates=estimates)) == 1


@pytest.mark.parametrize(("low", "verdict"), [(0.05, "not shown"), (0.16, "moved")])
def test_a_curve_changes_only_where_the_ends_are_apart(low: float, verdict: str) -> None:
    axis = {"axis": "corpus.size", "group": "", "x_label": ""}
    last = estimate_row(**axis, x=600.0, estimate=0.2, ci_low=low, ci_high=0.3)
    rows = _state("curves", estimates=[estimate_row()], curves=[estimate_row(**axis, x=60.0), last])
    assert rows[0]["verdict"] == verdict
    assert ("grows along corpus.size" in rows[0]["sentence"]) == (verdict == "moved")


def test_position_says_how_much_is_early_and_where_it_cannot() -> None:
    estimates = [estimate_row(**GAIN), estimate_row(), estimate_row(variant="rap"), estimate_row(variant="weak", **WEAK)]
    share = {**RUN, "variant": "casual", "position": 16, "share": 0.4, "ci_low": 0.3, "ci_high": 0.5, "num_seeds": 1, "num_documents": 80}
    rows = _state("position", estimates=estimates, positions=[RUN], cumulative=[share, {**share, "variant": "weak"}])
    assert "40 % [30, 50] is made in its first 16 tokens" in rows[0]["sentence"]
    assert [(row["variant"], row["verdict"], row["estimate"]) for row in rows] == [
        ("casual", "moved", 0.4),
        ("rap", "not shown", None),
        ("weak", "not shown", None),
    ]


def test_tempo_compares_factors_only_where_half_points_are_apart() -> None:
    line = {**RUN, "axis": "step", "group": "", "reference": "original", "num_seeds": 3, "num_documents": 40, "last_x": 64.0, "last_estimate": 0.1}
    style = {**line, "variant": "casual", "factor": "style", "half_x": 4.0, "ci_low": 2.0, "ci_high": 8.0}
    facts = {**line, "variant": "counterfactual", "factor": "factual", "half_x": 30.0, "ci_low": 20.0, "ci_high": 60.0}
    rows = _state("tempo", tempo=[style, facts])
    assert rows[-1]["verdict"] == "moved"
    assert "style (casual) moves faster along step than facts (counterfactual)" in rows[-1]["sentence"]
    assert _state("tempo", tempo=[style, {**facts, "ci_low": 7.0}])[-1]["verdict"] == "not shown"


def test_capacity_names_the_rank() -> None:
    row = {**RUN, "group": "", "variant": "casual", "factor": "style", "reference": "original", "num_seeds": 1, "num_documents": 80}
    rows = _state("capacity", capacity=[{**row, "share_of_full": 0.9, "full_estimate": 0.1, "rank": 4.0, "ci_low": 2.0, "ci_high": 16.0}])
    assert rows[0]["sentence"].startswith(
        "LoRA of rank 4 [2, 16] reaches 90 % of full finetuning\u2019s shift of style (casual, against the original)"
    )


def test_fingerprint_interactions_natural_and_independence() -> None:
    control = estimate_row(variant="paraphrase", factor="control")
    writer = {**control, "axis": None, "group": None, "x": None, "x_label": None, "writer": "gpt", "kept_words_median": 0.4}
    said = _state("fingerprint", estimates=[control], fingerprint=[writer])[0]
    assert said["verdict"] == "moved"
    assert "written by gpt, keeps 40 % of the original\u2019s words" in said["sentence"]
    both = {
        **RUN,
        **STILL,
        "variant": "both",
        "first_variant": "a",
        "second_variant": "b",
        "normalization": "token",
        "num_seeds": 1,
        "num_documents": 80,
    }
    said = _state("interactions", estimates=[estimate_row()], interactions=[both])[0]
    assert (said["verdict"], "no dependence between a and b" in said["sentence"]) == ("not shown", True)
    natural = [{**estimate_row(probes="pairs", variant="plain"), "kind": "natural"}, {**estimate_row(**STILL), "kind": "synthetic"}]
    said = _state("natural", estimates=[estimate_row()], natural=natural)[0]
    assert "by synthetic variants of the same models: casual on probes +0.010 [\u22120.020, 0.040]" in said["sentence"]
    difference = {
        **estimate_row(estimate=-0.1, ci_low=-0.2, ci_high=-0.05),
        "training_corpus": "p: casual minus p: original",
        "compared_with": "p: original",
    }
    said = _state("independence", estimates=[estimate_row()], independence=[difference])[0]
    assert said["verdict"] == "moved"
    assert "Training on p: casual instead of p: original changes the shift of style (casual) on probes by \u22120.10" in said["sentence"]


def test_moved_tokens_are_quoted_and_never_a_finding() -> None:
    token = {**RUN, "variant": "original", "rank": 1, "num_occurrences": 9, "num_documents": 6, "estimate": 1.0, "ci_low": 0.5, "ci_high": 1.5}
    rows = _state("moved", estimates=[estimate_row()], moved_tokens=[{**token, "token": ' <b>\u202e"', "direction": "up"}])
    assert rows[0]["verdict"] == "not shown"
    assert '" <b>\ufffd\\""' in rows[0]["sentence"]
    assert {row["verdict"] for row in rows} <= set(VERDICTS)


def test_cloze_is_told_by_its_headline() -> None:
    row = {
        **RUN,
        "variant": "counterfactual",
        "selection": "key_term",
        "measure": "contrast",
        "terms": "all",
        "normalization": "term",
        "is_headline": True,
    }
    numbers = {"num_seeds": 1, "num_documents": 40, "num_terms": 120, "estimate": 0.4, "ci_low": 0.2, "ci_high": 0.6, "p_value": 0.01, "p_holm": 0.02}
    said, *others = _state("cloze", estimates=[estimate_row()], cloze=[{**row, **numbers}, {**row, **numbers, "is_headline": False}])
    assert others == []
    assert said["verdict"] == "moved"
    assert "prefers the true term over the counterfactual\u2019s more than the base does" in said["sentence"]
    assert "+0.4 nats/term [0.2, 0.6], 120 terms (key term)" in said["sentence"]
    still = _state("cloze", estimates=[estimate_row()], cloze=[{**row, **numbers, **STILL}])[0]
    assert (still["verdict"], "can be told from 0" in still["sentence"]) == ("not shown", True)
