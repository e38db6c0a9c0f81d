"""LoRA adapters on a model, by PEFT."""

import re
from typing import TYPE_CHECKING

import torch

from lmdissect.errors import UserInputError
from lmdissect.finetune.config import LoraSettings
from lmdissect.models.load import quiet_transformers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["adaptable_layers", "add_adapter"]


def add_adapter(model: "PreTrainedModel", lora: LoraSettings, seed: int) -> "PeftModel":
    """Put adapters on ``model``: drawn from ``seed``, changing nothing until they are trained.

    Raises:
        UserInputError: The model has no layer of a name that was asked for, or it must not be adapted.
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - heavy
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    _check_targets(model, lora)
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


def adaptable_layers(model: "PreTrainedModel") -> list[str]:
    """Last names of the layers that an adapter can stand on: every linear layer but the output head."""
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - heavy

    head = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head]
    return sorted({name.rpartition(".")[2] for name in layers})


def _check_targets(model: "PreTrainedModel", lora: LoraSettings) -> None:
    """Every target names something: PEFT is content with one that does, and would leave the others out without a word."""
    names = [name for name, _ in model.named_modules()]
    for target in lora.targets or ():
        if not any(re.search(rf"(?:\A|\.){re.escape(target)}\Z", name) for name in names):
            message = f"LoRA targets {target}: {type(model).__name__} has no such layer; its linear layers are {', '.join(adaptable_layers(model))}"
            raise UserInputError(message)
