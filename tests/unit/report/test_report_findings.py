"""What the report says in words must follow from the numbers, and never claim more."""
# ruff: noqa: RUF001 - the report prints true minus signs

from pathlib import Path

import pytest

from lmdissect.report import captions, findings
from lmdissect.report.content import ReportContent
from lmdissect.report.text import join_words
from unit.report.shift_artifact import Details, Tables, build_content, keep_variants, set_zero, split_tokenizers


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    return build_content(tmp_path_factory.mktemp("shifts"))


def _sentence(content: ReportContent, variant: str) -> str:
    return next(finding.sentence for finding in findings.state_findings(content) if finding.variant == variant)


def _finding(content: ReportContent, variant: str) -> findings.VariantFinding:
    return next(finding for finding in findings.state_findings(content) if finding.variant == variant)


def test_a_moved_variant_says_how_far_and_which_way(content: ReportContent) -> None:
    finding = _finding(content, "casual")
    assert finding.label == "casual, net of the control"
    assert finding.direction == "towards"
    assert finding.sentence == (
        "moved by +0.046 nats/token [0.034, 0.058] towards the style of the originals (Holm-adjusted p < 0.001); "
        "share of the gain on the originals 22 % [16, 28]; against the original +0.065 [0.050, 0.080]."
    )


def test_movement_away_is_named_as_such(content: ReportContent) -> None:
    finding = _finding(content, "nonbiomedical")
    assert finding.direction == "away"
    assert finding.label == "nonbiomedical, against the original"
    assert finding.sentence.startswith("moved by −0.064 nats/token [−0.079, −0.049] away from the topic of the originals")


def test_an_interval_that_covers_zero_is_no_movement(content: ReportContent) -> None:
    finding = _finding(content, "nonbiomedical_casual")
    assert finding.direction == "still"
    assert finding.sentence.startswith("no movement that can be told from 0 (interval [−0.008, 0.020] around +0.006 nats/token)")
    assert "moved by" not in finding.sentence


def test_a_holm_adjusted_p_at_or_above_the_limit_is_said(content: ReportContent) -> None:
    finding = _finding(content, "rap")
    assert finding.direction == "unsettled"
    assert "Holm-adjusted p = 0.123: too weak to count as a finding" in finding.sentence
    assert "moved by" not in finding.sentence


def test_facts_are_judged_on_the_changed_words(content: ReportContent) -> None:
    finding = _finding(content, "counterfactual")
    assert finding.label == "counterfactual, on the changed words"
    assert finding.sentence == (
        "no movement that can be told from 0 (interval [−0.015, 0.030] around +0.005 nats/token); "
        "of these words, numbers +0.001 [−0.019, 0.026], named terms −0.004 [−0.024, 0.021]; "
        "over the whole text against the original +0.003 [−0.009, 0.015], net of the control −0.016 [−0.031, −0.001]."
    )


