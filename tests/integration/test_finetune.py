"""Whole finetuning runs of tiny models: against a training loop written out by hand, killed and resumed, broken on purpose, and read back."""

import dataclasses
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback

from lmdissect.errors import (
    InterruptedRunError,
    LmdissectError,
    NonFiniteLossError,
    NothingToDoError,
    OutputLockedError,
    RunFailedError,
    StaleArtifactError,
    UnusableOutputError,
    UserInputError,
)
from lmdissect.finetune import FinetuneConfig, FinetuneSummary, LoraSettings, finetune
from lmdissect.finetune.batches import TokenizedCorpus, TokenSequence, order_documents, tokenize_corpus
from lmdissect.interrupts import listen_for_interrupt
from lmdissect.models import LoadOptions, TextTokenizer, fingerprint_model, load_model, load_tokenizer, resolve_model
from lmdissect.progress import SilentProgress, Task
from lmdissect.records import Document
from lmdissect.store import read_artifact
from tiny_models import SENTENCES, build_tiny, save_tiny, save_tiny_gemma2, save_tiny_gpt2, save_tiny_llama, save_tiny_lora, tiny_tokenizer

CPU = LoadOptions("float32", "cpu")
DOCUMENTS = [Document(f"d{number}", (text * 2)[: 8 + 17 * number % 90]) for number, text in enumerate(SENTENCES)]
HELD_OUT = [Document("h0", "A short one."), Document("h1", SENTENCES[3]), Document("h2", SENTENCES[6])]
EOS_ID = 1


def _config(**settings: object) -> FinetuneConfig:
    defaults = {"batch_size": 4, "micro_batch_tokens": 100, "max_tokens": 60, "device": "cpu", "learning_rate": 1e-3}
    return FinetuneConfig.model_validate({**defaults, **settings})


def _run(base: Path, folder: Path, config: FinetuneConfig, documents: Sequence[Document] = DOCUMENTS, **more: Any) -> FinetuneSummary:
    return finetune(resolve_model(str(base)), documents, config, folder, **more)


def _steps(folder: Path) -> dict[str, list[float]]:
    table: dict[str, list[float]] = pq.read_table(folder / "training_steps.parquet").to_pydict()
    return table


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


def _assert_same_runs(folder: Path, expected: Path) -> None:
    """Bit by bit: every column of every step, and every weight."""
    assert _steps(folder) == _steps(expected)
    there, here = _weights(expected), _weights(folder)
    assert there.keys() == here.keys()
    assert all(torch.equal(here[name], there[name]) for name in there)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base models by name. GPT-2 with its usual dropout, and without any where a run is compared with a loop that has none."""
    folder = tmp_path_factory.mktemp("bases")
    no_dropout = GPT2Config(
        vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return {
        "llama": save_tiny_llama(folder / "llama", seed=0),
        "llama-tied": save_tiny_llama(folder / "llama-tied", seed=1, tie=True),
        "gpt2": save_tiny(folder / "gpt2", build_tiny(GPT2LMHeadModel, no_dropout, seed=2), tiny_tokenizer(bos=False)),
        "gpt2-dropout": save_tiny_gpt2(folder / "gpt2-dropout", seed=3),
        "gemma2": save_tiny_gemma2(folder / "gemma2", seed=4),
    }


@dataclasses.dataclass
class _Watch(SilentProgress):
    """Progress that keeps what it was told, and does something when a step of this run is done."""

    at_step: int = 0
    action: Callable[[], object] = lambda: None
    said: list[str] = dataclasses.field(default_factory=list)
    done: int = 0

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Task:
        self.done = done
        return _WatchedTask(self)

    def say(self, message: str) -> None:
        self.said.append(message)


class _WatchedTask:
    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def advance(self, amount: int) -> None:
        self._watch.done += amount
        if self._watch.done == self._watch.at_step:
            self._watch.action()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


# --- the arithmetic ------------------------------------------------------------------------------------------------------------------------------


def _tokenized(base: Path, config: FinetuneConfig, documents: Sequence[Document] = DOCUMENTS) -> TokenizedCorpus:
    return tokenize_corpus(documents, TextTokenizer(load_tokenizer(resolve_model(str(base))), config.bos), config)


def _summed_loss(model: Any, sequence: TokenSequence) -> torch.Tensor:
    """Nats of one document, by full logits in float64 and autograd."""
    input_ids = torch.from_numpy(sequence.token_id.astype(np.int64))[None]
    logits = model(input_ids=input_ids, use_cache=False).logits[0].double()
    learned = torch.from_numpy(sequence.is_target)[1:]
    return torch.nn.functional.cross_entropy(logits[:-1][learned], input_ids[0, 1:][learned], reduction="sum")


def _trained_by_hand(base: Path, config: FinetuneConfig) -> tuple[dict[str, list[float]], Any]:
    """The loop of the docstring: one document at a time, AdamW, linear warm-up and decay, clipping."""
    model: Any = load_model(resolve_model(str(base)), CPU).model
    corpus = _tokenized(base, config)
    order = order_documents(corpus, config)
    num_steps = len(order)
    num_warmup = min(math.ceil(round(config.warmup_fraction * num_steps, 6)), num_steps - 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.peak_learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay)
    steps: dict[str, list[float]] = {"step": [], "loss_nats": [], "learning_rate": [], "grad_norm": []}
    for step in range(num_steps):
        chosen = [corpus.sequences[index] for index in order[step]]
        num_targets = sum(sequence.num_targets for sequence in chosen)
        optimizer.zero_grad()
        losses = [_summed_loss(model, sequence) / num_targets for sequence in chosen]
        torch.stack(losses).sum().backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        share = step / num_warmup if step < num_warmup else (num_steps - step) / (num_steps - num_warmup)
        for group in optimizer.param_groups:
            group["lr"] = config.peak_learning_rate * share
        optimizer.step()
        row = (step + 1, float(torch.stack(losses).detach().sum()), config.peak_learning_rate * share, float(grad_norm))
        for name, value in zip(steps, row, strict=True):
            steps[name].append(value)
    return steps, model


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "gemma2"])
def test_run_equals_a_loop_written_by_hand(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Logged loss (GPT-2 too), schedule, clipping and weight decay. Ten documents, two passes, four a step: the last step and some micro-batches are short."""
    config = _config(epochs=2.2, warmup_fraction=0.3, clip_norm=0.5, weight_decay=0.1, skip_first_tokens=1, learning_rate=2e-4)
    summary = _run(bases[family], tmp_path / "tuned", config)
    expected, model = _trained_by_hand(bases[family], config)
    actual = _steps(tmp_path / "tuned")
    assert summary.num_steps == len(actual["step"]) == 6
    assert actual["step"] == expected["step"]
    assert actual["learning_rate"] == pytest.approx(expected["learning_rate"], rel=1e-9)
    assert actual["loss_nats"] == pytest.approx(expected["loss_nats"], rel=1e-5)
    assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert min(actual["grad_norm"]) > config.clip_norm  # so that it was clipped
    tuned = load_model(resolve_model(str(tmp_path / "tuned")), CPU).model.state_dict()
    differences = torch.cat([(tuned[name] - weight).abs().flatten() for name, weight in model.state_dict().items()])
    moved = torch.cat([(weight - start).abs().flatten() for weight, start in zip(model.state_dict().values(), _start(bases[family]), strict=True)])
    assert float(moved.mean()) > 1e-4
    assert float(differences.mean()) < 1e-3 * float(moved.mean())


