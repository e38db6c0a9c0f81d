"""Documents -> token sequences -> the documents of every optimiser step.

The order is drawn once from the seed and written down as a list of document indices for every step, so that a resumed run, another micro batch, another number
of processes or another machine sees the same documents in the same optimiser step.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.token_classes import TOKEN_CLASSES, token_classes
from lmdissect.models import TextTokenizer
from lmdissect.records import Document

__all__ = ["TokenSequence", "TokenizedCorpus", "order_documents", "tokenize_corpus"]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One document as the model sees it: prefix, text tokens, EOS where it belongs.

    Attributes:
        token_id: Vocabulary ids, shape (n,).
        is_target: Whether the token carries loss given all before it, shape (n,). The first never does: it has no context.
    """

    token_id: npt.NDArray[np.int32]
    is_target: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of tokens n."""
        return len(self.token_id)

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return int(self.is_target.sum())


@dataclass(frozen=True, slots=True)
class TokenizedCorpus:
    """Token sequences of a corpus.

    Attributes:
        sequences: One for every usable document.
        num_truncated: Documents cut at the token limit.
        num_too_short: Documents left out because they have no target token.
        num_skipped_by_class: Tokens of one pass whose loss is left out because of their class, by class; only the classes that were asked for.
    """

    sequences: tuple[TokenSequence, ...]
    num_truncated: int
    num_too_short: int
    num_skipped_by_class: Mapping[str, int]

    @property
    def num_target_tokens(self) -> int:
        """Tokens that carry loss in one pass over the corpus."""
        return sum(sequence.num_targets for sequence in self.sequences)


def tokenize_corpus(documents: Sequence[Document], tokenizer: TextTokenizer, config: FinetuneConfig) -> TokenizedCorpus:
    """Tokenize every document; keep `max_tokens` text tokens; add the prefix, and EOS where the document was not cut.

    With a prefix every text token is a target, without one the first is not (it has no context). The first `skip_first_tokens` text tokens and the
    tokens of `skip_token_classes` are read by the model and not learned.
    """
    prefix = list(tokenizer.prefix_ids)
    num_ignored = len(prefix) + config.skip_first_tokens if prefix else max(1, config.skip_first_tokens)
    skipped_codes = [TOKEN_CLASSES.index(name) for name in config.skip_token_classes]
    sequences: list[TokenSequence] = []
    num_skipped: Counter[int] = Counter()
    num_truncated = num_too_short = 0
    for document in documents:
        tokens = tokenizer.tokenize(document.text)
        cut = len(tokens.token_id) > config.max_tokens
        num_truncated += cut
        suffix = [tokenizer.eos_id] if config.append_eos and not cut and tokenizer.eos_id is not None else []
        kept = tokens.token_id[: config.max_tokens]
        token_id = np.asarray([*prefix, *kept.tolist(), *suffix], dtype=np.int32)
        is_target = np.arange(len(token_id)) >= num_ignored
        if skipped_codes:
            of_token = np.full(len(token_id), -1, dtype=np.int8)
            of_token[len(prefix) : len(prefix) + len(kept)] = token_classes(document.text, tokens)[: len(kept)]
            left_out = is_target & np.isin(of_token, skipped_codes)
            num_skipped.update(of_token[left_out].tolist())
            is_target &= ~left_out
        if is_target.any():
            sequences.append(TokenSequence(token_id, is_target))
        else:
            num_too_short += 1
    by_class: dict[str, int] = {TOKEN_CLASSES[code]: num_skipped[code] for code in skipped_codes}
    return TokenizedCorpus(tuple(sequences), num_truncated, num_too_short, by_class)


def order_documents(corpus: TokenizedCorpus, config: FinetuneConfig) -> list[list[int]]:
    """Document indices of every optimiser step, `batch_size` each (the last step may hold fewer).

    Every pass is a new permutation drawn from the seed. Within a step the documents are sorted by length, which changes nothing in the step's
    gradient (it is one sum over its tokens) and saves padding in its micro-batches.
    """
    rng = np.random.default_rng([config.seed, 0x6F72])
    num_documents = len(corpus.sequences)
    wanted = max(1, round(config.epochs * num_documents))
    drawn: list[int] = []
    while len(drawn) < wanted:
        drawn.extend(rng.permutation(num_documents).tolist())
    steps = (drawn[start : min(start + config.batch_size, wanted)] for start in range(0, wanted, config.batch_size))
    return [sorted(step, key=lambda index: (-len(corpus.sequences[index]), index)) for step in steps]
