"""Cut a token sequence into model inputs so that every token is scored once, with as much context as half a window."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Window", "cut_windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """One model input.

    Attributes:
        input_ids: Prefix and tokens, shape (t,).
        targets: Tokens scored here, shape (n,).
        first_row: Index into the input of the position that predicts the first target; the others follow.
        first_position: Position in the text of the first target.
    """

    input_ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    first_row: int
    first_position: int


def cut_windows(token_id: npt.NDArray[np.int32], prefix_ids: tuple[int, ...], max_input: int | None) -> list[Window]:
    """Windows over a text's tokens.

    The input of a window holds the prefix and the tokens that precede its last target, so a text of n tokens needs n - 1 + len(prefix) inputs. Where that
    is more than ``max_input``, the text is cut: every window starts with the prefix, and every window but the first scores half a window of tokens
    after at least as many tokens of context. Without a prefix, the first token of the text has no context and no score.

    Args:
        token_id: The text's tokens, shape (n,).
        prefix_ids: Zero or one prefix token.
        max_input: Longest input, or None for no limit.

    Raises:
        ValueError: ``max_input`` leaves no room for a token beside the prefix.
    """
    num_tokens, num_prefix = len(token_id), len(prefix_ids)
    first_scored = 0 if num_prefix else 1
    if num_tokens <= first_scored:
        return []
    if max_input is not None and max_input <= num_prefix:
        message = f"a window of {max_input} inputs has no room for a token after {num_prefix} prefix tokens"
        raise ValueError(message)
    capacity = num_tokens if max_input is None else max_input - num_prefix + 1  # tokens that one window can reach
    prefix = np.asarray(prefix_ids, dtype=np.int64)
    windows: list[Window] = []
    start, target = 0, first_scored
    while target < num_tokens:
        end = min(num_tokens, start + capacity)
        inputs = np.concatenate([prefix, token_id[start : end - 1].astype(np.int64)])
        windows.append(Window(inputs, token_id[target:end].astype(np.int64), num_prefix + target - 1 - start, target))
        target = end
        start = end - (capacity + 1) // 2
    return windows
