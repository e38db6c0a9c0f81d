"""The log-probability of given tokens: the one place where it is computed.

    log p(x_t | x_<t) = z_t[x_t] - log sum_v exp z_t[v],   z_t = logits at position t - 1, in float32

Shape letters: B windows in a batch, T inputs, N targets of the batch in a row, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from lmdissect.errors import RunFailedError
from lmdissect.models import LanguageModel
from lmdissect.scoring.windows import Window

__all__ = ["score_windows", "target_logprobs"]

_FLOAT32_BYTES = 4
_CPU_BLOCK = 2048
"""Vocabulary per block: 2,048 rows x 2,048 logits x 4 B stay in a last-level cache of 32 MB, and the matrix product is still at its full rate."""
_ACCELERATOR_BLOCK = 16384
_FORWARD_COPIES = 2  # what model.forward returns, and the float32 rows that are scored


def target_logprobs(
    logits_of: Callable[[int, int], torch.Tensor], vocabulary: int, targets_N: torch.Tensor, block: int | None = None
) -> torch.Tensor:
    """Float32 log-probability of each target, shape (N,), from logits that are made and reduced one block of the vocabulary at a time.

    With m the peak and Z = sum_v exp(z[v] - m) over the blocks so far, a block with peak m' updates them to

        m* = max(m, m'),   Z* = Z exp(m - m*) + sum_{v in block} exp(z[v] - m*),   and at the end  log p = z[x] - m - log Z

    so that a block is still in the processor's cache when its exponentials are summed, and no row of logits is held whole.

    Args:
        logits_of: ``logits_of(first, stop)`` returns float32 logits of that range of the vocabulary, shape (N, stop - first); it is overwritten here.
        vocabulary: V.
        targets_N: Token ids.
        block: Vocabulary per block; default: all of it at once.
    """
    width = block or vocabulary
    peak_N = torch.full(targets_N.shape, torch.finfo(torch.float32).min, device=targets_N.device)  # -inf would make a block of -inf NaN
    sum_N = torch.zeros_like(peak_N)
    target_N = torch.full_like(peak_N, torch.nan)  # a target outside the vocabulary stays NaN, which no caller lets pass
    for first in range(0, vocabulary, width):
        stop = min(first + width, vocabulary)
        logits_NV = logits_of(first, stop)
        column_N = targets_N - first
        found_N = logits_NV.gather(1, column_N.clamp(0, stop - first - 1)[:, None])[:, 0]
        target_N = torch.where((column_N >= 0) & (column_N < stop - first), found_N, target_N)
        higher_N = torch.maximum(peak_N, logits_NV.amax(dim=1))
        sum_N = sum_N * (peak_N - higher_N).exp() + logits_NV.sub_(higher_N[:, None]).exp_().sum(dim=1)
        peak_N = higher_N
    return target_N - peak_N - sum_N.log()


def score_windows(model: LanguageModel, windows: Sequence[Window], logits_megabytes: int) -> list[npt.NDArray[np.float32]]:
    """Scores of every window's targets, in the order given, from one forward pass.

    Windows are padded on the right, where causal attention never looks; which rows count comes from lengths, not from a pad id. If the device
    runs out of memory the batch is halved and scored in two passes, with the same outcome.

    Raises:
        RunFailedError: A single window does not fit in the device's memory.
    """
    if model.head is None and len(windows) > 1 and _whole_logits_bytes(model, windows) > logits_megabytes * 1_000_000:
        return _score_halves(model, windows, logits_megabytes)  # model.forward gives the logits of all rows at once
    try:
        return _score_together(model, windows, logits_megabytes)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if len(windows) == 1:
            message = (
                f"one text of {len(windows[0].input_ids)} tokens does not fit in memory on {model.device}: lower --window-tokens or --max-tokens"
            )
            raise RunFailedError(message) from error
    return _score_halves(model, windows, logits_megabytes)


def _whole_logits_bytes(model: LanguageModel, windows: Sequence[Window]) -> int:
    rows = len(windows) * max(len(window.input_ids) for window in windows)
    vocabulary = int(model.model.config.get_text_config().vocab_size)
    return rows * vocabulary * _FLOAT32_BYTES * _FORWARD_COPIES


def _score_halves(model: LanguageModel, windows: Sequence[Window], logits_megabytes: int) -> list[npt.NDArray[np.float32]]:
    half = len(windows) // 2
    return [*score_windows(model, windows[:half], logits_megabytes), *score_windows(model, windows[half:], logits_megabytes)]


def _score_together(model: LanguageModel, windows: Sequence[Window], logits_megabytes: int) -> list[npt.NDArray[np.float32]]:
    longest = max(len(window.input_ids) for window in windows)
    input_ids_BT = np.zeros((len(windows), longest), dtype=np.int64)
    for row, window in enumerate(windows):
        input_ids_BT[row, : len(window.input_ids)] = window.input_ids
        input_ids_BT[row, len(window.input_ids) :] = window.input_ids[-1]  # any id serves; a pad id would make some models warn
    predicting_N = np.concatenate([row * longest + window.first_row + np.arange(len(window.targets)) for row, window in enumerate(windows)])
    device = model.device
    targets_N = torch.from_numpy(np.concatenate([window.targets for window in windows])).to(device)
    # Not inference_mode: a model that is being trained may keep a tensor made here (rotary tables), and could then not be differentiated any more.
    with torch.no_grad(), torch.autocast(device.type, model.autocast, enabled=model.autocast is not None, cache_enabled=False):
        logprobs_N = _logprobs(
            model, torch.from_numpy(input_ids_BT).to(device), torch.from_numpy(predicting_N).to(device), targets_N, logits_megabytes
        )
    lengths = [len(window.targets) for window in windows]
    return np.split(logprobs_N.cpu().numpy(), np.cumsum(lengths)[:-1])


def _logprobs(
    model: LanguageModel,
    input_ids_BT: torch.Tensor,
    predicting_N: torch.Tensor,
    targets_N: torch.Tensor,
    logits_megabytes: int,
) -> torch.Tensor:
    if model.head is None:
        logits_NV = model.model(input_ids=input_ids_BT, use_cache=False).logits.flatten(0, 1)[predicting_N].float()
        return target_logprobs(lambda _first, _stop: logits_NV, logits_NV.shape[1], targets_N)
    head = model.head
    hidden_ND = head.hidden(input_ids_BT).flatten(0, 1)[predicting_N].to(head.weight_VD.dtype)
    vocabulary = head.weight_VD.shape[0]
    block = min(vocabulary, _CPU_BLOCK if hidden_ND.device.type == "cpu" else _ACCELERATOR_BLOCK)
    rows = min(len(targets_N), max(1, logits_megabytes * 1_000_000 // (block * _FLOAT32_BYTES)))
    buffer = torch.empty(rows * block, dtype=hidden_ND.dtype, device=hidden_ND.device)  # fresh memory for every block would cost page faults
    logprobs = [
        target_logprobs(partial(head.logits, hidden, buffer=buffer), vocabulary, targets, block)
        for hidden, targets in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
    ]
    return torch.cat(logprobs)
