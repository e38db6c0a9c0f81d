"""Settings of one finetuning run."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["FinetuneConfig", "LoraSettings"]

FULL_LEARNING_RATE = 5e-5
LORA_LEARNING_RATE = 2e-4


class LoraSettings(BaseModel):
    """Low-rank adapters instead of all weights. The change of a weight is (alpha / rank) B A, or (alpha / sqrt(rank)) B A with rsLoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1, description="inner dimension of the adapters")
    alpha: float | None = Field(default=None, gt=0, description="scale numerator; default twice the rank (the original code: rank 8, alpha 16)")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapters' input")
    rslora: bool = Field(default=False, description="scale by 1/sqrt(rank) instead of 1/rank")
    targets: tuple[str, ...] | None = Field(default=None, description="module name endings; default every linear layer but the output head")

    @property
    def scale_numerator(self) -> float:
        """Alpha, with its default filled in."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank


class FinetuneConfig(BaseModel):
    """One finetuning run. Defaults follow the paper where it states them (batch 64, warm-up 10 %, linear decay, clip 1.0, one epoch)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float | None = Field(default=None, gt=0, description="peak; default 5e-5 for full finetuning, 2e-4 for LoRA")
    epochs: float = Field(default=1.0, gt=0, description="passes over the corpus; a fraction is allowed")
    batch_size: int = Field(default=64, ge=1, description="documents per optimiser step, whatever fits in memory at once")
    micro_batch_size: int = Field(default=4, ge=1, description="documents per forward pass; must divide batch_size")
    max_tokens: int = Field(default=256, ge=2, description="tokens kept per document; what is cut is counted")
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1, description="share of the steps in which the rate rises linearly")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay")
    clip_norm: float = Field(default=1.0, gt=0, description="gradient norm limit")
    skip_first_tokens: int = Field(default=0, ge=0, description="leave the loss of the first k text tokens out")
    append_eos: bool = Field(default=True, description="end every uncut document with EOS, and learn it")
    bos: Literal["auto", "always", "never"] = Field(default="auto", description="prefix policy, as in scoring")
    lora: LoraSettings | None = Field(default=None, description="adapters; default: all weights are trained")
    checkpoint_steps: int = Field(default=25, ge=1, description="optimiser steps between checkpoints; a killed run goes on from the last one")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations: less memory, slower")
    device: str = Field(default="auto", description="auto, cpu, cuda, mps")
    seed: int = Field(default=0, ge=0, description="order of documents, adapter init, dropout")

    @model_validator(mode="after")
    def _check_micro_batch(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            message = f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}: choose a divisor"
            raise ValueError(message)
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, with its default filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_LEARNING_RATE if self.lora else FULL_LEARNING_RATE
