"""What a study says: a finding only where interval and test support it, in words that stand alone, and what was not measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lmdissect.formats.study_tables import ANALYSES, SCHEMAS, VERDICTS
from lmdissect.records import StudyGap
from lmdissect.shifts.stated import stated_points
from lmdissect.shifts.statements import write_statements
from study_runs import estimate_row

GAIN = {"statistic": "gain", "variant": "original", "factor": None, "reference": None}
RUN = {"experiment": "study", "point": "size=10", "probes": "probes", "fields": "{}", "training_documents": 10}
STILL = {"estimate": 0.01, "ci_low": -0.02, "ci_high": 0.04, "p_value": 0.5, "p_holm": 0.6}
WEAK = {"p_value": 0.03, "p_holm": 0.09}
LOST = {**GAIN, "estimate": -0.2, "ci_low": -0.3, "ci_high": -0.1}
FLAT = {"estimate": 0.3, "ci_low": 0.3, "ci_high": 0.3}


def _state(analysis: str, *, runs: Sequence[Mapping[str, Any]] = (RUN,), gaps: Sequence[StudyGap] = (), **tables: Any) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {name: [] for name in SCHEMAS}
    rows = write_statements({**empty, "runs": list(runs), **tables}, 0.95, gaps)
    return [row for row in rows if row["analysis"] == analysis]


def test_every_analysis_without_rows_says_what_would_be_needed() -> None:
    rows = write_statements({name: [] for name in SCHEMAS}, 0.95)
    assert [row["analysis"] for row in rows] == list(ANALYSES)
    assert {row["verdict"] for row in rows} == {"not measured"}
    assert all("needed" in row["sentence"] for row in rows)
    assert [row["order"] for row in rows] == list(range(len(ANALYSES)))
    assert all(set(row) == set(SCHEMAS["statements"].names) for row in rows)


def test_learned_and_forgotten_by_the_sign_of_the_gain() -> None:
    lost = estimate_row(**LOST, probes="c4")
    estimates = [estimate_row(**GAIN, estimate=0.21, ci_low=0.18, ci_high=0.24), lost, estimate_row(), estimate_row(probes="c4", **STILL)]
    learned, forgotten = (_state(name, runs=[RUN, {**RUN, "probes": "c4"}], estimates=estimates) for name in ("learned", "forgotten"))
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
    unlost = _state("forgotten", estimates=[estimate_row(**GAIN)])[0]
    assert "No forgetting was seen" in unlost["sentence"]
    assert unlost["verdict"] == "not measured", "whether text further from the training documents lost was not"
    nothing = _state("learned", estimates=[estimate_row(**{**GAIN, **STILL})])
    assert nothing[0]["verdict"] == "not shown"
    assert "Nothing was learned that can be told from 0" in nothing[0]["sentence"]


def _sized(size: int, **fields: Any) -> dict[str, Any]:
    return {**RUN, "point": f"size={size}", "fields": f'{{"corpus.size":{size}}}', "training_documents": size, **fields}


def test_every_compared_model_is_stated_and_named() -> None:
    runs = [{**RUN, "experiment": "comparisons", "point": name} for name in ("model-a", "model-b")]
    kinds = (("model-a", {**GAIN}, {}), ("model-b", {**LOST}, {"estimate": -0.3, "ci_low": -0.4, "ci_high": -0.2}))
    estimates = [estimate_row(**row, experiment="comparisons", point=name) for name, gain, shift in kinds for row in (gain, shift)]
    learned, forgotten = (_state(name, runs=runs, estimates=estimates) for name in ("learned", "forgotten"))
    assert [(row["point"], row["variant"], row["verdict"]) for row in learned] == [("model-a", "original", "moved"), ("model-a", "casual", "moved")]
    assert [(row["point"], row["variant"], row["verdict"]) for row in forgotten] == [("model-b", "original", "moved"), ("model-b", "casual", "moved")]
    assert learned[1]["sentence"].startswith("On probes (comparisons, model-a) the model moved towards the style")
    assert forgotten[1]["sentence"].startswith("On probes (comparisons, model-b) the model moved away from the style")


def test_a_probe_set_that_failed_at_the_largest_point_is_stated_where_it_was_measured() -> None:
    runs = [_sized(10), _sized(10, probes="c4"), _sized(100)]
    estimates = [estimate_row(**GAIN), estimate_row(**LOST, probes="c4"), estimate_row(**GAIN, point="size=100")]
    rows = _state("forgotten", runs=runs, estimates=estimates)
    assert [(row["probes"], row["point"], row["verdict"]) for row in rows] == [("c4", "size=10", "moved")]
    assert "study, size=10" in rows[0]["sentence"]


def test_forgetting_at_another_point_than_the_stated_one_is_said() -> None:
    runs, gained = [_sized(10), _sized(30), _sized(100)], estimate_row(**GAIN, point="size=100")
    estimates = [estimate_row(**LOST), estimate_row(**{**GAIN, **STILL}, point="size=30"), gained]
    rows = _state("forgotten", runs=runs, estimates=estimates)
    assert [(row["point"], row["verdict"], row["estimate"]) for row in rows] == [("size=10", "moved", -0.2)]
    assert "is what is called forgetting, not at size=100 but at 1 other point; most surely by gain \u22120.200" in rows[0]["sentence"]
    assert "Holm-adjusted p over 3 points = 0.006" in rows[0]["sentence"]
    weak = _state("forgotten", runs=runs, estimates=[{**estimates[0], "p_holm": 0.03}, *estimates[1:]])
    assert [row["verdict"] for row in weak] == ["not shown"]
    assert "Holm-adjusted p over 3 points = 0.060 is too weak to count as a finding" in weak[0]["sentence"]
    assert (
        "No forgetting was seen: on every probe set (probes) the loss on the originals fell, at size=100."
        in (_state("forgotten", runs=runs, estimates=estimates[1:])[0]["sentence"])
    )


def test_gains_at_another_point_than_the_stated_one_are_said_where_nothing_else_was_learned() -> None:
    runs, last = [_sized(10), _sized(100)], estimate_row(**LOST, point="size=100")
    rows = _state("learned", runs=runs, estimates=[estimate_row(**GAIN), last])
    assert [(row["point"], row["verdict"]) for row in rows] == [("size=10", "moved")]
    assert "are predicted better than before, not at size=100 but at 1 other point" in rows[0]["sentence"]


def test_constant_values_are_never_a_finding() -> None:
    estimates = [estimate_row(**{**GAIN, **FLAT}), estimate_row(**FLAT)]
    rows = [row for name in ("learned", "forgotten", "position") for row in _state(name, estimates=estimates, positions=[RUN])]
    assert {row["verdict"] for row in rows} == {"not shown"}
    told = [row["sentence"] for row in rows if row["estimate"] is not None]
    assert len(told) == 2
    assert all("every document has the same value, and an interval of no width says nothing" in sentence for sentence in told)


def test_a_point_with_other_tokenizers_is_told_per_byte_beside_one_told_per_token() -> None:
    runs = [{**RUN, "point": point} for point in ("a", "b")]
    estimates = [estimate_row(**row, point="a", normalization="byte") for row in (GAIN, {}, {"variant": "paraphrase", "factor": "control"})]
    estimates += [estimate_row(**row, point="b", normalization=unit) for unit in ("token", "byte") for row in (GAIN, {})]
    rows = _state("learned", runs=runs, estimates=estimates)
    assert [(row["point"], row["variant"]) for row in rows] == [("a", "original"), ("a", "casual"), ("b", "original"), ("b", "casual")]
    assert [("nats/byte" in row["sentence"], "nats/token" in row["sentence"]) for row in rows] == [(True, False)] * 2 + [(False, True)] * 2
    plain = {name: value for name, value in estimates[2].items() if name != "normalization"}
    own = {**plain, "axis": None, "group": None, "x": None, "x_label": None, "writer": "gpt", "kept_words_median": 0.4}
    for row in (own, {**own, "normalization": "byte"}):
        assert "has +0.1000 nats/byte [" in _state("fingerprint", runs=runs, estimates=estimates, fingerprint=[row])[0]["sentence"]


def test_not_measured_names_the_reason_that_is_known() -> None:
    gap = StudyGap("estimates", "study", "size=10", "probes", "original", "gain per token: 1 document with the texts whole, 2 are needed")
    other = StudyGap("facts", "study", "size=10", "probes", "all", "seed 0: no such folder")
    note = StudyGap("tempo", "study", "along step", "probes", "casual", "3 documents that not every point has: left out")
    said = {name: _state(name, gaps=[other, gap, note, gap])[0]["sentence"] for name in ("learned", "facts", "tempo", "moved")}
    assert said["learned"] == f"Not measured on probes (study, size=10, original): {gap.reason}."
    assert said["facts"] == "Not measured on probes (study, size=10): seed 0: no such folder."
    assert said["tempo"] == "Not measured: a curve with a shift at its end that can be told from 0 is needed."
    assert said["moved"] == "Not measured: scores token by token are needed."


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
        _sized(10),
        _sized(10, probes="c4"),
        _sized(600),
        {**RUN, "experiment": "capacity", "point": "rank=1", "fields": '{"finetune.lora.rank":1}'},
        {**RUN, "experiment": "capacity", "point": "full", "fields": '{"finetune.lora.rank":null}'},
        {**RUN, "experiment": "unknown", "point": "a", "training_documents": None, "fields": '{"corpus.files":["a"]}'},
        {**RUN, "experiment": "unknown", "point": "b", "training_documents": None, "fields": '{"corpus.files":["b"]}'},
        {**RUN, "experiment": "comparisons", "point": "a"},
        {**RUN, "experiment": "comparisons", "point": "b", "training_documents": 600},
    ]
    assert stated_points(rows) == {
        ("study", "probes"): ("size=600",),
        ("study", "c4"): ("size=10",),
        ("capacity", "probes"): ("full",),
        ("unknown", "probes"): ("a",),
        ("comparisons", "probes"): ("a", "b"),
    }


def test_a_run_of_two_experiments_is_stated_once() -> None:
    runs = [{**RUN, "experiment": name, "shift_folder": "shift"} for name in ("study", "again")]
    estimates = [estimate_row(**GAIN), estimate_row(**GAIN, experiment="again")]
    assert len(_state("learned", runs=runs, estimates=estimates)) == 1
    other = [runs[0], {**runs[1], "shift_folder": "another run with equal numbers"}]
    assert len(_state("learned", runs=other, estimates=estimates)) == 2


def test_position_says_how_much_is_early_and_where_it_cannot() -> None:
    variants = ("rap", "short", "unknown")
    estimates = [estimate_row(**GAIN), estimate_row(), *(estimate_row(variant=name) for name in variants), estimate_row(variant="weak", **WEAK)]
    share = {**RUN, "variant": "casual", "position": 16, "share": 0.4, "ci_low": 0.3, "ci_high": 0.5, "num_seeds": 1, "num_documents": 80}
    cumulative = [share, {**share, "variant": "weak"}, {**share, "variant": "short", "position": 8}]
    gaps = [
        StudyGap("positions", "study", "size=10", "probes", "all", "fixed: no bin is reached"),
        StudyGap("cumulative", "study", "size=10", "probes", "rap", "the per-document shift covers 0"),
        StudyGap("cumulative", "study", "size=10", "probes", "unknown", "seed 1: no such folder"),
    ]
    rows = _state("position", estimates=estimates, positions=[RUN], cumulative=cumulative, gaps=gaps)
    assert "40 % [30, 50] is made in its first 16 tokens" in rows[0]["sentence"]
    assert [(row["variant"], row["verdict"], row["estimate"]) for row in rows] == [
        ("casual", "moved", 0.4),
        ("rap", "not measured", None),
        ("short", "not measured", None),
        ("unknown", "not measured", None),
        ("weak", "not shown", None),
    ]
    ends = ("the per-document shift covers 0.", "its texts end before 16 tokens.", "seed 1: no such folder.", "from 0 has no parts.")
    assert [row["sentence"].endswith(end) for row, end in zip(rows[1:], ends, strict=True)] == [True] * 4
    still = _state("position", estimates=estimates[:2], positions=[RUN], cumulative=[{**share, "ci_low": -0.3}])[0]
    assert (still["verdict"], "cannot be told: share 40 %" in still["sentence"]) == ("not shown", True)


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
    natural.append({**natural[1], "point": "other models"})
    said = _state("natural", runs=[RUN, {**RUN, "probes": "pairs"}], estimates=[estimate_row()], natural=natural)[0]
    assert "other models" not in said["sentence"]
    assert "by synthetic variants of the same models: casual on probes +0.010 [\u22120.020, 0.040]" in said["sentence"]
    difference = {
        **estimate_row(estimate=-0.1, ci_low=-0.2, ci_high=-0.05, num_seeds=3),
        "training_corpus": "p: casual minus p: original",
        "compared_with": "p: original",
    }
    said = _state("independence", estimates=[estimate_row()], independence=[difference])[0]
    assert said["verdict"] == "moved"
    assert "Training on p: casual instead of p: original changes the shift of style (casual) on probes by \u22120.10" in said["sentence"]
    alone = _state("independence", estimates=[estimate_row()], independence=[{**difference, "num_seeds": 1}])[0]
    assert (alone["verdict"], "cannot be told from one training run on each: between these two by " in alone["sentence"]) == ("not shown", True)
    rows = _state("independence", estimates=[estimate_row()], independence=[difference, {**difference, "point": "size=30"}])
    assert [f"on probes (study, {point}) by" in row["sentence"] for row, point in zip(rows, ("size=10", "size=30"), strict=True)] == [True, True]


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
    assert "+0.400 nats/term [0.200, 0.600], 120 terms (key term)" in said["sentence"]
    still = _state("cloze", estimates=[estimate_row()], cloze=[{**row, **numbers, **STILL}])[0]
    assert (still["verdict"], "can be told from 0" in still["sentence"]) == ("not shown", True)
