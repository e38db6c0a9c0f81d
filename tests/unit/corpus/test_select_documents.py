"""Seeded subsets of the size that studies use."""

import pytest

from lmdissect.corpus import mix_documents, sample_documents, split_held_out
from lmdissect.errors import NothingToDoError, UserInputError
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


@pytest.mark.parametrize(("share", "num_others"), [(0.0, 0), (0.1, 2), (0.25, 7), (0.5, 20), (0.75, 60)])
def test_a_mixture_has_the_share_that_was_asked_for(share: float, num_others: int) -> None:
    domain = [Document(f"d{number}", "domain") for number in range(20)]
    others = [Document(f"o{number}", "other") for number in range(80)]
    mixture = mix_documents(domain, others, share, seed=0)
    assert mixture[:20] == domain
    assert len(mixture) == 20 + num_others
    assert {document.text for document in mixture[20:]} <= {"other"}
    assert len({document.document_id for document in mixture}) == len(mixture)


def test_mixtures_are_nested_and_seeded() -> None:
    domain = [Document(f"d{number}", "domain") for number in range(20)]
    others = [Document(f"o{number}", "other") for number in range(80)]
    small, large = (mix_documents(domain, others, share, seed=3) for share in (0.25, 0.6))
    assert large[: len(small)] == small
    assert mix_documents(domain, others[::-1], 0.25, seed=3) == small
    assert mix_documents(domain, others, 0.25, seed=4) != small


@pytest.mark.parametrize(("share", "told"), [(1.0, "less than 1"), (-0.1, "at least 0"), (0.9, "takes 180 others, and the second corpus has 80")])
def test_impossible_shares_are_refused(share: float, told: str) -> None:
    domain = [Document(f"d{number}", "domain") for number in range(20)]
    others = [Document(f"o{number}", "other") for number in range(80)]
    with pytest.raises(UserInputError, match=told):
        mix_documents(domain, others, share, seed=0)
