"""The recipe of one variant, as a user writes it in YAML."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AuditRule", "Recipe", "RewriteExample"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RewriteExample(_Frozen):
    """One document and the rewrite that was wanted of it, shown to the writer before its task."""

    document: str = Field(min_length=1)
    rewrite: str = Field(min_length=1)


class AuditRule(_Frozen):
    """Bounds on one measured quantity of a pair; a text outside of them is rejected."""

    measure: str = Field(description="name of the measured quantity, as `lmdissect audit --measures` lists them")
    minimum: float | None = None
    maximum: float | None = None
    reason: str = Field(min_length=1, description="why the bound is there, in words; printed with every rejection")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.minimum is None and self.maximum is None:
            message = "give minimum, maximum, or both"
            raise ValueError(message)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            message = f"minimum {self.minimum} is above maximum {self.maximum}"
            raise ValueError(message)
        return self


class Recipe(_Frozen):
    """How one variant is written: the changed factor, the instruction, and what must stay.

    Every recipe goes through the same prompt frame, the control's too, so that control and variants differ by their instruction alone.
    """

    variant: str = Field(pattern=r"^\w[\w.+-]{0,63}$", description="name of the variant: casual, counterfactual")
    factor: str = Field(pattern=r"^[a-z0-9_+-]+$", description="factor it changes: topic, style, factual, control, topic+style, or the user's own")
    suits: str = Field(default="any text", description="which originals it is meant for, in words")
    instruction: str = Field(min_length=1, description="what to change, addressed to the writer")
    keeps: tuple[str, ...] = Field(default=(), description="what must stay, one statement an entry")
    examples: tuple[RewriteExample, ...] = Field(default=(), description="shown to the writer as finished tasks, in order")
    audit: tuple[AuditRule, ...] | None = Field(default=None, description="bounds of the audit; null: those of the factor")
