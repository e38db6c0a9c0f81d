"""How the documents of a step are laid out in forward passes and over processes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.finetune.batches import TokenSequence
from lmdissect.finetune.micro_batches import IGNORED, build_micro_batch, num_forward_tokens, share_documents, split_documents, split_step

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def _sequence(*token_id: int, ignored: int = 1) -> TokenSequence:
    return TokenSequence(np.array(token_id, dtype=np.int32), np.arange(len(token_id)) >= ignored)


def test_padded_rows_are_padded_on_the_right() -> None:
    batch = build_micro_batch([_sequence(5, 6, 7), _sequence(8, 9)], packed=False)
    assert batch.input_ids_BT.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.labels_BT.tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    assert (batch.position_ids_BT, batch.document_lengths) == (None, None)


def test_packed_documents_stand_end_to_end_and_count_from_0() -> None:
    batch = build_micro_batch([_sequence(5, 6, 7), _sequence(8, 9), _sequence(1, 2, 3, ignored=2)], packed=True)
    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert batch.labels_BT.tolist() == [[IGNORED, 6, 7, IGNORED, 9, IGNORED, IGNORED, 3]]
    assert batch.position_ids_BT is not None
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch.document_lengths == (3, 2, 3)


@pytest.mark.parametrize("packed", [True, False])
def test_no_document_is_one_token_without_a_label(packed: bool) -> None:
    batch = build_micro_batch([], packed=packed)
    assert batch.input_ids_BT.shape == (1, 1)
    assert bool((batch.labels_BT == IGNORED).all())
    assert batch.input_ids_BT.dtype == torch.long


@pytest.mark.parametrize("packed", [True, False])
@given(lengths=LENGTHS, max_tokens=st.integers(1, 2000))
def test_every_document_is_in_one_pass_that_fits(packed: bool, lengths: list[int], max_tokens: int) -> None:
    passes = split_documents(lengths, max_tokens, packed=packed)
    assert sorted(place for places in passes for place in places) == list(range(len(lengths)))
    assert all(places for places in passes)
    for places in passes:
        held = [lengths[place] for place in places]
        assert num_forward_tokens(held, packed=packed) <= max_tokens or len(held) == 1


@given(lengths=LENGTHS, max_tokens=st.integers(300, 2000))
def test_packed_passes_are_few(lengths: list[int], max_tokens: int) -> None:
    """First-fit decreasing needs at most 11/9 of the fewest, and one more."""
    assert len(split_documents(lengths, max_tokens, packed=True)) <= 11 / 9 * max(1, -(-sum(lengths) // (max_tokens - 299))) + 1


def test_packed_passes_are_about_equally_long_where_they_can_be() -> None:
    passes = split_documents([100] * 10 + [50] * 10, 800, packed=True)
    assert [sum([100, 50][place >= 10] for place in places) for places in passes] == [750, 750]


def test_what_first_fit_packs_and_equal_loads_would_not() -> None:
    assert sorted(map(sorted, split_documents([384, 345, 126, 150], 512, packed=True))) == [[0, 2], [1, 3]]


@given(lengths=LENGTHS, num_processes=st.integers(1, 8))
def test_processes_get_about_as_many_tokens(lengths: list[int], num_processes: int) -> None:
    shares = share_documents(lengths, num_processes)
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    loads = [sum(lengths[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


@pytest.mark.parametrize("packed", [True, False])
@given(lengths=LENGTHS, max_tokens=st.integers(1, 2000), num_processes=st.integers(1, 5))
def test_processes_make_equally_many_passes(packed: bool, lengths: list[int], max_tokens: int, num_processes: int) -> None:
    all_passes = [split_step(lengths, max_tokens, packed=packed, rank=rank, num_processes=num_processes) for rank in range(num_processes)]
    assert len({len(passes) for passes in all_passes}) == 1
    assert sorted(place for passes in all_passes for places in passes for place in places) == list(range(len(lengths)))
