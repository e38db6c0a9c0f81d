"""Training where memory is short, where arithmetic is coarse, and where weights would not move."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from lmdissect.errors import InterruptedRunError, OutOfMemoryError, RunFailedError, UserInputError
from lmdissect.finetune import FinetuneConfig, FinetuneSummary, LoraSettings, finetune
from lmdissect.finetune.batches import tokenize_corpus
from lmdissect.finetune.steps import Memory, StepRunner
from lmdissect.interrupts import StopRequest
from lmdissect.models import LoadOptions, TextTokenizer, load_model, resolve_model
from lmdissect.progress import SilentProgress
from lmdissect.records import Document
from lmdissect.store import read_artifact
from tiny_models import SENTENCES, save_tiny_gemma2, save_tiny_gpt2, save_tiny_llama

DOCUMENTS = [Document(f"d{number}", (text * 2)[: 8 + 17 * number % 90]) for number, text in enumerate(SENTENCES)]


def _config(**settings: object) -> FinetuneConfig:
    defaults = {
        "batch_size": 4,
        "micro_batch_tokens": 120,
        "max_tokens": 60,
        "device": "cpu",
        "learning_rate": 1e-3,
        "epochs": 1.6,
        "checkpoint_steps": 2,
    }
    return FinetuneConfig.model_validate({**defaults, **settings})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "llama": save_tiny_llama(folder / "llama", seed=0),
        "gpt2-dropout": save_tiny_gpt2(folder / "gpt2", seed=3),
        "gemma2": save_tiny_gemma2(folder / "gemma2", seed=4),
    }


@dataclasses.dataclass
class _Said(SilentProgress):
    said: list[str] = dataclasses.field(default_factory=list)

    def say(self, message: str) -> None:
        self.said.append(message)


class _SmallMemory(TrainerCallback):
    """A machine whose memory holds so many tokens of one forward pass: more raise what torch raises, before it or on the way back."""

    def __init__(
        self,
        max_tokens: int,
        error: Callable[[], Exception],
        *,
        on_the_way_back: bool = False,
        needs_recompute: bool = False,
        measuring: bool = False,
    ) -> None:
        self._max_tokens = max_tokens
        self._error = error
        self._on_the_way_back = on_the_way_back
        self._needs_recompute = needs_recompute
        self._measuring = measuring
        self.num_failures = 0

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **_kwargs: Any) -> None:
        model.register_forward_hook(self._fill, with_kwargs=True)

    def _fill(self, model: Any, _arguments: Any, named: dict[str, Any], output: Any) -> None:
        recomputed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        fits = named["micro_batch"].input_ids_BT.numel() <= self._max_tokens and (recomputed or not self._needs_recompute)
        if model.training is not self._measuring and not fits:
            if self._on_the_way_back:
                output.register_hook(self._fail)
            else:
                self._fail(output)

    def _fail(self, _tensor: torch.Tensor) -> None:
        self.num_failures += 1
        raise self._error()


def _cuda_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _cpu_error() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def _run(base: Path, folder: Path, config: FinetuneConfig, callbacks: Sequence[TrainerCallback] = (), **more: Any) -> FinetuneSummary:
    return finetune(resolve_model(str(base)), DOCUMENTS, config, folder, callbacks=callbacks, **more)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


def _assert_same_runs(folder: Path, expected: Path) -> None:
    """Bit by bit: every column of every step, and every weight."""
    here, there = (pq.read_table(path / "training_steps.parquet").to_pydict() for path in (folder, expected))
    assert here == there
    left, right = _weights(folder), _weights(expected)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in right)


@pytest.mark.parametrize("packing", ["on", "off"])
@pytest.mark.parametrize(("error", "on_the_way_back"), [(_cuda_error, False), (_cpu_error, True)])
def test_out_of_memory_halves_the_micro_batch_and_begins_the_step_again(
    bases: dict[str, Path], tmp_path: Path, packing: str, error: Callable[[], Exception], on_the_way_back: bool
) -> None:
    """Bit by bit the run that had half from the beginning, dropout included: nothing of the failed attempt is left."""
    config = _config(packing=packing, lora=LoraSettings(rank=4, dropout=0.3))
    memory = _SmallMemory(60, error, on_the_way_back=on_the_way_back)
    said = _Said()
    _run(bases["llama"], tmp_path / "small", config, [memory], progress=said)
    assert memory.num_failures == 1
    assert len(said.said) == 1
    assert "memory ran out in step 1" in said.said[0]
    tokens = read_artifact(tmp_path / "small", "finetune").details["micro_batch_tokens"]
    assert 40 <= tokens <= 60
    _run(bases["llama"], tmp_path / "half", config.model_copy(update={"micro_batch_tokens": tokens}))
    _assert_same_runs(tmp_path / "small", tmp_path / "half")


def test_the_smaller_micro_batch_is_taken_up_with_the_checkpoint(bases: dict[str, Path], tmp_path: Path) -> None:
    """After a stop there is memory again; the run still goes on as it would have without the stop, dropout included."""
    stop = StopRequest()

    class StopAt3(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            stop.asked = state.global_step == 2

    with pytest.raises(InterruptedRunError):
        _run(bases["gpt2-dropout"], tmp_path / "stopped", _config(), [_SmallMemory(60, _cpu_error), StopAt3()], stop=stop)
    _run(bases["gpt2-dropout"], tmp_path / "stopped", _config())
    _run(bases["gpt2-dropout"], tmp_path / "whole", _config(), [_SmallMemory(60, _cpu_error)])
    _assert_same_runs(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_one_document_that_does_not_fit_has_its_activations_computed_again(bases: dict[str, Path], tmp_path: Path, lora: LoraSettings | None) -> None:
    config = _config(micro_batch_tokens=1, lora=lora)
    said = _Said()
    _run(bases["llama"], tmp_path / "small", config, [_SmallMemory(1000, _cpu_error, needs_recompute=True)], progress=said)
    assert "activations are computed twice from here on" in said.said[0]
    assert read_artifact(tmp_path / "small", "finetune").details["gradient_checkpointing"] is True
    _run(bases["llama"], tmp_path / "plain", config)
    _assert_same_runs(tmp_path / "small", tmp_path / "plain")


@pytest.mark.parametrize(
    ("settings", "cures"),
    [
        ({}, ["lower max_tokens (now 60)", "train adapters"]),
        ({"gradient_checkpointing": "off", "lora": {"rank": 2}}, ["lower max_tokens (now 60)", "set gradient_checkpointing to on"]),
    ],
)
def test_one_document_that_never_fits_is_a_failure_with_cures(
    bases: dict[str, Path], tmp_path: Path, settings: dict[str, Any], cures: list[str]
) -> None:
    with pytest.raises(RunFailedError, match=r"one document of \d+ tokens does not fit in memory \(step 1\)") as caught:
        _run(bases["llama"], tmp_path / "tuned", _config(**settings), [_SmallMemory(3, _cuda_error)])
    assert all(cure in str(caught.value) for cure in cures)
    assert not (tmp_path / "tuned" / "manifest.json").exists()


def test_memory_that_runs_out_in_the_held_out_documents_is_halved_too(bases: dict[str, Path], tmp_path: Path) -> None:
    held_out = DOCUMENTS[:4]
    memory, said = _SmallMemory(60, _cuda_error, measuring=True), _Said()
    small = _run(bases["llama"], tmp_path / "small", _config(), [memory], progress=said, held_out=held_out)
    assert memory.num_failures == 1
    assert len(said.said) == 1
    assert "memory ran out in the held-out documents: " in said.said[0]
    tokens = read_artifact(tmp_path / "small", "finetune").details["micro_batch_tokens"]
    assert tokens <= 60
    half = _run(bases["llama"], tmp_path / "half", _config(micro_batch_tokens=tokens), held_out=held_out)
    assert (small.held_out_before, small.held_out_after) == (half.held_out_before, half.held_out_after)
    _assert_same_runs(tmp_path / "small", tmp_path / "half")


def test_a_held_out_document_that_never_fits_is_a_failure_with_cures(bases: dict[str, Path], tmp_path: Path) -> None:
    told = r"one document of \d+ tokens does not fit in memory \(the held-out documents\): lower max_tokens \(now 60\), or train adapters"
    with pytest.raises(OutOfMemoryError, match=told):
        _run(bases["llama"], tmp_path / "tuned", _config(), [_SmallMemory(3, _cuda_error, measuring=True)], held_out=DOCUMENTS[:4])


@pytest.mark.parametrize(
    ("event", "told"),
    [("on_pre_optimizer_step", "memory ran out in the optimiser, which keeps two numbers"), ("on_step_begin", "memory ran out outside the passes")],
)
def test_the_optimiser_is_blamed_for_what_it_needs_alone(bases: dict[str, Path], tmp_path: Path, event: str, told: str) -> None:
    def fail(*_arguments: Any, **_named: Any) -> None:
        raise _cuda_error()

    callback = TrainerCallback()
    setattr(callback, event, fail)
    with pytest.raises(OutOfMemoryError, match=told):
        _run(bases["llama"], tmp_path / "tuned", _config(), [callback])


def test_what_several_processes_are_told_helps_where_one_document_does_not_fit(bases: dict[str, Path]) -> None:
    """They cannot halve by themselves; below one document a smaller micro batch is no cure."""
    resolved, config = resolve_model(str(bases["llama"])), _config()
    loaded = load_model(resolved, LoadOptions("float32", "cpu"))
    corpus = tokenize_corpus(DOCUMENTS, TextTokenizer(loaded.tokenizer, "auto"), config)
    for tokens, cure in ((200, "lower micro_batch_tokens (now 200)"), (1, "set gradient_checkpointing to on, or train adapters")):
        runner = StepRunner(loaded.model, corpus, config, torch.device("cpu"), True, Memory(tokens, recompute=False), _Said())
        assert cure in str(runner._alone_needed(corpus.sequences, "step 1", backward=True))


def test_other_errors_are_not_taken_for_memory(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a broken kernel"):
        _run(bases["llama"], tmp_path / "tuned", _config(), [_SmallMemory(3, lambda: RuntimeError("a broken kernel"))])


# --- packing -------------------------------------------------------------------------------------------------------------------------------------


def test_a_family_that_cannot_be_packed_is_padded_and_says_so(bases: dict[str, Path], tmp_path: Path) -> None:
    said = _Said()
    _run(bases["gemma2"], tmp_path / "tuned", _config(), progress=said)
    assert said.said == ["documents are padded, not packed: Gemma2ForCausalLM: its attention has a softcap"]
    details = read_artifact(tmp_path / "tuned", "finetune").details
    assert (details["batches"], details["not_packed_because"]) == ("padded", "its attention has a softcap")
    with pytest.raises(UserInputError, match="--packing on: Gemma2ForCausalLM cannot have several documents in a row: its attention has a softcap"):
        _run(bases["gemma2"], tmp_path / "forced", _config(packing="on"))


@pytest.mark.parametrize(("packing", "batches", "because"), [("auto", "packed", None), ("on", "packed", None), ("off", "padded", "switched off")])
def test_how_documents_were_laid_out_is_recorded(bases: dict[str, Path], tmp_path: Path, packing: str, batches: str, because: str | None) -> None:
    _run(bases["llama"], tmp_path / "tuned", _config(packing=packing))
    details = read_artifact(tmp_path / "tuned", "finetune").details
    assert (details["batches"], details["not_packed_because"]) == (batches, because)


def test_the_model_is_left_as_it_was_for_whoever_looks_at_it_between_steps(bases: dict[str, Path], tmp_path: Path) -> None:
    """A callback that scores while training gets the model's own forward and attention."""
    seen: list[torch.Tensor] = []

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_kwargs: Any) -> None:
            self.on_step_end(args, state, control, model=model)

        def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_kwargs: Any) -> None:
            assert model.config._attn_implementation == "sdpa"
            with torch.no_grad():
                seen.append(model(input_ids=torch.tensor([[0, 5, 6, 7]]), use_cache=False).logits)

    _run(bases["llama"], tmp_path / "tuned", _config(packing="on"), [Look()])
    base, tuned = (load_model(resolve_model(str(path)), LoadOptions("float32", "cpu")).model for path in (bases["llama"], tmp_path / "tuned"))
    with torch.no_grad():
        for model, logits in ((base, seen[0]), (tuned, seen[-1])):
            torch.testing.assert_close(model(input_ids=torch.tensor([[0, 5, 6, 7]]), use_cache=False).logits, logits)
    assert len(seen) == 1 + 4


