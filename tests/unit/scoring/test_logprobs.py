"""The one formula, and how much of the logits is held at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lmdissect.models import LanguageModel, LoadOptions, TextTokenizer, load_model, resolve_model
from lmdissect.models.head import Head
from lmdissect.scoring.logprobs import score_windows, target_logprobs
from lmdissect.scoring.windows import Window, cut_windows
from tiny_models import SENTENCES, TINY_VOCAB_SIZE, save_tiny_gpt2, save_tiny_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(resolve_model(str(save_tiny_llama(tmp_path_factory.mktemp("m") / "llama", seed=0))), LoadOptions(device="cpu"))


def _windows(model: LanguageModel, texts: list[str]) -> list[Window]:
    tokenizer = TextTokenizer(model.tokenizer)
    return [window for text in texts for window in cut_windows(tokenizer.tokenize(text).token_id, tokenizer.prefix_ids, model.max_context)]


def whole_logprobs(logits: torch.Tensor, targets: torch.Tensor, block: int | None = None) -> torch.Tensor:
    """Scores from logits that are at hand, `block` of the vocabulary at a time."""
    return target_logprobs(lambda first, stop: logits[:, first:stop].clone(), logits.shape[1], targets, block)


@pytest.mark.parametrize("block", [1, 3, 4, 11, 100])
def test_blocks_of_the_vocabulary_change_only_the_last_bits(block: int) -> None:
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(1)) * 30
    logits[0, :4] = float("-inf")  # a whole first block that is impossible
    logits[1, 8:] = float("-inf")
    targets = torch.tensor([5, 0, 10, 3, 4, 7, 8])
    expected = torch.log_softmax(logits.double(), dim=-1)[torch.arange(7), targets]
    torch.testing.assert_close(whole_logprobs(logits, targets, block).double(), expected, atol=2e-5, rtol=0)


def test_target_logprob_is_log_softmax_in_float32() -> None:
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)) * 4
    targets = torch.tensor([0, 10, 3, 3, 7])
    expected = torch.log_softmax(logits.double(), dim=-1)[torch.arange(5), targets]
    found = whole_logprobs(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)
    far = whole_logprobs(logits + 10_000.0, targets)  # exp of it is no float32
    torch.testing.assert_close(far.double(), expected, atol=2e-3, rtol=0)


def test_a_target_outside_the_vocabulary_has_no_score() -> None:
    inside, outside = whole_logprobs(torch.zeros(2, 4), torch.tensor([3, 4])).tolist()
    assert inside == pytest.approx(-np.log(4))
    assert np.isnan(outside)


@pytest.mark.parametrize("block", [None, 1, 2])
def test_an_impossible_token_is_minus_infinity_not_zero(block: int | None) -> None:
    logits = torch.tensor([[0.0, float("-inf"), 1.0], [0.0, float("nan"), 1.0]])
    impossible, broken = whole_logprobs(logits, torch.tensor([1, 0]), block=block).tolist()
    assert impossible == float("-inf")
    assert broken != broken  # noqa: PLR0124 - NaN


class _CountingHead(Head):
    """A real head that notes how many rows of logits were asked for at once."""

    rows: list[int] = []  # noqa: RUF012 - a note of one test

    def logits(self, hidden_ND: torch.Tensor, first: int = 0, stop: int | None = None, *, buffer: torch.Tensor | None = None) -> torch.Tensor:
        self.rows.append(len(hidden_ND))
        return super().logits(hidden_ND, first, stop, buffer=buffer)


def test_logits_are_never_held_for_the_whole_batch(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "wide", seed=0, vocab_size=TINY_VOCAB_SIZE)
    model = load_model(resolve_model(str(folder)), LoadOptions(device="cpu"))
    assert model.head is not None
    counting = _CountingHead(model.head.backbone, model.head.embedding, model.head.softcap, model.head.scale)
    _CountingHead.rows.clear()
    windows = _windows(model, [f"{sentence} {number}" for number in range(5) for sentence in SENTENCES])
    num_targets = sum(len(window.targets) for window in windows)
    limit = 1_000_000 // (TINY_VOCAB_SIZE * 4)
    assert num_targets > 3 * limit
    chunked = score_windows(replace(model, head=counting), windows, 1)
    assert sum(_CountingHead.rows) == num_targets
    assert max(_CountingHead.rows) <= limit
    whole = score_windows(model, windows, 1000)
    for left, right in zip(chunked, whole, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


class _CountingForward(torch.nn.Module):
    """A real model that notes the shape of every input."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shapes: list[tuple[int, ...]] = []

    @property
    def config(self) -> object:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, **arguments: object) -> object:
        self.shapes.append(tuple(input_ids.shape))
        return self.model(input_ids=input_ids, **arguments)


def test_without_a_head_the_batch_is_cut_so_that_its_logits_fit(llama: LanguageModel) -> None:
    forward = _CountingForward(llama.model)
    windows = _windows(llama, [*SENTENCES] * 4)
    found = score_windows(replace(llama, model=forward, head=None), windows, 1)  # type: ignore[arg-type]
    assert len(forward.shapes) > 1
    assert all(rows == 1 or rows * length * TINY_VOCAB_SIZE * 4 * 2 <= 1_000_000 for rows, length in forward.shapes)
    for left, right in zip(found, score_windows(llama, windows, 128), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


class _SmallDevice(Head):
    """A real head on a device whose memory holds one row of a batch: more raise what CUDA raises."""

    def hidden(self, input_ids_BT: torch.Tensor, **arguments: object) -> torch.Tensor:
        if len(input_ids_BT) > 1:
            raise torch.OutOfMemoryError
        return super().hidden(input_ids_BT, **arguments)


def test_out_of_memory_halves_the_batch_and_changes_nothing(tmp_path: Path) -> None:
    model = load_model(resolve_model(str(save_tiny_gpt2(tmp_path / "gpt2", seed=3))), LoadOptions(device="cpu"))
    assert model.head is not None
    small = replace(model, head=_SmallDevice(model.head.backbone, model.head.embedding, model.head.softcap, model.head.scale))
    windows = _windows(model, list(SENTENCES[:5]))
    for left, right in zip(score_windows(small, windows, 128), score_windows(model, windows, 128), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
