"""The Hugging Face Trainer, with our order of documents, our token-weighted loss, and checkpoints that are whole or not there."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmdissect.errors import NonFiniteLossError
from lmdissect.finetune.batches import TokenizedCorpus, collate
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.loss import sum_nll_nats
from lmdissect.interrupts import StopRequest
from lmdissect.models.head import Head
from lmdissect.progress import Progress, Task
from lmdissect.store import write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["TrainingRun", "run_training"]

_COMPLETE = "complete.json"
_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything one run of the Trainer needs.

    Attributes:
        trained: What the optimiser sees: the model, or the model wrapped in adapters.
        model: The model inside.
        head: Its backbone and head apart, or None.
        corpus: Token sequences.
        order: Document indices in training order.
        config: Settings.
        device: Where to train.
        checkpoints: Folder for checkpoints.
    """

    trained: "PreTrainedModel | PeftModel"
    model: "PreTrainedModel"
    head: Head | None
    corpus: TokenizedCorpus
    order: Sequence[int]
    config: FinetuneConfig
    device: torch.device
    checkpoints: Path

    @property
    def num_steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(len(self.order) / self.config.batch_size)


def run_training(run: TrainingRun, progress: Progress, stop: StopRequest) -> list[dict[str, Any]]:
    """Train, from the last whole checkpoint where there is one.

    Returns:
        One row per step: step, loss_nats (mean over the step's target tokens), learning_rate, grad_norm.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite.
    """
    resumed = _last_checkpoint(run.checkpoints)
    done = int(resumed.name.rpartition("-")[2]) if resumed else 0
    if resumed:
        progress.say(f"going on from step {done} of {run.num_steps}")
    with progress.task("finetune", run.num_steps, "steps", done=done) as task:
        trainer = _TokenLossTrainer(run, task, stop)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    return [
        {"step": row["step"], "loss_nats": row["loss"], "learning_rate": row["learning_rate"], "grad_norm": row["grad_norm"]}
        for row in trainer.state.log_history
        if "loss" in row
    ]


def _last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint. Half-written ones are removed, or they would count among those that are kept."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / _COMPLETE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class _OrderedSequences(Dataset[Any]):
    def __init__(self, corpus: TokenizedCorpus, order: Sequence[int]) -> None:
        self._corpus = corpus
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - the Trainer's interface
        return self._corpus.sequences[self._order[index]]


def _arguments(run: TrainingRun) -> TrainingArguments:
    config = run.config
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.batch_size // config.micro_batch_size,
        num_train_epochs=1,  # all passes are written out in the order
        learning_rate=config.peak_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=_num_warmup_steps(config, run.num_steps),
        optim="adamw_torch",
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip_norm,
        use_cpu=run.device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=_KEPT_CHECKPOINTS,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=run.device.type == "cuda",
        remove_unused_columns=False,
        seed=config.seed,
        data_seed=config.seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - or the Trainer takes all GPUs, and with them a batch that many times as large
    return arguments


def _num_warmup_steps(config: FinetuneConfig, num_steps: int) -> int:
    """At least one step after the warm-up: the schedule starts at 0, and a run of one step would learn nothing."""
    rounding = 1e-9  # 0.1 * 70 is a little over 7
    return min(math.ceil(config.warmup_fraction * num_steps - rounding), num_steps - 1)


class _TokenLossTrainer(Trainer):
    """Trainer whose loss is a sum over target tokens divided by their number in the whole accumulated batch."""

    def __init__(self, run: TrainingRun, task: Task, stop: StopRequest) -> None:
        self._ordered = _OrderedSequences(run.corpus, run.order)
        super().__init__(
            model=run.trained,
            args=_arguments(run),
            data_collator=lambda sequences: collate(sequences, run.corpus.num_ignored),
            train_dataset=self._ordered,
            callbacks=[_RunCallback(task, stop)],
            # Given, so that the Trainer counts the target tokens of the accumulated batch and divides by nothing else; compute_loss does the work.
            compute_loss_func=lambda *_args, **_kwargs: None,
        )
        self._run = run
        self.pop_callback(_printer_callback())

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:  # noqa: ANN401, ARG002 - the Trainer's interface
        return SequentialSampler(self._ordered)

    def compute_loss(
        self,
        model: torch.nn.Module,  # noqa: ARG002 - the run holds the unwrapped model
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,  # noqa: ARG002, FBT001, FBT002 - the Trainer's interface
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Summed nats of this micro-batch / target tokens of the whole optimiser step."""
        if num_items_in_batch is None:
            message = "the Trainer gave no token count"
            raise RuntimeError(message)
        with _mixed_precision(self._run.device):
            total_nats = sum_nll_nats(self._run.model, self._run.head, inputs["input_ids"], inputs["labels"])
        loss = total_nats / num_items_in_batch
        if not bool(torch.isfinite(loss)):
            step = self.state.global_step + 1
            message = (
                f"the loss became {float(loss.detach())} at step {step} (learning rate {self._run.config.peak_learning_rate:g}): "
                "lower the learning rate; the last checkpoint before it is kept"
            )
            raise NonFiniteLossError(message)
        return loss


def _mixed_precision(device: torch.device) -> torch.autocast:
    """Bfloat16 arithmetic on CUDA. The Trainer's own autocast wraps the outer model's forward, which the loss goes past."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" and torch.cuda.is_bf16_supported())


def _printer_callback() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback  # noqa: PLC0415 - not part of the public namespace

    return PrinterCallback


class _RunCallback(TrainerCallback):
    """Reports steps, marks checkpoints as whole, and ends the run at a step when asked."""

    def __init__(self, task: Task, stop: StopRequest) -> None:
        self._task = task
        self._stop = stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> TrainerControl:  # noqa: ANN401, ARG002
        self._task.advance(1)
        if self._stop:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> TrainerControl:  # noqa: ANN401
        write_json(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _COMPLETE, {"step": state.global_step})
        return control
