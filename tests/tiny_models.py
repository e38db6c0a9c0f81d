"""Tiny random language models with a real fast tokenizer, saved as safetensors folders: every test that needs a model builds one here.

The models have two layers and well under 100,000 parameters, so that one is built in milliseconds and scores a text in as many. Everything is drawn
from the given seed, nothing is downloaded, and the same arguments give byte-equal weights. Every parameter gets noise, norms and biases too: a test
that compares two ways of computing logits would otherwise not see a forgotten bias.

    folder = save_tiny_llama(tmp_path / "base", seed=0)
    adapter = save_tiny_lora(folder, tmp_path / "adapter", seed=1)
    model = load_model(resolve_model(f"{folder}+{adapter}"))
"""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

__all__ = [
    "BOS",
    "EOS",
    "SENTENCES",
    "TINY_MAX_POSITIONS",
    "TINY_VOCAB_SIZE",
    "build_tiny",
    "save_tiny",
    "save_tiny_cohere",
    "save_tiny_gemma2",
    "save_tiny_gguf",
    "save_tiny_gpt2",
    "save_tiny_llama",
    "save_tiny_lora",
    "tiny_tokenizer",
]

BOS = "<s>"
"""Text of the begin-of-sequence token; id 0."""

EOS = "</s>"
"""Text of the end-of-sequence token; id 1."""

TINY_VOCAB_SIZE = 384
"""Default vocabulary: two special tokens, 256 bytes, and 126 merges."""

TINY_MAX_POSITIONS = 128
"""Default position limit in tokens; texts longer than this need windows."""

SENTENCES = (
    "The patients received the drug for twelve weeks, and their blood pressure fell by 8 mmHg.",
    "We measured the expression of the gene in 42 mice and found no difference between the groups.",
    "Honestly, the whole trip was a mess, but the food was great and the people were lovely.",
    "The committee will meet on Tuesday to discuss the budget for the new library.",
    "Results: the risk of infection was lower in the treated group (p < 0.05) than in the control group.",
    "Mix the flour with the butter, add two eggs, and bake the cake for forty minutes.",
    "Naïve Bayes — a “simple” model — wasn’t worse than the others; γ-rays and 25 µg of β-carotene were used.",  # noqa: RUF001 - as people write
    "Background: the role of vitamin D in the prevention of fractures is not known.\nMethods: a trial of 1,200 women.",
    "She was walking along the river when the rain started, and nobody had an umbrella.",
    "The committee was told that the new treatment is safe and that the results are being published.",
)
"""What the tokenizer is trained on; handy as texts to score."""

_NOISE = 0.1


