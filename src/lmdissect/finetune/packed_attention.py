"""Attention within each of several documents that stand end to end in one row, and the proof that a model keeps them apart.

transformers lets a program register an attention function by name. Ours gets the lengths of the documents as a keyword argument, which model families of the
functional kind pass down to it, and computes causal attention for one document at a time; nothing is computed that a mask would throw away. Whether a family does
pass the argument on, and does nothing else that crosses a border between documents (a convolution, a recurrence, positions of its own), is tried out on
the model itself before every run.

Shape letters: B rows, T tokens of a row, H query heads, K key heads, D size of a head, N documents of one length.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from lmdissect.finetune.micro_batches import MicroBatch
from lmdissect.models.head import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PackingRefusedError", "attends_packed", "find_packing_fault", "packing_arguments"]

_NAME = "lmdissect_packed"
_SHORT = (7, 7, 3)
"""Lengths of the documents beside the longest in the proof; two equal neighbours, because those share a call."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest difference that rounding explains, as a fraction of the largest value."""


class PackingRefusedError(RuntimeError):
    """The model asks for something that attention within documents does not do; the message says what."""


def packing_arguments(batch: MicroBatch) -> dict[str, Any]:
    """What the backbone gets beside the tokens of a packed row; nothing for padded rows.

    The cumulative lengths have the names under which transformers hands them to its own flash attention, so that a family's own code for packed rows sees them.
    """
    if batch.document_lengths is None:
        return {}
    ends = torch.tensor((0, *batch.document_lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32).to(batch.input_ids_BT.device)
    longest = max(batch.document_lengths)
    return {
        "position_ids": batch.position_ids_BT,
        "document_lengths": batch.document_lengths,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


@contextlib.contextmanager
def attends_packed(model: "PreTrainedModel", *, packed: bool = True) -> Iterator[None]:
    """Let ``model`` attend within documents, forward and backward (which may compute a layer again), and as before after the block.

    Args:
        model: The model.
        packed: False leaves everything as it is.
    """
    configs: dict[int, Any] = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")} if packed else {}
    before = {key: getattr(config, "_attn_implementation", None) for key, config in configs.items()}
    if packed:
        _register()
    try:
        for config in configs.values():
            config._attn_implementation = _NAME  # noqa: SLF001 - the public setter walks all modules and reads their source each time
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]  # noqa: SLF001


def _register() -> None:
    from transformers import AttentionInterface  # noqa: PLC0415 - heavy

    AttentionInterface.register(_NAME, _packed_attention)


def _packed_attention(
    module: torch.nn.Module,  # noqa: ARG001 - transformers' interface
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    document_lengths: tuple[int, ...] | None = None,
    **kwargs: Any,  # noqa: ANN401 - whatever a family passes
) -> tuple[torch.Tensor, None]:
    """Causal attention within every document of a row. Returns the output, shape (1, T, H, D), and no weights."""
    if document_lengths is None:
        message = "it does not tell its attention where documents end"
        raise PackingRefusedError(message)
    _refuse_extras(attention_mask, max(document_lengths), kwargs)
    if query_BHTD.shape[0] != 1 or not query_BHTD.shape[2] == key_BKTD.shape[2] == sum(document_lengths):
        message = "it reshapes the row before its attention"
        raise PackingRefusedError(message)
    if query_BHTD.is_cuda and query_BHTD.dtype in {torch.bfloat16, torch.float16} and dropout == 0.0:
        return _varlen(query_BHTD, key_BKTD, value_BKTD, scaling, kwargs["cu_seq_lens_q"], kwargs["max_length_q"]), None
    return _document_by_document(query_BHTD, key_BKTD, value_BKTD, dropout, scaling, document_lengths), None


def _refuse_extras(attention_mask: torch.Tensor | None, longest: int, kwargs: dict[str, Any]) -> None:
    if attention_mask is not None:
        message = "it makes an attention mask of its own"
        raise PackingRefusedError(message)
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            message = f"its attention has a {name}"
            raise PackingRefusedError(message)
    window = kwargs.get("sliding_window")
    if window is not None and window < longest:
        message = f"its attention looks back {window} tokens, and documents have up to {longest}"
        raise PackingRefusedError(message)
    if kwargs.get("is_causal") is False:
        message = "its attention looks ahead"
        raise PackingRefusedError(message)


def _document_by_document(
    query_BHTD: torch.Tensor, key_BKTD: torch.Tensor, value_BKTD: torch.Tensor, dropout: float, scaling: float | None, lengths: Sequence[int]
) -> torch.Tensor:
    """One call of torch's attention for each run of neighbours of equal length: they are rows of a view."""
    grouped = query_BHTD.shape[1] != key_BKTD.shape[1]
    outputs: list[torch.Tensor] = []
    start = 0
    for length, same in groupby(lengths):
        count = sum(1 for _ in same)
        stop = start + count * length
        query, key, value = (_as_rows(states[0, :, start:stop], count) for states in (query_BHTD, key_BKTD, value_BKTD))
        found_NHTD = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        outputs.append(found_NHTD.transpose(1, 2).reshape(1, stop - start, *found_NHTD.shape[1::2]))
        start = stop
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _as_rows(states_HTD: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` documents of equal length as rows, shape (N, H, T, D); a view."""
    rows_NHTD: torch.Tensor = states_HTD.unflatten(1, (count, -1)).transpose(0, 1)
    return rows_NHTD


def _varlen(
    query_BHTD: torch.Tensor, key_BKTD: torch.Tensor, value_BKTD: torch.Tensor, scaling: float | None, ends: torch.Tensor, longest: int
) -> torch.Tensor:
    """All documents in one kernel (flash attention with lengths)."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - CUDA alone has it

    query, key, value = (states[0].transpose(0, 1) for states in (query_BHTD, key_BKTD, value_BKTD))
    found_THD: Any = varlen_attn(  # a pair where the log-sum-exp is asked for
        query,
        key,
        value,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # everything before, nothing after
        enable_gqa=query.shape[1] != key.shape[1],
    )
    packed: torch.Tensor = found_THD[None]
    return packed


def find_packing_fault(model: "PreTrainedModel", head: Head | None, longest: int, *, dtype: torch.dtype) -> str | None:
    """Why ``model`` must not get several documents in a row; None where it is proven that it may.

    A document of ``longest`` tokens and three short ones are laid end to end. Each must come out as it does alone under the model's own attention, up to rounding;
    and other tokens in one must leave all others bit by bit as they were.

    Args:
        model: The model, on the device it is trained on.
        head: Its backbone and head apart, or None.
        longest: Tokens of the longest document.
        dtype: Of the arithmetic; other than float32 it is by autocast.
    """
    lengths = (longest, *_SHORT)
    generator = torch.Generator().manual_seed(0)
    embedding: Any = model.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    documents = [torch.randint(0, vocabulary, (length,), generator=generator) for length in lengths]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            alone = [_hidden(model, head, MicroBatch(ids[None], ids[None], None, None)) for ids in documents]
            together = _packed_hidden(model, head, documents)
            if not all(_close(packed, single, dtype) for packed, single in zip(together, alone, strict=True)):
                return "a document among others does not come out as it does alone"
            for changed in (0, 2):
                others = [(ids + 1) % vocabulary if place == changed else ids for place, ids in enumerate(documents)]
                again = _packed_hidden(model, head, others)
                if not all(torch.equal(again[place], together[place]) for place in range(len(lengths)) if place != changed):
                    return "a document changes what the model says of its neighbours"
    except PackingRefusedError as refused:
        return str(refused)
    except (TypeError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"it fails on a packed row ({' '.join(str(error).split())[:120] or type(error).__name__})"
    finally:
        model.train(training)
    return None


def _packed_hidden(model: "PreTrainedModel", head: Head | None, documents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    row = torch.cat(list(documents))[None]
    positions = torch.cat([torch.arange(len(ids)) for ids in documents])[None]
    lengths = tuple(len(ids) for ids in documents)
    with attends_packed(model):
        return list(_hidden(model, head, MicroBatch(row, row, positions, lengths)).split(lengths))


def _hidden(model: "PreTrainedModel", head: Head | None, batch: MicroBatch) -> torch.Tensor:
    """Last hidden states of the only row, or logits where they cannot be had, in float32."""
    there = batch.to(model.device)
    arguments = packing_arguments(there)
    if head is not None:
        return head.hidden(there.input_ids_BT, **arguments)[0].float()
    logits_BTV: torch.Tensor = model(input_ids=there.input_ids_BT, use_cache=False, **arguments).logits
    return logits_BTV[0].float()


def _close(packed: torch.Tensor, single: torch.Tensor, dtype: torch.dtype) -> bool:
    return bool((packed - single).abs().max() <= _TOLERANCE.get(dtype, 0.05) * single.abs().max())
