"""Settings of a rewriting run."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["RewriteConfig"]


class RewriteConfig(BaseModel):
    """How rewrites are asked for. What changes an answer (seed, temperature, token limit, structured) is part of every request and so of its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="seed of every draw: the seeds sent with the requests and the jitter of waiting times")
    temperature: float = Field(default=0.7, ge=0.0, le=2.0, description="sampling temperature")
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="token limit of an answer; null: about three times the document's own length"
    )
    attempts: int = Field(default=3, ge=1, le=100, description="requests for one rewrite, each with its own seed, until an answer is usable")
    structured: Literal["auto", "on", "off"] = Field(default="auto", description="JSON schema output: where the server has it, always, never")
    concurrency: int = Field(default=16, ge=1, description="requests in flight at the start")
    max_concurrency: int = Field(default=64, ge=1, description="requests in flight at most")
    timeout_s: float = Field(default=180.0, gt=0.0, description="seconds until a whole response must be there")
    fault_retries: int = Field(default=5, ge=0, description="how often a request that met a fault (5xx, timeout, reset) is sent again")
    patience_s: float = Field(default=900.0, gt=0.0, description="seconds of nothing but refusals for capacity (429) after which the run stops")
    max_cost_usd: float | None = Field(default=None, gt=0.0, description="US dollars that all runs into one folder may cost together, at most")

    @model_validator(mode="after")
    def _starts_below_its_maximum(self) -> Self:
        if self.concurrency > self.max_concurrency:
            message = f"--concurrency {self.concurrency} is above --max-concurrency {self.max_concurrency}"
            raise ValueError(message)
        return self

    def request_seed(self, attempt: int) -> int:
        """Seed that attempt number ``attempt`` (from 0) sends: 31 bits, the same for all documents, so that equal prompts are one request."""
        from lmdissect.store import hash_text  # noqa: PLC0415 - keeps this module free of pyarrow

        return int(hash_text(f"rewrite:{self.seed}:{attempt}")[:8], 16) & 0x7FFFFFFF