def _start(base: Path) -> list[torch.Tensor]:
    return list(load_model(resolve_model(str(base)), CPU).model.state_dict().values())


class _KeepGradients(TrainerCallback):
    """Keeps the gradients of every step: a callback of the user's, as `finetune` takes them."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_kwargs: Any) -> None:
        self.gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})


LAYOUTS = [(10_000, "on"), (10_000, "off"), (100, "on"), (100, "off"), (1, "on"), (1, "off")]
"""Tokens of a forward pass, and whether documents are packed in it: ways to compute one thing."""


def _gradients(base: Path, folder: Path, layout: tuple[int, str]) -> list[dict[str, torch.Tensor]]:
    keep = _KeepGradients()
    config = _config(batch_size=8, micro_batch_tokens=layout[0], packing=layout[1], clip_norm=1e9, learning_rate=1e-9, warmup_fraction=0)
    _run(base, folder, config, callbacks=[keep])  # a rate so small that both steps start from the base
    return keep.gradients


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradients_do_not_depend_on_the_micro_batch(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Documents of 8 to 60 tokens: a mean of micro-batch means would be far off."""
    whole, *others = (_gradients(bases[family], tmp_path / str(number), layout) for number, layout in enumerate(LAYOUTS))
    assert len(whole) == 2  # eight documents, then two
    model: Any = load_model(resolve_model(str(bases[family])), CPU).model
    config = _config(batch_size=8)
    corpus = _tokenized(bases[family], config)
    first = [corpus.sequences[index] for index in order_documents(corpus, config)[0]]
    num_targets = sum(sequence.num_targets for sequence in first)
    torch.stack([_summed_loss(model, sequence) / num_targets for sequence in first]).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(whole[0][name], parameter.grad, rtol=0, atol=1e-6)
        assert float(parameter.grad.abs().max()) > 1e-5
    for other in others:
        for expected, actual in zip(whole, other, strict=True):
            for name, gradient in expected.items():
                torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_first_step_does_not_depend_on_the_micro_batch(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    for number, (tokens, packing) in enumerate(LAYOUTS):
        config = _config(batch_size=8, micro_batch_tokens=tokens, packing=packing, learning_rate=1e-5, warmup_fraction=0.0)
        _run(bases[family], tmp_path / str(number), config, DOCUMENTS[:8])
    whole = _weights(tmp_path / "0")
    for number in range(1, len(LAYOUTS)):
        assert _steps(tmp_path / str(number))["loss_nats"] == pytest.approx(_steps(tmp_path / "0")["loss_nats"], rel=1e-6)
        for name, weight in _weights(tmp_path / str(number)).items():
            torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-6)


