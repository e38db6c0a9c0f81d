"""Seeded subsets of the size that studies use."""

import pytest

from lmdissect.corpus import sample_documents, split_held_out
from lmdissect.errors import NothingToDoError
from lmdissect.records import Document

DOCUMENTS = [Document(str(number), f"text {number}") for number in range(12_000)]


def test_a_thousand_are_inside_ten_thousand() -> None:
    small, large = sample_documents(DOCUMENTS, 1000, 3), sample_documents(DOCUMENTS, 10_000, 3)
    assert len({document.document_id for document in small}) == 1000
    assert len({document.document_id for document in large}) == 10_000
    assert large[:1000] == small


def test_sample_is_the_same_on_every_machine() -> None:
    assert [document.document_id for document in sample_documents(DOCUMENTS[:100], 4, 0)] == ["69", "70", "54", "53"]


def test_sample_is_spread_over_the_corpus_and_changes_with_the_seed() -> None:
    first, second = ({int(document.document_id) for document in sample_documents(DOCUMENTS, 1000, seed)} for seed in (0, 1))
    standard_error = 12_000 / (12 * 1000) ** 0.5
    assert abs(sum(first) / 1000 - 5999.5) < 4 * standard_error
    assert 40 < len(first & second) < 130  # 83 by chance


def test_no_training_sample_reaches_into_the_held_out_documents() -> None:
    training, held_out = split_held_out(DOCUMENTS, 500, 3)
    kept_out = {document.document_id for document in held_out}
    assert len(kept_out) == 500
    for num_documents in (1, 1000, 10_000, 11_500, 20_000):
        chosen = {document.document_id for document in sample_documents(training, num_documents, 3)}
        assert len(chosen) == min(num_documents, 11_500)
        assert not chosen & kept_out


def test_holding_out_everything_is_an_error() -> None:
    assert split_held_out(DOCUMENTS[:3], 2, 0)[0] != []
    with pytest.raises(NothingToDoError, match="3 held-out documents of 3"):
        split_held_out(DOCUMENTS[:3], 3, 0)
