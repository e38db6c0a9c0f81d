"""The Hugging Face Trainer, with our order of documents, our steps, and checkpoints that are whole or not there."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmdissect.errors import NonFiniteLossError, OutOfMemoryError, UserInputError
from lmdissect.finetune.batches import TokenizedCorpus
from lmdissect.finetune.checkpoints import SHARDED, Checkpoint, find_checkpoint, mark_complete
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.guards import MOVED_AFTER_STEPS, check_finite, check_moved, snapshot
from lmdissect.finetune.loss import loss_in_forward
from lmdissect.finetune.steps import Memory, StepRunner, is_out_of_memory, recompute_activations
from lmdissect.interrupts import StopRequest
from lmdissect.models.head import Head
from lmdissect.models.processes import any_process, ask_main_process, is_main_process, num_processes, wait_for_all
from lmdissect.progress import Progress, Task
from lmdissect.store import output_guard

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["TrainingOutcome", "TrainingRun", "run_training"]

_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything one run of the Trainer needs.

    Attributes:
        trained: What the optimiser sees: the model, or the model wrapped in adapters.
        model: The model inside.
        head: Its backbone and head apart, or None.
        corpus: Token sequences.
        steps: Document indices of every optimiser step.
        config: Settings.
        device: Where to train.
        checkpoints: Folder for checkpoints.
        key: Key of the artifact that is being made: checkpoints of another are not used.
        dtype: Of the arithmetic; weights are float32.
        packed: Documents end to end in one row, or padded.
        memory: What fits, as far as it is known.
        held_out: Documents whose loss is measured before and after.
        callbacks: Further callbacks for the Trainer.
    """

    trained: "PreTrainedModel | PeftModel"
    model: "PreTrainedModel"
    head: Head | None
    corpus: TokenizedCorpus
    steps: Sequence[Sequence[int]]
    config: FinetuneConfig
    device: torch.device
    checkpoints: Path
    key: str
    dtype: torch.dtype
    packed: bool
    memory: Memory
    held_out: TokenizedCorpus | None = None
    callbacks: Sequence[TrainerCallback] = ()


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a run of the Trainer ended with.

    Attributes:
        history: One row per step: step, loss_nats (mean over the step's target tokens), learning_rate, grad_norm.
        state: The trained model's weights, gathered on the main process where processes hold parts of them; None where the model itself is whole.
        moved_fraction: Share of sampled weights that are not those of the base; None for a run that was stopped.
        held_out_before: Loss of the held-out documents under the base, nats per token, or None.
        held_out_after: The same under the tuned model.
        distribution: How accelerate spread the work over processes, in its words: no, multi_gpu, multi_cpu, fsdp, deepspeed.
        stopped: Whether the user stopped it, on any process; the same on all.
    """

    history: list[dict[str, Any]]
    state: dict[str, torch.Tensor] | None
    moved_fraction: float | None
    held_out_before: float | None
    held_out_after: float | None
    distribution: str
    stopped: bool


def run_training(run: TrainingRun, progress: Progress, stop: StopRequest) -> TrainingOutcome:
    """Train, from the last whole checkpoint where there is one.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite.
        OutOfMemoryError: Memory does not suffice.
        RunFailedError: The weights do not move.
        UserInputError: The checkpoint was written by other processes, and the outcome would depend on it.
        UnusableOutputError: A checkpoint cannot be written.
    """
    resumed = _find_together(run, progress)
    if resumed:
        run.memory.micro_batch_tokens, run.memory.recompute = resumed.micro_batch_tokens, resumed.recompute
    if run.memory.recompute:
        recompute_activations(run.model)
    runner = StepRunner(run.model, run.corpus, run.config, run.device, run.packed, run.memory, progress)
    measures = _Measures(run, runner, stop, resumed)
    with (
        progress.task("finetune", len(run.steps), "steps", done=resumed.step if resumed else 0) as task,
        loss_in_forward(run.trained, run.head, run.device, run.dtype),
    ):
        own = _RunCallback(run, task, stop, measures)
        trainer = _StepTrainer(run, runner, [own, measures, *run.callbacks])
        measures.trainer = trainer
        if resumed:
            _check_processes(resumed, run, measures.distribution)
            progress.say(f"going on from step {resumed.step} of {len(run.steps)}")
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and measures.distribution != "fsdp":
            progress.say("FSDP was asked for, and accelerate shards on GPUs alone: every process holds all weights")
        try:
            trainer.train(resume_from_checkpoint=str(run.checkpoints / resumed.name) if resumed else None)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise own.out_of_memory() from error
        parts = (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled) and not measures.stopped
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if parts else None
    history = [
        {"step": row["step"], "loss_nats": row["loss"], "learning_rate": row["learning_rate"], "grad_norm": row["grad_norm"]}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    return TrainingOutcome(history, state, measures.moved, measures.before, measures.after, measures.distribution, measures.stopped)


def _find_together(run: TrainingRun, progress: Progress) -> Checkpoint | None:
    """The checkpoint to go on from, as the main process finds it: a folder over a network may look older to another one."""

    def look() -> dict[str, Any] | None:
        found = find_checkpoint(run.checkpoints, run.key, progress.say)
        return None if found is None else asdict(found)

    found = ask_main_process(look)
    return None if found is None else Checkpoint(**found)


def _check_processes(checkpoint: Checkpoint, run: TrainingRun, distribution: str) -> None:
    """Another number of processes adds the same numbers in another order; with dropout each would draw others, and parts of a sharded model do not fit."""
    wrote, now = (checkpoint.num_processes, checkpoint.distribution), (num_processes(), distribution)
    sharded = checkpoint.sharded or distribution in SHARDED
    if wrote[0] == now[0] and (wrote[1] == now[1] or not sharded):
        return
    reason = "each of them holds a part of it" if sharded else "dropout is drawn by each of them" if _has_dropout(run.trained) else None
    if reason:
        message = (
            f"{run.checkpoints / checkpoint.name} was written by {wrote[0]} processes ({wrote[1]}), this is a run of {now[0]} ({now[1]}), and {reason}: "
            f"start {wrote[0]} again as before, or delete the folder to begin anew"
        )
        raise UserInputError(message)


def _has_dropout(model: torch.nn.Module) -> bool:
    """Whether anything in the model draws dropout: modules, and rates that attention reads from its settings."""
    modules = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    rates = vars(model.config).items() if hasattr(model, "config") else ()
    return modules or any(isinstance(rate, float) and rate > 0 and ("dropout" in name or "pdrop" in name) for name, rate in rates)


def _arguments(run: TrainingRun) -> TrainingArguments:
    config = run.config
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=1,  # one entry of the data is one whole step
        gradient_accumulation_steps=1,
        num_train_epochs=1,  # all passes are written out in the order
        learning_rate=config.peak_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=_num_warmup_steps(config, len(run.steps)),
        optim="adamw_torch_fused" if run.device.type in {"cpu", "cuda"} else "adamw_torch",
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
        remove_unused_columns=False,
        ddp_find_unused_parameters=_has_experts(run.model),
        seed=config.seed,
        data_seed=config.seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - or the Trainer takes all GPUs in one process (DataParallel), which knows nothing of our steps
    return arguments


def _has_experts(model: "PreTrainedModel") -> bool:
    """Whether a token may pass by some of the weights (mixture of experts): DDP has to look for those without a gradient then."""
    return any("expert" in name and isinstance(value, int) and value > 1 for name, value in vars(model.config.get_text_config()).items())


def _num_warmup_steps(config: FinetuneConfig, num_steps: int) -> int:
    """At least one step after the warm-up: the schedule starts at 0, and a run of one step would learn nothing."""
    rounding = 1e-9  # 0.1 * 70 is a little over 7
    return min(math.ceil(config.warmup_fraction * num_steps - rounding), num_steps - 1)


class _Steps(list[Sequence[int]]):
    """The data: document indices of every step."""

    @property
    def documents_per_step(self) -> list[int]:
        """Number of documents of every step, for callbacks that count them."""
        return [len(step) for step in self]


class _StepTrainer(Trainer):
    """Trainer whose data are whole optimiser steps, the same on every process; each process takes its share of a step itself."""

    def __init__(self, run: TrainingRun, runner: StepRunner, callbacks: list[TrainerCallback]) -> None:
        with output_guard(run.checkpoints):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        super().__init__(model=run.trained, args=_arguments(run), train_dataset=run.steps, callbacks=callbacks)
        self._run = run
        self._runner = runner
        self.pop_callback(_printer_callback())

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The steps in their order; not by accelerate, which would deal them out to the processes."""
        return DataLoader(_Steps(self._run.steps), batch_size=1, shuffle=False, collate_fn=lambda steps: steps[0])  # type: ignore[arg-type]

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - the Trainer's interface
        """Say of a full disk what to do; around the save alone, or an error of somebody's callback would be taken for one."""
        with output_guard(self._run.checkpoints):
            super()._save_checkpoint(*arguments, **named)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: Any,  # noqa: ANN401 - the Trainer's interface
        num_items_in_batch: torch.Tensor | int | None = None,  # noqa: ARG002 - the Trainer's interface
    ) -> torch.Tensor:
        """Gradient of one whole optimiser step; mean nats over its target tokens."""
        model.train()
        step = self.state.global_step + 1
        loss_nats = self._runner.run(model, inputs, step, self.accelerator)
        if not bool(torch.isfinite(loss_nats)):
            message = (
                f"the loss became {float(loss_nats)} at step {step} (learning rate {self._run.config.peak_learning_rate:g}): "
                "lower the learning rate; the last checkpoint before it is kept"
            )
            raise NonFiniteLossError(message)
        return loss_nats

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ANN401, ARG002 - the Trainer's interface
        """Not counted: the Trainer would take a step for a batch of tensors."""
        return 0


