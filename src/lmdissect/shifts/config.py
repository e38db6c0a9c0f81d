"""Settings of the statistics."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ShiftConfig"]


class ShiftConfig(BaseModel):
    """Bootstrap, test and examples. All draws come from ``seed``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(default=0.95, gt=0.5, lt=1, description="confidence level of every interval")
    num_draws: int = Field(default=10_000, ge=100, description="bootstrap resamples, and sign-flip permutations")
    ci_method: Literal["bca", "percentile"] = Field(
        default="bca", description="bootstrap interval; bca falls back to percentile where it is undefined"
    )
    seed: int = Field(default=0, ge=0, description="seed of every draw")
    num_examples: int = Field(default=8, ge=0, description="documents shown token by token in the report")
