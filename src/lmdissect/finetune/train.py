"""One finetuning run as an artifact: resumable, its settings in the manifest, the tuned model as a plain Hugging Face folder or PEFT adapter."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from lmdissect.errors import InterruptedRunError, NothingToDoError, UserInputError
from lmdissect.finetune.adapters import add_adapter
from lmdissect.finetune.batches import TokenizedCorpus, order_documents, tokenize_corpus
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.packed_attention import find_packing_fault
from lmdissect.finetune.steps import Memory
from lmdissect.finetune.trainer import TrainingOutcome, TrainingRun, run_training
from lmdissect.interrupts import StopRequest
from lmdissect.models import LoadOptions, ResolvedModel, TextTokenizer, fingerprint_model, fingerprint_tokenizer, load_model, load_tokenizer
from lmdissect.models.head import Head, position_limit, separate_head
from lmdissect.models.load import quiet_transformers
from lmdissect.models.processes import ask_main_process, is_main_process, num_processes
from lmdissect.models.random_state import random_states_kept
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import Document
from lmdissect.store import ArtifactFolder, artifact_key, fingerprint, hash_text, open_artifact, output_guard, replace_folder, sync_path

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, TrainerCallback

__all__ = ["FinetuneSummary", "finetune"]

_CHECKPOINTS = ".checkpoints"
_MICRO_BATCH_TOKENS = {"cpu": 640, "cuda": 16_384}
"""Tokens of one forward pass where none are named. On a CPU more cost memory and gain next to nothing; on a GPU memory is what sets the limit."""


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


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for: the arguments of `finetune`, and the key that they make."""

    base: ResolvedModel
    documents: Sequence[Document]
    held_out: Sequence[Document]
    config: FinetuneConfig
    callbacks: Sequence["TrainerCallback"]
    folder: Path
    key: str


def finetune(
    base: ResolvedModel,
    documents: Sequence[Document],
    config: FinetuneConfig,
    folder: Path,
    *,
    held_out: Sequence[Document] = (),
    callbacks: Sequence["TrainerCallback"] = (),
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> FinetuneSummary:
    """Finetune ``base`` on ``documents`` and write the tuned model to ``folder``.

    The loss of an optimiser step is the sum of -log p over all target tokens of its documents, divided by their number, whatever the micro batch
    and the number of processes. Weights are float32; on CUDA the arithmetic is bfloat16 by autocast. Run again after a kill, it goes on from the last
    whole checkpoint with the same documents, optimiser state and schedule.

    Started by torchrun or `accelerate launch`, every process calls this with the same arguments; the main one writes, and all return the same.

    Args:
        base: The model to start from.
        documents: The training corpus.
        config: All settings.
        folder: Output folder; afterwards a model reference (a full model, or an adapter that names its base).
        held_out: Documents whose loss is measured before and after, never trained on.
        callbacks: Further callbacks for the Trainer; not part of what makes the run the same.
        progress: Where to report.
        stop: Looked at after every step; when set, a checkpoint is written and the run ends.

    Raises:
        UserInputError: The base is an adapter and another one is asked for, its targets or the device cannot be used, documents are longer than the model
            allows, packing is asked for and not proven right, or the number of processes changed where it must not.
        NothingToDoError: No document has a token to learn.
        NonFiniteLossError: The loss or the weights became NaN or infinite; the checkpoint before it is kept.
        RunFailedError: Training left the weights where they were.
        OutOfMemoryError: Not even one document fits in memory.
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds a run with other settings or inputs.
    """
    _refuse_second_adapter(base, config)
    shown = progress if progress is not None and is_main_process() else SilentProgress()
    inputs = {
        "base": fingerprint_model(base).to_json(),
        "tokenizer": fingerprint_tokenizer(load_tokenizer(base)),
        "corpus": _hash_documents(documents),
        "held_out": _hash_documents(held_out),
    }
    settings = {"base": base.reference, **config.model_dump(mode="json"), "device": str(_one_device(config))}
    with _artifact_of_main(folder, settings, inputs, shown) as (artifact, finished):
        if finished is not None:
            shown.say(f"{folder}: finished before with the same settings and inputs; reused")
            return _summary(folder, finished, reused=True)
        request = _Request(base, documents, held_out, config, callbacks, folder, artifact_key("finetune", settings, inputs))
        return _train(artifact, request, shown, StopRequest() if stop is None else stop)


@contextmanager
def _artifact_of_main(
    folder: Path, settings: dict[str, Any], inputs: dict[str, Any], progress: Progress
) -> Iterator[tuple[ArtifactFolder | None, dict[str, Any] | None]]:
    """The artifact, held by the main process alone, and the details of a finished one, which every process gets, as every process gets its errors."""
    with ExitStack() as held:
        opened: list[ArtifactFolder] = []

        def open_here() -> dict[str, Any] | None:
            artifact = held.enter_context(open_artifact(folder, stage="finetune", config=settings, inputs=inputs))
            opened.append(artifact)
            for line in artifact.describe_damage():
                progress.say(line)
            if artifact.finished is None:
                return None
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)  # a kill may have come between the manifest and this
            return artifact.finished.details

        finished = ask_main_process(open_here)
        yield (opened[0] if opened else None), finished


