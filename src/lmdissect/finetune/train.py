"""One finetuning run as an artifact: resumable, its settings in the manifest, the tuned model as a plain Hugging Face folder or PEFT adapter."""

import json
import math
import random  # noqa: TID251 - only to leave its state as it was
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from lmdissect.errors import InterruptedRunError, NonFiniteLossError, NothingToDoError, RunFailedError, UserInputError
from lmdissect.finetune.batches import TokenizedCorpus, collate, order_documents, tokenize_corpus
from lmdissect.finetune.config import FinetuneConfig, LoraSettings
from lmdissect.finetune.loss import sum_nll_nats
from lmdissect.finetune.trainer import TrainingRun, run_training
from lmdissect.interrupts import StopRequest
from lmdissect.models import LoadOptions, ResolvedModel, TextTokenizer, fingerprint_model, load_model, load_tokenizer
from lmdissect.models.head import position_limit, separate_head
from lmdissect.models.load import quiet_transformers
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import Document
from lmdissect.store import ArtifactFolder, fingerprint, hash_text, open_artifact, output_guard

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["FinetuneSummary", "finetune"]

_CHECKPOINTS = ".checkpoints"
_MIN_MOVED_FRACTION = 1e-3


@dataclass(frozen=True, slots=True)
class FinetuneSummary:
    """What a run did.

    Attributes:
        folder: Where the tuned model is; a model reference.
        reused: Whether a finished run was found there.
        num_steps: Optimiser steps.
        num_target_tokens: Tokens learned from, over all passes.
        held_out_before: Pooled loss of the held-out documents under the base, nats per token, or None without held-out documents.
        held_out_after: The same under the tuned model.
    """

    folder: Path
    reused: bool
    num_steps: int
    num_target_tokens: int
    held_out_before: float | None
    held_out_after: float | None


def finetune(
    base: ResolvedModel,
    documents: Sequence[Document],
    config: FinetuneConfig,
    folder: Path,
    *,
    held_out: Sequence[Document] = (),
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> FinetuneSummary:
    """Finetune ``base`` on ``documents`` and write the tuned model to ``folder``.

    The loss of an optimiser step is the sum of -log p over all target tokens of its documents, divided by their number, whatever the micro-batch
    size. Weights are float32; on CUDA the arithmetic is bfloat16 by autocast. Run again after a kill, it goes on from the last whole checkpoint with
    the same documents, optimiser state and schedule.

    Args:
        base: The model to start from.
        documents: The training corpus.
        config: All settings.
        folder: Output folder; afterwards a model reference (a full model, or an adapter that names its base).
        held_out: Documents whose loss is measured before and after, never trained on.
        progress: Where to report.
        stop: Looked at after every step; when set, a checkpoint is written and the run ends.

    Raises:
        UserInputError: The base is an adapter and another one is asked for, its targets or the device cannot be used, or documents are longer than the model
            allows.
        NothingToDoError: No document has a token to learn.
        NonFiniteLossError: The loss or the weights became NaN or infinite; the checkpoint before it is kept.
        RunFailedError: Training left the weights where they were.
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds a run with other settings or inputs.
    """
    _refuse_second_adapter(base, config)
    shown = progress or SilentProgress()
    inputs = {
        "base": fingerprint_model(base).to_json(),
        "corpus": _hash_documents(documents),
        "held_out": _hash_documents(held_out),
    }
    settings = {"base": base.reference, **config.model_dump(mode="json"), "device": str(_one_device(config))}
    with open_artifact(folder, stage="finetune", config=settings, inputs=inputs) as artifact:
        if artifact.finished is not None:
            shown.say(f"{folder}: finished before with the same settings and inputs; reused")
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)  # a kill may have come between the manifest and this
            return _summary(folder, artifact.finished.details, reused=True)
        for line in artifact.describe_damage():
            shown.say(line)
        return _train(artifact, base, documents, config, held_out, shown, StopRequest() if stop is None else stop)


def _refuse_second_adapter(base: ResolvedModel, config: FinetuneConfig) -> None:
    if config.lora is not None and base.adapter_folder is not None:
        message = f"{base.reference}: an adapter cannot stand on another one: merge the first into its base, or train all weights"
        raise UserInputError(message)


def _hash_documents(documents: Sequence[Document]) -> str:
    return fingerprint([hash_text(f"{document.document_id}\0{document.text}") for document in documents])


