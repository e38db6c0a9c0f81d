"""Scores of texts in memory: what is null, what is counted, and which texts are odd."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmdissect.errors import ModelReferenceError, NonFiniteScoreError, UnreadableInputError
from lmdissect.models import LanguageModel, LoadOptions, TextTokenizer, load_model, resolve_model
from lmdissect.scoring import ScoringConfig, score_texts
from lmdissect.scoring.logprobs import score_windows
from lmdissect.scoring.windows import cut_windows
from tiny_models import BOS, EOS, SENTENCES, TINY_MAX_POSITIONS, build_tiny, save_tiny, save_tiny_gpt2, save_tiny_llama, tiny_tokenizer


def _load(folder: Path) -> LanguageModel:
    return load_model(resolve_model(str(folder)), LoadOptions("float32", "cpu"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Its tokenizer puts BOS before a text."""
    return _load(save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Its tokenizer puts nothing before a text."""
    return _load(save_tiny_gpt2(tmp_path_factory.mktemp("models") / "gpt2", seed=0))


@contextmanager
def _counted_inputs(model: LanguageModel) -> Iterator[list[int]]:
    """Sizes of all inputs that the model's embedding sees."""
    sizes: list[int] = []
    embedding = model.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _module, inputs, _output: sizes.append(inputs[0].numel()))
    try:
        yield sizes
    finally:
        handle.remove()


def test_tokens_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    """A token was added to the tokenizer and the model was not resized; as the last token of a text it is never an input, so no embedding fails."""
    model = _load(save_tiny_llama(tmp_path / "llama", seed=0))
    model.tokenizer.add_tokens(["[PAD]"])
    with pytest.raises(ModelReferenceError, match=r"document 1 \(text\): the tokenizer of .* gives token 384, and the model knows 384"):
        score_texts(model, [SENTENCES[0], "ends in [PAD]"])


def test_auto_follows_the_tokenizer(llama: LanguageModel, gpt2: LanguageModel) -> None:
    for model, has_prefix in ((llama, True), (gpt2, False)):
        [auto] = score_texts(model, [SENTENCES[0]])
        [same] = score_texts(model, [SENTENCES[0]], ScoringConfig(bos="always" if has_prefix else "never"))
        np.testing.assert_array_equal(auto.logprob_nats, same.logprob_nats)
        assert np.isnan(auto.logprob_nats[0]) != has_prefix
        assert auto.num_scored == len(auto.token_id) - (0 if has_prefix else 1)


def test_only_the_first_token_may_lack_a_score(gpt2: LanguageModel) -> None:
    [scores] = score_texts(gpt2, [SENTENCES[1]])
    assert np.isnan(scores.logprob_nats).tolist() == [True] + [False] * (len(scores.token_id) - 1)
    assert (scores.logprob_nats[1:] < 0).all()


def test_a_prefix_changes_the_scores_and_is_no_token_of_the_text(llama: LanguageModel) -> None:
    [always] = score_texts(llama, [SENTENCES[0]], ScoringConfig(bos="always"))
    [never] = score_texts(llama, [SENTENCES[0]], ScoringConfig(bos="never"))
    assert always.token_id.tolist() == never.token_id.tolist()
    assert np.abs(always.logprob_nats[1:] - never.logprob_nats[1:]).max() > 1e-4


def test_always_takes_eos_where_there_is_no_bos(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.bos_token = None
    shape = LlamaConfig(vocab_size=384, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, bos_token_id=None)
    model = _load(save_tiny(tmp_path / "eos", build_tiny(LlamaForCausalLM, shape, seed=0), tokenizer))
    assert TextTokenizer(model.tokenizer, "always").prefix_ids == (1,)
    [scores] = score_texts(model, ["a text"], ScoringConfig(bos="always"))
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([[1]])).logits[0, 0].double()
    assert scores.logprob_nats[0] == pytest.approx(float(torch.log_softmax(logits, -1)[int(scores.token_id[0])]), abs=1e-5)


def test_always_is_refused_where_there_is_neither(tmp_path: Path) -> None:
    shape = LlamaConfig(vocab_size=384, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, bos_token_id=None)
    model = _load(save_tiny(tmp_path / "bare", build_tiny(LlamaForCausalLM, shape, seed=0), tiny_tokenizer(bos=False, special=False)))
    with pytest.raises(ModelReferenceError, match="neither BOS nor EOS"):
        score_texts(model, ["a text"], ScoringConfig(bos="always"))