def _refuse_second_adapter(base: ResolvedModel, config: FinetuneConfig) -> None:
    if config.lora is not None and base.adapter_folder is not None:
        message = f"{base.reference}: an adapter cannot stand on another one: merge the first into its base, or train all weights"
        raise UserInputError(message)


def _hash_documents(documents: Sequence[Document]) -> str:
    return fingerprint([hash_text(f"{document.document_id}\0{document.text}") for document in documents])


def _train(artifact: ArtifactFolder | None, request: _Request, progress: Progress, stop: StopRequest) -> FinetuneSummary:
    folder, config = request.folder, request.config
    tokenizer = TextTokenizer(load_tokenizer(request.base), config.bos)
    corpus = tokenize_corpus(request.documents, tokenizer, config)
    if not corpus.sequences:
        skipped = "".join(f", {name} tokens" for name in config.skip_token_classes)
        message = f"none of the {len(request.documents)} documents has a token to learn (skip_first_tokens {config.skip_first_tokens}{skipped})"
        raise NothingToDoError(message)
    held_out = tokenize_corpus(request.held_out, tokenizer, config) if request.held_out else None
    run, fault = _prepare(request, corpus, held_out, progress)
    with quiet_transformers(), random_states_kept():
        outcome = run_training(run, progress, stop)
    if outcome.stopped:
        message = f"stopped after step {outcome.history[-1]['step'] if outcome.history else 0}; run the same command again to go on from there"
        raise InterruptedRunError(message)
    details = _details(run, outcome, fault)

    def write_here() -> None:
        assert artifact is not None  # noqa: S101 - the main process opened it
        _save(artifact, run.trained, outcome.state, tokenizer, request.base.reference)
        artifact.write_table("training_steps.parquet", pa.Table.from_pylist(outcome.history))
        artifact.finish(counts=_counts(corpus, held_out), details=details)
        shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)

    ask_main_process(write_here)
    return _summary(folder, details, reused=False)


def _details(run: TrainingRun, outcome: TrainingOutcome, fault: str | None) -> dict[str, Any]:
    return {
        "num_steps": len(outcome.history),
        "num_target_tokens": sum(run.corpus.sequences[index].num_targets for step in run.steps for index in step),
        "learning_rate": run.config.peak_learning_rate,
        "moved_fraction": outcome.moved_fraction,
        "held_out_loss_before_nats": outcome.held_out_before,
        "held_out_loss_after_nats": outcome.held_out_after,
        "device": str(run.device),
        "num_threads": torch.get_num_threads(),
        "num_processes": num_processes(),
        "distribution": outcome.distribution,
        "precision": str(run.dtype).removeprefix("torch."),
        "micro_batch_tokens": run.memory.micro_batch_tokens,
        "gradient_checkpointing": run.memory.recompute,
        "batches": "packed" if run.packed else "padded",
        "not_packed_because": fault,
        "loss_path": "backbone and chunked head" if run.head else "model.forward",
    }


def _counts(corpus: TokenizedCorpus, held_out: TokenizedCorpus | None) -> dict[str, int]:
    return {
        "documents": len(corpus.sequences),
        "documents_truncated": corpus.num_truncated,
        "documents_too_short": corpus.num_too_short,
        "held_out_documents": len(held_out.sequences) if held_out else 0,
        **{f"tokens_skipped_{name}": count for name, count in corpus.num_skipped_by_class.items()},
    }


