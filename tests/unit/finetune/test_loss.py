"""The training loss against full logits: float64 by hand for its value, autograd for its gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmdissect.finetune.batches import TokenSequence
from lmdissect.finetune.loss import loss_in_forward, sum_nll_nats
from lmdissect.finetune.micro_batches import IGNORED, MicroBatch, build_micro_batch
from lmdissect.models import LanguageModel, LoadOptions, load_model, resolve_model
from lmdissect.models.head import Head
from tiny_models import TINY_VOCAB_SIZE, save_tiny_cohere, save_tiny_gemma2, save_tiny_gpt2, save_tiny_llama

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llama": lambda folder: save_tiny_llama(folder, seed=0),
    "llama-tied": lambda folder: save_tiny_llama(folder, seed=1, tie=True),
    "gpt2": lambda folder: save_tiny_gpt2(folder, seed=2),
    "gemma2": lambda folder: save_tiny_gemma2(folder, seed=3),
    "cohere": lambda folder: save_tiny_cohere(folder, seed=4),
}
LENGTHS = (40, 3, 25, 17)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loaded(tmp_path: Path, family: str) -> LanguageModel:
    return load_model(resolve_model(str(FAMILIES[family](tmp_path / "model"))), LoadOptions("float32", "cpu"))


def _batch(lengths: tuple[int, ...] = LENGTHS, num_ignored: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = [torch.randint(0, TINY_VOCAB_SIZE, (length,), generator=generator).numpy() for length in lengths]
    batch = build_micro_batch([TokenSequence(token_id, np.arange(len(token_id)) >= num_ignored) for token_id in ids], packed=False)
    return batch.input_ids_BT, batch.labels_BT


def _nll(model: Any, head: Head | None, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return sum_nll_nats(model, head, MicroBatch(input_ids, labels, None, None))


def _by_hand(model: Any, input_ids: torch.Tensor, lengths: tuple[int, ...], num_ignored: int = 1) -> float:
    """One document at a time, one token at a time, log-softmax in float64."""
    total_nats = 0.0
    for row, length in enumerate(lengths):
        with torch.no_grad():
            logits = model(input_ids=input_ids[row : row + 1, :length], use_cache=False).logits[0].double()
        for position in range(num_ignored, length):
            total_nats -= float(logits[position - 1].log_softmax(0)[input_ids[row, position]])
    return total_nats


def _plain_loss(model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss through plain full logits, with autograd."""
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


