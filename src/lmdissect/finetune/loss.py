"""Summed cross-entropy of the target tokens, without holding logits for all of them.

Shape letters: B documents in a micro-batch, T tokens, N target tokens, D hidden size, V vocabulary.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from lmdissect.finetune.batches import IGNORED
from lmdissect.models.head import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["sum_nll_nats"]

_CHUNK_TOKENS = 512


def sum_nll_nats(model: "PreTrainedModel", head: Head | None, input_ids_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of all labelled tokens, summed, in nats; differentiable.

        sum over (b, t) with labels[b, t] != IGNORED of  -log p(labels[b, t] | input_ids[b, :t])

    Rows are padded on the right, which causal attention never sees, so no attention mask is passed.
    """
    targets_BT = labels_BT[:, 1:]
    kept_BT = targets_BT != IGNORED
    targets_N = targets_BT[kept_BT]
    if head is None:
        logits_NV = model(input_ids=input_ids_BT, use_cache=False).logits[:, :-1][kept_BT].float()
        return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
    hidden_ND = head.hidden(input_ids_BT)[:, :-1][kept_BT]
    if head.bias_V is None and head.softcap is None and head.scale == 1.0 and not torch.is_autocast_enabled(hidden_ND.device.type):
        weight_VD = head.weight_VD if torch.is_grad_enabled() else head.weight_VD.detach()  # a measured loss pays for no gradient
        return _PlainHeadNll.apply(hidden_ND, weight_VD, targets_N)  # type: ignore[no-any-return]
    chunks = zip(hidden_ND.split(_CHUNK_TOKENS), targets_N.split(_CHUNK_TOKENS), strict=True)
    losses = [checkpoint(_chunk_nll, head, hidden, targets, use_reentrant=False, preserve_rng_state=False) for hidden, targets in chunks]
    return torch.stack(losses).sum()


def _chunk_nll(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Loss of one chunk; checkpointed, so that its logits are made again in the backward pass instead of being held until then."""
    return torch.nn.functional.cross_entropy(head.logits(hidden_ND), targets_N, reduction="sum")


class _PlainHeadNll(torch.autograd.Function):
    """-sum log softmax(h W^T)[target], chunk by chunk, with both gradients taken in the forward pass: three matrix products, no recomputation.

    d/dlogits = softmax(logits) - onehot(target), so dh = (p - 1) W and dW = (p - 1)^T h.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        with_grad = hidden_ND.requires_grad or weight_VD.requires_grad
        grad_hidden_ND = torch.empty_like(hidden_ND) if with_grad else None
        grad_weight_VD = torch.zeros_like(weight_VD) if with_grad and weight_VD.requires_grad else None
        exact = torch.float32 if hidden_ND.device.type == "mps" else torch.float64  # MPS has no float64
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), _CHUNK_TOKENS):
            hidden = hidden_ND[start : start + _CHUNK_TOKENS]
            targets = targets_N[start : start + _CHUNK_TOKENS, None]
            logits = (hidden @ weight_VD.T).float()
            peak = logits.amax(1, keepdim=True)
            target_logits = logits.gather(1, targets)
            weights = logits.sub_(peak).exp_()
            norm = weights.sum(1, keepdim=True)
            total += (peak + norm.log() - target_logits).sum(dtype=exact)
            if grad_hidden_ND is not None:
                residual = weights.div_(norm).scatter_add_(1, targets, torch.full_like(target_logits, -1.0)).to(weight_VD.dtype)
                torch.mm(residual, weight_VD, out=grad_hidden_ND[start : start + _CHUNK_TOKENS])
                if grad_weight_VD is not None:
                    grad_weight_VD.addmm_(residual.T, hidden)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD)
        return total.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:  # noqa: ANN401
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_ND * grad, None if grad_weight_VD is None else grad_weight_VD * grad, None
