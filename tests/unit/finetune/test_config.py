"""Settings of a finetuning run that mean nothing are refused where they are given."""

import math

import pytest
from pydantic import ValidationError

from lmdissect.finetune import FinetuneConfig, LoraSettings


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("field", ["learning_rate", "epochs", "clip_norm", "weight_decay"])
def test_numbers_are_finite(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        FinetuneConfig.model_validate({field: value})


def test_alpha_is_finite() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        LoraSettings(rank=4, alpha=math.inf)
