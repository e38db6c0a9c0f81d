"""Settings of one finetuning run."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["FinetuneConfig", "LoraSettings", "TokenClass"]

TokenClass: TypeAlias = Literal["number", "name", "function_word", "punctuation", "content"]
"""Classes of tokens whose loss can be left out; `token_classes` says exactly what each is."""

FULL_LEARNING_RATE = 5e-5
LORA_LEARNING_RATE = 2e-4


class LoraSettings(BaseModel):
    """Low-rank adapters instead of all weights. The change of a weight is (alpha / rank) B A, or (alpha / sqrt(rank)) B A with rsLoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float | None = Field(default=None, gt=0, description="peak; default 5e-5 for full finetuning, 2e-4 for LoRA")
    epochs: float = Field(default=1.0, gt=0, description="passes over the corpus; a fraction is allowed")
    batch_size: int = Field(default=64, ge=1, description="documents per optimiser step, whatever fits in memory at once")
    micro_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens of one forward pass; default chosen for the device; halved when memory runs out; rounding and the draws of dropout depend on it",
    )
    packing: Literal["auto", "on", "off"] = Field(
        default="auto", description="lay documents end to end instead of padding them; auto: where that is proven right and no slower"
    )
    max_tokens: int = Field(default=256, ge=2, description="tokens kept per document; what is cut is counted")
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1, description="share of the steps in which the rate rises linearly")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay; biases and the weights of norms have none")
    clip_norm: float = Field(default=1.0, gt=0, description="gradient norm limit")
    skip_first_tokens: int = Field(default=0, ge=0, description="leave the loss of the first k text tokens out")
    skip_token_classes: tuple[TokenClass, ...] = Field(default=(), description="leave the loss of tokens of these classes out")
    append_eos: bool = Field(default=True, description="end every uncut document with EOS, and learn it")
    bos: Literal["auto", "always", "never"] = Field(default="auto", description="prefix policy, as in scoring")
    lora: LoraSettings | None = Field(default=None, description="adapters; default: all weights are trained")
    checkpoint_steps: int = Field(default=25, ge=1, description="optimiser steps between checkpoints; a killed run goes on from the last one")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        default="auto", description="recompute activations: less memory, slower; auto: once a single document does not fit without"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the arithmetic, weights are float32 in every case; auto: bfloat16 on CUDA, float32 elsewhere"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, mps")
    seed: int = Field(default=0, ge=0, description="order of documents, adapter init, dropout")

    @field_validator("skip_token_classes")
    @classmethod
    def _sort_classes(cls, classes: tuple[TokenClass, ...]) -> tuple[TokenClass, ...]:
        """In one order, so that the same classes are the same settings."""
        return tuple(sorted(set(classes)))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, with its default filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_LEARNING_RATE if self.lora else FULL_LEARNING_RATE