# --- precision and guards ------------------------------------------------------------------------------------------------------------------------


def _distance(folder: Path, base: Path) -> float:
    start = load_file(base / "model.safetensors")
    return float(torch.stack([(weight - start[name]).norm() for name, weight in _weights(folder).items()]).norm())


def test_small_steps_in_bfloat16_move_float32_weights_as_far_as_float32_does(bases: dict[str, Path], tmp_path: Path) -> None:
    """At the paper's 3e-6. Weights that are themselves bfloat16 would stay where they are: the reason for float32 ones."""
    config = _config(learning_rate=3e-6, epochs=4, warmup_fraction=0.0)
    for precision in ("float32", "bfloat16"):
        _run(bases["llama"], tmp_path / precision, config.model_copy(update={"precision": precision}))
    exact, coarse = (_distance(tmp_path / precision, bases["llama"]) for precision in ("float32", "bfloat16"))
    assert coarse == pytest.approx(exact, rel=0.05)
    assert not torch.equal(*(_weights(tmp_path / precision)["model.norm.weight"] for precision in ("float32", "bfloat16")))
    assert all(weight.dtype == torch.float32 for weight in _weights(tmp_path / "bfloat16").values())
    assert read_artifact(tmp_path / "bfloat16", "finetune").details["precision"] == "bfloat16"

    model: Any = load_model(resolve_model(str(bases["llama"])), LoadOptions("bfloat16", "cpu")).model
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-6, weight_decay=0.0)
    for _ in range(10):
        optimizer.zero_grad()
        ids = torch.arange(40)[None]
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1].float(), ids[0, 1:]).backward()
        optimizer.step()
    moved = torch.stack([(now.float() - before.float()).norm() for now, before in zip(model.parameters(), start, strict=True)]).norm().detach()
    assert float(moved) < 0.5 * exact


def test_weights_that_do_not_move_end_the_run_after_ten_steps(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"moved only 0\.0.% of the trained weights \(learning rate 1e-12\): raise the learning rate"):
        _run(bases["llama"], tmp_path / "tuned", _config(learning_rate=1e-12, batch_size=1, epochs=4, checkpoint_steps=4))
    assert {path.name for path in (tmp_path / "tuned" / ".checkpoints").iterdir()} == {"checkpoint-4", "checkpoint-8"}