def _gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def _assert_same_gradients(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        atol = 1e-5 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(actual[name], gradient, rtol=1e-5, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("num_ignored", [1, 3])
def test_loss_is_the_summed_cross_entropy(loaded: LanguageModel, num_ignored: int) -> None:
    lengths = (40, 4, 25, 17)
    input_ids, labels = _batch(lengths, num_ignored)
    expected = _by_hand(loaded.model, input_ids, lengths, num_ignored)
    assert loaded.head is not None
    for head in (loaded.head, None):
        with torch.no_grad():
            assert float(_nll(loaded.model, head, input_ids, labels)) == pytest.approx(expected, rel=1e-6)
        assert float(_nll(loaded.model, head, input_ids, labels).detach()) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_full_logits(loaded: LanguageModel, family: str) -> None:
    input_ids, labels = _batch()
    model = loaded.model
    expected = _gradients(model, _plain_loss(model, input_ids, labels))
    assert ("lm_head.weight" in expected) == (family == "llama")  # elsewhere the head's gradient is part of the embedding's
    _assert_same_gradients(_gradients(model, _nll(model, loaded.head, input_ids, labels)), expected)
    _assert_same_gradients(_gradients(model, _nll(model, None, input_ids, labels)), expected)


def test_gradients_with_a_frozen_head(loaded: LanguageModel, family: str) -> None:
    """As with adapters: the head is not trained, what stands before it is."""
    model = loaded.model
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "embed" not in name and "wte" not in name and "lm_head" not in name
    input_ids, labels = _batch()
    expected = _gradients(model, _plain_loss(model, input_ids, labels))
    assert len(expected) >= 10
    _assert_same_gradients(_gradients(model, _nll(model, loaded.head, input_ids, labels)), expected)


@pytest.mark.parametrize("num_targets", [7, 511, 512, 513, 1100])
@pytest.mark.parametrize("family", ["llama-tied", "gemma2"], indirect=True)
def test_chunks_add_up(loaded: LanguageModel, family: str, num_targets: int) -> None:
    lengths = tuple([101] * (num_targets // 100) + ([num_targets % 100 + 1] if num_targets % 100 else []))
    input_ids, labels = _batch(lengths)
    assert int((labels != IGNORED).sum()) == num_targets
    loss = _nll(loaded.model, loaded.head, input_ids, labels)
    assert float(loss.detach()) == pytest.approx(_by_hand(loaded.model, input_ids, lengths), rel=1e-6)
    expected = _gradients(loaded.model, _plain_loss(loaded.model, input_ids, labels))
    _assert_same_gradients(_gradients(loaded.model, loss), expected)


def test_gradient_is_scaled_by_what_the_loss_is_multiplied_with(loaded: LanguageModel) -> None:
    input_ids, labels = _batch()
    plain = _gradients(loaded.model, _nll(loaded.model, loaded.head, input_ids, labels))
    scaled = _gradients(loaded.model, _nll(loaded.model, loaded.head, input_ids, labels) / 4)
    assert all(torch.equal(scaled[name], gradient / 4) for name, gradient in plain.items())


def test_padding_and_the_other_documents_of_a_batch_count_for_nothing(loaded: LanguageModel) -> None:
    input_ids, labels = _batch()
    together = float(_nll(loaded.model, loaded.head, input_ids, labels).detach())
    alone = sum(
        float(_nll(loaded.model, loaded.head, input_ids[row : row + 1, :length], labels[row : row + 1, :length]).detach())
        for row, length in enumerate(LENGTHS)
    )
    assert together == pytest.approx(alone, rel=1e-6)
    padded = torch.where(labels == IGNORED, 5, input_ids)
    padded[:, 0] = input_ids[:, 0]
    assert float(_nll(loaded.model, loaded.head, padded, labels).detach()) == pytest.approx(together, rel=1e-6)


def test_bfloat16_autocast_stays_close(loaded: LanguageModel) -> None:
    input_ids, labels = _batch()
    exact = float(_nll(loaded.model, loaded.head, input_ids, labels).detach())
    with torch.autocast("cpu", torch.bfloat16):
        loss = _nll(loaded.model, loaded.head, input_ids, labels)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) != exact
    assert float(loss.detach()) == pytest.approx(exact, rel=5e-3)
    assert all(gradient.isfinite().all() for gradient in _gradients(loaded.model, loss).values())


def _largest_kept_logits(loaded: LanguageModel, head: Head | None) -> int:
    """Rows of the largest tensor over the vocabulary that autograd keeps for the backward pass."""
    input_ids, labels = _batch(tuple([101] * 11))
    num_rows = [0]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim and tensor.shape[-1] == TINY_VOCAB_SIZE:
            num_rows.append(tensor.numel() // TINY_VOCAB_SIZE)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _nll(loaded.model, head, input_ids, labels)
    return max(num_rows)


@pytest.mark.parametrize("family", ["llama", "gemma2"], indirect=True)
def test_no_logits_of_all_targets_are_held_until_the_backward_pass(loaded: LanguageModel, family: str) -> None:
    assert _largest_kept_logits(loaded, None) >= 1100
    assert _largest_kept_logits(loaded, loaded.head) <= 512


def test_a_measured_loss_computes_no_gradients(loaded: LanguageModel) -> None:
    """The head's weight wants a gradient even under no_grad; nothing as large as it may be made then."""
    input_ids, labels = _batch()
    with torch.no_grad(), torch.profiler.profile() as profile:
        _nll(loaded.model, loaded.head, input_ids, labels)
    assert not {"aten::addmm_", "aten::zeros_like"} & {event.key for event in profile.key_averages()}


def test_loss_is_the_models_forward_within_the_block_alone(loaded: LanguageModel) -> None:
    input_ids, labels = _batch()
    model: Any = loaded.model
    plain = model(input_ids=input_ids, use_cache=False).logits
    with loss_in_forward(model, loaded.head, torch.device("cpu"), torch.float32):
        loss = model(micro_batch=MicroBatch(input_ids, labels, None, None))
        assert torch.equal(model(input_ids=input_ids, use_cache=False).logits, plain)
    assert torch.equal(loss, _nll(model, loaded.head, input_ids, labels))
    assert "forward" not in vars(model)


def test_a_pass_without_documents_costs_nothing_and_reaches_every_weight(loaded: LanguageModel) -> None:
    """A process without documents of its own still has a gradient, of zeros, for every weight."""
    empty = build_micro_batch([], packed=False)
    loss = sum_nll_nats(loaded.model, loaded.head, empty)
    assert float(loss.detach()) == 0
    gradients = _gradients(loaded.model, loss)
    assert set(gradients) == {name for name, _ in loaded.model.named_parameters()}
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("family", ["llama", "llama-tied"], indirect=True)
def test_gradients_under_bfloat16_autocast_are_float32_sums_near_the_exact_ones(loaded: LanguageModel, family: str) -> None:
    input_ids, labels = _batch(tuple([101] * 11))
    exact = _gradients(loaded.model, _nll(loaded.model, loaded.head, input_ids, labels))
    with torch.autocast("cpu", torch.bfloat16):
        loss = _nll(loaded.model, loaded.head, input_ids, labels)
    rounded = _gradients(loaded.model, loss)
    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        assert float((rounded[name] - gradient).norm()) < 0.05 * float(gradient.norm()), name
