"""Documents + base model -> a tuned model: full or LoRA, by the Hugging Face Trainer with a loss that counts tokens."""

from lmdissect.finetune.config import FinetuneConfig, LoraSettings
from lmdissect.finetune.train import FinetuneSummary, finetune

__all__ = ["FinetuneConfig", "FinetuneSummary", "LoraSettings", "finetune"]
