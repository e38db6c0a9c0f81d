"""Text to token ids with character offsets, and exactly one policy for the prefix (BOS)."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lmdissect.errors import ModelReferenceError
from lmdissect.store import fingerprint, hash_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["BosPolicy", "TextTokenizer", "TokenizedText", "fingerprint_tokenizer"]

BosPolicy: TypeAlias = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The text's own tokens, without any prefix: ids, and the characters each covers (``text[start:end]``), all of shape (n,)."""

    token_id: npt.NDArray[np.int32]
    char_start: npt.NDArray[np.int32]
    char_end: npt.NDArray[np.int32]


class TextTokenizer:
    """A model's tokenizer under one prefix policy.

    ``auto``: the prefix is what the tokenizer itself puts before a text, nothing more. ``always``: BOS, or EOS where the model has no BOS.
    ``never``: none. Whatever a tokenizer appends after a text is never used: it is not part of the text.

    Attributes:
        prefix_ids: Zero or one token id that stands before every text and every window.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", bos: BosPolicy = "auto") -> None:
        _refuse_slow(tokenizer)
        self.tokenizer = tokenizer
        self.bos = bos
        self.prefix_ids: tuple[int, ...] = _prefix_ids(tokenizer, bos)

    @property
    def eos_id(self) -> int | None:
        """Id of the end-of-sequence token, or None."""
        eos = self.tokenizer.eos_token_id
        return None if eos is None else int(eos)

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize ``text`` without any special token around it.

        Raises:
            UnicodeEncodeError: The text holds a lone surrogate.
        """
        text.encode("utf-8")  # the tokenizer would say of a lone surrogate that the text is no text
        encoding = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=False,  # else a setting in the tokenizer's files, which the fingerprint does not see
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        offsets = np.asarray(encoding["offset_mapping"], dtype=np.int32).reshape(-1, 2)
        return TokenizedText(np.asarray(encoding["input_ids"], dtype=np.int32), offsets[:, 0], offsets[:, 1])

    def fingerprint(self) -> str:
        """Hash of vocabulary, merges, normaliser and pre-tokeniser: equal hashes give equal tokens for every text."""
        state = _backend_state(self.tokenizer)
        state.pop("post_processor", None)  # does not change the text's own tokens
        return hash_text(json.dumps(state, sort_keys=True))


def fingerprint_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Hash of everything that decides which ids stand for a text and around it: of equal tokenizers every prefix policy and every EOS is equal too.

    Raises:
        ModelReferenceError: The tokenizer gives no character offsets.
    """
    _refuse_slow(tokenizer)
    return fingerprint([json.dumps(_backend_state(tokenizer), sort_keys=True), tokenizer.bos_token_id, tokenizer.eos_token_id])


def _backend_state(tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    """What the tokenizer is made of, without what its last caller asked for."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    for volatile in ("padding", "truncation"):
        state.pop(volatile, None)
    return state


def _refuse_slow(tokenizer: "PreTrainedTokenizerFast") -> None:
    if not getattr(tokenizer, "is_fast", False):
        message = f"the tokenizer {type(tokenizer).__name__} gives no character offsets: convert it to a fast tokenizer (tokenizer.json)"
        raise ModelReferenceError(message)


def _prefix_ids(tokenizer: "PreTrainedTokenizerFast", bos: BosPolicy) -> tuple[int, ...]:
    if bos == "never":
        return ()
    if bos == "always":
        prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if prefix is None:
            message = "--bos always: this tokenizer has neither BOS nor EOS; use --bos auto or never"
            raise ModelReferenceError(message)
        return (int(prefix),)
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            prefix_ids = tuple(int(token) for token in full[:start])
            break
    else:
        message = "this tokenizer changes a text's tokens when it adds special tokens: use --bos always or never"
        raise ModelReferenceError(message)
    if len(prefix_ids) > 1:
        message = f"this tokenizer puts {len(prefix_ids)} tokens before a text (a doubled BOS?): use --bos always or never"
        raise ModelReferenceError(message)
    return prefix_ids
