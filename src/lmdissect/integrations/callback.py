"""Measure while training: a callback for anyone's Hugging Face Trainer, TRL trainers included.

from lmdissect.integrations import ShiftCallback
shifts = ShiftCallback("probes.jsonl", "runs/curve")
shifts.attach(trainer)        # or Trainer(..., callbacks=[shifts])
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import ProcessorMixin, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmdissect.errors import LmdissectError, NothingToDoError, UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.formats.scores import read_scores
from lmdissect.integrations.curve import MeasuredStep, write_curve, write_curve_figure
from lmdissect.integrations.curve_folder import CurveFolder
from lmdissect.interrupts import StopRequest
from lmdissect.models import LiveWeights, borrow_live_model
from lmdissect.models.live import inner_model
from lmdissect.models.processes import ask_main_process, is_main_process
from lmdissect.probes import limit_documents, probe_fingerprint, read_probe_set
from lmdissect.progress import LineProgress, Progress, SilentProgress
from lmdissect.records import ProbeSet
from lmdissect.scoring import ScoringConfig, ScoringSummary, score_live_model
from lmdissect.shifts import ShiftConfig
from lmdissect.store import fingerprint

__all__ = ["ShiftCallback", "choose_steps"]

_IDENTIFYING = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "optim", "weight_decay", "seed")
"""TrainingArguments that decide the course of a run whatever the hardware; with max_steps they say whether a folder belongs to it."""
_NAMED_STEPS = 10


class ShiftCallback(TrainerCallback):
    """Scores a probe set while a model is being trained, and writes the factor shifts as a curve over steps.

    Measured are step 0, the chosen steps, and the end; all shifts are against step 0 (or ``base``). The live model is scored in eval mode without
    gradients, adapters in place, and given back as it was: a run with the callback has the same losses and weights as one without, bit for bit.

    In ``out``: curve.csv and .parquet (a row for every step, variant, reference and normalization, with its interval), curve_gains, curve_fact_tokens,
    curve.png and .svg at the end, and under steps/ every step's scores and shift tables, of which `lmdissect report out/steps/000016` makes a report.
    A run that is killed and resumed from a checkpoint measures nothing twice.

    Under DDP the first process scores while the others wait. Weights that are spread over processes (FSDP, ZeRO-3) are refused at the start.

    Args:
        probes: Probe set: whatever ``--probes`` takes, or one that was read. It is read here, so that a bad one stops nobody's training later.
        out: Output folder, new or this run's own.
        steps: ``log`` (1, 2, 4, 8 ...), a number n (every n), or the steps themselves; 0 and the last one are added.
        limit: Use so many documents of the probe set; default: all.
        seed: Of the choice of these documents.
        control: File with rewrites that change nothing, merged in as the variant ``paraphrase``.
        factors: Factor of variants (name to factor), where the set does not say.
        writers: Who wrote variants (name to writer), whatever the set says.
        default_writer: Who wrote the variants of which the set does not say.
        scoring: How to score. Its batch_tokens must fit beside the optimiser's states; a batch that does not fit in a GPU's memory is halved.
        shift: How to do the statistics.
        base: Scores artifact of the model to compare with (`lmdissect score`); default: step 0 of this run.
        tokenizer: The model's tokenizer; default: the trainer's ``processing_class``.
        name: What to call the model; default: the name it was loaded by.
        documents_per_step: Documents behind an optimiser step, for the column num_trained_documents: a number, or one for every step where they differ
            (the last step of an epoch is often a smaller one); default: what our own finetuning says, for any other training null.
        on_error: What to do if a step cannot be measured: ``warn`` (say so, record it in failed_steps.json, train on) or ``raise``. What can be mended before
            the first step is raised in either case.
        progress: Where to say one line for every measurement; default: standard error.
        stop: Where set when training ends early, the last step is not measured: the user wants to go.

    Raises:
        UserInputError: The probe set or the base cannot be read, a variant that is named is not in it, or ``steps`` is not understood.
        NothingToDoError: No document has both an original and a variant.
    """

    def __init__(  # noqa: PLR0913 - one option each; all but the first two by name
        self,
        probes: str | Path | ProbeSet,
        out: str | Path,
        *,
        steps: Literal["log"] | int | Sequence[int] = "log",
        limit: int | None = None,
        seed: int = 0,
        control: str | None = None,
        factors: Mapping[str, str] | None = None,
        writers: Mapping[str, str] | None = None,
        default_writer: str | None = None,
        scoring: ScoringConfig | None = None,
        shift: ShiftConfig | None = None,
        base: str | Path | None = None,
        tokenizer: Any = None,  # noqa: ANN401 - a fast tokenizer; transformers has several classes
        name: str | None = None,
        documents_per_step: int | Sequence[int] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        progress: Progress | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        choose_steps(steps, 1)
        read = _read_probes(probes, factors or {}, control)
        self.probe_set = limit_documents(_with_writers(read, factors or {}, writers or {}, default_writer), limit, seed)
        _check_pairs(self.probe_set)
        self.out = Path(out)
        self._steps = steps
        self._scoring = scoring or ScoringConfig()
        shift_config = shift or ShiftConfig()
        base_key = None if base is None else read_scores(Path(base)).manifest.key
        measuring = {
            "probes": probe_fingerprint(self.probe_set),
            "labels": fingerprint([dict(self.probe_set.generators), dict(self.probe_set.prompt_hashes)]),
            "scoring": self._scoring.model_dump(mode="json"),
            "shift": shift_config.model_dump(mode="json"),
            "base": base_key,
        }
        self._folder = CurveFolder(self.out, measuring, None if base is None else Path(base), shift_config)
        self._tokenizer = tokenizer
        self._name = name
        self._documents_per_step = documents_per_step
        self._on_error = on_error
        self._progress = progress or LineProgress()
        self._stop = stop
        self._log: Callable[[dict[str, float]], None] | None = None
        self._weights = LiveWeights()
        self._scheduled: frozenset[int] = frozenset()
        self._visited: set[int] = set()
        self._began_s = self._measuring_s = 0.0

    def attach(self, trainer: Trainer) -> "ShiftCallback":
        """Add the callback to ``trainer``, and send its numbers through the trainer's log: to ``state.log_history`` and every ``report_to`` tracker.

        The keys are those of `MeasuredStep.headline`, and measuring/seconds, measuring/share_of_time. Trackers of transformers put ``train/`` before
        them. Without this call (``callbacks=[...]`` alone) the numbers are in the files and on standard error: a callback does not know its trainer.
        """
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._log = partial(Trainer.log, trainer)  # not the subclass's own log: TRL's would empty its running means into our row
        return self

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ANN401
        """Take up the folder, and measure step 0 where training begins."""
        self._began_s, self._measuring_s = time.monotonic(), 0.0
        self._scheduled, self._visited = choose_steps(self._steps, state.max_steps), set()
        if self._documents_per_step is None:
            self._documents_per_step = getattr(getattr(kwargs.get("train_dataloader"), "dataset", None), "documents_per_step", None)
        ask_main_process(partial(self._begin, args, state, kwargs))
        if state.global_step == 0:
            self._measure_together(args, state, control, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ANN401
        """Measure, if this step was chosen."""
        if state.global_step in self._scheduled:
            self._measure_together(args, state, control, kwargs["model"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ANN401
        """Measure the end, where training ended before the last chosen step; write the curve once more, with the losses logged since, and draw it."""
        # Resumed from the checkpoint of its last step, the Trainer makes one step too many: no point of the curve.
        ended_early = state.global_step < state.max_steps and state.global_step not in self._scheduled
        other_weights = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if ended_early and not self._stop and not other_weights:
            self._measure_together(args, state, control, kwargs["model"])
        if not is_main_process():
            return
        written = self._folder.write_failed()
        if not self._folder.points:
            return
        with self._failing_softly("the curve could not be written", raising=self._on_error == "raise"):
            write_curve(self.out, self._folder.points, state.log_history)
            write_curve_figure(self.out)
        where = "see failed_steps.json" if written else "and failed_steps.json could not be written"
        failed = f", {len(self._folder.failed)} steps could not be measured ({where})" if self._folder.failed else ""
        self._progress.say(
            f"measured {len(self._visited)} steps in {self._measuring_s:.1f} s, {self._share_of_time():.0%} of this training's time{failed}: "
            f"{self.out / 'curve.csv'}"
        )

    def _begin(self, args: TrainingArguments, state: TrainerState, given: Mapping[str, Any]) -> None:
        self._tokenizer = copy.deepcopy(self._tokenizer or _find_tokenizer(given.get("processing_class")))  # the trainer's may be changed meanwhile
        self._folder.begin(_identify(args, state), state.global_step, self._scheduled)
        if state.global_step > 0:
            self._progress.say(f"{self.out}: going on, {len(self._folder.points)} steps were measured before")
        steps = [str(step) for step in sorted(self._scheduled) if step >= state.global_step]
        named = steps if len(steps) <= _NAMED_STEPS else [*steps[: _NAMED_STEPS - 1], "...", steps[-1]]
        self._progress.say(f"{self.out}: {len(self.probe_set.texts)} texts are scored at steps {', '.join(named)}")

    def _measure_together(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module) -> None:
        """Measure in the first process; the others wait, and learn of an error that ends the training."""
        self._visited.add(state.global_step)
        ask_main_process(partial(self._measure, args, state, control, model))

    def _measure(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module) -> None:
        step, started_s = state.global_step, time.monotonic()
        measured: list[MeasuredStep] = []
        # Before the first step nothing is lost by stopping, and without it nothing could be measured later.
        with self._failing_softly(f"step {step} could not be measured", raising=self._on_error == "raise" or step == 0, step=step):
            num_documents = _num_documents(step, self._documents_per_step)
            num_tokens = None if args.include_num_input_tokens_seen == "no" else int(state.num_input_tokens_seen)
            measured.append(self._folder.measure(step, partial(self._score, model, step), num_documents, num_tokens, self._progress))
            write_curve(self.out, self._folder.points, state.log_history)
        seconds = time.monotonic() - started_s
        self._measuring_s += seconds
        for point in measured:
            self._tell(point, seconds, control)

    def _score(self, model: torch.nn.Module, step: int, folder: Path) -> ScoringSummary:
        weights = self._weights.fingerprint(model)
        name = self._name or _model_name(model)
        with borrow_live_model(model, self._tokenizer, f"{name} at step {step}", self._scoring.dtype) as live:
            return score_live_model(live, weights, self.probe_set, self._scoring, folder, progress=SilentProgress())

    @contextmanager
    def _failing_softly(self, what: str, *, raising: bool, step: int | None = None) -> Iterator[None]:
        """Let training go on where something of ours fails, unless told otherwise."""
        try:
            yield
        except Exception as error:
            if raising:
                if isinstance(error, LmdissectError):
                    error.args = (f"{what}: {error}",)
                raise
            if step is not None:
                self._folder.fail(step, error)  # raises nothing
            self._progress.say(f"{what}, training goes on: {' '.join(str(error).split()) or type(error).__name__}")

    def _tell(self, point: MeasuredStep, seconds: float, control: TrainerControl) -> None:
        numbers = point.headline()
        parts = [
            f"{name.removeprefix('shift/')} {numbers[name]:+.4f} [{numbers[f'{name}_low']:+.4f}, {numbers[f'{name}_high']:+.4f}]"
            for name in numbers
            if (name.startswith("shift/") or name == "gain") and f"{name}_low" in numbers
        ]
        self._progress.say(f"step {point.step}, nats/token: {', '.join(parts)} ({seconds:.1f} s, {self._share_of_time():.0%} of the time so far)")
        if self._log is not None:
            wanted = control.should_log  # a log in between would take this step's turn from the trainer's own numbers
            self._log({**numbers, "measuring/seconds": seconds, "measuring/share_of_time": self._share_of_time()})
            control.should_log = wanted

    def _share_of_time(self) -> float:
        """Part of the time since training began that measuring took."""
        return self._measuring_s / max(time.monotonic() - self._began_s, 1e-9)


def choose_steps(steps: Literal["log"] | int | Sequence[int], last: int) -> frozenset[int]:
    """Steps to measure in a run of ``last`` steps: 0, the last one, and between them what ``steps`` says.

    Args:
        steps: ``log`` (1, 2, 4, 8 ...), a number n (every n), or the steps themselves.
        last: Optimiser steps of the whole run.

    Raises:
        UserInputError: It is none of these.
    """
    every = _whole_number(steps)
    listed = [_whole_number(step) for step in steps] if isinstance(steps, (Sequence, np.ndarray)) and not isinstance(steps, str) else [None]
    known = [step for step in listed if step is not None and step >= 0]
    if isinstance(steps, str) and steps == "log":
        between: Iterable[int] = (1 << power for power in range(max(last, 1).bit_length()))
    elif every is not None and every >= 1:
        between = range(every, last, every)
    elif len(known) == len(listed):
        between = known
    else:
        message = f"steps={steps!r}: give 'log', a number n of at least 1 (every n steps), or a list of steps"
        raise UserInputError(message)
    return frozenset({0, last, *(step for step in between if step <= last)})


def _whole_number(value: object) -> int | None:
    """The number where it is a whole one, of numpy's kinds too; else None."""
    return int(value) if not isinstance(value, bool) and isinstance(value, Integral) else None