def test_facts_without_fact_tokens_are_judged_on_the_whole_text(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        tables["fact_tokens"] = []

    finding = _finding(build_content(tmp_path, change), "counterfactual")
    assert finding.label == "counterfactual, against the original"
    assert "interval [−0.009, 0.015]" in finding.sentence


def test_moved_facts_need_their_own_test(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in tables["fact_tokens"]:
            row.update(estimate=0.05, ci_low=0.01, ci_high=0.09, p_value=0.2)

    finding = _finding(build_content(tmp_path, change), "counterfactual")
    assert finding.direction == "unsettled"
    assert "but p = 0.200: too weak" in finding.sentence


def test_changed_words_that_moved_without_their_facts_are_no_plain_finding(tmp_path: Path) -> None:
    """Counterfactuals reword as well: what moved on all changed words and on none of the narrower ones must not read as learned facts."""

    def change(tables: Tables, details: Details) -> None:
        for row in tables["fact_tokens"]:
            moved = row["selection"] == "changed"
            row.update(estimate=0.05, ci_low=0.01 if moved else -0.02, ci_high=0.09, p_value=0.001 if moved else 0.3)

    (tmp_path / "still").mkdir()
    still = build_content(tmp_path / "still", change)
    narrower = [words for words, _ in findings.narrower_facts(still, "counterfactual")]
    assert narrower
    assert f"facts (counterfactual; not on its {join_words(narrower)} alone)" in findings.verdict(still)
    assert f"of these words, {narrower[0]} +0.050 [−0.020, 0.090]" in _sentence(still, "counterfactual")
    assert f"where they hold facts most surely: {narrower[0]} +0.050 [−0.020, 0.090]" in captions.fact_caption(still)

    def change_against(tables: Tables, details: Details) -> None:
        change(tables, details)
        for row in tables["fact_tokens"]:
            if row["selection"] == "number":
                row.update(estimate=-0.05, ci_low=-0.09, ci_high=-0.01)

    (tmp_path / "against").mkdir()
    assert "not on its" in findings.verdict(build_content(tmp_path / "against", change_against))

    def change_all(tables: Tables, details: Details) -> None:
        for row in tables["fact_tokens"]:
            row.update(estimate=0.05, ci_low=0.01, ci_high=0.09, p_value=0.001)

    (tmp_path / "moved").mkdir()
    assert "facts (counterfactual)" in findings.verdict(build_content(tmp_path / "moved", change_all))


def test_the_verdict_sorts_factors_by_what_happened(content: ReportContent) -> None:
    assert findings.verdict(content) == (
        "Finetuning moved style (casual) towards the originals, and topic (nonbiomedical) away from them. "
        "No movement of facts (counterfactual) and topic and style (nonbiomedical_casual) can be told from 0. "
        "For style (rap) the interval leaves 0 out, but the test does not support it (p at or above 0.05)."
    )


def test_equal_models_get_their_own_sentence(tmp_path: Path) -> None:
    content = build_content(tmp_path, set_zero)
    assert findings.verdict(content) == "Nothing moved: every shift is exactly 0, because both models give every token the same score."
    assert findings.gain_sentence(content) == "The loss on the 80 originals is unchanged."


def test_one_shift_that_is_not_zero_spoils_equality(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        set_zero(tables, details)
        tables["shifts"][3]["estimate"] = 1e-9

    assert not build_content(tmp_path, change).is_unmoved()


def test_the_control_speaks_for_rewriting_alone(content: ReportContent) -> None:
    sentence = findings.control_sentence(content)
    assert "the control (paraphrase), which changes no factor, has +0.019 nats/token [0.004, 0.034]." in sentence
    assert "paraphrase" not in [finding.variant for finding in findings.state_findings(content)]


def test_a_net_row_is_the_true_value_only_where_one_writer_wrote_both(content: ReportContent, tmp_path: Path) -> None:
    one_writer = (
        "One writer wrote nonbiomedical, casual, rap, counterfactual, nonbiomedical_casual and the control; the prompts are not recorded, "
        "and a net row holds the writer’s habits constant only as far as they agreed."
    )
    assert findings.writer_sentence(content) == one_writer
    assert findings.control_sentence(content).endswith(one_writer)

    def change(_tables: Tables, details: Details) -> None:
        details["variants"]["nonbiomedical"]["writer_against_control"] = "same writer and prompt frame"
        for name, match in (("casual", "another writer"), ("rap", "not recorded"), ("counterfactual", "same writer, another prompt frame")):
            details["variants"][name]["writer_against_control"] = match

    assert findings.writer_sentence(build_content(tmp_path, change)) == (
        "One writer wrote nonbiomedical and the control with one prompt frame: a net row holds the writer’s habits constant. "
        "One writer wrote nonbiomedical_casual and the control; the prompts are not recorded, and a net row holds the writer’s habits constant "
        "only as far as they agreed. "
        "For casual the control was written by another writer, for counterfactual the control was written by the same writer with another prompt "
        "and for rap who wrote variant and control is not recorded: there a net row is a check of how much the writer may matter, not the true value."
    )


def test_a_control_whose_interval_covers_zero_did_not_move(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in tables["shifts"]:
            if row["variant"] == "paraphrase":
                row["ci_low"] = -row["ci_high"]

    assert findings.control_sentence(build_content(tmp_path, change)).startswith("Rewriting alone shows no movement that can be told from 0")


def test_a_missing_control_is_said(tmp_path: Path) -> None:
    content = build_content(tmp_path, keep_variants("casual", "counterfactual"))
    assert findings.control_sentence(content).startswith("These probes have no control")
    assert _finding(content, "casual").label == "casual, against the original"


def test_tokenizers_that_differ_make_bytes_the_headline(tmp_path: Path) -> None:
    content = build_content(tmp_path, split_tokenizers)
    assert findings.tokenizer_sentence(content)
    assert "+0.0101 nats/byte [0.0075, 0.0128] towards" in _sentence(content, "casual")
    assert _finding(content, "counterfactual").label == "counterfactual, against the original"
    assert "nats/byte" in captions.shift_caption(content)
    assert "nats/byte" in captions.loss_caption(content)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.03, "fell: gain"), (-0.03, -0.01, "rose, which is what is called forgetting"), (-0.01, 0.03, "can be told from 0")],
)
def test_the_gain_says_whether_the_loss_fell_or_rose(tmp_path: Path, low: float, high: float, words: str) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in tables["gains"]:
            row.update(estimate=(low + high) / 2, ci_low=low, ci_high=high)

    assert words in findings.gain_sentence(build_content(tmp_path, change))


def test_a_share_without_a_number_is_not_mentioned(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in tables["shifts"]:
            row.update(share=None, share_ci_low=None, share_ci_high=None)

    assert "share" not in _sentence(build_content(tmp_path, change), "casual")


def test_a_share_of_forgetting_is_not_called_a_share_of_a_gain(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in tables["shifts"]:
            row["gain"] = -0.2

    assert "share of the change on the originals" in _sentence(build_content(tmp_path, change), "casual")


def test_a_variant_without_rows_says_so(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        tables["shifts"] = [row for row in tables["shifts"] if row["variant"] != "rap"]

    assert _sentence(build_content(tmp_path, change), "rap") == "no shift could be computed; the self-check says why."


def test_a_missing_net_row_falls_back_to_the_original(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        tables["shifts"] = [row for row in tables["shifts"] if not (row["variant"] == "casual" and row["reference"] == "control")]

    assert _finding(build_content(tmp_path, change), "casual").label == "casual, against the original"


def test_the_users_own_factor_keeps_its_name(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        keep_variants("casual", "paraphrase")(tables, details)
        details["variants"]["casual"]["factor"] = "reading level"

    assert "towards the reading level of the originals" in _sentence(build_content(tmp_path, change), "casual")


def test_every_report_says_what_its_intervals_are_over(content: ReportContent) -> None:
    assert findings.run_sentence(content).endswith("Intervals are over documents, for this one training run.")


def test_few_documents_are_a_warning(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        for row in [*tables["gains"], *details["variants"].values()]:
            row["num_documents"] = 4

    assert "With 4 documents an interval is a rough guess" in findings.run_sentence(build_content(tmp_path, change))


def test_captions_say_the_finding_with_numbers(content: ReportContent) -> None:
    assert "style (casual +0.046 [0.034, 0.058]) towards the originals" in captions.shift_caption(content)
    assert "Numbers are nats/token with 95 % intervals over 80 documents." in captions.shift_caption(content)
    assert "casual 54 % [49, 61]" in captions.cumulative_caption(content)
    assert "first 16 tokens" in captions.cumulative_caption(content)
    assert "No curve for rap" in captions.cumulative_caption(content)
    assert "In no bin can the shift of rap, counterfactual and paraphrase be told from 0." in captions.position_caption(content)
    assert "nonbiomedical in 8 of 8 bins, most at position 0, −0.320 [−0.470, −0.170]" in captions.position_caption(content)
    assert (
        "the shift is +0.005 nats/token [−0.015, 0.030], which cannot be told from 0; where they hold facts most surely: numbers +0.001"
        in captions.fact_caption(content)
    )
    (interaction,) = captions.interaction_sentences(content)
    assert interaction.startswith("nonbiomedical and casual (together: nonbiomedical_casual): interaction −0.023 nats/token [−0.038, −0.008]")
    assert interaction.endswith("so they do not move independently here.")


def test_an_interaction_needs_its_test_too(tmp_path: Path) -> None:
    def change(tables: Tables, _details: Details) -> None:
        for row in tables["interactions"]:
            row["p_value"] = 0.21

    (interaction,) = captions.interaction_sentences(build_content(tmp_path, change))
    assert interaction.endswith("though p = 0.210 is too weak to say that they depend on each other.")


def test_the_acceptance_rate_is_part_of_the_report(tmp_path: Path) -> None:
    def change(_tables: Tables, details: Details) -> None:
        summary = {"num_texts": 80, "num_accepted": 72, "acceptance_rate": 0.9, "rejected_by_rule": {"number_kept": 8}, "not_measured": []}
        details["audits"] = {"casual": summary, "gone": {**summary, "num_accepted": 0, "acceptance_rate": 0.0}}

    sentence = findings.audit_sentence(build_content(tmp_path, change))
    assert "72 of 80 casual (90 %)" in sentence
    assert "0 of 80 gone (0 %)" in sentence  # a variant of which nothing is left still counts
    assert "Not audited: nonbiomedical" in sentence


def test_unaudited_variants_are_called_so(tmp_path: Path) -> None:
    assert findings.audit_sentence(build_content(tmp_path)).startswith("These variants were not audited")
