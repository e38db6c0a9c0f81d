"""Summed cross-entropy of the target tokens, without holding logits for all of them; computed inside the forward of the model that is trained.

Whatever wraps a model for several processes (DDP, FSDP, DeepSpeed) acts in its forward, and FSDP in that of the head's module too: a loss computed beside
them would see weights that are not there, or gradients that are never averaged.

Shape letters: B rows of a micro-batch, T tokens, N target tokens, D hidden size, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from lmdissect.finetune.micro_batches import IGNORED, MicroBatch
from lmdissect.finetune.packed_attention import packing_arguments
from lmdissect.models.head import Head

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["loss_in_forward", "sum_nll_nats"]

_CHUNK_TOKENS = 512


@contextlib.contextmanager
def loss_in_forward(trained: "PreTrainedModel | PeftModel", head: Head | None, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within the block, ``trained(micro_batch=...)`` is the summed loss of a micro-batch; called in any other way it does what it always did.

    Args:
        trained: What is trained: the model, or the model wrapped in adapters.
        head: Its backbone and head apart, or None.
        device: Where it runs.
        dtype: Of the arithmetic; other than float32 it is by autocast, and the weights stay as they are.
    """
    plain = trained.forward

    def forward(*arguments: Any, micro_batch: MicroBatch | None = None, **named: Any) -> Any:  # noqa: ANN401 - the model's own
        if micro_batch is None:
            return plain(*arguments, **named)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return sum_nll_nats(plain, head, micro_batch)

    trained.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del trained.forward


def sum_nll_nats(model: Callable[..., Any], head: Head | None, batch: MicroBatch) -> torch.Tensor:
    """Negative log-likelihood of all labelled tokens, summed, in nats; differentiable.

        sum over (b, t) with labels[b, t] != IGNORED of  -log p(labels[b, t] | tokens before it in its document)

    Padded rows are padded on the right, which causal attention never sees, so no attention mask is passed. Packed rows need `attends_packed` around this and the
    backward pass.

    Args:
        model: Input ids to logits; only asked where there is no ``head``.
        head: Backbone and head apart, or None.
        batch: The tokens.
    """
    targets_BT = batch.labels_BT[:, 1:]
    kept_BT = targets_BT != IGNORED
    targets_N = targets_BT[kept_BT]
    arguments = packing_arguments(batch)
    if head is None:
        logits_NV = model(input_ids=batch.input_ids_BT, use_cache=False, **arguments).logits[:, :-1][kept_BT].float()
        return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
    hidden_ND = head.hidden(batch.input_ids_BT, **arguments)[:, :-1][kept_BT]
    return _call_embedding(head, hidden_ND, targets_N)


def _call_embedding(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """The loss, in a call of the head's module: that is what makes FSDP gather its weight, and reduce its gradient afterwards."""
    embedding: Any = head.embedding
    embedding.forward = partial(_head_nll, head)
    try:
        loss: torch.Tensor = embedding(hidden_ND, targets_N)
    finally:
        del embedding.forward
    return loss


def _head_nll(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    if head.bias_V is None and head.softcap is None and head.scale == 1.0:
        device = hidden_ND.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
        weight_VD = head.weight_VD if torch.is_grad_enabled() else head.weight_VD.detach()  # a measured loss pays for no gradient
        return _PlainHeadNll.apply(hidden_ND, weight_VD, targets_N, dtype)  # type: ignore[no-any-return]
    chunks = zip(hidden_ND.split(_CHUNK_TOKENS), targets_N.split(_CHUNK_TOKENS), strict=True)
    losses = [checkpoint(_chunk_nll, head, hidden, targets, use_reentrant=False, preserve_rng_state=False) for hidden, targets in chunks]
    return torch.stack(losses).sum()


def _chunk_nll(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Loss of one chunk; checkpointed, so that its logits are made again in the backward pass instead of being held until then."""
    return torch.nn.functional.cross_entropy(head.logits(hidden_ND), targets_N, reduction="sum")


class _PlainHeadNll(torch.autograd.Function):
    """-sum log softmax(h W^T)[target], chunk by chunk, with both gradients taken in the forward pass: three matrix products, no recomputation.

    d/dlogits = softmax(logits) - onehot(target), so dh = (p - 1) W and dW = (p - 1)^T h. The products are in ``dtype``, all else is in float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:  # noqa: ANN401
        with_grad = hidden_ND.requires_grad or weight_VD.requires_grad
        grad_hidden_ND = torch.empty_like(hidden_ND) if with_grad else None
        grad_weight_VD = torch.zeros_like(weight_VD) if with_grad and weight_VD.requires_grad else None
        exact = torch.float32 if hidden_ND.device.type == "mps" else torch.float64  # MPS has no float64
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            factors_VD = weight_VD.to(dtype)
            for start in range(0, len(hidden_ND), _CHUNK_TOKENS):
                hidden = hidden_ND[start : start + _CHUNK_TOKENS].to(dtype)
                targets = targets_N[start : start + _CHUNK_TOKENS, None]
                logits = (hidden @ factors_VD.T).float()
                peak = logits.amax(1, keepdim=True)
                target_logits = logits.gather(1, targets)
                weights = logits.sub_(peak).exp_()
                norm = weights.sum(1, keepdim=True)
                total += (peak + norm.log() - target_logits).sum(dtype=exact)
                if grad_hidden_ND is not None:
                    residual = weights.div_(norm).scatter_add_(1, targets, torch.full_like(target_logits, -1.0)).to(dtype)
                    grad_hidden_ND[start : start + _CHUNK_TOKENS] = residual @ factors_VD
                    if grad_weight_VD is not None:
                        _add_product(grad_weight_VD, residual, hidden)
        ctx.gradients = grad_hidden_ND, grad_weight_VD
        return total.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:  # noqa: ANN401
        grad_hidden_ND, grad_weight_VD = ctx.gradients
        ctx.gradients = None
        return grad_hidden_ND.mul_(grad), None if grad_weight_VD is None else grad_weight_VD.mul_(grad), None, None


def _add_product(total_VD: torch.Tensor, residual_NV: torch.Tensor, hidden_ND: torch.Tensor) -> None:
    """Add residual^T hidden; chunks are summed in the total's own dtype whatever they are computed in."""
    if residual_NV.dtype == total_VD.dtype:
        total_VD.addmm_(residual_NV.T, hidden_ND)
    else:
        total_VD += residual_NV.T @ hidden_ND