def _train(
    artifact: ArtifactFolder,
    base: ResolvedModel,
    documents: Sequence[Document],
    config: FinetuneConfig,
    held_out: Sequence[Document],
    progress: Progress,
    stop: StopRequest,
) -> FinetuneSummary:
    tokenizer = TextTokenizer(load_tokenizer(base), config.bos)
    corpus = tokenize_corpus(documents, tokenizer, config)
    if not corpus.sequences:
        message = f"none of the {len(documents)} documents has a token to learn (skip_first_tokens {config.skip_first_tokens})"
        raise NothingToDoError(message)
    held_out_corpus = tokenize_corpus(held_out, tokenizer, config) if held_out else None
    run = _prepare(base, corpus, held_out_corpus, config, artifact.folder / _CHECKPOINTS)
    before = _held_out_loss(run, held_out_corpus)
    start = _snapshot(run.trained)
    with output_guard(artifact.folder), quiet_transformers(), _random_state_kept():
        history = run_training(run, progress, stop)
    if stop:
        message = f"stopped after step {history[-1]['step'] if history else 0}; run the same command again to go on from there"
        raise InterruptedRunError(message)
    _check_finite(run.trained, config)
    moved = _moved_fraction(run.trained, start)
    if moved < _MIN_MOVED_FRACTION:
        message = f"training moved only {moved:.2%} of the trained weights (learning rate {config.peak_learning_rate:g}): raise the learning rate"
        raise RunFailedError(message)
    after = _held_out_loss(run, held_out_corpus)
    _save(artifact, run.trained, tokenizer, base.reference)
    details = {
        "num_steps": len(history),
        "num_target_tokens": sum(len(corpus.sequences[index]) - corpus.num_ignored for index in run.order),
        "learning_rate": config.peak_learning_rate,
        "moved_fraction": moved,
        "held_out_loss_before_nats": before,
        "held_out_loss_after_nats": after,
        "device": str(run.device),
        "num_threads": torch.get_num_threads(),
        "loss_path": "backbone and chunked head" if run.head else "model.forward",
    }
    counts = {
        "documents": len(corpus.sequences),
        "documents_truncated": corpus.num_truncated,
        "documents_too_short": corpus.num_too_short,
        "held_out_documents": len(held_out_corpus.sequences) if held_out_corpus else 0,
    }
    artifact.write_table("training_steps.parquet", pa.Table.from_pylist(history))
    artifact.finish(counts=counts, details=details)
    shutil.rmtree(artifact.folder / _CHECKPOINTS, ignore_errors=True)
    return _summary(artifact.folder, details, reused=False)


def _prepare(
    base: ResolvedModel, corpus: TokenizedCorpus, held_out: TokenizedCorpus | None, config: FinetuneConfig, checkpoints: Path
) -> TrainingRun:
    """Load the base in float32, take its head apart, put adapters on it, draw the order of documents."""
    device = _one_device(config)
    model = load_model(base, LoadOptions("float32", "cpu")).model.requires_grad_(requires_grad=True)  # a merged adapter leaves it frozen
    _check_lengths(model, corpus, held_out)
    head = separate_head(model)
    trained = _with_adapter(model, config.lora, config.seed) if config.lora else model
    trained.to(device)  # type: ignore[arg-type]
    if config.gradient_checkpointing:
        _recompute_activations(model)
    return TrainingRun(trained, model, head, corpus, order_documents(corpus, config), config, device, checkpoints)


def _summary(folder: Path, details: dict[str, Any], *, reused: bool) -> FinetuneSummary:
    return FinetuneSummary(
        folder=folder,
        reused=reused,
        num_steps=details["num_steps"],
        num_target_tokens=details["num_target_tokens"],
        held_out_before=details["held_out_loss_before_nats"],
        held_out_after=details["held_out_loss_after_nats"],
    )


def _one_device(config: FinetuneConfig) -> torch.device:
    device = LoadOptions(device=config.device).torch_device()
    if device.type == "cuda" and device.index:  # the Trainer would take the first one
        message = f"--device {config.device}: set CUDA_VISIBLE_DEVICES={device.index} and give --device cuda"
        raise UserInputError(message)
    return device


