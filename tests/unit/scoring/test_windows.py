"""Every token scored once, the prefix in every window, and at least as much context as stride."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.scoring.windows import Window, cut_windows

PREFIX = 900


def _targets(windows: list[Window]) -> list[int]:
    return [int(target) for window in windows for target in window.targets]


@pytest.mark.parametrize(
    ("num_tokens", "prefix_ids", "expected"),
    [(0, (), 0), (0, (PREFIX,), 0), (1, (), 0), (1, (PREFIX,), 1), (2, (), 1), (9, (), 8), (9, (PREFIX,), 9)],
)
def test_first_token_needs_a_prefix(num_tokens: int, prefix_ids: tuple[int, ...], expected: int) -> None:
    windows = cut_windows(np.arange(num_tokens, dtype=np.int32), prefix_ids, None)
    assert len(_targets(windows)) == expected
    assert len(windows) == (1 if expected else 0)


def test_a_text_of_the_limit_fits_in_one_window() -> None:
    # the last token is only a target: with a prefix, 8 tokens need 8 inputs; without, 9 tokens do
    assert len(cut_windows(np.arange(8, dtype=np.int32), (PREFIX,), 8)) == 1
    assert len(cut_windows(np.arange(9, dtype=np.int32), (PREFIX,), 8)) == 2
    assert len(cut_windows(np.arange(9, dtype=np.int32), (), 8)) == 1
    assert len(cut_windows(np.arange(10, dtype=np.int32), (), 8)) == 2


def test_windows_of_a_long_text_by_hand() -> None:
    first, second, third = cut_windows(np.arange(11, dtype=np.int32), (PREFIX,), 6)
    assert first.input_ids.tolist() == [PREFIX, 0, 1, 2, 3, 4]
    assert (first.targets.tolist(), first.first_row, first.first_position) == ([0, 1, 2, 3, 4, 5], 0, 0)
    assert second.input_ids.tolist() == [PREFIX, 3, 4, 5, 6, 7]
    assert (second.targets.tolist(), second.first_row, second.first_position) == ([6, 7, 8], 3, 6)
    assert third.input_ids.tolist() == [PREFIX, 6, 7, 8, 9]
    assert (third.targets.tolist(), third.first_row, third.first_position) == ([9, 10], 3, 9)


@given(st.integers(0, 300), st.booleans(), st.integers(2, 80))
def test_every_token_once_with_its_own_context(num_tokens: int, has_prefix: bool, max_input: int) -> None:
    prefix = (PREFIX,) if has_prefix else ()
    windows = cut_windows(np.arange(num_tokens, dtype=np.int32), prefix, max_input)
    assert _targets(windows) == list(range(0 if has_prefix else 1, num_tokens))
    for number, window in enumerate(windows):
        assert len(window.input_ids) <= max_input
        assert tuple(window.input_ids[: len(prefix)]) == prefix
        assert PREFIX not in window.input_ids[len(prefix) :]
        assert window.first_position == window.targets[0]
        last_context = window.input_ids[window.first_row : window.first_row + len(window.targets)]
        if window.targets[0] > 0:
            assert last_context.tolist() == (window.targets - 1).tolist()  # the token before each target predicts it
        context = window.first_row + 1 - len(prefix)
        assert number == 0 or context >= len(window.targets)


def test_a_window_with_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        cut_windows(np.arange(3, dtype=np.int32), (PREFIX,), 1)
