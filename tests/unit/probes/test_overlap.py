"""Probe texts in a training corpus: by id, by text, and nearly."""

from collections.abc import Iterator

import numpy as np
import pytest

from lmdissect.errors import UserInputError
from lmdissect.probes import OverlapMatch, find_overlap
from lmdissect.records import Document, ProbeSet, ProbeText

WORDS = [f"w{number}" for number in range(3000)]


def _text(seed: int, num_words: int = 200) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def _edited(text: str, num_edits: int, seed: int) -> tuple[str, float]:
    """``text`` with words replaced, and its true similarity."""
    words = text.split()
    for position in np.random.default_rng(seed).choice(len(words), num_edits, replace=False):
        words[position] = "changed"
    here, there = _shingles(text), _shingles(" ".join(words))
    return " ".join(words), len(here & there) / len(here | there)


PROBES = ProbeSet(
    texts=tuple(
        ProbeText(str(number), variant, _text(10 * number + offset)) for number in range(40) for offset, variant in enumerate(("original", "casual"))
    ),
    factors={"casual": "style"},
    source="here",
)


def test_a_corpus_document_is_found_by_any_of_its_ids_and_once() -> None:
    probes = ProbeSet((ProbeText("7", "original", _text(1)), ProbeText("a", "original", _text(2))), {}, "here")
    report = find_overlap(probes, [Document("archive-1", _text(90), ("PMID:7", "7")), Document("a", _text(91), ("a",))])
    assert report.matches == (OverlapMatch("7", "original", "archive-1", "id", None), OverlapMatch("a", "original", "a", "id", None))


def test_ids_are_compared_as_strings_and_without_pmid() -> None:
    texts = (ProbeText("7", "casual", _text(1)), ProbeText("pmid: 8", "original", _text(2)), ProbeText("x7", "original", _text(3)))
    probes = ProbeSet(texts, {"casual": "style"}, "here")
    corpus = [Document("PMID:7", _text(90)), Document("8", _text(91)), Document("07", _text(92)), Document("x7", _text(93))]
    report = find_overlap(probes, corpus)
    assert report.matches == (
        OverlapMatch("7", "original", "PMID:7", "id", None),
        OverlapMatch("pmid: 8", "original", "8", "id", None),
        OverlapMatch("x7", "original", "x7", "id", None),
    )
    assert report.document_ids() == ("7", "pmid: 8", "x7")
    assert (report.num_probe_texts, report.num_corpus_documents, report.threshold) == (3, 4, 0.8)


def test_same_text_is_found_in_originals_and_variants_up_to_case_and_space() -> None:
    corpus = [Document("a", "  " + _text(50).upper().replace(" ", "\n\t")), Document("b", _text(51)), Document("c", _text(999))]
    assert find_overlap(PROBES, corpus).matches == (OverlapMatch("5", "original", "a", "text", 1.0), OverlapMatch("5", "casual", "b", "text", 1.0))


def test_one_document_may_match_in_several_ways() -> None:
    corpus = [Document("5", _text(50))]
    assert [match.kind for match in find_overlap(PROBES, corpus).matches] == ["id", "text"]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_found_with_their_exact_similarity(threshold: float) -> None:
    corpus, truth = [], {}
    for number in range(40):
        for num_edits in range(1, 20, 2):
            text, similarity = _edited(_text(10 * number), num_edits, seed=num_edits)
            corpus.append(Document(f"{number}-{num_edits}", text))
            truth[f"{number}-{num_edits}"] = similarity
    found = {match.corpus_id: match for match in find_overlap(PROBES, corpus, threshold=threshold).matches}
    wanted = {corpus_id for corpus_id, similarity in truth.items() if similarity >= threshold}
    clear = {corpus_id for corpus_id in wanted if truth[corpus_id] >= threshold + 0.05}
    assert set(found) <= wanted
    assert len(clear) > 10 or threshold > 0.9
    assert clear <= set(found)
    assert len(found) >= 0.95 * len(wanted)
    for corpus_id, match in found.items():
        assert (match.document_id, match.variant, match.kind) == (corpus_id.split("-")[0], "original", "near")
        assert match.similarity == pytest.approx(truth[corpus_id], abs=1e-12)


def test_short_texts_are_one_shingle() -> None:
    probes = ProbeSet((ProbeText("1", "original", "two words"),), {}, "here")
    corpus = [Document("a", "Two  words"), Document("b", "two words more"), Document("c", "")]
    assert [(match.corpus_id, match.kind) for match in find_overlap(probes, corpus).matches] == [("a", "text")]


def test_corpus_streams_past() -> None:
    seen: list[str] = []

    def stream() -> Iterator[Document]:
        for number in range(5):
            seen.append(str(number))
            yield Document(f"c{number}", _text(500 + number))

    assert find_overlap(PROBES, stream()).num_corpus_documents == 5
    assert seen == ["0", "1", "2", "3", "4"]


def test_report_is_the_same_in_every_run_and_for_every_order_of_probes() -> None:
    corpus = [Document(str(100 + number), _edited(_text(10 * number), 6, seed=number)[0]) for number in range(40)]
    here = find_overlap(PROBES, corpus, threshold=0.7)
    turned = find_overlap(ProbeSet(PROBES.texts[::-1], PROBES.factors, "here"), corpus, threshold=0.7)
    assert here == find_overlap(PROBES, corpus, threshold=0.7) == turned
    assert len(here.matches) > 30


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UserInputError, match="is not in"):
        find_overlap(PROBES, [], threshold=threshold)
