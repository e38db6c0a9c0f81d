"""Documents + base model -> a tuned model: full or LoRA, by the Hugging Face Trainer with a loss that counts tokens."""

from typing import TYPE_CHECKING, Any

from lmdissect.finetune.config import FinetuneConfig, LoraSettings

if TYPE_CHECKING:
    from lmdissect.finetune.train import FinetuneSummary, finetune

__all__ = ["FinetuneConfig", "FinetuneSummary", "LoraSettings", "finetune"]

_TRAINING = frozenset({"FinetuneSummary", "finetune"})


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function
    """Load the Trainer when training is asked for: whoever reads settings alone does not wait for it."""
    if name not in _TRAINING:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from lmdissect.finetune import train  # noqa: PLC0415 - seconds

    return getattr(train, name)
