"""Measures of a pair."""

import numpy as np
import pytest

from lmdissect.audit import MEASURES, measure_pair
from lmdissect.audit.copying import copying_measures
from lmdissect.audit.directions import find_turns
from lmdissect.audit.similarity import SentenceVectors, embed_sentences, similarity_measures
from lmdissect.audit.style import informality_change, line_break_rate, rhyming_share, style_profile
from lmdissect.audit.terms import kept_share, lost_names, named_terms, new_names
from lmdissect.audit.words import count_syllables, plain_text, split_sentences, stem
from lmdissect.errors import RunFailedError
from lmdissect.progress import SilentProgress

ORIGINAL = (
    "Halothane induced the activity of NADPH-cytochrome-c-reductase in the liver of 30 Sprague-Dawley rats. No signs of toxicity were found. "
    "The concentration of cytochrome P-450 decreased by 12% in the kidney, and it was significantly lower than in controls."
)
CASUAL = (
    "So guess what? They gave halothane to 30 Sprague-Dawley rats, and it really got NADPH-cytochrome-c-reductase going in the liver! They didn't see any signs "
    "of toxicity. But the stuff called cytochrome P-450 went down by 12% in the kidney, so that's a lot less than the controls had."
)


def test_every_measure_is_listed_and_no_other() -> None:
    vectors = embed_sentences(
        [plain_text(ORIGINAL), plain_text(CASUAL)], lambda texts: np.ones((len(texts), 3), np.float32), progress=SilentProgress()
    )
    found = measure_pair(ORIGINAL, CASUAL, key_terms=["cytochrome P-450"], vectors=vectors)
    assert set(found) == set(MEASURES)
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())


def test_a_copy_is_a_copy() -> None:
    found = measure_pair(ORIGINAL, ORIGINAL)
    for name in (
        "length_ratio",
        "kept_word_share",
        "copied_word_share",
        "frame_kept_share",
        "content_kept_share",
        "numbers_kept_share",
        "names_kept_share",
    ):
        assert found[name] == 1.0, name
    for name in ("replaced_content_share", "numbers_unaccounted", "names_exchanged", "directions_flipped", "grade_change", "informality_change"):
        assert found[name] == 0.0, name


def test_what_does_not_apply_is_absent() -> None:
    found = measure_pair("no numbers or names stand here", "none here")
    assert not {"numbers_kept_share", "names_kept_share", "key_terms_kept_share", "similarity", "language_kept"} & set(found)


@pytest.mark.parametrize(("original", "variant"), [("", ""), ("word", ""), ("", "word"), ("...", "!!!"), ("\n\n", "a\nb")])
def test_texts_without_words_give_no_nonsense(original: str, variant: str) -> None:
    assert all(np.isfinite(value) for value in measure_pair(original, variant).values())


def test_frame_and_content_are_told_apart() -> None:
    original = "the dose of the drug was given to the rats in the morning"
    other_facts = copying_measures(original, "the price of the car was given to the buyers in the evening")
    assert other_facts["frame_kept_share"] == 1.0
    assert other_facts["replaced_content_share"] == pytest.approx(4 / 5)  # dose, drug, rats, morning; not given
    other_words = copying_measures(original, "in the morning rats received their drug dose")
    assert other_words["frame_kept_share"] < 0.5
    assert other_words["content_kept_share"] == pytest.approx(4 / 5)
    assert other_words["longest_copied_run"] == 3


def test_names_are_kept_lost_and_exchanged() -> None:
    original = "The study of Epstein-Barr virus in Scotland used IL-6 and positron emission tomography."
    assert named_terms(original) == {"Epstein-Barr", "Scotland", "IL-6"}
    variant = "A Scottish study of the Epstein Barr virus used IL6, IL-8 and PET."
    assert lost_names(original, variant) == ["Scotland"]
    assert new_names(original, variant) == ["IL-8"]
    assert kept_share(["IL-6", "positron emission", "Candida"], original) == pytest.approx(2 / 3)
    assert kept_share([], original) is None


