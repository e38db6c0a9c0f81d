"""Settings of `lmdissect corpus`."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lmdissect.corpus.folder import ALL_SPLITS, WHOLE

__all__ = ["CorpusConfig"]

_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_ROUNDING = 1e-9


class CorpusConfig(BaseModel):
    """What becomes of the documents that are read. By default all of them are kept that have a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    with_title: bool = Field(default=False, description="put the title of a citation on a line before its abstract")
    with_labels: bool = Field(default=False, description="put the label of each section of an abstract before it")
    min_chars: int | None = Field(default=None, ge=1, description="least length of a text, in characters")
    max_chars: int | None = Field(default=None, ge=1, description="greatest length of a text, in characters")
    languages: tuple[str, ...] = Field(default=(), description="language codes of which a document must have one; none: any")
    match: str | None = Field(default=None, description="regular expression that must be found in the text")
    exclude: str | None = Field(default=None, description="regular expression that must not be found in the text")
    drop_near_duplicates: float | None = Field(
        default=None, gt=0, le=1, description="drop documents whose word 5-grams have at least this Jaccard similarity with one that is kept"
    )
    num_documents: int | None = Field(default=None, ge=1, description="keep the N documents whose seeded hash of the id is smallest")
    split: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(default={}, description="share of each split, by another hash of the id")
    seed: int = Field(default=0, ge=0, description="seed of sample, splits and of which near-duplicate is kept")

    @field_validator("match", "exclude")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                message = f"not a regular expression ({error})"
                raise ValueError(message) from error
        return pattern

    @field_validator("split")
    @classmethod
    def _are_shares(cls, splits: Mapping[str, float]) -> Mapping[str, float]:
        for name in splits:
            if _SPLIT_NAME.fullmatch(name) is None or name in {ALL_SPLITS, WHOLE}:
                message = f"'{name}' cannot name a split: letters, digits and underscores, and not '{ALL_SPLITS}' or '{WHOLE}'"
                raise ValueError(message)
        if sum(splits.values()) > 1 + _ROUNDING:
            message = f"the shares sum to {sum(splits.values()):g}, which is more than 1"
            raise ValueError(message)
        return dict(sorted(splits.items()))  # the order in which they are given has no meaning

    @model_validator(mode="after")
    def _lengths_fit(self) -> "CorpusConfig":
        if self.min_chars is not None and self.max_chars is not None and self.min_chars > self.max_chars:
            message = f"--min-chars {self.min_chars} is more than --max-chars {self.max_chars}: no text can have both"
            raise ValueError(message)
        return self
