"""Cloze tables by hand: which tokens count, contrast and rank, means over a document's terms first."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdissect.errors import MismatchedScoresError
from lmdissect.factors import ORIGINAL
from lmdissect.formats.cloze_terms import ClozeTerm
from lmdissect.formats.scores import ScoreTable
from lmdissect.records import UnavailableRow
from lmdissect.shifts import ShiftConfig
from lmdissect.shifts.cloze import cloze_rows, score_term
from score_tables import ScoredText, save_scores

CONFIG = ShiftConfig(num_draws=200)
CONTEXT = "one two "


@dataclass(frozen=True)
class Asked:
    """A term with the score of every candidate under the base and the tuned model; every candidate is one word after two of context."""

    term: ClozeTerm
    base: Sequence[float]
    tuned: Sequence[float]


def term(document_id: str, number: int = 0, **changes: Any) -> ClozeTerm:
    fields: dict[str, Any] = {
        "variant": "counterfactual",
        "kind": "named",
        "selections": ("changed",),
        "context": CONTEXT,
        "true_term": "iron",
        "other_term": "zinc",
        "distractors": ("tin",),
        "copied": False,
        "context_cut": False,
        "text_hash": "of the original",
    }
    return ClozeTerm(term_id=f"{document_id}#{number}", document_id=document_id, **{**fields, **changes})


def tables(folder: Path, asked: Sequence[Asked], **options: Any) -> tuple[ScoreTable, ScoreTable]:
    """Scores of all contexts + candidates: -1 for every token of context, and the given score for the candidate."""
    names = {name: "factual" for one in asked for name in one.term.candidates if name != ORIGINAL}
    made = []
    for model in ("base", "tuned"):
        texts = [
            ScoredText(one.term.term_id, name, one.term.context + text, (-1.0, -1.0, getattr(one, model)[number]))
            for one in asked
            for number, (name, text) in enumerate(one.term.candidates.items())
        ]
        made.append(save_scores(folder / model, texts, model=model, factors=names, **options))
    return made[0], made[1]


def rows_of(folder: Path, asked: Sequence[Asked], *, num_candidates: int = 3) -> tuple[list[dict[str, Any]], list[UnavailableRow], dict[str, int]]:
    base, tuned = tables(folder, asked)
    return cloze_rows(base, [tuned], [one.term for one in asked], CONFIG, num_candidates=num_candidates)


def only(rows: Sequence[dict[str, Any]], **values: str) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[name] == value for name, value in {"normalization": "term", "terms": "all", **values}.items())]
    return found


ASKED = (
    Asked(term("d1"), base=(-3.0, -5.0, -2.0), tuned=(-1.0, -4.5, -2.0)),
    Asked(term("d1", 1, copied=True), base=(-2.0, -2.0, -4.0), tuned=(-2.0, -3.0, -4.0)),
    Asked(term("d2"), base=(-6.0, -4.0, -5.0), tuned=(-5.0, -4.0, -5.5)),
)


def test_measures_by_hand(tmp_path: Path) -> None:
    rows, unavailable, left_out = rows_of(tmp_path, ASKED)
    assert left_out == {}
    contrast = only(rows, measure="contrast")
    # d1: base (2 + 0) / 2, tuned (3.5 + 1) / 2; d2: base -2, tuned -1
    assert contrast["base_mean"] == pytest.approx((1.0 - 2.0) / 2)
    assert contrast["tuned_mean"] == pytest.approx((2.25 - 1.0) / 2)
    assert contrast["estimate"] == pytest.approx((1.25 + 1.0) / 2)
    assert (contrast["num_terms"], contrast["num_documents"], contrast["num_seeds"], contrast["num_candidates"]) == (3, 2, 1, 3)
    assert contrast["is_headline"]
    assert only(rows, measure="true_logprob")["estimate"] == pytest.approx((1.0 + 1.0) / 2)
    assert only(rows, measure="other_logprob")["estimate"] == pytest.approx((-0.25 + 0.0) / 2)
    rank = only(rows, measure="true_rank")
    # ranks, base: 2 and 1.5 (a tie), tuned: 1 and 1; d2: 3, then 2
    assert rank["base_mean"] == pytest.approx((1.75 + 3.0) / 2)
    assert rank["tuned_mean"] == pytest.approx((1.0 + 2.0) / 2)
    first = only(rows, measure="true_first")
    assert (first["base_mean"], first["tuned_mean"]) == (0.0, 0.5)
    assert not rank["is_headline"]
    recalled = {row["measure"] for row in rows if row["terms"] == "recalled"}
    assert recalled == {row["measure"] for row in rows}
    assert only(rows, measure="contrast", terms="recalled")["estimate"] == pytest.approx((1.5 + 1.0) / 2)
    assert unavailable == []


def test_holm_is_over_the_rows_of_one_measure(tmp_path: Path) -> None:
    asked = [
        Asked(term(f"d{n}", k, selections=(selection,)), base=(-3.0, -5.0, -2.0), tuned=(-3.0 + n + k, -5.0, -2.0))
        for n in range(8)
        for k, selection in enumerate(("changed", "number", "named"))
    ]
    rows, _, _ = rows_of(tmp_path, asked)
    contrasts = sorted(
        (row for row in rows if (row["measure"], row["normalization"], row["terms"]) == ("contrast", "term", "all")), key=lambda r: r["p_value"]
    )
    expected = np.maximum.accumulate([min(1.0, (3 - k) * row["p_value"]) for k, row in enumerate(contrasts)])
    assert [row["p_holm"] for row in contrasts] == pytest.approx(expected)
    assert len(contrasts) == 3


def test_equal_models_give_exactly_nothing(tmp_path: Path) -> None:
    rows, _, _ = rows_of(tmp_path, [Asked(one.term, one.base, one.base) for one in ASKED])
    assert {(row["estimate"], row["ci_low"], row["ci_high"], row["p_value"]) for row in rows} == {(0.0, 0.0, 0.0, 1.0)}


def test_one_document_is_not_measured_and_said(tmp_path: Path) -> None:
    rows, unavailable, _ = rows_of(tmp_path, ASKED[:2])
    assert rows == []
    assert UnavailableRow("cloze", "counterfactual", "original", "term", "changed, contrast, all terms: fewer than 2 documents") in unavailable


def test_too_few_candidates_are_scored_but_not_ranked(tmp_path: Path) -> None:
    rows, _, left_out = rows_of(tmp_path, ASKED, num_candidates=4)
    assert {row["measure"] for row in rows} == {"true_logprob", "other_logprob", "contrast"}
    assert left_out == {"fewer than 4 candidates: not ranked": 3}


def test_listed_key_terms_have_nothing_to_contrast_with(tmp_path: Path) -> None:
    listed = {"variant": ORIGINAL, "selections": ("key_term",), "other_term": None, "distractors": ("tin", "lead")}
    asked = [Asked(term(f"d{n}", **listed), base=(-3.0, -2.0, -4.0), tuned=(-1.0, -2.0, -4.0)) for n in range(2)]
    rows, _, _ = rows_of(tmp_path, asked)
    assert {row["measure"] for row in rows} == {"true_logprob", "true_rank", "true_first"}
    assert not any(row["is_headline"] for row in rows)
    assert only(rows, measure="true_rank")["estimate"] == -1.0


def test_seeds_are_crossed_with_documents(tmp_path: Path) -> None:
    """Two tuned models, three documents: mean of all six changes, t interval by the two-way layout."""
    base, one = tables(tmp_path / "1", [Asked(term(f"d{n}"), (-3.0, -5.0, -2.0), (-3.0 + n, -5.0, -2.0)) for n in range(3)])
    _, two = tables(tmp_path / "2", [Asked(term(f"d{n}"), (-3.0, -5.0, -2.0), (-2.0 + n, -5.0, -2.0)) for n in range(3)])
    rows, _, _ = cloze_rows(base, [one, two], [term(f"d{n}") for n in range(3)], CONFIG, num_candidates=3)
    contrast = only(rows, measure="contrast")
    assert contrast["estimate"] == pytest.approx((0 + 1 + 2 + 1 + 2 + 3) / 6)
    assert (contrast["num_seeds"], contrast["num_documents"]) == (2, 3)
    assert contrast["ci_low"] < 0 < contrast["ci_high"]
    single, _, _ = cloze_rows(base, [one], [term(f"d{n}") for n in range(3)], CONFIG, num_candidates=3)
    assert only(single, measure="contrast")["ci_low"] == pytest.approx(0.0)


class TestWhichTokensCount:
    def scored(self, folder: Path, asked: ClozeTerm, scores: Sequence[Sequence[float]], **options: Any) -> Any:
        texts = [ScoredText(asked.term_id, name, asked.context + text, scores[n]) for n, (name, text) in enumerate(asked.candidates.items())]
        names = dict.fromkeys((name for name in asked.candidates if name != ORIGINAL), "factual")
        return score_term(save_scores(folder, texts, factors=names, **options), asked)

    def test_all_tokens_of_the_term_and_none_of_the_context(self, tmp_path: Path) -> None:
        asked = term("d", true_term="iron oxide", other_term="zinc", distractors=())
        found = self.scored(tmp_path, asked, [(-1, -2, -4, -8), (-1, -2, -16)])
        assert found.logprob_C.tolist() == [-12.0, -16.0]
        assert found.num_tokens_C.tolist() == [2, 1]
        assert found.measures("token", has_other=True, ranked=True) == {
            "true_logprob": -6.0,
            "other_logprob": -16.0,
            "contrast": 10.0,
            "true_rank": 1.0,
            "true_first": 1.0,
        }

    def test_a_token_that_straddles_the_border_is_the_terms(self, tmp_path: Path) -> None:
        found = self.scored(tmp_path, term("d", context="one (", distractors=()), [(-1, -4), (-1, -16)])  # the tokens "(iron" and "(zinc"
        assert found.logprob_C.tolist() == [-4.0, -16.0]

    def test_candidates_that_share_their_first_word(self, tmp_path: Path) -> None:
        """It belongs to each of them: what is shared in the context alone is left out."""
        found = self.scored(tmp_path, term("d", true_term="red iron", other_term="red zinc", distractors=()), [(-1, -1, -2, -4), (-1, -1, -2, -16)])
        assert found.logprob_C.tolist() == [-6.0, -18.0]

    def test_where_one_candidate_straddles_all_are_counted_from_there(self, tmp_path: Path) -> None:
        """ "one -" + "iron" is cut as "one", "-iron"; with the candidate " zinc" as "one", "-", "zinc": "-" then counts for both."""
        asked = term("d", context="one -", true_term="iron", other_term=" zinc", distractors=())
        found = self.scored(tmp_path, asked, [(-1, -4), (-1, -2, -16)])
        assert found.logprob_C.tolist() == [-4.0, -18.0]
        assert found.num_tokens_C.tolist() == [1, 2]

    def test_a_candidate_that_begins_another(self, tmp_path: Path) -> None:
        found = self.scored(tmp_path, term("d", true_term="iron", other_term="iron oxide", distractors=()), [(-1, -1, -4), (-1, -1, -4, -8)])
        assert found.logprob_C.tolist() == [-4.0, -12.0]

    def test_without_a_score_there_is_no_number(self, tmp_path: Path) -> None:
        asked = term("d", context="(", distractors=())
        assert self.scored(tmp_path, asked, [(nan,), (nan,)], prefix_ids=()) is None


def test_a_term_whose_text_does_not_fit_the_model_is_left_out(tmp_path: Path) -> None:
    """Windows would give candidates of another length another context."""
    base, tuned = tables(tmp_path, ASKED)
    for table in (base, tuned):
        table.manifest.details["max_input"] = 3  # a prefix and three tokens
    rows, _, left_out = cloze_rows(base, [tuned], [one.term for one in ASKED], CONFIG, num_candidates=3)
    assert rows == []
    assert left_out == {"a token of the term has no score, or its context is longer than the model reads at once": 3}
    for table in (base, tuned):
        table.manifest.details["max_input"] = 4
    assert cloze_rows(base, [tuned], [one.term for one in ASKED], CONFIG, num_candidates=3)[2] == {}


def test_other_tokenizers_leave_contrasts_and_ranks(tmp_path: Path) -> None:
    base, _ = tables(tmp_path / "words", ASKED)
    _, tuned = tables(tmp_path / "other", ASKED, tokenizer="other")
    rows, unavailable, _ = cloze_rows(base, [tuned], [one.term for one in ASKED], CONFIG, num_candidates=3)
    assert {(row["measure"], row["normalization"]) for row in rows} == {(name, "term") for name in ("contrast", "true_rank", "true_first")}
    assert "tokenizers differ" in unavailable[-1].reason


def test_other_texts_are_refused(tmp_path: Path) -> None:
    base, _ = tables(tmp_path / "1", ASKED)
    other = [Asked(term(one.term.document_id, int(one.term.term_id[-1]), true_term="gold"), one.base, one.tuned) for one in ASKED]
    _, tuned = tables(tmp_path / "2", other)
    with pytest.raises(MismatchedScoresError):
        cloze_rows(base, [tuned], [one.term for one in ASKED], CONFIG, num_candidates=3)