@pytest.mark.parametrize(
    ("original", "variant", "flipped"),
    [
        ("blood pressure increased", "blood pressure decreased", 1),
        ("mortality was higher and survival improved", "mortality was lower and survival worsened", 2),
        ("it increased", "it went down", 1),
        ("it increased", "it stayed", 0),
        ("p less than 0.05 and a higher risk", "p < 0.05 and a higher risk", 0),
    ],
)
def test_directions(original: str, variant: str, flipped: int) -> None:
    assert find_turns(original, variant).directions_flipped == flipped


def test_negations_that_come_and_go() -> None:
    turns = find_turns("It was not found, and never seen", "It was found and seen")
    assert (turns.negations_added, turns.negations_removed) == (0, 2)
    turns = find_turns("It was found", "They didn't find it, and couldn't")
    assert (turns.negations_added, turns.negations_removed) == (2, 0)


def test_casual_is_more_informal_and_easier() -> None:
    before, after = style_profile(ORIGINAL), style_profile(CASUAL)
    assert informality_change(before, after) > 3
    assert informality_change(after, before) < -1
    assert after.grade < before.grade
    assert (after.marks > 0, after.contractions > 0, before.passive > 0) == (True, True, True)


def test_a_chatty_original_gives_more_room() -> None:
    chatty = style_profile(CASUAL)
    calm = style_profile(ORIGINAL)
    away = informality_change(calm, chatty)
    back = informality_change(chatty, calm)
    assert abs(back) < away


def test_verse() -> None:
    rap = "Check the mic and take a seat\nHalothane is on the beat\nIn the liver of the rats\nHang your coats and hang your hats"
    assert line_break_rate(rap) > 1
    assert rhyming_share(rap) == 1.0
    assert (line_break_rate(ORIGINAL), rhyming_share(ORIGINAL)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One found it. Two did not.", 2),
        ("Strains of C. albicans vs. E. coli (e.g. In vitro) at 5 p.p.m. were seen.", 1),
        ("It rose by 2.5 mg. Then it fell!", 2),
        ("first line\nsecond line", 2),
        ("...", 0),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert len(split_sentences(text)) == sentences


def test_plain_text_reads_markup_and_exponents() -> None:
    assert plain_text("Cu<sup>2+</sup> at 10<sup>6</sup> &#956;mol &lt; 10⁻³") == "Cu2+ at 10^6 μmol < 10^-3"
    assert plain_text("a < b and c > d") == "a < b and c > d"


@pytest.mark.parametrize(("word", "syllables"), [("cat", 1), ("rate", 1), ("table", 2), ("treated", 2), ("walked", 1), ("analysis", 4), ("the", 1)])
def test_syllables(word: str, syllables: int) -> None:
    assert count_syllables(word) == syllables


def test_stems_join_forms_of_a_word() -> None:
    assert stem("infections") == stem("infected") == stem("Infection")


def _axes(table: dict[str, tuple[float, ...]]) -> SentenceVectors:
    return SentenceVectors({sentence: np.array(vector, np.float32) for sentence, vector in table.items()})


def test_similarity_by_hand() -> None:
    vectors = _axes({"Aaaa.": (1, 0, 0), "Bbbb.": (0, 1, 0), "Cccc.": (0, 0, 1)})
    found = similarity_measures("Aaaa. Bbbb.", "Aaaa. Cccc.", vectors)
    assert found["similarity"] == pytest.approx(0.5)
    assert found["original_sentences_matched"] == pytest.approx(0.5)
    assert found["least_sentence_similarity"] == pytest.approx(0.0)
    assert similarity_measures("...", "Aaaa.", vectors) == {}


def test_every_sentence_is_embedded_once() -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.eye(4, dtype=np.float32)[[len(text) % 4 for text in texts]]

    embed_sentences(["Same here. Other one.", "Same here."], embed, progress=SilentProgress())
    assert sorted(asked) == ["Other one.", "Same here."]


@pytest.mark.parametrize("wrong", [np.zeros((1, 3)), np.full((2, 3), np.nan), np.zeros(2)])
def test_an_embedder_that_breaks_its_word_is_an_error(wrong: np.ndarray) -> None:
    with pytest.raises(RunFailedError, match="embedder"):
        embed_sentences(["One here. Two here."], lambda _texts: wrong, progress=SilentProgress())
