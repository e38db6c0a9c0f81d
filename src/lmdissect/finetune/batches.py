"""Documents -> token sequences -> a fixed order of micro-batches.

The order is drawn once from the seed and written down as a list of document indices, so that a resumed run, another micro-batch size or another
machine sees the same documents in the same optimiser step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmdissect.finetune.config import FinetuneConfig
from lmdissect.models import TextTokenizer
from lmdissect.records import Document

__all__ = ["IGNORED", "TokenizedCorpus", "collate", "order_documents", "tokenize_corpus"]

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True, slots=True)
class TokenizedCorpus:
    """Token sequences of a corpus.

    Attributes:
        sequences: One int64 array per usable document: prefix, text tokens, EOS where it belongs.
        num_ignored: Leading positions of every sequence that are never targets (prefix or first token, and the skipped ones).
        num_truncated: Documents cut at the token limit.
        num_too_short: Documents left out because they have no target token.
    """

    sequences: tuple[np.ndarray, ...]
    num_ignored: int
    num_truncated: int
    num_too_short: int

    @property
    def num_target_tokens(self) -> int:
        """Tokens that carry loss in one pass over the corpus."""
        return sum(len(sequence) - self.num_ignored for sequence in self.sequences)


def tokenize_corpus(documents: Sequence[Document], tokenizer: TextTokenizer, config: FinetuneConfig) -> TokenizedCorpus:
    """Tokenize every document; keep `max_tokens` text tokens; add the prefix, and EOS where the document was not cut.

    With a prefix every text token is a target, without one the first is not (it has no context).
    """
    prefix = list(tokenizer.prefix_ids)
    num_ignored = len(prefix) + config.skip_first_tokens if prefix else max(1, config.skip_first_tokens)
    sequences: list[np.ndarray] = []
    num_truncated = num_too_short = 0
    for document in documents:
        token_id = tokenizer.tokenize(document.text).token_id
        cut = len(token_id) > config.max_tokens
        num_truncated += cut
        suffix = [tokenizer.eos_id] if config.append_eos and not cut and tokenizer.eos_id is not None else []
        sequence = np.asarray([*prefix, *token_id[: config.max_tokens].tolist(), *suffix], dtype=np.int64)
        if len(sequence) > num_ignored:
            sequences.append(sequence)
        else:
            num_too_short += 1
    return TokenizedCorpus(tuple(sequences), num_ignored, num_truncated, num_too_short)


def order_documents(corpus: TokenizedCorpus, config: FinetuneConfig) -> list[int]:
    """Document indices in training order, `batch_size` per optimiser step (the last step may hold fewer).

    Every pass is a new permutation drawn from the seed. Within a step the documents are sorted by length, which changes nothing in the step's
    gradient (it is one sum over its tokens) and saves padding in its micro-batches.
    """
    rng = np.random.default_rng([config.seed, 0x6F72])
    num_documents = len(corpus.sequences)
    wanted = max(1, round(config.epochs * num_documents))
    drawn: list[int] = []
    while len(drawn) < wanted:
        drawn.extend(rng.permutation(num_documents).tolist())
    ordered: list[int] = []
    for start in range(0, wanted, config.batch_size):
        step = drawn[start : min(start + config.batch_size, wanted)]
        ordered.extend(sorted(step, key=lambda index: (-len(corpus.sequences[index]), index)))
    return ordered


def collate(sequences: Sequence[np.ndarray], num_ignored: int) -> dict[str, torch.Tensor]:
    """Pad on the right and label.

    Labels come from lengths, not from a pad id, so a real EOS is learned. The first label of every row is IGNORED: a loss that shifts labels and
    one that does not then count the same tokens (transformers' GPT-2 counts unshifted ones).

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, all of shape (B, T).
    """
    longest = max(len(sequence) for sequence in sequences)
    input_ids_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
    attention_mask_BT = torch.zeros_like(input_ids_BT)
    labels_BT = torch.full_like(input_ids_BT, IGNORED)
    for row, sequence in enumerate(sequences):
        ids = torch.from_numpy(sequence)
        input_ids_BT[row, : len(ids)] = ids
        attention_mask_BT[row, : len(ids)] = 1
        labels_BT[row, num_ignored : len(ids)] = ids[num_ignored:]
    return {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT, "labels": labels_BT}