def test_schedule_rises_over_a_tenth_and_falls_to_zero(bases: dict[str, Path], tmp_path: Path) -> None:
    _run(bases["llama"], tmp_path / "tuned", _config(batch_size=1, epochs=2, max_tokens=4, checkpoint_steps=100))
    rates = _steps(tmp_path / "tuned")["learning_rate"]
    assert rates == pytest.approx([0, 5e-4, *(1e-3 * (20 - step) / 18 for step in range(2, 20))], rel=1e-9)


def test_run_of_one_step_learns(bases: dict[str, Path], tmp_path: Path) -> None:
    _run(bases["llama"], tmp_path / "tuned", _config(batch_size=64))
    assert _steps(tmp_path / "tuned")["learning_rate"] == [1e-3]


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_recomputed_activations_change_nothing(bases: dict[str, Path], tmp_path: Path, lora: LoraSettings | None) -> None:
    _run(bases["llama"], tmp_path / "plain", _config(lora=lora))
    _run(bases["llama"], tmp_path / "recomputed", _config(lora=lora, gradient_checkpointing="on"))
    _assert_same_runs(tmp_path / "recomputed", tmp_path / "plain")


def test_other_seed_is_another_run(bases: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _run(bases["gpt2-dropout"], tmp_path / name, _config(seed=seed))
    _assert_same_runs(tmp_path / "a", tmp_path / "b")
    assert _steps(tmp_path / "a")["loss_nats"] != _steps(tmp_path / "c")["loss_nats"]


@pytest.mark.parametrize(("max_tokens", "learned"), [(60, True), (3, False)])
def test_end_of_text_is_learned_from_whole_documents_only(bases: dict[str, Path], tmp_path: Path, max_tokens: int, learned: bool) -> None:
    document = Document("a", "The drug")
    _run(
        bases["llama"],
        tmp_path / "tuned",
        _config(batch_size=1, epochs=40, learning_rate=1e-2, max_tokens=max_tokens),
        [document],
    )
    loaded = load_model(resolve_model(str(tmp_path / "tuned")), CPU)
    tokens = TextTokenizer(loaded.tokenizer, "auto").tokenize(document.text).token_id[:max_tokens]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([[0, *tokens.tolist()]])).logits[0]
    assert (float(logits[-1].softmax(0)[EOS_ID]) > 0.5) == learned
    assert float(logits[1].softmax(0)[int(tokens[1])]) > 0.5


def test_global_random_state_is_left_alone(bases: dict[str, Path], tmp_path: Path) -> None:
    import random  # noqa: TID251 - to see that it is not touched

    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    _run(bases["gpt2-dropout"], tmp_path / "tuned", _config(lora=LoraSettings(rank=2, dropout=0.1), seed=5))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


# --- held-out loss -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2-dropout"])
def test_held_out_loss_is_pooled(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    config = _config()
    losses = []
    for size, packing in ((1, "off"), (2, "on"), (10_000, "on")):
        changed = {"micro_batch_tokens": size, "packing": packing}
        summary = _run(bases[family], tmp_path / str(size), config.model_copy(update=changed), held_out=HELD_OUT)
        losses.append((summary.held_out_before, summary.held_out_after))
    corpus = _tokenized(bases[family], config, HELD_OUT)
    for index, folder in enumerate((bases[family], tmp_path / "1")):
        model = load_model(resolve_model(str(folder)), CPU).model
        with torch.no_grad():
            total_nats = sum(float(_summed_loss(model, sequence)) for sequence in corpus.sequences)
        assert losses[0][index] == pytest.approx(total_nats / corpus.num_target_tokens, rel=1e-6)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-6)
    assert losses[2][0] == pytest.approx(losses[0][0], rel=1e-6)
    assert losses[0][1] < losses[0][0]
    manifest = read_artifact(tmp_path / "1", "finetune")
    assert (manifest.details["held_out_loss_before_nats"], manifest.details["held_out_loss_after_nats"]) == losses[0]
    assert manifest.counts["held_out_documents"] == 3


# --- LoRA ----------------------------------------------------------------------------------------------------------------------------------------


