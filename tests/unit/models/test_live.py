"""A model that is being trained is read as it is, and given back as it was."""

import random  # noqa: TID251 - its state must be left alone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from lmdissect.errors import ModelReferenceError, UserInputError
from lmdissect.models import LiveWeights, LoadOptions, borrow_live_model, load_model, resolve_model
from lmdissect.scoring import score_texts
from tiny_models import SENTENCES, save_tiny_gpt2, save_tiny_llama, save_tiny_lora, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


def _load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    return model


def _logprobs(model: torch.nn.Module, dtype: Any = "auto") -> list[np.ndarray]:
    with borrow_live_model(model, TOKENIZER, "live", dtype) as live:
        return [scores.logprob_nats for scores in score_texts(live, SENTENCES)]


def _lora(folder: Path, **settings: Any) -> Any:
    return get_peft_model(_load(folder), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **settings))


def test_scores_are_those_of_the_saved_model(folder: Path) -> None:
    saved = score_texts(load_model(resolve_model(str(folder)), LoadOptions("float32", "cpu")), SENTENCES)
    for live, expected in zip(_logprobs(_load(folder).train()), saved, strict=True):
        np.testing.assert_array_equal(live, expected.logprob_nats)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks the old name
def test_an_adapter_is_scored_in_place(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter = save_tiny_lora(folder, tmp_path / "lora", seed=1)
    merged = score_texts(load_model(resolve_model(f"{folder}+{adapter}"), LoadOptions("float32", "cpu")), SENTENCES)
    wrapped = PeftModel.from_pretrained(_load(folder), str(adapter), is_trainable=True)
    before = {name: value.clone() for name, value in wrapped.named_parameters()}
    for live, expected in zip(_logprobs(wrapped), merged, strict=True):
        np.testing.assert_allclose(live, expected.logprob_nats, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in wrapped.named_parameters())
    plain = _logprobs(_load(folder))
    assert max(float(np.nanmax(np.abs(live - base))) for live, base in zip(_logprobs(wrapped), plain, strict=True)) > 1e-2
    for live, base in zip(_logprobs(_lora(folder)), plain, strict=True):  # B = 0
        np.testing.assert_allclose(live, base, atol=1e-5)


def test_everything_is_given_back(tmp_path: Path) -> None:
    model = _load(save_tiny_gpt2(tmp_path / "gpt2", seed=0)).train()  # it has dropout
    frozen_part = model.transformer.h[0].mlp
    frozen_part.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    loss = model(input_ids=torch.arange(20)[None], labels=torch.arange(20)[None]).loss
    loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    with borrow_live_model(model, tiny_tokenizer(bos=False), "live") as live:
        assert not any(module.training for module in live.model.modules())
        score_texts(live, SENTENCES)
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002, S311
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states  # noqa: NPY002
    for name, value in model.named_parameters():
        assert torch.equal(value.grad, gradients[name])
    model(input_ids=torch.arange(20)[None], labels=torch.arange(20)[None]).loss.backward()  # no tensor of ours stands in the way


def test_it_is_given_back_after_an_error(folder: Path) -> None:
    model = _load(folder).train()
    with pytest.raises(KeyError), borrow_live_model(model, TOKENIZER, "live"):
        raise KeyError
    assert all(module.training for module in model.modules())


def test_the_mixed_precision_of_training_is_not_that_of_scoring(folder: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    plain = _logprobs(_load(folder))
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(_load(folder))
        wrapped = vars(model)["forward"]
        for live, expected in zip(_logprobs(model), plain, strict=True):
            np.testing.assert_array_equal(live, expected)
        assert vars(model)["forward"] is wrapped
        assert model(input_ids=torch.arange(5)[None]).logits.dtype == torch.float32
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


def test_arithmetic_in_bfloat16_on_request(folder: Path) -> None:
    model = _load(folder)
    half, full = _logprobs(model, "bfloat16"), _logprobs(model, "float32")
    worst = max(float(np.nanmax(np.abs(low - high))) for low, high in zip(half, full, strict=True))
    assert 1e-4 < worst < 0.3
    assert next(model.parameters()).dtype == torch.float32
    with borrow_live_model(model, TOKENIZER, "live", "bfloat16") as live:
        assert (live.dtype, live.compute_dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestFingerprint:
    def test_equal_weights_have_equal_hashes(self, folder: Path) -> None:
        assert LiveWeights().fingerprint(_load(folder)) == LiveWeights().fingerprint(_load(folder).train())
        assert LiveWeights().fingerprint(_lora(folder)).weights != LiveWeights().fingerprint(_load(folder)).weights

    def test_every_weight_counts(self, folder: Path) -> None:
        model, weights = _load(folder), LiveWeights()
        before = weights.fingerprint(model)
        for parameter in model.parameters():
            with torch.no_grad():
                old = parameter.flatten()[-1].clone()
                parameter.view(-1)[-1] += 1e-6 * (1 + old.abs())
            assert weights.fingerprint(model).weights != before.weights
            with torch.no_grad():
                parameter.view(-1)[-1] = old
        assert weights.fingerprint(model) == before

    def test_a_weight_that_thaws_counts_again(self, folder: Path) -> None:
        model, weights = _load(folder).requires_grad_(requires_grad=False), LiveWeights()
        before = weights.fingerprint(model)
        head = model.get_output_embeddings().weight
        head.requires_grad_(requires_grad=True)
        with torch.no_grad():
            head.add_(1.0)
        thawed = weights.fingerprint(model)
        assert thawed != before
        head.requires_grad_(requires_grad=False)
        assert weights.fingerprint(model) == thawed

    def test_settings_of_an_adapter_count(self, folder: Path) -> None:
        first, second = (LiveWeights().fingerprint(_lora(folder, lora_alpha=alpha)) for alpha in (8, 16))
        assert first.adapter is not None
        assert first.adapter != second.adapter

    def test_types_of_half_the_size(self, folder: Path) -> None:
        half, full = LiveWeights().fingerprint(_load(folder).to(torch.bfloat16)), LiveWeights().fingerprint(_load(folder))
        assert half.weights != full.weights
        assert half.config == full.config


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_virtual_tokens_are_refused(folder: Path) -> None:
    model = get_peft_model(_load(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ModelReferenceError, match="virtual tokens"):
        LiveWeights().fingerprint(model)


def test_what_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(ModelReferenceError, match="Linear is not a transformers model"):
        LiveWeights().fingerprint(torch.nn.Linear(2, 2))


def test_weights_spread_over_processes_are_refused(folder: Path, tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        model = _load(folder)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(UserInputError, match="spread over processes"):
            LiveWeights().fingerprint(model)
    finally:
        torch.distributed.destroy_process_group()
