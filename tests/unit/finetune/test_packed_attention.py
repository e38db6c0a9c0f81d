"""Documents in one row: each as it is alone, none seen by another, and families that cannot do it found out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lmdissect.finetune.batches import TokenSequence
from lmdissect.finetune.loss import sum_nll_nats
from lmdissect.finetune.micro_batches import build_micro_batch
from lmdissect.finetune.packed_attention import attends_packed, find_packing_fault
from lmdissect.finetune.steps import recompute_activations
from lmdissect.models import LoadOptions, load_model, resolve_model
from lmdissect.models.head import Head, separate_head
from tiny_models import TINY_VOCAB_SIZE, build_tiny, save_tiny_cohere, save_tiny_gemma2, save_tiny_gpt2, save_tiny_llama

SMALL: dict[str, Any] = {"vocab_size": TINY_VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LENGTHS = (30, 12, 12, 5)


def _saved(save: Callable[..., Path]) -> Callable[[Path], PreTrainedModel]:
    return lambda folder: load_model(resolve_model(str(save(folder / "model", seed=3))), LoadOptions("float32", "cpu")).model


FAMILIES: dict[str, Callable[[Path], PreTrainedModel]] = {
    "llama": _saved(save_tiny_llama),
    "gpt2": _saved(save_tiny_gpt2),
    "cohere": _saved(save_tiny_cohere),
    "gemma2": _saved(save_tiny_gemma2),
    "qwen2": lambda _: build_tiny(Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=2), seed=5),
    "gpt-neox": lambda _: build_tiny(GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL), seed=5),
    "mistral": lambda _: build_tiny(MistralForCausalLM, MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=20), seed=5),
    "mamba": lambda _: build_tiny(FalconMambaForCausalLM, FalconMambaConfig(vocab_size=TINY_VOCAB_SIZE, hidden_size=32, num_hidden_layers=2), seed=5),
    "gpt2-upcast": lambda _: build_tiny(
        GPT2LMHeadModel, GPT2Config(vocab_size=TINY_VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, scale_attn_by_inverse_layer_idx=True), seed=5
    ),
}
PACKED = ("llama", "gpt2", "cohere", "qwen2", "gpt-neox", "gpt2-upcast")


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    return FAMILIES[request.param](tmp_path).eval()


def _documents() -> list[TokenSequence]:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, TINY_VOCAB_SIZE, (length,), generator=generator).numpy() for length in LENGTHS]
    import numpy as np

    return [TokenSequence(token_id.astype(np.int32), np.arange(len(token_id)) > 0) for token_id in ids]


@pytest.mark.parametrize("model", PACKED, indirect=True)
def test_families_that_pack_are_let_through(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    for head in (separate_head(model), None):
        assert find_packing_fault(model, head, 30, dtype=torch.float32) is None
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("model", "longest", "told"),
    [
        ("gemma2", 10, "its attention has a softcap"),
        ("mistral", 30, "looks back 20 tokens, and documents have up to 30"),
        ("mamba", 30, "."),
    ],
    indirect=["model"],
)
def test_families_that_do_not_are_found_out(model: PreTrainedModel, longest: int, told: str) -> None:
    fault = find_packing_fault(model, separate_head(model), longest, dtype=torch.float32)
    assert fault is not None
    assert told in fault or told == "."


@pytest.mark.parametrize("model", ["mistral"], indirect=True)
def test_a_window_longer_than_the_documents_is_no_window(model: PreTrainedModel) -> None:
    assert find_packing_fault(model, separate_head(model), 20, dtype=torch.float32) is None


def _leaky(module: torch.nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """A hook that mixes every token with the one before it, whatever document that is of."""
    return output + 0.01 * output.roll(1, dims=1)


@pytest.mark.parametrize("model", ["llama", "gpt2"], indirect=True)
def test_a_leak_between_neighbours_is_found(model: PreTrainedModel) -> None:
    """A convolution over time, for example: nothing of it is visible from outside."""
    model.get_input_embeddings().register_forward_hook(_leaky)
    assert find_packing_fault(model, separate_head(model), 30, dtype=torch.float32) is not None


def _loss_and_gradients(model: PreTrainedModel, head: Head | None, *, packed: bool) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    with attends_packed(model, packed=packed):
        loss = sum_nll_nats(model, head, build_micro_batch(_documents(), packed=packed))
        loss.backward()
    return float(loss.detach()), {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("model", PACKED, indirect=True)
def test_packed_gradients_are_the_padded_ones(model: PreTrainedModel, recompute: bool) -> None:
    """Where layers are computed again in the backward pass, the boundaries of the documents must be known there too."""
    head = separate_head(model)
    expected_nats, expected = _loss_and_gradients(model, head, packed=False)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    if recompute:
        recompute_activations(model)
    for chosen in (head, None):
        nats, gradients = _loss_and_gradients(model, chosen, packed=True)
        assert nats == pytest.approx(expected_nats, rel=1e-5)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-9)


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_bfloat16_autocast_is_proven_too(model: PreTrainedModel) -> None:
    assert find_packing_fault(model, separate_head(model), 30, dtype=torch.bfloat16) is None