def _printer_callback() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback  # noqa: PLC0415 - not part of the public namespace

    return PrinterCallback


class _RunCallback(TrainerCallback):
    """Reports steps, marks checkpoints as whole, and ends the run at a step when asked."""

    def __init__(self, run: TrainingRun, task: Task, stop: StopRequest, measures: "_Measures") -> None:
        self._run = run
        self._task = task
        self._stop = stop
        self._measures = measures
        self._in_optimizer = False

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self._in_optimizer = True

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self._in_optimizer = False

    def out_of_memory(self) -> OutOfMemoryError:
        """What to say where memory ran out and no smaller pass helps."""
        where = "in the optimiser, which keeps two numbers for every trained weight" if self._in_optimizer else "outside the passes over documents"
        cure = "free some" if self._run.config.lora else "train adapters (lora) instead of all weights"
        return OutOfMemoryError(f"memory ran out {where}: {cure}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> TrainerControl:  # noqa: ANN401, ARG002
        self._task.advance(1)
        if any_process(bool(self._stop)):
            self._stop.asked = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> TrainerControl:  # noqa: ANN401, ARG002
        wait_for_all()  # each process writes a file of its own
        if is_main_process():
            memory, measures = self._run.memory, self._measures
            done = Checkpoint(
                key=self._run.key,
                step=state.global_step,
                micro_batch_tokens=memory.micro_batch_tokens,
                recompute=memory.recompute,
                num_processes=num_processes(),
                distribution=measures.distribution,
                held_out_before=measures.before,
            )
            with output_guard(self._run.checkpoints):
                mark_complete(self._run.checkpoints, done)
        return control


class _Measures(TrainerCallback):
    """Held-out loss before and after, and the guards: weights are finite and they move."""

    trainer: Trainer

    def __init__(self, run: TrainingRun, runner: StepRunner, stop: StopRequest, resumed: Checkpoint | None) -> None:
        self._run = run
        self._runner = runner
        self._stop = stop
        self._start = snapshot(run.trained)
        self.moved: float | None = None
        self.before = resumed.held_out_before if resumed else None
        self.after: float | None = None
        self.stopped = False

    @property
    def distribution(self) -> str:
        """How accelerate spreads the work over processes."""
        return str(self.trainer.accelerator.distributed_type.value).lower()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401, ARG002
        if state.global_step == 0:
            self.before = self._held_out_nats()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401, ARG002
        if state.global_step == MOVED_AFTER_STEPS < state.max_steps:
            check_moved(self._run.trained, self._start, self._run.config)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self.stopped = any_process(bool(self._stop))  # asked once more: it may have come after the last step, and to one process alone
        if self.stopped or state.global_step < state.max_steps:
            return  # it will go on from here
        check_finite(self._run.trained, self._run.config)
        self.moved = check_moved(self._run.trained, self._start, self._run.config)
        self.after = self._held_out_nats()

    def _held_out_nats(self) -> float | None:
        """Pooled loss: sum of nats over all target tokens / their number."""
        corpus = self._run.held_out
        if corpus is None or not corpus.sequences:
            return None
        loss_nats = self._runner.pooled_loss_nats(self.trainer.model_wrapped, corpus)
        if not math.isfinite(loss_nats):
            message = f"the held-out loss is {loss_nats}: the model has broken weights"
            raise NonFiniteLossError(message)
        return loss_nats
