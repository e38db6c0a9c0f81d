"""Which steps are measured."""

from typing import Any

import numpy as np
import pytest

from lmdissect.errors import UserInputError
from lmdissect.integrations.callback import choose_steps


@pytest.mark.parametrize(
    ("steps", "last", "expected"),
    [
        ("log", 1, {0, 1}),
        ("log", 7, {0, 1, 2, 4, 7}),
        ("log", 8, {0, 1, 2, 4, 8}),
        ("log", 1000, {0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000}),
        (3, 10, {0, 3, 6, 9, 10}),
        (3, 9, {0, 3, 6, 9}),
        (20, 10, {0, 10}),
        ([5, 2, 2, 50], 10, {0, 2, 5, 10}),
        ((), 10, {0, 10}),
        (range(4), 10, {0, 1, 2, 3, 10}),
        (np.arange(4), 10, {0, 1, 2, 3, 10}),
        (list(np.arange(4)), 10, {0, 1, 2, 3, 10}),
        (np.int64(4), 10, {0, 4, 8, 10}),
    ],
)
def test_the_first_and_the_last_are_always_there(steps: Any, last: int, expected: set[int]) -> None:
    assert choose_steps(steps, last) == expected


@pytest.mark.parametrize("steps", [0, -1, "all", "", None, 1.0, False, [0, -1], ["1"]])
def test_what_is_not_understood_is_refused(steps: Any) -> None:
    with pytest.raises(UserInputError, match="give 'log', a number n"):
        choose_steps(steps, 10)