def _num_documents(step: int, documents_per_step: int | Sequence[int] | None) -> int | None:
    """Documents of the first ``step`` steps, where known."""
    if documents_per_step is None or isinstance(documents_per_step, int):
        return None if documents_per_step is None else step * documents_per_step
    return sum(documents_per_step[:step])


def _read_probes(probes: str | Path | ProbeSet, factors: Mapping[str, str], control: str | None) -> ProbeSet:
    if not isinstance(probes, ProbeSet):
        return read_probe_set(str(probes), factors=factors, control=control)
    if factors or control:
        message = "this probe set was read before: give factors and control to read_probe_set"
        raise UserInputError(message)
    return probes


def _with_writers(probe_set: ProbeSet, named: Iterable[str], writers: Mapping[str, str], default_writer: str | None) -> ProbeSet:
    """Who wrote what, as the user says.

    Raises:
        UserInputError: A variant of ``named`` or ``writers`` is not in the set.
    """
    if unknown := sorted({*named, *writers} - set(probe_set.factors)):
        message = f"{probe_set.source} has no variant '{unknown[0]}' (it has {', '.join(probe_set.factors)})"
        raise UserInputError(message)
    everyone = dict.fromkeys(probe_set.factors, default_writer) if default_writer else {}
    return replace(probe_set, generators={**everyone, **probe_set.generators, **writers})


def _check_pairs(probe_set: ProbeSet) -> None:
    originals = {text.document_id for text in probe_set.texts if text.variant == ORIGINAL}
    if not any(text.variant != ORIGINAL and text.document_id in originals for text in probe_set.texts):
        message = f"{probe_set.source}: no document has both an original and a variant: nothing to measure"
        raise NothingToDoError(message)


def _find_tokenizer(processing_class: Any) -> Any:  # noqa: ANN401 - a tokenizer, or a processor that holds one
    if processing_class is None:
        message = "the trainer has no tokenizer (its processing_class): give ShiftCallback(..., tokenizer=...)"
        raise UserInputError(message)
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class


def _model_name(model: torch.nn.Module) -> str:
    """The name the model was loaded by, else its class."""
    inner = inner_model(model)
    return str(getattr(inner.config, "_name_or_path", "") or type(inner).__name__)


def _identify(args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    """What decides the course of the run, in JSON types."""
    found = {name: getattr(args, name, None) for name in _IDENTIFYING}
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}
    return {**plain, "max_steps": state.max_steps}
