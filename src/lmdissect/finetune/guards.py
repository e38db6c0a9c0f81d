"""What must hold while a model is trained: weights stay finite, and they move."""

import torch

from lmdissect.errors import NonFiniteLossError, RunFailedError
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.models.processes import any_process

__all__ = ["MOVED_AFTER_STEPS", "check_finite", "check_moved", "moved_fraction", "snapshot"]

MOVED_AFTER_STEPS = 10
"""Step after which weights must have moved; waiting for the end would waste the run."""

_SAMPLED_VALUES = 4096
_MIN_MOVED_FRACTION = 1e-3


def check_finite(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """The loss shows broken weights one step later, and after the last step there is no later.

    Raises:
        NonFiniteLossError: A trained weight is NaN or infinite, on any process.
    """
    broken = not all(bool(_local(parameter).isfinite().all()) for parameter in model.parameters() if parameter.requires_grad)
    if any_process(broken):
        message = f"weights became NaN or infinite in the last step (learning rate {config.peak_learning_rate:g}): lower the learning rate"
        raise NonFiniteLossError(message)


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A fixed spread of values of every trained parameter, on the CPU: enough to see whether it moved, small enough to keep."""
    return {
        name: _whole(parameter).flatten()[:: max(1, parameter.numel() // _SAMPLED_VALUES)].to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def moved_fraction(model: torch.nn.Module, start: dict[str, torch.Tensor]) -> float:
    """Share of the sampled values that are not what they were."""
    now = snapshot(model)
    changed = sum(int((now[name] != start[name]).sum()) for name in start)
    return changed / sum(values.numel() for values in start.values())


def check_moved(model: torch.nn.Module, start: dict[str, torch.Tensor], config: FinetuneConfig) -> float:
    """Share of the sampled values that moved.

    Raises:
        RunFailedError: Next to none: the steps are too small for the weights' dtype, and the run would end where it began.
    """
    moved = moved_fraction(model, start)
    if moved < _MIN_MOVED_FRACTION:
        message = f"training moved only {moved:.2%} of the trained weights (learning rate {config.peak_learning_rate:g}): raise the learning rate"
        raise RunFailedError(message)
    return moved


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """This process's part of a parameter that is sharded, else the parameter."""
    to_local = getattr(parameter, "to_local", None)
    return parameter.detach() if to_local is None else to_local().detach()


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter, gathered from all processes where it is sharded."""
    full_tensor = getattr(parameter, "full_tensor", None)
    return parameter.detach() if full_tensor is None else full_tensor().detach()
