"""Small training runs that belong to somebody else: a plain Hugging Face Trainer on a tiny model, and a probe set to measure it with."""

import random  # noqa: TID251 - somebody's collator may draw with it
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from lmdissect.records import ProbeSet, ProbeText
from lmdissect.scoring import ScoringConfig
from lmdissect.shifts import ShiftConfig
from tiny_models import SENTENCES, tiny_tokenizer

__all__ = ["SCORING", "SHIFT", "TRAINED_STEPS", "KilledError", "KillingCallback", "make_probes", "make_trainer"]

SCORING = ScoringConfig(batch_tokens=256, device="cpu", dtype="float32")
SHIFT = ShiftConfig(num_draws=200, num_examples=2)
TRAINED_STEPS = 6


def make_probes() -> ProbeSet:
    """Eight documents with a casual text and a paraphrase."""
    texts = [
        ProbeText(f"d{number}", variant, text)
        for number, sentence in enumerate(SENTENCES[:8])
        for variant, text in (("original", sentence), ("casual", f"So yeah, {sentence.lower()}"), ("paraphrase", f"It was found: {sentence}"))
    ]
    return ProbeSet(texts=tuple(texts), factors={"casual": "style", "paraphrase": "control"}, source="a test")


class KilledError(Exception):
    """A training run that dies."""


class KillingCallback(TrainerCallback):
    """Ends training with an exception after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Die, if it is time."""
        if state.global_step == self._step:
            raise KilledError


def _collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    length = min(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"][:length] for row in rows])
    return {"input_ids": ids, "labels": ids.clone()}


def _draw(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Batches that depend on every random generator of the process."""
    start = 1 + int(4 * np.random.rand()) + int(4 * random.random()) + int(torch.randint(0, 4, ()))  # noqa: NPY002, S311
    return {name: value[:, start:] for name, value in _collate(rows).items()}


def make_trainer(
    model: str | Path | torch.nn.Module, folder: Path, *, callbacks: Sequence[TrainerCallback] = (), drawing: bool = False, **arguments: Any
) -> Trainer:
    """A Trainer that makes `TRAINED_STEPS` steps with AdamW and checkpoints every second one.

    Args:
        model: A model, or its folder.
        folder: Where checkpoints go.
        callbacks: Callbacks.
        drawing: Whether batches depend on the random generators (then a Trainer does not resume exactly: it draws the next batch too early).
        **arguments: Of TrainingArguments.
    """
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": tokenizer(sentence)["input_ids"]} for sentence in SENTENCES]
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "max_steps": TRAINED_STEPS,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
        **arguments,
    }
    loaded = model if isinstance(model, torch.nn.Module) else AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    return Trainer(
        model=loaded,
        args=TrainingArguments(**settings),
        train_dataset=rows,
        data_collator=_draw if drawing else _collate,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
