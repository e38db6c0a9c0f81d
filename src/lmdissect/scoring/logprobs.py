"""The log-probability of given tokens: the one place where it is computed.

    log p(x_t | x_<t) = z_t[x_t] - log sum_v exp z_t[v],   z_t = logits at position t - 1, in float32

Shape letters: B windows in a batch, T inputs, N targets of the batch in a row, D hidden size, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lmdissect.errors import RunFailedError
from lmdissect.models import LanguageModel
from lmdissect.scoring.windows import Window

__all__ = ["score_windows", "target_logprobs"]

_FLOAT32_BYTES = 4
_FORWARD_COPIES = 2  # what model.forward returns, and the float32 rows that are scored


def target_logprobs(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Float32 log-probability of each target, shape (N,), from float32 logits, which are overwritten: one copy of them is enough.

    log p = z[x] - m - log sum_v exp(z[v] - m),  m = max_v z[v]
    """
    target_N = logits_NV.gather(1, targets_N[:, None])[:, 0]
    peak_N = logits_NV.amax(dim=1)
    logits_NV.sub_(peak_N[:, None]).exp_()
    return target_N - peak_N - logits_NV.sum(dim=1).log_()


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
    with torch.inference_mode():
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
        return target_logprobs(logits_NV, targets_N)
    hidden_ND = model.head.hidden(input_ids_BT).flatten(0, 1)[predicting_N]
    vocabulary = model.head.weight_VD.shape[0]
    rows = min(len(targets_N), max(1, logits_megabytes * 1_000_000 // (vocabulary * _FLOAT32_BYTES)))
    buffer_NV = torch.empty((rows, vocabulary), dtype=hidden_ND.dtype, device=hidden_ND.device)
    logprobs_N = torch.empty(len(targets_N), dtype=torch.float32, device=targets_N.device)
    for start in range(0, len(targets_N), rows):
        stop = start + rows
        hidden = hidden_ND[start:stop]
        logprobs_N[start:stop] = target_logprobs(model.head.logits(hidden, buffer_NV[: len(hidden)]), targets_N[start:stop])
    return logprobs_N
