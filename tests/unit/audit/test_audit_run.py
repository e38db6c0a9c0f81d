"""A whole audit: verdicts, summaries, what was not measured."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lmdissect.audit import RuleBook, ScriptedJudge, audit_probe_set
from lmdissect.audit.words import content_words
from lmdissect.errors import InterruptedRunError, NothingToDoError, RunFailedError
from lmdissect.interrupts import StopRequest
from lmdissect.probes import read_probe_set
from lmdissect.recipes import AuditRule, Recipe
from lmdissect.records import ProbeSet, ProbeText
from lmdissect.store import hash_text

ORIGINAL = "Halothane decreased the weight of 30 rats in the trial. The liver and the kidney were not affected by the drug."
CASUAL = "So they gave 30 rats halothane, and guess what? They got lighter! But hey, it didn't really do a thing to the liver or the kidney."
WRONG = "So they gave 40 rats halothane, and guess what? They got lighter! But hey, it didn't really do a thing to the liver or the kidney."


def bag_of_words(texts: Sequence[str]) -> np.ndarray:
    """Texts as hashed bags of content words: enough to tell one document from another."""
    vectors = np.full((len(texts), 512), 1e-6, np.float32)
    for row, text in enumerate(texts):
        for word in content_words(text):
            vectors[row, int(hash_text(word)[:8], 16) % 512] += 1
    return vectors


def probes(**variants: dict[str, str]) -> ProbeSet:
    texts = tuple(ProbeText(document_id, name, text) for name, column in variants.items() for document_id, text in column.items())
    factors = {"casual": "style", "counterfactual": "factual", "paraphrase": "control", "sad": "sentiment"}
    return ProbeSet(texts=texts, factors={name: factors[name] for name in variants if name != "original"}, source="here")


def test_verdicts_summaries_and_settings_are_json_and_in_order() -> None:
    outcome = audit_probe_set(probes(casual={"2": WRONG, "1": CASUAL, "9": "no original"}, original={"1": ORIGINAL, "2": ORIGINAL}))
    assert [(verdict.document_id, verdict.accepted) for verdict in outcome.verdicts] == [("2", False), ("1", True)]
    assert outcome.verdicts[0].reasons == (
        "numbers_unaccounted is 1, above 0: a change of style states no number that the original does not account for",
    )
    summary = outcome.summaries["casual"]
    assert (summary["num_texts"], summary["num_accepted"], summary["acceptance_rate"]) == (2, 1, 0.5)
    assert summary["rejected_by_rule"] == {"numbers_unaccounted": 1}
    assert "similarity" in summary["not_measured"]
    assert outcome.settings["similarity_model"] is None
    assert {rule["measure"] for rule in outcome.settings["rules"]["casual"]} >= {"numbers_unaccounted", "informality_change"}
    json.dumps([outcome.summaries, outcome.settings], allow_nan=False)


def test_with_an_embedder_similarity_decides_and_is_recorded() -> None:
    other = "So yeah, folks, bikes are really cool stuff, right? You've got two wheels and a seat, and it's just a lot of fun, so go on!"
    probe_set = probes(original={"1": ORIGINAL}, casual={"1": other})
    outcome = audit_probe_set(probe_set, similarity=bag_of_words, similarity_name="bag of words")
    assert any(reason.startswith("similarity is ") for reason in outcome.verdicts[0].reasons)
    assert "similarity" not in outcome.summaries["casual"]["not_measured"]
    assert outcome.settings["similarity_model"] == "bag of words"


def test_copies_are_rejected_for_every_factor() -> None:
    copy = {"1": ORIGINAL}
    outcome = audit_probe_set(probes(original=copy, casual=copy, counterfactual=copy, paraphrase=copy, sad=copy))
    assert not any(verdict.accepted for verdict in outcome.verdicts)


def test_a_recipes_own_rules_win() -> None:
    rule = AuditRule(measure="key_terms_kept_share", minimum=1, reason="terms stay")
    recipe = Recipe(variant="casual", factor="style", instruction="x", audit=(rule,))
    probe_set = probes(original={"1": ORIGINAL, "2": ORIGINAL}, casual={"1": CASUAL, "2": CASUAL})
    outcome = audit_probe_set(probe_set, recipes={"casual": recipe})
    assert outcome.summaries["casual"]["not_measured"] == ["key_terms_kept_share"]
    listed = ProbeSet(
        probe_set.texts, probe_set.factors, "here", metadata={"1": {"keywords": ["halothane"]}, "2": {"keywords": ["halothane", "weight"]}}
    )
    outcome = audit_probe_set(listed, recipes={"casual": recipe})
    assert [verdict.accepted for verdict in outcome.verdicts] == [True, False]
    assert outcome.summaries["casual"]["not_measured"] == []


def test_the_judge_can_reject_and_silence_is_no_pass() -> None:
    yes = json.dumps({"topic_kept": "yes", "style_changed": "yes", "facts_kept": "partly", "fluent": "yes", "accept": "accept"})
    no = yes.replace('"topic_kept": "yes"', '"topic_kept": "no"')
    originals = {str(number): ORIGINAL for number in range(4)}
    judge = ScriptedJudge([yes, no, "I would say yes.", None])
    outcome = audit_probe_set(probes(original=originals, casual=dict.fromkeys(originals, CASUAL)), judge=judge)
    assert [verdict.accepted for verdict in outcome.verdicts] == [True, False, False, False]
    assert outcome.verdicts[0].measures["judge_facts_kept"] == 1.0
    assert outcome.verdicts[1].reasons == ("judge says no: Is the topic kept?",)
    assert outcome.verdicts[2].reasons[0].startswith("judge: not judged")
    assert "judge_accept" not in outcome.verdicts[2].measures
    assert outcome.summaries["casual"]["rejected_by_rule"] == {"judge": 3}
    assert len(judge.asked) == 4


def test_a_judge_that_loses_answers_is_an_error() -> None:
    with pytest.raises(RunFailedError, match="judge gave 0 answers to 1"):
        audit_probe_set(probes(original={"1": ORIGINAL}, casual={"1": CASUAL}), judge=lambda _prompts: [])


def test_nothing_to_audit() -> None:
    with pytest.raises(NothingToDoError, match="no variant text has an original"):
        audit_probe_set(probes(original={"1": ORIGINAL}, casual={"2": CASUAL}))


def test_stop_is_heard() -> None:
    stop = StopRequest()
    stop.asked = True
    with pytest.raises(InterruptedRunError):
        audit_probe_set(probes(original={"1": ORIGINAL}, casual={"1": CASUAL}), stop=stop)


def test_no_rules_accept_everything_and_measure_it() -> None:
    outcome = audit_probe_set(probes(original={"1": ORIGINAL}, casual={"1": ORIGINAL}), rules=RuleBook(factors={}))
    assert outcome.verdicts[0].accepted
    assert outcome.verdicts[0].measures["kept_word_share"] == 1.0


@pytest.fixture(scope="module")
def published(shared_data: Path) -> ProbeSet:
    whole = read_probe_set(str(shared_data / "probes/pubmed_derived.json.gz"), control=str(shared_data / "probes/pubmed_keyword.json.gz"))
    kept = set(sorted({text.document_id for text in whole.texts})[:60])
    return ProbeSet(tuple(text for text in whole.texts if text.document_id in kept), whole.factors, whole.source)


def _rates(probe_set: ProbeSet) -> dict[str, float]:
    outcome = audit_probe_set(probe_set)
    counts = Counter(verdict.variant for verdict in outcome.verdicts)
    return {name: sum(verdict.accepted for verdict in outcome.verdicts if verdict.variant == name) / counts[name] for name in counts}


def test_published_variants_pass_as_what_they_are(published: ProbeSet) -> None:
    rates = _rates(published)
    assert set(rates) == {"casual", "counterfactual", "paraphrase"}
    assert min(rates.values()) > 0.8, rates


@pytest.mark.parametrize("turn", [1, 2])
def test_published_variants_fail_as_each_other(published: ProbeSet, turn: int) -> None:
    names = ["casual", "counterfactual", "paraphrase"]
    other = {name: names[(index + turn) % 3] for index, name in enumerate(names)}
    texts = tuple(ProbeText(text.document_id, other.get(text.variant, text.variant), text.text) for text in published.texts)
    rates = _rates(ProbeSet(texts, published.factors, "exchanged"))
    assert max(rates.values()) < 0.15, rates
