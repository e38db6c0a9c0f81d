"""What is compared with what: by id, never by place, and nothing dropped without a name."""

from pathlib import Path

import numpy as np
import pytest

from lmdissect.errors import MismatchedScoresError, NothingToDoError, UserInputError
from lmdissect.formats.scores import ScoreTable
from lmdissect.shifts.pairs import PairedScores, pair_scores
from score_tables import ScoredText, save_scores

NAN = float("nan")


def _text(document_id: str, variant: str, scores: tuple[float, ...] = (-1.0, -2.0), text: str = "") -> ScoredText:
    return ScoredText(document_id, variant, text or " ".join(f"{document_id}{variant}{number}" for number in range(len(scores))), scores)


def _pair(tmp_path: Path, base: list[ScoredText], tuned: list[ScoredText] | None = None, **tuned_options: object) -> PairedScores:
    left = save_scores(tmp_path / "base", base)
    right: ScoreTable = save_scores(tmp_path / "tuned", base if tuned is None else tuned, model="tuned", **tuned_options)  # type: ignore[arg-type]
    return pair_scores(left, right)


def test_three_normalizations_by_hand(tmp_path: Path) -> None:
    base = [ScoredText("d", "original", "ab cd", (-1.0, -2.0)), ScoredText("d", "casual", "γδ x y", (NAN, -4.0, -5.0))]
    paired = _pair(tmp_path, base)
    assert paired.normalizations == ("token", "byte", "document")
    assert {name: values["original"].tolist() for name, values in paired.base_values.items()} == {
        "token": [-1.5],
        "byte": [-3 / 5],
        "document": [-3.0],
    }
    assert {name: values["casual"].tolist() for name, values in paired.base_values.items()} == {"token": [-4.5], "byte": [-9 / 4], "document": [-9.0]}


def test_documents_are_paired_by_id_not_by_place(tmp_path: Path) -> None:
    base = [_text("a", "original", (-1.0,)), _text("b", "original", (-2.0,)), _text("a", "casual", (-3.0,)), _text("b", "casual", (-4.0,))]
    tuned = [_text("b", "casual", (-40.0,)), _text("b", "original", (-20.0,)), _text("a", "casual", (-30.0,)), _text("a", "original", (-10.0,))]
    paired = _pair(tmp_path, base, tuned)
    assert paired.documents == ["a", "b"]
    assert paired.gains("token", "original").tolist() == [-9.0, -18.0]
    assert paired.gains("token", "casual").tolist() == [-27.0, -36.0]
    assert paired.dropped == []


def test_every_text_that_takes_no_part_is_named_once(tmp_path: Path) -> None:
    base = [
        _text("whole", "original"),
        _text("whole", "casual"),
        _text("no casual", "original"),
        _text("orphan", "casual"),
        _text("orphan, and empty", "casual", ()),
        _text("base only", "original"),
        _text("base only", "casual"),
        _text("one word", "original", (NAN,)),
        _text("one word", "casual"),
        _text("half", "original"),
        _text("half", "casual"),
    ]
    tuned = [text for text in base if text.document_id != "base only" and (text.document_id, text.variant) != ("half", "casual")]
    paired = _pair(tmp_path, base, [*tuned, _text("tuned only", "original")])
    assert sorted((text.document_id, text.variant, text.reason) for text in paired.dropped) == sorted(
        [
            ("no casual", "casual", "the document has no such variant"),
            ("orphan", "casual", "its document has no original"),
            ("orphan, and empty", "casual", "its document has no original"),
            ("base only", "original", "not scored under the tuned model"),
            ("base only", "casual", "not scored under the tuned model"),
            ("half", "casual", "not scored under the tuned model"),
            ("tuned only", "original", "not scored under the base model"),
            ("one word", "original", "no token has a score"),
        ]
    )
    assert paired.documents == ["whole", "no casual", "one word", "half"]
    np.testing.assert_array_equal(np.isnan(paired.gains("token", "casual")), [False, True, False, True])


