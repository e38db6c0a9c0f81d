"""The first sentence of the calibration page follows from its goals."""

import pytest

from lmdissect.report.calibration_words import Captions
from lmdissect.store import Manifest


@pytest.mark.parametrize(
    ("goals", "said"),
    [
        ({"size": True, "bias": True, "leak": True}, "All 3 goals were met: "),
        ({"size": True, "bias": True, "trained coverage": None}, "All 2 goals that could be judged were met: "),
        ({"size": True, "bias": False, "leak": True, "trained coverage": None}, "2 of 3 goals were met; missed: bias."),
        ({"size": False, "bias": None, "trained coverage": None}, "This was a small run: "),
    ],
)
def test_the_verdict_says_what_was_met_missed_and_not_judged(goals: dict[str, bool | None], said: str) -> None:
    manifest = Manifest.model_construct(config={})
    verdict = Captions(manifest, {"goals": [{"name": name, "is_met": is_met} for name, is_met in goals.items()]}).verdict()
    assert verdict.startswith(said)
    assert ("trained coverage" in verdict) == (None in goals.values() and bool(goals["size"]))
