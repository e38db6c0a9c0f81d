"""Head and backbone give the logits of the whole model, for every family, or there is no head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
)

from lmdissect.errors import ModelReferenceError
from lmdissect.models import LanguageModel, LoadOptions, load_model, resolve_model
from lmdissect.models.head import is_causal, position_limit, separate_head
from tiny_models import (
    TINY_VOCAB_SIZE,
    build_tiny,
    save_tiny,
    save_tiny_cohere,
    save_tiny_gemma2,
    save_tiny_gpt2,
    save_tiny_llama,
    tiny_tokenizer,
)

COMMON: dict[str, Any] = {
    "vocab_size": TINY_VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SMALL: dict[str, Any] = {**COMMON, "intermediate_size": 48, "max_position_embeddings": 64}

OTHER_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bloom": lambda: build_tiny(
        BloomForCausalLM, BloomConfig(vocab_size=TINY_VOCAB_SIZE, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1), seed=0
    ),
    "neox": lambda: build_tiny(GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL), seed=0),
    "opt": lambda: build_tiny(
        OPTForCausalLM, OPTConfig(**COMMON, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=16, pad_token_id=2), seed=0
    ),
    "phi": lambda: build_tiny(PhiForCausalLM, PhiConfig(**SMALL), seed=0),
    "mamba": lambda: build_tiny(
        MambaForCausalLM,
        MambaConfig(vocab_size=TINY_VOCAB_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4, bos_token_id=0, eos_token_id=1),
        seed=0,
    ),
}
SAVERS: dict[str, Callable[[Path], Path]] = {
    "llama": lambda folder: save_tiny_llama(folder, seed=0),
    "llama-tied": lambda folder: save_tiny_llama(folder, seed=0, tie=True),
    "gpt2": lambda folder: save_tiny_gpt2(folder, seed=0),
    "gemma2": lambda folder: save_tiny_gemma2(folder, seed=0),
    "cohere": lambda folder: save_tiny_cohere(folder, seed=0),
    **{name: lambda folder, build=build: save_tiny(folder, build(), tiny_tokenizer()) for name, build in OTHER_FAMILIES.items()},  # type: ignore[misc]
}


def token_ids(num_texts: int, num_tokens: int) -> torch.Tensor:
    return torch.randint(0, TINY_VOCAB_SIZE, (num_texts, num_tokens), generator=torch.Generator().manual_seed(1))


def whole_logits(model: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.model(input_ids=input_ids, use_cache=False).logits.float()
    return logits


def head_logits(model: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
    assert model.head is not None
    with torch.inference_mode():
        return model.head.logits(model.head.hidden(input_ids))


@pytest.fixture(scope="module", params=sorted(SAVERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """One loaded tiny model of each family."""
    return load_model(resolve_model(str(SAVERS[request.param](tmp_path_factory.mktemp(request.param)))), LoadOptions(device="cpu"))


def test_head_agrees_with_the_whole_model(family: LanguageModel) -> None:
    input_ids = token_ids(3, 40)
    assert (head_logits(family, input_ids) - whole_logits(family, input_ids)).abs().max() < 1e-4


def test_no_mask_is_needed_for_padding_on_the_right(family: LanguageModel) -> None:
    """A text's logits are those it has alone, whatever stands behind it in its row."""
    input_ids = token_ids(1, 30)
    padded = torch.cat([input_ids, token_ids(1, 10)], dim=1)
    assert (head_logits(family, padded)[:, :30] - whole_logits(family, input_ids)).abs().max() < 1e-4


def test_logits_take_any_rows_of_hidden_states(family: LanguageModel) -> None:
    assert family.head is not None
    input_ids = token_ids(2, 12)
    with torch.inference_mode():
        hidden = family.head.hidden(input_ids)
        rows = family.head.logits(hidden.reshape(-1, hidden.shape[-1])[5:9])
    assert rows.shape == (4, TINY_VOCAB_SIZE)
    assert rows.dtype == torch.float32
    assert (rows - whole_logits(family, input_ids).reshape(-1, TINY_VOCAB_SIZE)[5:9]).abs().max() < 1e-4


def test_a_kept_buffer_changes_nothing(family: LanguageModel) -> None:
    assert family.head is not None
    with torch.inference_mode():
        hidden = family.head.hidden(token_ids(1, 12))[0]
        fresh = family.head.logits(hidden)
        buffer = torch.full((12, TINY_VOCAB_SIZE), torch.nan)
        for _ in range(2):
            assert torch.equal(family.head.logits(hidden, buffer=buffer.flatten()), fresh)


