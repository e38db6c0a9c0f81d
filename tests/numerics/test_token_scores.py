"""Token scores against an explicit float64 loop over positions, for every family that computes logits in its own way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lmdissect.models import LanguageModel, LoadOptions, TextTokenizer, load_model, resolve_model
from lmdissect.models.load import load_weights
from lmdissect.scoring import ScoringConfig, score_texts
from tiny_models import SENTENCES, save_tiny_cohere, save_tiny_gemma2, save_tiny_gpt2, save_tiny_llama

FAMILIES: dict[str, Callable[..., Path]] = {
    "llama": save_tiny_llama,
    "gpt2": save_tiny_gpt2,
    "gemma2": save_tiny_gemma2,
    "cohere": save_tiny_cohere,
}
LONG = " ".join(SENTENCES)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("models") / request.param, seed=11)
    return load_model(resolve_model(str(folder)), LoadOptions("float32", "cpu"))


def _loop(model: LanguageModel, input_ids: list[int]) -> list[float]:
    """log p of input t given the inputs before it, for t = 1, 2, ...: one full forward pass per position, softmax in float64."""
    found = []
    for position in range(1, len(input_ids)):
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([input_ids[:position]]), use_cache=False).logits[0, -1].double()
        found.append(float(logits[input_ids[position]] - torch.logsumexp(logits, dim=-1)))
    return found


@pytest.mark.parametrize("bos", ["always", "never"])
def test_scores_are_the_ones_of_an_explicit_loop(model: LanguageModel, bos: str) -> None:
    config = ScoringConfig.model_validate({"bos": bos})
    texts = [SENTENCES[0], SENTENCES[6]]
    for text, scores in zip(texts, score_texts(model, texts, config), strict=True):
        input_ids = TextTokenizer(model.tokenizer, "never").tokenize(text).token_id.tolist()
        expected = _loop(model, [0, *input_ids]) if bos == "always" else [float("nan"), *_loop(model, input_ids)]
        np.testing.assert_allclose(scores.logprob_nats, expected, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("block", [1, 100, 383])
def test_blocks_of_the_vocabulary_do_not_matter(model: LanguageModel, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_texts(model, SENTENCES[:6])
    monkeypatch.setattr("lmdissect.scoring.logprobs._CPU_BLOCK", block)
    for before, after in zip(whole, score_texts(model, SENTENCES[:6]), strict=True):
        np.testing.assert_allclose(after.logprob_nats, before.logprob_nats, atol=1e-5, equal_nan=True)


def test_windowed_scores_are_the_loop_over_each_window(model: LanguageModel) -> None:
    config = ScoringConfig(bos="always", window_tokens=16)
    [scores] = score_texts(model, [LONG[:150]], config)
    ids = TextTokenizer(model.tokenizer, "never").tokenize(LONG[:150]).token_id.tolist()
    assert len(ids) > 40
    expected = _loop(model, [0, *ids[:16]])  # 16 inputs score 16 tokens
    while len(expected) < len(ids):
        start = len(expected) - 8
        expected += _loop(model, [0, *ids[start : start + 16]])[8:]
    np.testing.assert_allclose(scores.logprob_nats, expected, atol=2e-5)
    assert scores.num_scored == len(ids)
    [full] = score_texts(model, [LONG[:150]], ScoringConfig(bos="always"))
    np.testing.assert_allclose(scores.logprob_nats[:16], full.logprob_nats[:16], atol=1e-5)
    assert np.abs(scores.logprob_nats - full.logprob_nats)[16:].max() > 1e-3  # less context does change later scores


def test_a_batch_gives_the_scores_of_each_text_alone(model: LanguageModel) -> None:
    texts = [*SENTENCES, "x", "two words", LONG, SENTENCES[0][:30]]
    together = score_texts(model, texts, ScoringConfig(batch_tokens=4096))
    for text, scores in zip(texts, together, strict=True):
        [alone] = score_texts(model, [text], ScoringConfig(batch_tokens=1))
        np.testing.assert_allclose(scores.logprob_nats, alone.logprob_nats, atol=1e-5)


def test_a_window_as_long_as_the_text_changes_nothing(model: LanguageModel) -> None:
    texts = list(SENTENCES[:4])
    longest = max(len(TextTokenizer(model.tokenizer).tokenize(text).token_id) for text in texts)
    whole = score_texts(model, texts)
    windowed = score_texts(model, texts, ScoringConfig(window_tokens=longest))
    for left, right in zip(whole, windowed, strict=True):
        np.testing.assert_array_equal(left.logprob_nats, right.logprob_nats)


def test_scoring_twice_is_bitwise_identical(model: LanguageModel) -> None:
    first, second = (score_texts(model, [*SENTENCES, LONG]) for _ in range(2))
    for left, right in zip(first, second, strict=True):
        assert left.logprob_nats.tobytes() == right.logprob_nats.tobytes()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_bf16_weights_still_give_float32_logprobs(family: str, tmp_path: Path) -> None:
    resolved = resolve_model(str(FAMILIES[family](tmp_path / family, seed=5)))
    model = load_model(resolved, LoadOptions("bfloat16", "cpu"))
    assert model.dtype == torch.bfloat16
    [scores] = score_texts(model, [SENTENCES[0]], ScoringConfig(bos="always"))
    ids = [0, *TextTokenizer(model.tokenizer, "never").tokenize(SENTENCES[0]).token_id.tolist()]
    weights = load_weights(resolved, torch.bfloat16).eval()
    with torch.no_grad():
        logits = weights(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0]
    targets = torch.tensor(ids[1:])
    rows = torch.arange(len(targets))
    wide = torch.log_softmax(logits.double(), dim=-1)[rows, targets].numpy()
    narrow = torch.log_softmax(logits.bfloat16(), dim=-1)[rows, targets].double().numpy()
    error, narrow_error = np.abs(scores.logprob_nats - wide).max(), np.abs(narrow - wide).max()
    assert scores.logprob_nats.dtype == np.float32
    assert narrow_error > 5e-3  # what a log-softmax in bf16 would cost
    assert error < (2e-2 if family == "gemma2" else 1e-5)  # transformers caps Gemma's logits in bf16, we do in float32
    assert len(set(scores.logprob_nats.tolist())) > 0.8 * len(ids)  # not on the coarse grid of bf16


def test_loss_of_a_text_is_the_models_own(model: LanguageModel) -> None:
    [scores] = score_texts(model, [SENTENCES[2]], ScoringConfig(bos="always"))
    ids = torch.tensor([[0, *scores.token_id.tolist()]])
    with torch.no_grad():
        logits = model.model(input_ids=ids, use_cache=False).logits
    expected = torch.nn.functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:])
    assert -scores.total_logprob_nats / scores.num_scored == pytest.approx(float(expected), abs=1e-5)
