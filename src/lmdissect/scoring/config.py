"""Settings of scoring."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ScoringConfig"]


class ScoringConfig(BaseModel):
    """How texts are scored. Every field is part of an artifact's key: each can change the last bits of a score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int | None = Field(default=None, ge=1, description="keep the first N tokens of a text and say so; default: all of it, in windows")
    bos: Literal["auto", "always", "never"] = Field(
        default="auto", description="prefix: what the tokenizer itself adds; BOS (EOS where there is none); or nothing"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="weights; log-probabilities are float32 always")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N, mps")
    window_tokens: int | None = Field(default=None, ge=4, description="longest model input; default and upper limit: the model's own")
    batch_tokens: int = Field(default=2048, ge=1, description="tokens (padding included) in one forward pass; a longer text goes alone")
    logits_megabytes: int = Field(default=64, ge=1, description="memory for logits held at once")