def _adapter_config(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return stored


LAYERS = {"llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, "gpt2": {"c_attn", "c_proj", "c_fc"}}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapter_stands_on_every_linear_layer_but_the_head(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    _run(bases[family], tmp_path / "tuned", _config(lora=LoraSettings(rank=3)))
    stored = _adapter_config(tmp_path / "tuned")
    assert (stored["r"], stored["lora_alpha"], stored["use_rslora"], stored["lora_dropout"]) == (3, 6, False, 0)
    assert stored["fan_in_fan_out"] == (family == "gpt2")
    weights = _weights(tmp_path / "tuned")
    adapted = {name.split(".")[-3] for name in weights}
    assert adapted == LAYERS[family]
    assert len(weights) == 2 * 2 * (7 if family == "llama" else 4)
    assert all(weight.dtype == torch.float32 and weight.abs().max() > 0 for weight in weights.values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("rslora", "alpha", "scale"), [(False, None, 2.0), (False, 3.0, 0.75), (True, 3.0, 1.5)])
def test_saved_adapter_adds_its_scaled_product(
    bases: dict[str, Path], tmp_path: Path, family: str, rslora: bool, alpha: float | None, scale: float
) -> None:
    _run(bases[family], tmp_path / "tuned", _config(lora=LoraSettings(rank=4, alpha=alpha, rslora=rslora)))
    weights = {name.removeprefix("base_model.model."): weight for name, weight in _weights(tmp_path / "tuned").items()}
    base = load_model(resolve_model(str(bases[family])), CPU).model.state_dict()
    tuned = load_model(resolve_model(str(tmp_path / "tuned")), CPU).model.state_dict()
    for name, weight in tuned.items():
        module = name.removesuffix(".weight")
        change = torch.zeros_like(weight)
        if f"{module}.lora_A.weight" in weights:
            product = scale * weights[f"{module}.lora_B.weight"] @ weights[f"{module}.lora_A.weight"]
            change = product.T if family == "gpt2" else product
            assert change.abs().max() > 1e-5
        torch.testing.assert_close(weight - base[name], change, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapter_starts_as_the_base_and_ends_elsewhere(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    """The first logged loss, at rate 0, is the base's own; the folder alone is a reference, and scores what training saw."""
    config = _config(lora=LoraSettings(rank=4), learning_rate=1e-2)
    summary = _run(bases[family], tmp_path / "tuned", config, held_out=HELD_OUT)
    _run(bases[family], tmp_path / "full", _config())
    assert _steps(tmp_path / "tuned")["loss_nats"][0] == _steps(tmp_path / "full")["loss_nats"][0]
    resolved = resolve_model(str(tmp_path / "tuned"))
    assert resolved.folder == bases[family]
    corpus = _tokenized(bases[family], config, HELD_OUT)
    with torch.no_grad():
        base, tuned = (
            sum(float(_summed_loss(load_model(reference, CPU).model, sequence)) for sequence in corpus.sequences)
            for reference in (resolve_model(str(bases[family])), resolved)
        )
    assert tuned / corpus.num_target_tokens == pytest.approx(summary.held_out_after, rel=1e-6)
    assert tuned < base - 1e-3
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {
        ".lock",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_steps.parquet",
    }


def test_a_damaged_model_is_named_and_trained_again_on_the_device_it_was(bases: dict[str, Path], tmp_path: Path) -> None:
    config = _config(lora=LoraSettings(rank=2), device="auto")
    _run(bases["llama"], tmp_path / "tuned", config)
    assert read_artifact(tmp_path / "tuned", "finetune").config["device"] == str(LoadOptions().torch_device())  # "auto" is no setting to compare
    (tmp_path / "tuned" / "adapter_model.safetensors").unlink()
    watch = _Watch()
    assert not _run(bases["llama"], tmp_path / "tuned", config, progress=watch).reused
    assert f"{tmp_path / 'tuned'}: adapter_model.safetensors is missing or damaged and is made again" in watch.said


def test_adapter_names_its_base_as_the_user_did(bases: dict[str, Path], tmp_path: Path) -> None:
    """Never a cache path; and nothing is asked of the hub, whatever the reference looks like."""
    base = dataclasses.replace(resolve_model(str(bases["llama"])), reference="owner/name@main")
    finetune(base, DOCUMENTS, _config(lora=LoraSettings(rank=2), checkpoint_steps=1), tmp_path / "tuned")
    assert _adapter_config(tmp_path / "tuned")["base_model_name_or_path"] == "owner/name@main"
    assert all(str(bases["llama"]).encode() not in path.read_bytes() for path in (tmp_path / "tuned").iterdir())
    assert read_artifact(tmp_path / "tuned", "finetune").config["base"] == "owner/name@main"


def test_an_adapter_finds_a_relative_base_from_any_folder(bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bases["llama"], tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    finetune(resolve_model("base"), DOCUMENTS, _config(lora=LoraSettings(rank=2)), tmp_path / "tuned")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resolve_model("../tuned").folder == tmp_path / "base"


def test_chosen_targets(bases: dict[str, Path], tmp_path: Path) -> None:
    _run(bases["llama"], tmp_path / "tuned", _config(lora=LoraSettings(rank=2, targets=("q_proj", "1.mlp.up_proj"))))
    weights = _weights(tmp_path / "tuned")
    assert {name.split(".")[-3] for name in weights} == {"q_proj", "up_proj"}
    assert len(weights) == 2 * 3


@pytest.mark.parametrize(
    ("family", "target", "told"),
    [
        ("llama", "lm_head", "leave the embeddings and the output head out"),
        ("llama", "embed_tokens", "leave the embeddings and the output head out"),
        ("gpt2", "q_proj", "LoRA targets q_proj: GPT2LMHeadModel has no such layer; its linear layers are c_attn, c_fc, c_proj"),
        ("llama", "proj", "LoRA targets proj: LlamaForCausalLM has no such layer; its linear layers are down_proj, gate_proj, k_proj, o_proj"),
    ],
)
def test_targets_that_cannot_be_trained_are_refused(bases: dict[str, Path], tmp_path: Path, family: str, target: str, told: str) -> None:
    with pytest.raises(UserInputError, match=told):
        _run(bases[family], tmp_path / "tuned", _config(lora=LoraSettings(rank=2, targets=(target,))))


def test_one_target_that_is_not_there_is_not_passed_over(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="LoRA targets c_attn: LlamaForCausalLM has no such layer"):
        _run(bases["llama"], tmp_path / "tuned", _config(lora=LoraSettings(rank=2, targets=("q_proj", "c_attn"))))


def test_all_weights_of_an_adapted_base_are_trained_from_where_it_stands(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = save_tiny_lora(bases["llama"], tmp_path / "adapter", seed=5)
    summary = _run(adapter, tmp_path / "tuned", _config(), held_out=HELD_OUT)
    model = load_model(resolve_model(str(adapter)), CPU).model
    corpus = _tokenized(bases["llama"], _config(), HELD_OUT)
    with torch.no_grad():
        total_nats = sum(float(_summed_loss(model, sequence)) for sequence in corpus.sequences)
    assert summary.held_out_before == pytest.approx(total_nats / corpus.num_target_tokens, rel=1e-6)
    assert not (tmp_path / "tuned" / "adapter_config.json").exists()
    tuned = load_model(resolve_model(str(tmp_path / "tuned")), CPU).model.state_dict()
    assert max(float((tuned[name] - weight).abs().max()) for name, weight in model.state_dict().items()) < 0.01
    assert (
        float(
            (tuned["model.layers.0.mlp.up_proj.weight"] - load_file(bases["llama"] / "model.safetensors")["model.layers.0.mlp.up_proj.weight"])
            .abs()
            .max()
        )
        > 0.01
    )


def test_adapter_on_an_adapter_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = save_tiny_lora(bases["llama"], tmp_path / "adapter", seed=5)
    with pytest.raises(UserInputError, match="an adapter cannot stand on another one"):
        _run(adapter, tmp_path / "tuned", _config(lora=LoraSettings(rank=2)))
    assert not (tmp_path / "tuned").exists()


# --- what is saved -------------------------------------------------------------------------------------------------------------------------------


def test_full_model_is_saved_whole_in_float32_with_tied_embeddings(bases: dict[str, Path], tmp_path: Path) -> None:
    half = save_tiny_llama(tmp_path / "half", seed=1, tie=True, dtype=torch.bfloat16)
    summary = _run(half, tmp_path / "tuned", _config())
    assert all(weight.dtype == torch.float32 for weight in _weights(tmp_path / "tuned").values())
    assert "lm_head.weight" not in _weights(tmp_path / "tuned")
    model: Any = load_model(resolve_model(str(tmp_path / "tuned")), CPU).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, load_model(resolve_model(str(half)), CPU).model.lm_head.weight)
    assert TextTokenizer(load_tokenizer(resolve_model(str(tmp_path / "tuned")))).fingerprint() == TextTokenizer(tiny_tokenizer()).fingerprint()
    manifest = read_artifact(tmp_path / "tuned", "finetune")
    corpus = _tokenized(half, _config())
    assert manifest.details["num_target_tokens"] == summary.num_target_tokens == corpus.num_target_tokens
    assert manifest.counts == {"documents": 10, "documents_truncated": corpus.num_truncated, "documents_too_short": 0, "held_out_documents": 0}
    assert manifest.inputs["base"] == fingerprint_model(resolve_model(str(half))).to_json()
    assert manifest.details["moved_fraction"] > 0.5
    assert not (tmp_path / "tuned" / ".checkpoints").exists()


def test_every_file_is_on_the_disk_before_the_checkpoints_are_deleted(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat templates stand in a folder of their own; a damaged model is made again over it."""
    base = shutil.copytree(bases["llama"], tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ messages }}{{ tools }}"}
    tokenizer.save_pretrained(base)
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    for _ in range(2):
        synced.clear()
        _run(base, tmp_path / "tuned", _config())
        files = [path for path in (tmp_path / "tuned").rglob("*") if path.is_file() and path.name != ".lock"]
        assert {"model.safetensors", "tool_use.jinja", "manifest.json"} <= {path.name for path in files}
        assert {path.name for path in files if path.stat().st_ino not in synced} == set()
        (tmp_path / "tuned" / "model.safetensors").write_bytes(b"damaged")


def test_finished_run_is_reused(bases: dict[str, Path], tmp_path: Path) -> None:
    first = _run(bases["llama"], tmp_path / "tuned", _config(), held_out=HELD_OUT)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tuned").iterdir() if path.name != ".lock"}
    (tmp_path / "tuned" / ".checkpoints" / "checkpoint-2").mkdir(parents=True)
    watch = _Watch()
    again = _run(bases["llama"], tmp_path / "tuned", _config(), held_out=HELD_OUT, progress=watch)
    assert again == dataclasses.replace(first, reused=True)
    assert "reused" in watch.said[0]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tuned").iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"documents": DOCUMENTS[::-1]}, "corpus"),
        ({"documents": [*DOCUMENTS[:-1], Document("d9", "other text")]}, "corpus"),
        ({"held_out": HELD_OUT[:1]}, "held_out"),
        ({"config": _config(learning_rate=2e-3)}, "learning_rate: 0.001 there, 0.002 here"),
        ({"config": _config(micro_batch_tokens=1)}, "micro_batch_tokens: 100 there, 1 here"),
        ({"config": _config(skip_token_classes=("number",))}, "skip_token_classes"),
        ({"config": _config(seed=1)}, "seed: 0 there, 1 here"),
        ({"config": _config(lora=LoraSettings(rank=2))}, "lora"),
        ({"base": "gemma2"}, "base.weights"),
    ],
)
def test_other_settings_or_inputs_are_refused(bases: dict[str, Path], finished: Path, change: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"documents": DOCUMENTS, "config": _config(), "held_out": HELD_OUT, "base": "llama", **change}
    with pytest.raises(StaleArtifactError, match=named):
        _run(bases[arguments.pop("base")], finished, **arguments)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("tokenizer.json", '"normalizer": null', '"normalizer": {"type": "Lowercase"}'), ("tokenizer_config.json", '"</s>"', '"<s>"')],
)
def test_a_tokenizer_edited_in_place_is_another_input(bases: dict[str, Path], tmp_path: Path, name: str, old: str, new: str) -> None:
    base = shutil.copytree(bases["llama"], tmp_path / "base")
    _run(base, tmp_path / "tuned", _config())
    text = (base / name).read_text(encoding="utf-8")
    assert old in text
    (base / name).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(StaleArtifactError, match="tokenizer: "):
        _run(base, tmp_path / "tuned", _config())


@pytest.fixture(scope="module")
def finished(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "tuned"
    _run(bases["llama"], folder, _config(), held_out=HELD_OUT)
    return folder


# --- what goes wrong -----------------------------------------------------------------------------------------------------------------------------


def test_weights_that_did_not_move_are_a_failure(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"moved only 0\.0.% of the trained weights \(learning rate 1e-12\): raise the learning rate"):
        _run(bases["llama"], tmp_path / "tuned", _config(learning_rate=1e-12))
    assert not (tmp_path / "tuned" / "manifest.json").exists()


def test_loss_that_breaks_names_step_and_rate(bases: dict[str, Path], tmp_path: Path) -> None:
    config = _config(learning_rate=1e30, warmup_fraction=0.0, checkpoint_steps=1)
    for _ in range(2):  # the second run goes on from the checkpoint, and says the same
        with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) at step 2 \(learning rate 1e\+30\)"):
            _run(bases["llama"], tmp_path / "tuned", config)
    assert not (tmp_path / "tuned" / "manifest.json").exists()


def test_weights_that_break_in_the_last_step_are_not_saved(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"weights became NaN or infinite in the last step \(learning rate 1e\+30\)"):
        _run(bases["llama"], tmp_path / "tuned", _config(batch_size=64, learning_rate=1e30, weight_decay=1e30))
    assert not (tmp_path / "tuned" / "model.safetensors").exists()


@pytest.mark.parametrize(("held_out", "told"), [((), "the loss became nan at step 1 .learning rate 0.001"), (HELD_OUT, "the held-out loss is nan")])
def test_broken_base_is_told(bases: dict[str, Path], tmp_path: Path, held_out: Sequence[Document], told: str) -> None:
    broken = save_tiny_llama(tmp_path / "broken", seed=0)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteLossError, match=told):
        _run(broken, tmp_path / "tuned", _config(), held_out=held_out)


def test_nothing_to_learn(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match="none of the 10 documents has a token to learn"):
        _run(bases["llama"], tmp_path / "tuned", _config(skip_first_tokens=1000))


def test_documents_too_long_for_the_model_are_told(bases: dict[str, Path], tmp_path: Path) -> None:
    long = [Document("a", " ".join(SENTENCES))]
    for family in ("llama", "gpt2"):
        with pytest.raises(UserInputError, match="the model has 128: lower max_tokens to 126"):
            _run(bases[family], tmp_path / family, _config(max_tokens=200), long)
        _run(bases[family], tmp_path / f"{family}-short", _config(max_tokens=126), long)


def test_unknown_device(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="--device abacus"):
        _run(bases["llama"], tmp_path / "tuned", _config(device="abacus"))


class _Unreachable(TrainerCallback):
    """A tracker whose server does not answer."""

    def on_log(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def test_an_error_of_a_callback_is_not_taken_for_one_of_the_output(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError):
        _run(bases["llama"], tmp_path / "tuned", _config(), callbacks=[_Unreachable()])


def test_a_checkpoint_that_cannot_be_written_is_told(bases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tuned" / ".checkpoints").mkdir(parents=True)
    (tmp_path / "tuned" / ".checkpoints" / "checkpoint-2").write_text("in the way", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match=r"cannot write .*\.checkpoints: .*; choose another --out"):
        _run(bases["llama"], tmp_path / "tuned", _config(checkpoint_steps=2))


def test_folder_in_use_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    caught: list[LmdissectError] = []

    def second_run() -> None:
        try:
            _run(bases["llama"], tmp_path / "tuned", _config())
        except LmdissectError as error:
            caught.append(error)

    _run(bases["llama"], tmp_path / "tuned", _config(), progress=_Watch(1, second_run))
    assert [type(error) for error in caught] == [OutputLockedError]


# --- stopped and resumed -------------------------------------------------------------------------------------------------------------------------

RESUMED = {
    "full": ("gpt2-dropout", _config(batch_size=2, checkpoint_steps=2, epochs=1.5)),
    "lora": ("llama", _config(batch_size=2, checkpoint_steps=2, epochs=1.5, lora=LoraSettings(rank=4, dropout=0.3))),
}


@pytest.fixture(params=RESUMED)
def resumed(request: pytest.FixtureRequest, bases: dict[str, Path], uninterrupted: dict[str, Path]) -> tuple[Path, FinetuneConfig, Path]:
    """Base and settings of a run with dropout and eight steps, and the folder where it was never stopped."""
    family, config = RESUMED[request.param]
    return bases[family], config, uninterrupted[request.param]


@pytest.fixture(scope="module")
def uninterrupted(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, (family, config) in RESUMED.items():
        _run(bases[family], folder / name, config)
    return {name: folder / name for name in RESUMED}


def _checkpoints(folder: Path) -> dict[str, bool]:
    """Checkpoints, and whether each is marked as whole."""
    return {path.name: (path / "complete.json").is_file() for path in (folder / ".checkpoints").iterdir()}


def _raise_interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("at_step", [3, 8])
def test_interrupt_keeps_the_step_and_resumes_exactly(resumed: tuple[Path, FinetuneConfig, Path], tmp_path: Path, at_step: int) -> None:
    base, config, expected = resumed
    with listen_for_interrupt() as stop, pytest.raises(InterruptedRunError, match=f"stopped after step {at_step}; run the same command again"):
        _run(base, tmp_path / "tuned", config, progress=_Watch(at_step, _raise_interrupt), stop=stop)
    assert _checkpoints(tmp_path / "tuned")[f"checkpoint-{at_step}"]
    watch = _Watch()
    _run(base, tmp_path / "tuned", config, progress=watch)
    assert watch.said == [f"going on from step {at_step} of 8"]
    _assert_same_runs(tmp_path / "tuned", expected)


def test_checkpoint_without_its_mark_is_not_used(resumed: tuple[Path, FinetuneConfig, Path], tmp_path: Path) -> None:
    base, config, expected = resumed
    with listen_for_interrupt() as stop, pytest.raises(InterruptedRunError):
        _run(base, tmp_path / "tuned", config, progress=_Watch(3, _raise_interrupt), stop=stop)
    assert _checkpoints(tmp_path / "tuned") == {"checkpoint-2": True, "checkpoint-3": True}
    torn = tmp_path / "tuned" / ".checkpoints" / "checkpoint-3"
    (torn / "complete.json").unlink()
    for path in torn.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    watch = _Watch()
    _run(base, tmp_path / "tuned", config, progress=watch)
    assert watch.said == ["going on from step 2 of 8"]
    _assert_same_runs(tmp_path / "tuned", expected)


def test_torn_checkpoints_alone_mean_a_fresh_start(resumed: tuple[Path, FinetuneConfig, Path], tmp_path: Path) -> None:
    base, config, expected = resumed
    with listen_for_interrupt() as stop, pytest.raises(InterruptedRunError):
        _run(base, tmp_path / "tuned", config, progress=_Watch(1, _raise_interrupt), stop=stop)
    (tmp_path / "tuned" / ".checkpoints" / "checkpoint-1" / "complete.json").unlink()
    watch = _Watch()
    _run(base, tmp_path / "tuned", config, progress=watch)
    assert watch.said == []
    _assert_same_runs(tmp_path / "tuned", expected)


def _stopped(base: Path, folder: Path, config: FinetuneConfig, at_step: int, **more: Any) -> None:
    with listen_for_interrupt() as stop, pytest.raises(InterruptedRunError):
        _run(base, folder, config, progress=_Watch(at_step, _raise_interrupt), stop=stop, **more)


def test_a_damaged_checkpoint_with_its_mark_is_not_used(resumed: tuple[Path, FinetuneConfig, Path], tmp_path: Path) -> None:
    """The Trainer would not notice: without optimizer.pt it begins with a new optimiser."""
    base, config, expected = resumed
    _stopped(base, tmp_path / "tuned", config, 3)
    damaged = tmp_path / "tuned" / ".checkpoints" / "checkpoint-3"
    (damaged / "optimizer.pt").unlink()
    watch = _Watch()
    _run(base, tmp_path / "tuned", config, progress=watch)
    assert watch.said == [f"{damaged} is not used and removed: its optimizer.pt is missing or damaged", "going on from step 2 of 8"]
    _assert_same_runs(tmp_path / "tuned", expected)


def test_checkpoints_of_another_run_are_not_used(bases: dict[str, Path], tmp_path: Path) -> None:
    """`rm -rf OUT/*` leaves hidden names behind."""
    _stopped(bases["llama"], tmp_path / "tuned", _config(batch_size=2), 3)
    for path in (tmp_path / "tuned").glob("[!.]*"):
        path.unlink()
    watch = _Watch()
    other = _config(batch_size=2, learning_rate=5e-3)
    _run(bases["llama"], tmp_path / "tuned", other, DOCUMENTS[::-1], progress=watch)
    there = tmp_path / "tuned" / ".checkpoints" / "checkpoint-3"
    assert watch.said == [f"{there} is not used and removed: it belongs to a run with other settings or inputs"]
    _run(bases["llama"], tmp_path / "fresh", other, DOCUMENTS[::-1])
    _assert_same_runs(tmp_path / "tuned", tmp_path / "fresh")


def test_two_checkpoints_are_kept(bases: dict[str, Path], tmp_path: Path) -> None:
    _stopped(bases["llama"], tmp_path / "tuned", _config(batch_size=2, checkpoint_steps=1), 5)
    assert _checkpoints(tmp_path / "tuned") == {"checkpoint-4": True, "checkpoint-5": True}


@pytest.mark.parametrize("held_out", [HELD_OUT, [Document("h0", "")]], ids=["some", "none with a target"])
def test_what_was_measured_before_is_known_after_a_stop(bases: dict[str, Path], tmp_path: Path, held_out: Sequence[Document]) -> None:
    config = _config(skip_first_tokens=1, append_eos=False)
    whole = _run(bases["llama"], tmp_path / "whole", config, held_out=held_out)
    _stopped(bases["llama"], tmp_path / "tuned", config, 2, held_out=held_out)
    tuned = _run(bases["llama"], tmp_path / "tuned", config, held_out=held_out)
    assert (tuned.held_out_before is None) == (held_out is not HELD_OUT)
    assert (tuned.held_out_before, tuned.held_out_after) == (whole.held_out_before, whole.held_out_after)


def test_half_done_run_of_other_settings_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    with listen_for_interrupt() as stop, pytest.raises(InterruptedRunError):
        _run(bases["llama"], tmp_path / "tuned", _config(), progress=_Watch(1, _raise_interrupt), stop=stop)
    with pytest.raises(StaleArtifactError, match="learning_rate"):
        _run(bases["llama"], tmp_path / "tuned", _config(learning_rate=5e-3))


_KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from test_finetune import FinetuneConfig, _Watch, _run
def hang():
    print("hanging", flush=True)
    time.sleep(600)
_run(Path(sys.argv[3]), Path(sys.argv[4]), FinetuneConfig.model_validate_json(sys.argv[5]), progress=_Watch(int(sys.argv[6]), hang))
"""


@pytest.fixture
def killed_at() -> Iterator[Callable[[Path, Path, FinetuneConfig, int], None]]:
    """Start a run in a process of its own, and kill it with SIGKILL when a step is done (and no checkpoint of that step written yet)."""
    started: list[subprocess.Popen[str]] = []

    def kill_at(base: Path, folder: Path, config: FinetuneConfig, step: int) -> None:
        here = Path(__file__).resolve().parent
        arguments = [str(here), str(here.parent), str(base), str(folder), config.model_dump_json(), str(step)]
        process = subprocess.Popen([sys.executable, "-c", _KILLED, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()

    yield kill_at
    for process in started:
        process.kill()


@pytest.mark.slow
def test_killed_run_resumes_exactly(
    resumed: tuple[Path, FinetuneConfig, Path], tmp_path: Path, killed_at: Callable[[Path, Path, FinetuneConfig, int], None]
) -> None:
    """Same losses, rates and weights, bit by bit, though four of eight steps were made by a process that was killed."""
    base, config, expected = resumed
    killed_at(base, tmp_path / "tuned", config, 6)
    assert _checkpoints(tmp_path / "tuned") == {"checkpoint-2": True, "checkpoint-4": True}
    assert not (tmp_path / "tuned" / "manifest.json").exists()
    watch = _Watch()
    _run(base, tmp_path / "tuned", config, progress=watch)
    assert watch.said == ["going on from step 4 of 8"]
    _assert_same_runs(tmp_path / "tuned", expected)
