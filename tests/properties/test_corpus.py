"""Whatever the ids, sizes, seed and order of the files: samples nest and stay out of the held-out documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.corpus import sample_documents, split_held_out
from lmdissect.records import Document

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30, unique=True)
SEEDS = st.integers(min_value=0, max_value=2**32)


def _documents(ids: list[str]) -> list[Document]:
    return [Document(document_id, f"text of {document_id!r}") for document_id in ids]


@given(ids=IDS, seed=SEEDS, shuffle=st.integers(0, 2**32), sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_samples_nest_and_do_not_depend_on_order(ids: list[str], seed: int, shuffle: int, sizes: tuple[int, int]) -> None:
    documents = _documents(ids)
    shuffled = [documents[index] for index in np.random.default_rng(shuffle).permutation(len(documents))]
    small, large = (sample_documents(documents, size, seed) for size in sorted(sizes))
    assert large[: len(small)] == small
    assert len(large) == min(max(sizes), len(documents))
    assert sample_documents(shuffled, max(sizes), seed) == large


@given(ids=IDS, seed=SEEDS, shuffle=st.integers(0, 2**32), choose=st.data())
def test_held_out_documents_are_never_sampled(ids: list[str], seed: int, shuffle: int, choose: st.DataObject) -> None:
    documents = _documents(ids)
    shuffled = [documents[index] for index in np.random.default_rng(shuffle).permutation(len(documents))]
    num_held_out = choose.draw(st.integers(0, len(documents) - 1))
    training, held_out = split_held_out(documents, num_held_out, seed)
    assert split_held_out(shuffled, num_held_out, seed) == (training, held_out)
    assert len(held_out) == num_held_out
    assert sorted([*training, *held_out], key=lambda document: document.document_id) == sorted(documents, key=lambda document: document.document_id)
    for size in range(len(documents) + 1):
        assert not set(held_out) & set(sample_documents(training, size, seed))


@given(ids=IDS, seed=SEEDS, smaller=st.integers(0, 28))
def test_held_out_sets_nest(ids: list[str], seed: int, smaller: int) -> None:
    documents = _documents(ids)
    small, large = (split_held_out(documents, min(size, len(documents) - 1), seed)[1] for size in (smaller, smaller + 1))
    assert large[: len(small)] == small
