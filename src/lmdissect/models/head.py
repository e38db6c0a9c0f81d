"""Hidden states and logits apart, so that no full [B, T, V] logits are ever held.

Shape letters: B texts in a batch, T tokens, N tokens of all texts in a row, D hidden size, V vocabulary.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Head", "is_causal", "position_limit", "separate_head"]

_CHECK_TOKENS = 24
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Largest difference that rounding explains, as a fraction of the largest logit."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last step of a causal language model: hidden states to logits.

    The weights are read from the module whenever they are needed: a sharded model puts others in their place.

    Attributes:
        backbone: Everything before; called with ``input_ids`` it returns the last hidden state.
        embedding: The output embedding.
        softcap: Gemma's final soft cap c: logits become c * tanh(logits / c); None for none.
        scale: Factor on the logits (Cohere's ``logit_scale``); 1.0 for none.
    """

    backbone: torch.nn.Module
    embedding: torch.nn.Linear
    softcap: float | None
    scale: float

    @property
    def weight_VD(self) -> torch.Tensor:
        """Weight of the output embedding."""
        return self.embedding.weight

    @property
    def bias_V(self) -> torch.Tensor | None:
        """Its bias, or None."""
        return self.embedding.bias

    def hidden(self, input_ids_BT: torch.Tensor, **arguments: Any) -> torch.Tensor:  # noqa: ANN401 - the backbone's own
        """Last hidden states, shape (B, T, D). Rows are padded on the right, which causal attention never looks at: no mask is needed.

        Args:
            input_ids_BT: Token ids.
            arguments: What else the backbone is to know: positions, boundaries of documents.
        """
        hidden_BTD: torch.Tensor = self.backbone(input_ids=input_ids_BT, use_cache=False, **arguments).last_hidden_state
        return hidden_BTD

    def logits(self, hidden_ND: torch.Tensor, first: int = 0, stop: int | None = None, *, buffer: torch.Tensor | None = None) -> torch.Tensor:
        """Float32 logits of a range of the vocabulary, shape (N, stop - first): the product in the weights' dtype, everything after it in float32.

        Args:
            hidden_ND: Hidden states.
            first: First token id.
            stop: One past the last; default: the vocabulary's end.
            buffer: Flat memory of the weights' dtype that the product may use, at least N x (stop - first) long; the logits may be a view of it.
        """
        weight_VD = self.weight_VD[first:stop]
        if buffer is not None and self.bias_V is None:
            out_NV = buffer[: len(hidden_ND) * len(weight_VD)].view(len(hidden_ND), len(weight_VD))
            logits_NV = torch.mm(hidden_ND, weight_VD.T, out=out_NV).float()
        else:
            logits_NV = torch.nn.functional.linear(hidden_ND, weight_VD, None if self.bias_V is None else self.bias_V[first:stop]).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = torch.tanh(logits_NV / self.softcap) * self.softcap
        return logits_NV


def position_limit(model: "PreTrainedModel") -> int | None:
    """Longest input in tokens (the config's position limit), or None where it has none."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(limit) if limit and limit > 0 else None


def separate_head(model: "PreTrainedModel") -> Head | None:
    """Split ``model`` into backbone and head, and prove on a short sequence that the parts compute what ``model.forward`` computes.

    Returns:
        The head, or None where the family does something between hidden states and logits that we do not know: then the caller uses
        ``model.forward``, which is slower and always right.
    """
    embedding = model.get_output_embeddings()
    backbone = getattr(model, model.base_model_prefix, None)
    if backbone is None or backbone is model or not isinstance(embedding, torch.nn.Linear):
        return None
    config = model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    head = Head(
        backbone=backbone,
        embedding=embedding,
        softcap=float(softcap) if softcap else None,
        scale=float(getattr(config, "logit_scale", None) or 1.0),
    )
    return head if _agrees(head, model) else None


def _agrees(head: Head, model: "PreTrainedModel") -> bool:
    input_ids = _check_ids(model, int(head.weight_VD.shape[0]))
    with _evaluating(model):
        expected = model(input_ids=input_ids, use_cache=False).logits[0].float()
        try:
            actual = head.logits(head.hidden(input_ids)[0])
        except (AttributeError, TypeError):
            return False
    return expected.shape == actual.shape and _close(expected, actual, head.weight_VD.dtype)


def is_causal(model: "PreTrainedModel") -> bool:
    """Whether a token's logits are blind to the tokens after it, tried out on a short sequence.

    Some families that transformers loads as causal language models look ahead (BERT and its kin, unless configured otherwise): each token would
    be scored by a model that has seen it.
    """
    input_ids = _check_ids(model, model.config.get_text_config().vocab_size).repeat(2, 1)
    input_ids[1, -1] = (input_ids[1, -1] + 1) % model.config.get_text_config().vocab_size
    with _evaluating(model):
        logits_BTV = model(input_ids=input_ids, use_cache=False).logits.float()
    if not logits_BTV.isfinite().all():
        return True  # broken weights; whoever uses the model will say so, and name the text
    return _close(logits_BTV[0, :-1], logits_BTV[1, :-1], model.dtype)


def _check_ids(model: "PreTrainedModel", vocabulary: int) -> torch.Tensor:
    length = min(_CHECK_TOKENS, position_limit(model) or _CHECK_TOKENS)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (1, length), generator=generator).to(model.device)


def _close(expected: torch.Tensor, actual: torch.Tensor, dtype: torch.dtype) -> bool:
    return bool((expected - actual).abs().max() <= _TOLERANCE.get(dtype, 1e-4) * expected.abs().max())


@contextlib.contextmanager
def _evaluating(model: "PreTrainedModel") -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
