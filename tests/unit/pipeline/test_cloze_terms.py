"""Which terms are asked about, and what competes with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lmdissect.factors import ORIGINAL, resolve_factors
from lmdissect.formats.cloze_terms import ClozeTerm, candidate_texts
from lmdissect.pipeline.cloze_terms import ClozeConfig, draw_terms
from lmdissect.probes import limit_documents, read_probe_set
from lmdissect.records import ProbeSet, ProbeText


def probe_set(documents: Mapping[str, tuple[str, str | None]], key_terms: Mapping[str, Sequence[str]] | None = None) -> ProbeSet:
    """Originals, their counterfactuals (None: there is none), and key terms."""
    texts = [ProbeText(document_id, ORIGINAL, original) for document_id, (original, _) in documents.items()]
    texts += [ProbeText(document_id, "counterfactual", other) for document_id, (_, other) in documents.items() if other is not None]
    metadata = {document_id: {"keywords": list(terms)} for document_id, terms in (key_terms or {}).items()}
    return ProbeSet(texts=tuple(texts), factors=resolve_factors({text.variant: None for text in texts}), source="a test", metadata=metadata)


def draw(original: str, other: str | None, *key_terms: str, **settings: int) -> list[ClozeTerm]:
    """Terms of one document."""
    return draw_terms(probe_set({"d": (original, other)}, {"d": key_terms}), ClozeConfig(**settings))[0]


@pytest.mark.parametrize(
    ("original", "other", "true_term", "other_term", "context"),
    [
        ("Iron is kept in ferritin.", "Iron is kept in albumin.", "ferritin", "albumin", "Iron is kept in "),
        ("A level of 9.5, it was", "A level of 7, it was", "9.5", "7", "A level of "),
        ("by flow (MRI) alone", "by flow (EEG) alone", "MRI", "EEG", "by flow ("),
        ("by imaging (MRI) alone", "by waves (EEG) alone", "imaging (MRI)", "waves (EEG)", "by "),
        ("by (A) or (B) alone", "by (C) and (D) alone", "(A) or (B)", "(C) and (D)", "by "),
        ('the "gold" rule', "the 'lead' rule", "gold", "lead", 'the "'),
        ("of 2 [see], then", "of 2 [hear], then", "see", "hear", "of 2 ["),
        ("a β-cell of  Fe²⁺ here", "a β-cell of  Cu²⁺ here", "Fe²⁺", "Cu²⁺", "a β-cell of  "),
    ],
)
def test_a_term_is_the_changed_words_without_the_punctuation_around_them(
    original: str, other: str, true_term: str, other_term: str, context: str
) -> None:
    (term,) = draw(original, other)
    assert (term.true_term, term.other_term, term.context) == (true_term, other_term, context)
    assert original.startswith(context + true_term)


@pytest.mark.parametrize(
    ("original", "other", "reason"),
    [
        ("Iron is here", "Copper is here", "nothing stands before the term"),
        ("It is very red", "It is red", "words on one side only, or a difference of punctuation alone"),
        ("It is red. So", "It is red, So", "words on one side only, or a difference of punctuation alone"),
        ("It was one two three four five six seven then", "It was x then", "more than 6 words"),
        ("It was red. Then it fell", "It was blue. When it fell", "words on both sides of a sentence border"),
    ],
)
def test_what_is_no_term_is_counted(original: str, other: str, reason: str) -> None:
    terms, left_out = draw_terms(probe_set({"d": (original, other)}), ClozeConfig())
    assert terms == []
    assert left_out == {reason: 1}


def test_kinds_and_selections() -> None:
    original = "Here the Ferritin rose by 12 percent and iron fell and then slept"
    other = "Here the Albumin rose by 14 percent and zinc fell and then ran"
    found = {term.true_term: (term.kind, term.selections) for term in draw(original, other, "iron") if term.variant != ORIGINAL}
    assert found == {
        "Ferritin": ("named", ("changed", "named")),
        "12": ("number", ("changed", "number")),
        "iron": ("key_term", ("changed", "key_term")),
        "slept": ("words", ("changed",)),
    }


def test_a_variant_that_changes_no_facts_is_not_asked_about() -> None:
    texts = (ProbeText("d", ORIGINAL, "It is in ferritin"), ProbeText("d", "casual", "It is in stuff"))
    assert draw_terms(ProbeSet(texts=texts, factors={"casual": "style"}, source="a test"), ClozeConfig())[0] == []


class TestListedKeyTerms:
    def test_first_occurrence_as_it_stands(self) -> None:
        (term,) = draw("The Ferritin and the ferritin", None, "ferritin")
        assert (term.variant, term.kind, term.context, term.true_term, term.other_term) == (ORIGINAL, "key_term", "The ", "Ferritin", None)

    def test_whole_words_only(self) -> None:
        terms, left_out = draw_terms(probe_set({"d": ("The apoferritin fell", None)}, {"d": ["ferritin"]}), ClozeConfig())
        assert terms == []
        assert left_out == {"a listed key term that does not stand in the original": 1}

    def test_one_that_opens_the_text(self) -> None:
        assert draw_terms(probe_set({"d": ("Iron fell", None)}, {"d": ["iron"]}), ClozeConfig())[1] == {"nothing stands before the term": 1}

    def test_the_same_in_two_spellings_is_one(self) -> None:
        assert len(draw("The iron fell", None, "iron", "Iron")) == 1

    def test_with_signs_that_mean_something_to_a_pattern(self) -> None:
        assert draw("The rise of Ca2+ (free) was", None, "Ca2+ (free)")[0].true_term == "Ca2+ (free)"


@pytest.mark.parametrize(
    ("context", "true_term", "copied"),
    [
        ("iron and more", "iron", True),
        ("IRON and more", "iron", True),
        ("irons and more", "iron", False),
        ("of 10.5 and more", "5", False),
        ("of 10.5 and more", "10", False),
        ("of 5, and more", "5", True),
        ("risk for all of infection", "risk of infection", True),
        ("risk for all", "risk of infection", False),
        ("by (MRI) or", "MRI", True),
        ("of water", "of", True),
    ],
)
def test_a_term_is_copied_where_all_its_content_words_stand_before_it(context: str, true_term: str, *, copied: bool) -> None:
    (term,) = draw(f"{context} {true_term} end", f"{context} xyz end")
    assert term.copied is copied


def test_a_counterfactual_term_that_stands_before_counts_as_copied_too() -> None:
    assert draw("zinc then iron end", "zinc then zinc end")[0].copied


def test_the_end_of_a_long_context_is_kept() -> None:
    (term,) = draw("one two three\nfour iron end", "one two three\nfour zinc end", max_context_words=2)
    assert (term.context, term.context_cut) == ("three\nfour ", True)
    (whole,) = draw("one two three\nfour iron end", "one two three\nfour zinc end", max_context_words=4)
    assert (whole.context, whole.context_cut) == ("one two three\nfour ", False)
    assert not draw("iron five six iron end", "iron five six zinc end", max_context_words=2)[0].copied, "what was cut cannot be copied"


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")


def many_documents(num_documents: int = 12) -> ProbeSet:
    """In every document the same six places, each with a word of its own, and other words at the same places of the counterfactual."""
    documents = {}
    for number in range(num_documents):
        names = [f"{WORDS[number]}{place}x" for place in "abcdef"]
        documents[f"d{number}"] = (" and the ".join(["start", *names]), " and the ".join(["start", *(f"other{name}" for name in names)]))
    return probe_set(documents)


class TestDraw:
    def test_so_many_of_each_selection(self) -> None:
        terms, _ = draw_terms(many_documents(), ClozeConfig(max_terms=2))
        assert [sum(term.document_id == f"d{number}" for term in terms) for number in range(12)] == [2] * 12

    def test_every_place_is_drawn_by_some_seed_and_the_same_seed_draws_the_same(self) -> None:
        one = probe_set({"d0": (many_documents(1).texts[0].text, many_documents(1).texts[1].text)})
        drawn = [draw_terms(one, ClozeConfig(max_terms=1, seed=seed))[0][0].true_term for seed in range(200)]
        assert set(drawn) == {f"alpha{place}x" for place in "abcdef"}
        assert max(drawn.count(name) for name in set(drawn)) < 60, "200 draws of 6 places"
        assert drawn == [draw_terms(one, ClozeConfig(max_terms=1, seed=seed))[0][0].true_term for seed in range(200)]

    def test_fewer_are_inside_more(self) -> None:
        few, more = (
            {(term.document_id, term.true_term) for term in draw_terms(many_documents(), ClozeConfig(max_terms=number))[0]} for number in (2, 4)
        )
        assert few < more

    def test_ids_are_of_the_document(self) -> None:
        assert [term.term_id for term in draw_terms(many_documents(2), ClozeConfig(max_terms=2))[0]] == ["d0#0", "d0#1", "d1#0", "d1#1"]


class TestDistractors:
    def test_number_kind_and_origin(self) -> None:
        probes = many_documents()
        originals = probes.by_variant()[ORIGINAL]
        for term in draw_terms(probes, ClozeConfig(num_candidates=5))[0]:
            assert len(term.distractors) == 3
            assert len({*term.distractors, term.true_term, term.other_term}) == 5
            for text in term.distractors:
                assert text not in originals[term.document_id]
                assert any(text in original for original in originals.values())

    def test_a_listed_key_term_gets_one_more(self) -> None:
        probes = probe_set(
            {f"d{number}": (f"the {word} end", None) for number, word in enumerate(WORDS)}, {f"d{n}": [w] for n, w in enumerate(WORDS)}
        )
        assert {len(term.candidates) for term in draw_terms(probes, ClozeConfig(num_candidates=5))[0]} == {5}

    def test_numbers_compete_with_numbers_and_length_with_length(self) -> None:
        documents = {f"n{n}": (f"a dose of {n}0 mg", f"a dose of {n}5 mg") for n in range(1, 6)}
        documents |= {f"w{n}": (f"a dose of {WORDS[n]} mg", f"a dose of {WORDS[n + 1]} mg") for n in range(5)}
        documents |= {f"l{n}": (f"a dose of {n}0 big ones mg", f"a dose of {n}5 big ones mg x") for n in range(6, 9)}
        for term in draw_terms(probe_set(documents), ClozeConfig(num_candidates=5))[0]:
            kinds = {text[0].isdigit() for text in term.distractors}
            assert kinds == {term.true_term[0].isdigit()}
            if term.document_id.startswith("n"):
                assert all(len(text.split()) == 1 for text in term.distractors), "there are enough of one word"

    def test_fewer_where_there_are_fewer(self) -> None:
        assert draw("a dose of iron", "a dose of zinc")[0].distractors == ()

    def test_a_seed_of_their_own(self) -> None:
        several = {
            tuple(term.distractors for term in draw_terms(many_documents(), ClozeConfig(seed=seed, num_candidates=4, max_terms=6))[0])
            for seed in range(3)
        }
        assert len(several) == 3


def test_texts_to_score() -> None:
    terms, _ = draw_terms(many_documents(3), ClozeConfig(max_terms=1, num_candidates=4))
    texts = candidate_texts(terms, "somewhere")
    assert len(texts.texts) == 3 * 4
    assert [text.variant for text in texts.texts[:4]] == [ORIGINAL, "other", "distractor_1", "distractor_2"]
    assert texts.texts[0].text == terms[0].context + terms[0].true_term
    assert texts.texts[3].text == terms[0].context + terms[0].distractors[1]
    assert set(texts.factors) == {"other", "distractor_1", "distractor_2"}


def test_published_probes(shared_data: Path) -> None:
    """Half of the paper's probe set: terms are where they are said to be, key terms are nearly all found."""
    probes = shared_data / "probes"
    read = limit_documents(read_probe_set(str(probes / "pubmed_derived.json.gz"), control=str(probes / "pubmed_keyword.json.gz")), 40, 0)
    terms, left_out = draw_terms(read, ClozeConfig())
    originals = read.by_variant()[ORIGINAL]
    assert {term.document_id for term in terms} == set(originals)
    assert all(originals[term.document_id].find(term.context + term.true_term) >= 0 for term in terms)
    assert all(len(term.candidates) == 6 for term in terms)
    assert left_out.get("a listed key term that does not stand in the original", 0) <= 2
    assert {selection for term in terms for selection in term.selections} == {"changed", "number", "named", "key_term"}
    assert 0.1 < sum(term.copied for term in terms) / len(terms) < 0.5