def _recompute_activations(model: Any) -> None:  # noqa: ANN401 - the method's name depends on the version of transformers
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _check_lengths(model: "PreTrainedModel", *corpora: TokenizedCorpus | None) -> None:
    limit = position_limit(model)
    longest = max(len(sequence) for corpus in corpora if corpus is not None for sequence in corpus.sequences)
    if limit is not None and longest > limit:
        message = f"a document takes {longest} positions with its BOS and EOS, and the model has {limit}: lower max_tokens to {limit - 2}"
        raise UserInputError(message)


def _check_finite(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """The loss shows broken weights one step later, and after the last step there is no later."""
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters() if parameter.requires_grad):
        message = f"weights became NaN or infinite in the last step (learning rate {config.peak_learning_rate:g}): lower the learning rate"
        raise NonFiniteLossError(message)


def _with_adapter(model: "PreTrainedModel", lora: LoraSettings, seed: int) -> "PeftModel":
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - heavy
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.scale_numerator,  # type: ignore[arg-type]  # peft accepts a float; the annotation is narrower
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=list(lora.targets) if lora.targets else "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2 stores weights transposed
    )
    with quiet_transformers(), torch.random.fork_rng(devices=[]):  # adapters are drawn on the CPU
        torch.default_generator.manual_seed(seed)
        try:
            wrapped: PeftModel = get_peft_model(model, settings)
        except ValueError as error:
            message = f"LoRA targets {', '.join(lora.targets or ())}: {' '.join(str(error).split())[:120]}"
            raise UserInputError(message) from error
    if any(isinstance(layer, BaseTunerLayer) for layer in (model.get_input_embeddings(), model.get_output_embeddings())):
        message = f"LoRA targets {', '.join(lora.targets or ())}: leave the embeddings and the output head out, they may be one matrix"
        raise UserInputError(message)
    return wrapped


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the global generators back after the block: the Trainer seeds Python's, numpy's and torch's."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _held_out_loss(run: TrainingRun, corpus: TokenizedCorpus | None) -> float | None:
    """Pooled loss: sum of nats over all target tokens / their number."""
    if corpus is None or not corpus.sequences:
        return None
    ordered = sorted(corpus.sequences, key=len)
    total_nats = 0.0
    training = run.model.training
    run.model.eval()
    with torch.no_grad():
        for start in range(0, len(ordered), run.config.micro_batch_size):
            batch = collate(ordered[start : start + run.config.micro_batch_size], corpus.num_ignored)
            total_nats += float(sum_nll_nats(run.model, run.head, batch["input_ids"].to(run.device), batch["labels"].to(run.device)))
    run.model.train(training)
    loss_nats = total_nats / corpus.num_target_tokens
    if not math.isfinite(loss_nats):
        message = f"the held-out loss is {loss_nats}: the model has broken weights"
        raise NonFiniteLossError(message)
    return loss_nats


def _snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A fixed spread of values of every trained parameter: enough to see whether it moved, small enough to keep."""
    limit = 4096
    return {
        name: parameter.detach().flatten()[:: max(1, parameter.numel() // limit)].clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _moved_fraction(model: torch.nn.Module, start: dict[str, torch.Tensor]) -> float:
    now = _snapshot(model)
    changed = sum(int((now[name] != start[name]).sum()) for name in start)
    return changed / sum(values.numel() for values in start.values())


def _save(artifact: ArtifactFolder, model: "PreTrainedModel | PeftModel", tokenizer: TextTokenizer, base_reference: str) -> None:
    """Save to a temporary folder, then move file by file: a model file in the artifact is always whole."""
    with output_guard(artifact.folder), quiet_transformers(), tempfile.TemporaryDirectory(prefix=".tmp-", dir=artifact.folder) as name:
        temporary = Path(name)
        model.save_pretrained(str(temporary))
        tokenizer.tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's generated card says nothing the manifest does not
        adapter_config = temporary / "adapter_config.json"
        if adapter_config.is_file():
            settings = json.loads(adapter_config.read_text(encoding="utf-8"))
            settings["base_model_name_or_path"] = _from_anywhere(
                base_reference
            )  # it held the folder, where peft compares vocabularies without asking the hub
            adapter_config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            file.replace(artifact.folder / file.name)


def _from_anywhere(reference: str) -> str:
    """A folder or file as an absolute path, so that the adapter finds its base whatever folder a later command is run in; any other reference as it is."""
    path = Path(reference)
    return str(path.resolve()) if path.exists() else reference