def test_a_text_cut_under_either_model_is_cut(tmp_path: Path) -> None:
    whole = [_text("d", "original"), _text("d", "casual", (-1.0, -2.0), "one two")]
    paired = _pair(tmp_path, whole, [whole[0], _text("d", "casual", (-1.0,), "one two")])
    assert {variant: cut.tolist() for variant, cut in paired.truncated.items()} == {"original": [False], "casual": [True]}


def test_other_text_under_one_id_is_refused(tmp_path: Path) -> None:
    base = [_text("d", "original"), _text("d", "casual", text="some words")]
    with pytest.raises(MismatchedScoresError, match=r"document d \(casual\) has another text") as caught:
        _pair(tmp_path, base, [base[0], _text("d", "casual", text="other words")])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("config", "named"), [({"bos": "never"}, "--bos"), ({"max_tokens": 9}, "--max-tokens"), ({"window_tokens": 9}, "--window-tokens")]
)
def test_other_settings_are_refused(tmp_path: Path, config: dict[str, object], named: str) -> None:
    with pytest.raises(MismatchedScoresError, match=named):
        _pair(tmp_path, [_text("d", "original"), _text("d", "casual")], config=config)


def test_a_prefix_under_one_model_alone_is_refused(tmp_path: Path) -> None:
    texts = [_text("d", "original"), _text("d", "casual")]
    with pytest.raises(MismatchedScoresError, match=r"puts tokens \[0\] before a text and the tuned model's \[\]"):
        _pair(tmp_path, texts, prefix_ids=())
    other_words = save_scores(tmp_path / "other", texts, model="tuned", tokenizer="other", prefix_ids=())
    assert pair_scores(save_scores(tmp_path / "base2", texts), other_words).normalizations == ("byte",)  # other tokens anyway


def test_other_factors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchedScoresError, match="variant 'casual' changes style in the base model's scores and formality"):
        _pair(tmp_path, [_text("d", "original"), _text("d", "casual")], factors={"casual": "formality"})


@pytest.mark.parametrize(
    "texts",
    [[_text("d", "original"), _text("e", "original")], [_text("d", "casual")], [_text("d", "original"), _text("e", "casual")]],
    ids=["originals only", "variants only", "no pair"],
)
def test_nothing_to_compare(tmp_path: Path, texts: list[ScoredText]) -> None:
    with pytest.raises(NothingToDoError, match="no document has both an original and a variant") as caught:
        _pair(tmp_path, texts)
    assert caught.value.exit_code == 2


def test_other_tokenizers_leave_bytes_alone(tmp_path: Path) -> None:
    paired = _pair(tmp_path, [_text("d", "original"), _text("d", "casual")], tokenizer="other")
    assert (paired.tokenizers_equal, tuple(paired.normalizations), list(paired.base_values)) == (False, ("byte",), ["byte"])


def test_a_tokenizer_that_only_got_a_token_added_cuts_these_texts_alike(tmp_path: Path) -> None:
    paired = _pair(tmp_path, [_text("d", "original"), _text("d", "casual")], tokenizer="words and one more")
    assert paired.tokenizers_equal
    assert tuple(paired.normalizations) == ("token", "byte", "document")


def test_another_prefix_makes_another_tokenizer_another_one_whatever_the_tokens(tmp_path: Path) -> None:
    paired = _pair(tmp_path, [_text("d", "original"), _text("d", "casual")], tokenizer="words and one more", prefix_ids=())
    assert not paired.tokenizers_equal


def test_two_controls_are_refused(tmp_path: Path) -> None:
    texts = [_text("d", "original"), _text("d", "paraphrase"), _text("d", "second")]
    scores = save_scores(tmp_path / "s", texts, factors={"second": "control"})
    with pytest.raises(UserInputError, match="more than one control"):
        pair_scores(scores, scores)
