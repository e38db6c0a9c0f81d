"""Settings of scoring."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ScoringConfig", "SizedScoringConfig"]


class ScoringConfig(BaseModel):
    """How texts are scored. Every field is part of an artifact's key: each can change the last bits of a score.

    The number of CPU threads can as well, and is no field: a run may be resumed on another machine. It is recorded, and a comparison of two score
    folders says so where it differs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int | None = Field(default=None, ge=1, description="keep the first N tokens of a text and say so; default: all of it, in windows")
    bos: Literal["auto", "always", "never"] = Field(
        default="auto", description="prefix: what the tokenizer itself adds; BOS (EOS where there is none); or nothing"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="weights; log-probabilities are float32 always")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N, mps")
    window_tokens: int | None = Field(default=None, ge=4, description="longest model input; default and upper limit: the model's own")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens (padding included) in one forward pass, a longer text goes alone; default: 1,024 on a CPU, else 32,768",
    )
    logits_megabytes: int | None = Field(default=None, ge=1, description="memory for logits held at once; default: 64 on a CPU, else 2,048")

    def sized_for(self, device_type: str) -> "SizedScoringConfig":
        """These settings with the sizes that suit a device ("cpu", "cuda", "mps") where none were given.

        On a CPU 1,024 tokens keep a layer's activations in the last-level cache and below the size at which the C library fetches fresh, zeroed
        pages for every tensor. An accelerator needs more work at once.
        """
        batch_tokens, logits_megabytes = (1024, 64) if device_type == "cpu" else (32_768, 2048)
        sizes = {"batch_tokens": self.batch_tokens or batch_tokens, "logits_megabytes": self.logits_megabytes or logits_megabytes}
        return SizedScoringConfig.model_validate({**self.model_dump(), **sizes})


class SizedScoringConfig(ScoringConfig):
    """Settings of scoring on a device that is known."""

    batch_tokens: int = Field(ge=1)
    logits_megabytes: int = Field(ge=1)