@pytest.mark.parametrize("fixture", ["llama", "gpt2"])
def test_a_long_text_is_windowed_whole(fixture: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(fixture)
    text = " ".join(SENTENCES)
    [scores] = score_texts(model, [text])
    assert scores.num_tokens == len(scores.token_id) > 2 * TINY_MAX_POSITIONS
    assert not scores.truncated
    assert scores.num_scored == scores.num_tokens - (0 if fixture == "llama" else 1)
    assert np.isfinite(scores.logprob_nats[1:]).all()
    tokenizer = TextTokenizer(model.tokenizer)
    windows = cut_windows(scores.token_id, tokenizer.prefix_ids, TINY_MAX_POSITIONS)
    total = sum(float(values.sum(dtype=np.float64)) for window in windows for values in score_windows(model, [window], 128))
    assert scores.total_logprob_nats == pytest.approx(total, abs=1e-3)


def test_a_limit_is_recorded_never_silent(llama: LanguageModel) -> None:
    text = SENTENCES[6]
    [whole] = score_texts(llama, [text])
    [cut] = score_texts(llama, [text], ScoringConfig(max_tokens=7))
    assert (cut.truncated, cut.num_tokens, cut.num_scored, len(cut.token_id)) == (True, whole.num_tokens, 7, 7)
    assert cut.num_scored_bytes == len(text[: cut.char_end[-1]].encode())
    np.testing.assert_allclose(cut.logprob_nats, whole.logprob_nats[:7], atol=1e-5)
    [exact] = score_texts(llama, [text], ScoringConfig(max_tokens=whole.num_tokens))
    assert (exact.truncated, exact.num_scored_bytes) == (False, len(text.encode()))


def test_bytes_are_those_of_the_scored_tokens(llama: LanguageModel, gpt2: LanguageModel) -> None:
    text = "é-rays and β"
    [with_prefix] = score_texts(llama, [text])
    assert with_prefix.num_scored_bytes == len(text.encode()) == 14
    [without] = score_texts(gpt2, ["plain text"])
    assert without.num_scored_bytes == 10 - without.char_end[0]
    [cut] = score_texts(gpt2, ["plain text"], ScoringConfig(max_tokens=3))
    assert cut.num_scored_bytes == cut.char_end[2] - cut.char_end[0]


def test_a_character_cut_into_tokens_counts_once_one_of_them_is_scored(gpt2: LanguageModel) -> None:
    [scores] = score_texts(gpt2, ["😀"])  # four bytes, four tokens, the first without a score
    assert (scores.num_tokens, scores.num_scored) == (4, 3)
    assert scores.num_scored_bytes == 4


@pytest.mark.parametrize(
    ("text", "num_tokens"),
    [("", 0), ("a", 1), (" ", 1), ("\n\n \t", 4), ("\0", 1), ("a\0b", 3), ("😀😀", 8), ("e\u0301", 3), ("\u202e\ufeff", 6)],
)
def test_odd_texts_have_defined_scores(llama: LanguageModel, gpt2: LanguageModel, text: str, num_tokens: int) -> None:
    for model, has_prefix in ((llama, True), (gpt2, False)):
        [scores] = score_texts(model, [text])
        assert scores.num_tokens <= num_tokens  # merges may join bytes
        assert scores.num_tokens >= min(num_tokens, 1)
        assert scores.num_scored == max(0, scores.num_tokens - (0 if has_prefix else 1))
        assert np.isfinite(scores.logprob_nats[0 if has_prefix else 1 :]).all()
        assert (scores.num_scored_bytes > 0) == (scores.num_scored > 0)
        assert not scores.truncated


def test_a_lone_surrogate_is_an_error_of_ours(llama: LanguageModel) -> None:
    with pytest.raises(UnreadableInputError, match="lone surrogate"):
        score_texts(llama, ["\udcff"])


@pytest.mark.parametrize("special", [BOS, EOS])
def test_special_tokens_in_a_text_are_scored_like_any_other(llama: LanguageModel, special: str) -> None:
    text = f"before {special} after"
    [scores] = score_texts(llama, [text])
    special_id = 0 if special == BOS else 1
    places = np.flatnonzero(scores.token_id == special_id)
    assert len(places) == 1
    place = int(places[0])
    assert np.isfinite(scores.logprob_nats).all()
    assert scores.num_scored == scores.num_tokens == len(scores.token_id)
    assert text[scores.char_start[place] : scores.char_end[place]] == special
    with torch.no_grad():
        logits = llama.model(input_ids=torch.tensor([[0, *scores.token_id[:place].tolist()]])).logits[0, -1].double()
    assert scores.logprob_nats[place] == pytest.approx(float(torch.log_softmax(logits, -1)[special_id]), abs=1e-5)


def test_a_text_of_special_tokens_alone(llama: LanguageModel) -> None:
    [scores] = score_texts(llama, [EOS * 3])
    assert scores.token_id.tolist() == [1, 1, 1]
    assert scores.num_scored == 3


def test_identical_texts_cost_one_pass(llama: LanguageModel) -> None:
    with _counted_inputs(llama) as once:
        score_texts(llama, [SENTENCES[0], SENTENCES[1]])
    with _counted_inputs(llama) as repeated:
        found = score_texts(llama, [SENTENCES[0], SENTENCES[1]] * 5)
    assert sum(repeated) == sum(once) > 0
    assert len(found) == 10
    for scores in found[2::2]:
        np.testing.assert_array_equal(scores.logprob_nats, found[0].logprob_nats)


def test_no_forward_pass_holds_more_tokens_than_asked(llama: LanguageModel) -> None:
    with _counted_inputs(llama) as sizes:
        score_texts(llama, [*SENTENCES, " ".join(SENTENCES[:2])], ScoringConfig(batch_tokens=100))
    assert len(sizes) > 3
    assert max(sizes) <= 100


def test_no_text_at_all(llama: LanguageModel) -> None:
    assert score_texts(llama, []) == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_names_its_text_among_others(tmp_path: Path, broken: float) -> None:
    model = _load(save_tiny_llama(tmp_path / "llama", seed=0))
    texts = ["plain words", "words with a ~ inside", "other words"]
    [tilde] = TextTokenizer(model.tokenizer).tokenize("~").token_id
    with torch.no_grad():
        model.model.get_input_embeddings().weight[int(tilde)] = broken
    with pytest.raises(NonFiniteScoreError, match=r"document 1 \(text\): .* NaN or infinite log-probability") as caught:
        score_texts(model, texts)
    assert caught.value.exit_code == 1
    assert [scores.num_scored > 0 for scores in score_texts(model, [texts[0], texts[2]])] == [True, True]
