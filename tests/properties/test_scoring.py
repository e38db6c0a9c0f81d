"""What holds for any texts: order, company and chunk sizes do not change a score, and every token has exactly one."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdissect.models import LanguageModel, LoadOptions, load_model, resolve_model
from lmdissect.scoring import ScoringConfig, score_texts
from tiny_models import SENTENCES, save_tiny_gpt2, save_tiny_llama

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TEXTS = st.lists(ANY_TEXT | st.sampled_from(SENTENCES), min_size=1, max_size=8)


@cache
def _model(name: str) -> LanguageModel:
    with tempfile.TemporaryDirectory() as folder:
        path = {"llama": save_tiny_llama, "gpt2": save_tiny_gpt2}[name](Path(folder) / name, seed=2)
        return load_model(resolve_model(str(path)), LoadOptions("float32", "cpu"))


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from(["llama", "gpt2"]))
def test_order_means_nothing(texts: list[str], order: "object", name: str) -> None:
    shuffled = list(range(len(texts)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    straight = score_texts(_model(name), texts)
    mixed = score_texts(_model(name), [texts[index] for index in shuffled])
    for place, index in enumerate(shuffled):
        assert mixed[place].token_id.tolist() == straight[index].token_id.tolist()
        np.testing.assert_allclose(mixed[place].logprob_nats, straight[index].logprob_nats, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.integers(1, 300), st.sampled_from(["llama", "gpt2"]), st.sampled_from(["auto", "always", "never"]))
def test_batches_mean_nothing(texts: list[str], batch_tokens: int, name: str, bos: str) -> None:
    alone = [score_texts(_model(name), [text], ScoringConfig.model_validate({"bos": bos, "batch_tokens": 1}))[0] for text in texts]
    together = score_texts(_model(name), texts, ScoringConfig.model_validate({"bos": bos, "batch_tokens": batch_tokens}))
    for left, right in zip(alone, together, strict=True):
        np.testing.assert_allclose(left.logprob_nats, right.logprob_nats, atol=1e-5)
        assert (left.num_scored, left.num_scored_bytes, left.num_tokens) == (right.num_scored, right.num_scored_bytes, right.num_tokens)


@settings(max_examples=40, deadline=None)
@given(ANY_TEXT, st.none() | st.integers(1, 40), st.none() | st.integers(4, 20), st.sampled_from(["llama", "gpt2"]))
def test_counts_add_up(text: str, max_tokens: int | None, window_tokens: int | None, name: str) -> None:
    [scores] = score_texts(_model(name), [text], ScoringConfig(max_tokens=max_tokens, window_tokens=window_tokens))
    num_kept = len(scores.token_id)
    assert num_kept == min(scores.num_tokens, max_tokens or scores.num_tokens)
    assert scores.truncated == (num_kept < scores.num_tokens)
    assert scores.num_scored == int(np.isfinite(scores.logprob_nats).sum()) == max(0, num_kept - (0 if name == "llama" else 1))
    assert (scores.char_start <= scores.char_end).all()
    assert 0 <= scores.num_scored_bytes <= len(text.encode())
    assert (scores.num_scored_bytes > 0) == (scores.num_scored > 0)
    if name == "llama" and not scores.truncated and scores.num_scored:
        assert scores.num_scored_bytes == len(text.encode())