def _prepare(request: _Request, corpus: TokenizedCorpus, held_out: TokenizedCorpus | None, progress: Progress) -> tuple[TrainingRun, str | None]:
    """Load the base in float32, take its head apart, put adapters on it, choose how documents share a pass, draw their order.

    Returns:
        The run, and why documents are not packed, where they are not.
    """
    config = request.config
    device = _one_device(config)
    model = load_model(request.base, LoadOptions("float32", "cpu")).model.requires_grad_(requires_grad=True)  # a merged adapter leaves it frozen
    longest = _check_lengths(model, corpus, held_out)
    head = separate_head(model)
    trained = add_adapter(model, config.lora, config.seed) if config.lora else model
    trained.to(device)  # type: ignore[arg-type]
    dtype = _dtype(config, device)
    fault = _packing_fault(model, head, longest, config, dtype, progress)
    run = TrainingRun(
        trained=trained,
        model=model,
        head=head,
        corpus=corpus,
        steps=order_documents(corpus, config),
        config=config,
        device=device,
        checkpoints=request.folder / _CHECKPOINTS,
        key=request.key,
        dtype=dtype,
        packed=fault is None,
        memory=Memory(config.micro_batch_tokens or _MICRO_BATCH_TOKENS.get(device.type, 4096), recompute=config.gradient_checkpointing == "on"),
        held_out=held_out,
        callbacks=request.callbacks,
    )
    return run, fault


def _packing_fault(
    model: "PreTrainedModel", head: Head | None, longest: int, config: FinetuneConfig, dtype: torch.dtype, progress: Progress
) -> str | None:
    """Why documents are not packed; None where they are."""
    if config.packing == "off":
        return "switched off"
    fault = find_packing_fault(model, head, longest, dtype=dtype)
    if fault is None:
        return None
    if config.packing == "on":
        message = f"--packing on: {type(model).__name__} cannot have several documents in a row: {fault}; use --packing auto"
        raise UserInputError(message)
    progress.say(f"documents are padded, not packed: {type(model).__name__}: {fault}")
    return fault


def _dtype(config: FinetuneConfig, device: torch.device) -> torch.dtype:
    """Of the arithmetic; the weights are float32 in every case."""
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


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


def _check_lengths(model: "PreTrainedModel", *corpora: TokenizedCorpus | None) -> int:
    """Length of the longest document; the model has a place for each of its tokens."""
    limit = position_limit(model)
    longest = max(len(sequence) for corpus in corpora if corpus is not None for sequence in corpus.sequences)
    if limit is not None and longest > limit:
        message = f"a document takes {longest} positions with its BOS and EOS, and the model has {limit}: lower max_tokens to {limit - 2}"
        raise UserInputError(message)
    return longest


def _save(
    artifact: ArtifactFolder,
    model: "PreTrainedModel | PeftModel",
    state: dict[str, torch.Tensor] | None,
    tokenizer: TextTokenizer,
    base_reference: str,
) -> None:
    """Save to a temporary folder, then move file by file: a model file in the artifact is always whole.

    Args:
        artifact: Where to.
        model: What was trained.
        state: Its weights where the model itself does not hold them whole.
        tokenizer: Saved beside it.
        base_reference: The base, as an adapter is to name it.
    """
    with output_guard(artifact.folder), quiet_transformers(), tempfile.TemporaryDirectory(prefix=".tmp-", dir=artifact.folder) as name:
        temporary = Path(name)
        model.save_pretrained(str(temporary), state_dict=state)
        tokenizer.tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's generated card says nothing the manifest does not
        adapter_config = temporary / "adapter_config.json"
        if adapter_config.is_file():
            settings = json.loads(adapter_config.read_text(encoding="utf-8"))
            settings["base_model_name_or_path"] = _from_anywhere(
                base_reference
            )  # it held the folder, where peft compares vocabularies without asking the hub
            adapter_config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for entry in temporary.iterdir():
            if entry.is_dir():  # chat templates of some tokenizers
                replace_folder(entry, artifact.folder / entry.name)
            else:
                sync_path(entry)  # the checkpoints are deleted once the manifest is there
                entry.replace(artifact.folder / entry.name)
        sync_path(artifact.folder)


def _from_anywhere(reference: str) -> str:
    """A folder or file as an absolute path, so that the adapter finds its base whatever folder a later command is run in; any other reference as it is."""
    path = Path(reference)
    return str(path.resolve()) if path.exists() else reference