@cache
def _trained_tokenizer(vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[BOS, EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(*, bos: bool = True, eos_after: bool = False, special: bool = True, vocab_size: int = TINY_VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `SENTENCES`: it can encode any text, and its merges are the same on every machine.

    Args:
        bos: Put `BOS` before every text, as Llama's tokenizer does; False is GPT-2's habit.
        eos_after: Put `EOS` after every text, as T5's and some embedding models' tokenizers do.
        special: Tell the tokenizer which tokens are BOS and EOS; without, it knows of neither (then ``bos`` and ``eos_after`` must be False).
        vocab_size: Number of ids; 258 (no merge) at least.
    """
    core = Tokenizer.from_str(_trained_tokenizer(vocab_size))
    template = f"{BOS} $A" if bos else "$A"
    template = f"{template} {EOS}" if eos_after else template
    byte_level = processors.ByteLevel(trim_offsets=False)
    if bos or eos_after:
        framing = processors.TemplateProcessing(single=template, special_tokens=[(BOS, 0), (EOS, 1)])
        core.post_processor = processors.Sequence([byte_level, framing])
    else:
        core.post_processor = byte_level
    names = {"bos_token": BOS, "eos_token": EOS} if special else {}
    build: Any = PreTrainedTokenizerFast  # transformers leaves its constructor untyped
    tokenizer: PreTrainedTokenizerFast = build(tokenizer_object=core, clean_up_tokenization_spaces=False, **names)
    return tokenizer


def build_tiny(family: type[PreTrainedModel], config: PreTrainedConfig, *, seed: int) -> PreTrainedModel:
    """A random model of any transformers family, in eval mode; every parameter is the family's own start value plus noise, drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = family(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=_NOISE)
    built: PreTrainedModel = model.eval()
    return built


def save_tiny(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, dtype: torch.dtype = torch.float32) -> Path:
    """Save model and tokenizer as one folder, weights in ``dtype``.

    Returns:
        ``folder``.
    """
    model.to(dtype).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_llama(
    folder: Path,
    *,
    seed: int,
    tie: bool = False,
    vocab_size: int = TINY_VOCAB_SIZE,
    max_positions: int = TINY_MAX_POSITIONS,
    bos: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A Llama (rotary positions, grouped queries, no biases) with the tiny tokenizer.

    Args:
        folder: Where to save it; created.
        seed: Of all weights.
        tie: Whether output and input embedding are one matrix.
        vocab_size: Of model and tokenizer.
        max_positions: ``max_position_embeddings`` of the config, in tokens.
        bos: Whether the tokenizer puts BOS before a text.
        dtype: Type of the stored weights.

    Returns:
        ``folder``.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tie,
        bos_token_id=0,
        eos_token_id=1,
    )
    return save_tiny(folder, build_tiny(LlamaForCausalLM, config, seed=seed), tiny_tokenizer(bos=bos, vocab_size=vocab_size), dtype=dtype)


def save_tiny_gpt2(
    folder: Path,
    *,
    seed: int,
    vocab_size: int = TINY_VOCAB_SIZE,
    max_positions: int = TINY_MAX_POSITIONS,
    bos: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A GPT-2 (learned positions, Conv1D layers with biases, tied embeddings) whose tokenizer adds no BOS by default. Arguments as `save_tiny_llama`."""
    config = GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=max_positions, bos_token_id=0, eos_token_id=1)
    return save_tiny(folder, build_tiny(GPT2LMHeadModel, config, seed=seed), tiny_tokenizer(bos=bos, vocab_size=vocab_size), dtype=dtype)


def save_tiny_gemma2(
    folder: Path,
    *,
    seed: int,
    vocab_size: int = TINY_VOCAB_SIZE,
    max_positions: int = TINY_MAX_POSITIONS,
    bos: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A Gemma 2: soft caps on logits (2.0) and on attention scores (1.0), both low enough to bite, and a sliding window of 16 tokens in every other layer."""
    config = Gemma2Config(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=max_positions,
        sliding_window=16,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=1.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    return save_tiny(folder, build_tiny(Gemma2ForCausalLM, config, seed=seed), tiny_tokenizer(bos=bos, vocab_size=vocab_size), dtype=dtype)


def save_tiny_cohere(folder: Path, *, seed: int, vocab_size: int = TINY_VOCAB_SIZE, max_positions: int = TINY_MAX_POSITIONS) -> Path:
    """A Cohere: logits are multiplied by ``logit_scale`` (0.25), and attention and MLP run side by side."""
    config = CohereConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        logit_scale=0.25,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    return save_tiny(folder, build_tiny(CohereForCausalLM, config, seed=seed), tiny_tokenizer(vocab_size=vocab_size))


def save_tiny_lora(base: Path, folder: Path, *, seed: int, zero: bool = False, rank: int = 4, alpha: int = 8) -> Path:
    """A PEFT LoRA adapter for the model in ``base``, on all its attention and MLP projections.

    Args:
        base: Folder of the base model (any family of this module).
        folder: Where to save the adapter; created. Its adapter_config.json names ``base``.
        seed: Of both matrices.
        zero: Leave B at 0, as at the start of training: then the adapter changes nothing.
        rank: Rank r of the update.
        alpha: The update is scaled by alpha / r.

    Returns:
        ``folder``.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    is_gpt2 = json.loads((base / "config.json").read_text(encoding="utf-8"))["model_type"] == "gpt2"
    targets = ["c_attn", "c_proj", "c_fc"] if is_gpt2 else ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, bias="none", fan_in_fan_out=is_gpt2, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)  # peft asks the old name
        wrapped: Any = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * _NOISE)
            elif "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.0 if zero else _NOISE))
    wrapped.save_pretrained(str(folder))
    return folder


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def save_tiny_gguf(base: Path, path: Path) -> Path:
    """The float32 weights, settings and tokenizer of a tiny Llama as one GGUF file.

    Args:
        base: Folder made by `save_tiny_llama`.
        path: The file to write.

    Returns:
        ``path``.
    """
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    writer: Any = GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    _add_gguf_tokenizer(writer, json.loads((base / "tokenizer.json").read_text(encoding="utf-8")))
    for name, weight in load_file(base / "model.safetensors").items():
        heads = {"q_proj.weight": config["num_attention_heads"], "k_proj.weight": config["num_key_value_heads"]}.get(name.split(".", 4)[-1])
        # GGUF keeps the two halves of a rotary pair side by side, transformers keeps all first halves before all second ones
        stored = weight if heads is None else weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(_gguf_name(name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_gguf_tokenizer(writer: Any, stored: dict[str, Any]) -> None:
    vocabulary = stored["model"]["vocab"]
    normal, control = 1, 3
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([control, control] + [normal] * (len(vocabulary) - 2))
    writer.add_token_merges([" ".join(pair) for pair in stored["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _gguf_name(name: str) -> str:
    outer = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name]
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{_GGUF_NAMES[rest.removesuffix('.weight')]}.weight"