@pytest.mark.parametrize("block", [1, 100, TINY_VOCAB_SIZE - 1])
def test_ranges_of_the_vocabulary_are_parts_of_the_whole(family: LanguageModel, block: int) -> None:
    """Weights, biases, caps and scales of the range alone, in one buffer that is used again for the next one, the last one shorter."""
    assert family.head is not None
    with torch.inference_mode():
        hidden = family.head.hidden(token_ids(1, 12))[0]
        whole = family.head.logits(hidden)
        buffer = torch.full((12 * block,), torch.nan)
        ranges = [(first, min(first + block, TINY_VOCAB_SIZE)) for first in range(0, TINY_VOCAB_SIZE, block)]
        parts = [family.head.logits(hidden, first, stop, buffer=buffer).clone() for first, stop in ranges]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_gemma2_caps_are_real(tmp_path: Path) -> None:
    """Both caps bite in the tiny model, so that agreement above means that they were applied."""
    model = load_model(resolve_model(str(save_tiny_gemma2(tmp_path, seed=0))), LoadOptions(device="cpu"))
    assert model.head is not None
    assert model.head.softcap == 2.0
    assert model.model.config._attn_implementation == "eager"
    input_ids = token_ids(2, 40)
    capped = whole_logits(model, input_ids)
    assert capped.abs().max() < 2.0
    with torch.inference_mode():
        uncapped = torch.nn.functional.linear(model.head.hidden(input_ids), model.head.weight_VD)
    assert (uncapped - capped).abs().max() > 0.1
    model.model.config.attn_logit_softcapping = None
    for layer in model.model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (whole_logits(model, input_ids) - capped).abs().max() > 1e-4


def test_cohere_scale(tmp_path: Path) -> None:
    model = load_model(resolve_model(str(save_tiny_cohere(tmp_path, seed=0))))
    assert model.head is not None
    assert model.head.scale == 0.25


def test_phi_bias(tmp_path: Path) -> None:
    model = load_model(resolve_model(str(SAVERS["phi"](tmp_path))))
    assert model.head is not None
    assert model.head.bias_V is not None
    assert model.head.bias_V.abs().max() > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_family_with_a_step_we_do_not_know_has_no_head(tmp_path: Path, dtype: Any) -> None:
    """Granite divides its logits by a number of its own; in low precision too, that is more than rounding."""
    built = build_tiny(GraniteForCausalLM, GraniteConfig(**SMALL, num_key_value_heads=2, logits_scaling=8.0), seed=0)
    model = load_model(resolve_model(str(save_tiny(tmp_path, built, tiny_tokenizer()))), LoadOptions(dtype=dtype, device="cpu"))
    assert model.head is None


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("llama", "bfloat16"), ("gpt2", "bfloat16"), ("gemma2", "bfloat16"), ("cohere", "bfloat16"), ("phi", "bfloat16"), ("gemma2", "float16")],
)
def test_low_precision_keeps_the_head(tmp_path: Path, name: str, dtype: Any) -> None:
    """Logits leave the head as float32: at least as precise as those of the model, which rounds once more."""
    folder = SAVERS[name](tmp_path)
    exact = load_model(resolve_model(str(folder)), LoadOptions(dtype="float32", device="cpu"))
    model = load_model(resolve_model(str(folder)), LoadOptions(dtype=dtype, device="cpu"))
    input_ids = token_ids(2, 20)
    logits = head_logits(model, input_ids)
    assert logits.dtype == torch.float32
    reference = whole_logits(exact, input_ids)
    assert (logits - reference).abs().max() < 0.05 * reference.abs().max()


def test_a_model_shorter_than_the_check(tmp_path: Path) -> None:
    model = load_model(resolve_model(str(save_tiny_gpt2(tmp_path, seed=0, max_positions=5))))
    assert model.head is not None
    assert model.max_context == 5


@pytest.mark.parametrize(
    "built",
    [
        pytest.param(lambda: build_tiny(BertLMHeadModel, BertConfig(**SMALL), seed=0), id="bert"),
        pytest.param(lambda: build_tiny(RobertaForCausalLM, RobertaConfig(**SMALL, pad_token_id=2), seed=0), id="roberta"),
    ],
)
def test_models_that_look_ahead_are_refused(tmp_path: Path, built: Callable[[], PreTrainedModel]) -> None:
    """Transformers loads them as causal models, and each token would be scored by a model that has seen it."""
    save_tiny(tmp_path, built(), tiny_tokenizer())
    with pytest.raises(ModelReferenceError, match="looks at the tokens it is to predict: give a causal") as caught:
        load_model(resolve_model(str(tmp_path)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_decoder_of_the_same_family_is_taken(tmp_path: Path) -> None:
    save_tiny(tmp_path, build_tiny(BertLMHeadModel, BertConfig(**SMALL, is_decoder=True), seed=0), tiny_tokenizer())
    model = load_model(resolve_model(str(tmp_path)))
    assert is_causal(model.model)
    if model.head is not None:
        input_ids = token_ids(2, 20)
        assert (head_logits(model, input_ids) - whole_logits(model, input_ids)).abs().max() < 1e-4


def test_checks_leave_the_model_as_it_was() -> None:
    model = build_tiny(LlamaForCausalLM, LlamaConfig(**SMALL, attention_dropout=0.5), seed=0)
    state = torch.random.get_rng_state()
    for training in (True, False):
        model.train(training)
        assert separate_head(model) is not None
        assert is_causal(model)
        assert model.training is training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "limit"), [("llama", 128), ("gpt2", 128), ("opt", 64), ("bloom", None), ("mamba", None)])
def test_position_limit(tmp_path: Path, name: str, limit: int | None) -> None:
    model = load_model(resolve_model(str(SAVERS[name](tmp_path))))
    assert model.max_context == position_limit(model.model) == limit
