"""The documents of one optimiser step -> forward passes of a bounded number of tokens, on one process or several.

Shape letters: B rows, T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmdissect.finetune.batches import TokenSequence

__all__ = ["IGNORED", "MicroBatch", "build_micro_batch", "num_forward_tokens", "share_documents", "split_documents", "split_step"]

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass.

    Packed, all documents stand end to end in one row, and `document_lengths` says where each ends. Padded, every document has a row, padded on the right,
    which causal attention never sees; `document_lengths` is None.

    Attributes:
        input_ids_BT: Token ids.
        labels_BT: The token itself where it carries loss given the tokens before it, else `IGNORED`. The first of every document is.
        position_ids_BT: Positions, counted from 0 in every document; None where they are simply counted along the row.
        document_lengths: Lengths of the documents in a packed row.
    """

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor | None
    document_lengths: tuple[int, ...] | None

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on ``device``."""
        positions = None if self.position_ids_BT is None else self.position_ids_BT.to(device, non_blocking=True)
        return MicroBatch(
            self.input_ids_BT.to(device, non_blocking=True), self.labels_BT.to(device, non_blocking=True), positions, self.document_lengths
        )


def build_micro_batch(sequences: Sequence[TokenSequence], *, packed: bool) -> MicroBatch:
    """Lay documents end to end, or pad them on the right.

    Labels come from lengths, not from a pad id, so a real EOS is learned. No document at all gives one token without a label: a process that has no document
    left still takes part in what all processes do together.
    """
    if not sequences:
        return MicroBatch(
            torch.zeros((1, 1), dtype=torch.long),
            torch.full((1, 1), IGNORED),
            torch.zeros((1, 1), dtype=torch.long) if packed else None,
            (1,) if packed else None,
        )
    return _pack(sequences) if packed else _pad(sequences)


def _pack(sequences: Sequence[TokenSequence]) -> MicroBatch:
    token_id = np.concatenate([sequence.token_id for sequence in sequences]).astype(np.int64)
    is_target = np.concatenate([sequence.is_target for sequence in sequences])
    positions = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
    labels = np.where(is_target, token_id, IGNORED)
    lengths = tuple(len(sequence) for sequence in sequences)
    return MicroBatch(torch.from_numpy(token_id)[None], torch.from_numpy(labels)[None], torch.from_numpy(positions)[None], lengths)


def _pad(sequences: Sequence[TokenSequence]) -> MicroBatch:
    longest = max(len(sequence) for sequence in sequences)
    input_ids_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
    labels_BT = torch.full_like(input_ids_BT, IGNORED)
    for row, sequence in enumerate(sequences):
        ids = torch.from_numpy(sequence.token_id.astype(np.int64))
        input_ids_BT[row, : len(ids)] = ids
        labels_BT[row, : len(ids)] = torch.where(torch.from_numpy(sequence.is_target), ids, IGNORED)
    return MicroBatch(input_ids_BT, labels_BT, None, None)


def num_forward_tokens(lengths: Sequence[int], *, packed: bool) -> int:
    """Tokens the model works on for documents of these lengths, padding included."""
    return sum(lengths) if packed else len(lengths) * max(lengths, default=0)


def split_documents(lengths: Sequence[int], max_tokens: int, *, packed: bool) -> list[list[int]]:
    """Share out documents over forward passes of at most ``max_tokens`` tokens; a longer document is alone.

    Packed, the passes are no more than first-fit decreasing needs, and about equally long where that is possible. Padded, neighbours in order of length
    share a pass.

    Returns:
        For every pass the places of its documents in ``lengths``.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    if not packed:
        return _split_padded(order, lengths, max_tokens)
    fitted = _first_fit(order, lengths, max_tokens)
    fewest = -(-sum(lengths) // max_tokens)
    for num_passes in range(fewest, len(fitted) + 1):
        even = _even_bins(order, lengths, num_passes)
        if all(sum(lengths[place] for place in held) <= max_tokens for held in even):
            return even
    return fitted


def _first_fit(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Longest first, each into the first bin that has room."""
    bins: list[list[int]] = []
    room: list[int] = []
    for place in order:
        number = next((number for number, left in enumerate(room) if left >= lengths[place]), None)
        if number is None:
            bins.append([place])
            room.append(max_tokens - lengths[place])
        else:
            bins[number].append(place)
            room[number] -= lengths[place]
    return bins


def _split_padded(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    passes: list[list[int]] = []
    for place in order:
        if passes and (len(passes[-1]) + 1) * lengths[passes[-1][0]] <= max_tokens:
            passes[-1].append(place)
        else:
            passes.append([place])
    return passes


def _even_bins(order: Sequence[int], lengths: Sequence[int], num_bins: int) -> list[list[int]]:
    """Longest first, each into the bin that holds the fewest tokens."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    held = [0] * num_bins
    for place in order:
        emptiest = held.index(min(held))
        bins[emptiest].append(place)
        held[emptiest] += lengths[place]
    return bins


def share_documents(lengths: Sequence[int], num_processes: int) -> list[list[int]]:
    """Share out the documents of a step over processes so that each has about as many tokens; a process may get none."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return _even_bins(order, lengths, num_processes)


def split_step(lengths: Sequence[int], max_tokens: int, *, packed: bool, rank: int = 0, num_processes: int = 1) -> list[list[int]]:
    """Forward passes of one process in a step: lists of places in ``lengths``.

    All processes make the same number of passes, since some of what they do in a pass they do together; the last ones may be empty.
    """
    shares = share_documents(lengths, num_processes)
    per_process = []
    for share in shares:
        passes = split_documents([lengths[place] for place in share], max_tokens, packed=packed)
        per_process.append([[share[inner] for inner in held] for held in passes])
    longest = max(len(passes) for passes in per_process)
    own = per_process[rank]
    return own + [[] for _ in range(longest - len(own))]
