"""What is learned, in which order."""

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from lmdissect.finetune import FinetuneConfig, LoraSettings
from lmdissect.finetune.batches import TokenizedCorpus, TokenSequence, order_documents, tokenize_corpus
from lmdissect.models import TextTokenizer
from lmdissect.records import Document
from tiny_models import SENTENCES, tiny_tokenizer

BOS_ID, EOS_ID = 0, 1
DOCUMENTS = [Document(str(number), text) for number, text in enumerate(SENTENCES)]


def _config(**settings: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"batch_size": 4, **settings})


def _own_ids(text: str) -> list[int]:
    return list(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


def _targets(text: str, config: FinetuneConfig, *, bos: bool = True) -> tuple[list[int], list[int]]:
    """Ids of one document and those of them that are learned."""
    corpus = tokenize_corpus([Document("a", text)], TextTokenizer(tiny_tokenizer(bos=bos), config.bos), config)
    (sequence,) = corpus.sequences
    assert corpus.num_target_tokens == sequence.num_targets == int(sequence.is_target.sum())
    return sequence.token_id.tolist(), sequence.token_id[sequence.is_target].tolist()


@pytest.mark.parametrize(
    ("policy", "tokenizer_adds_bos", "prefix"),
    [
        ("auto", True, [BOS_ID]),
        ("auto", False, []),
        ("always", True, [BOS_ID]),
        ("always", False, [BOS_ID]),
        ("never", True, []),
        ("never", False, []),
    ],
)
def test_prefix_policy_decides_whether_the_first_token_is_learned(policy: str, tokenizer_adds_bos: bool, prefix: list[int]) -> None:
    own = _own_ids(SENTENCES[0])
    ids, learned = _targets(SENTENCES[0], _config(bos=policy), bos=tokenizer_adds_bos)
    assert ids == [*prefix, *own, EOS_ID]
    assert learned == [*own, EOS_ID] if prefix else [*own[1:], EOS_ID]


@pytest.mark.parametrize("skipped", [0, 1, 2, 5])
def test_skipped_tokens_are_text_tokens(skipped: int) -> None:
    own = _own_ids(SENTENCES[0])
    assert _targets(SENTENCES[0], _config(skip_first_tokens=skipped))[1] == [*own[skipped:], EOS_ID]
    assert _targets(SENTENCES[0], _config(skip_first_tokens=skipped), bos=False)[1] == [*own[max(skipped, 1) :], EOS_ID]


def test_eos_is_learned_where_the_document_was_not_cut() -> None:
    own = _own_ids(SENTENCES[0])
    assert _targets(SENTENCES[0], _config(max_tokens=len(own)))[1] == [*own, EOS_ID]
    assert _targets(SENTENCES[0], _config(max_tokens=len(own) - 1))[1] == own[:-1]
    assert _targets(SENTENCES[0], _config(append_eos=False))[1] == own


def test_pad_token_that_is_eos_hides_no_eos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    corpus = tokenize_corpus(DOCUMENTS, TextTokenizer(tokenizer, "auto"), _config())
    assert [sequence.token_id[sequence.is_target].tolist().count(EOS_ID) for sequence in corpus.sequences] == [1] * len(DOCUMENTS)


def test_tokenizer_without_eos_learns_none() -> None:
    tokenizer = tiny_tokenizer(bos=False, special=False)
    corpus = tokenize_corpus(DOCUMENTS[:1], TextTokenizer(tokenizer, "auto"), _config())
    assert corpus.sequences[0].token_id.tolist() == _own_ids(SENTENCES[0])


def test_what_is_cut_and_what_is_too_short_is_counted() -> None:
    documents = [Document("a", SENTENCES[0]), Document("b", "x"), Document("c", "xy"), Document("d", "")]
    num_tokens = [len(_own_ids(document.text)) for document in documents]
    assert num_tokens[0] > 10
    config = _config(max_tokens=10, append_eos=False, bos="never")
    corpus = tokenize_corpus(documents, TextTokenizer(tiny_tokenizer(), "never"), config)
    assert (corpus.num_truncated, corpus.num_too_short, len(corpus.sequences)) == (1, 2, 2)
    assert corpus.num_target_tokens == 9 + num_tokens[2] - 1


def test_left_out_classes_are_read_and_not_learned() -> None:
    """The loss of numbers goes, their tokens stay; what the first k already leave out is not counted twice."""
    text = "12 of 400 patients had 3 visits"
    tokenizer = TextTokenizer(tiny_tokenizer(), "auto")
    whole = tokenize_corpus([Document("a", text)], tokenizer, _config())
    masked = tokenize_corpus([Document("a", text)], tokenizer, _config(skip_token_classes=("number",)))
    assert masked.sequences[0].token_id.tolist() == whole.sequences[0].token_id.tolist()
    tokens = tokenizer.tokenize(text)
    learned = masked.sequences[0].is_target[1:-1]
    pieces = [text[start:end] for start, end in zip(tokens.char_start, tokens.char_end, strict=True)]
    assert [bool(flag) for flag in learned] == [not any(character.isdigit() for character in piece) for piece in pieces]
    num_digit_tokens = sum(any(character.isdigit() for character in piece) for piece in pieces)
    assert masked.num_skipped_by_class == {"number": num_digit_tokens}
    assert masked.num_target_tokens == whole.num_target_tokens - num_digit_tokens
    assert masked.sequences[0].is_target[-1]  # EOS has no class
    later = tokenize_corpus([Document("a", text)], tokenizer, _config(skip_token_classes=("number",), skip_first_tokens=3))
    assert later.num_skipped_by_class == {"number": sum(any(character.isdigit() for character in piece) for piece in pieces[3:])}


def test_a_document_of_left_out_tokens_alone_is_too_short() -> None:
    config = _config(skip_token_classes=("number",), append_eos=False)
    corpus = tokenize_corpus([Document("a", "1234"), Document("b", "12 x")], TextTokenizer(tiny_tokenizer(), "auto"), config)
    assert (corpus.num_too_short, len(corpus.sequences)) == (1, 1)


def test_the_same_classes_in_another_order_are_the_same_settings() -> None:
    assert _config(skip_token_classes=("number", "name", "number")) == _config(skip_token_classes=("name", "number"))


def _corpus(num_documents: int) -> TokenizedCorpus:
    lengths = np.random.default_rng(0).integers(2, 30, num_documents)
    return TokenizedCorpus(tuple(TokenSequence(np.arange(length, dtype=np.int32), np.arange(length) > 0) for length in lengths), 0, 0, {})


def _flat_order(corpus: TokenizedCorpus, config: FinetuneConfig) -> list[int]:
    return [index for step in order_documents(corpus, config) for index in step]


def test_every_document_comes_once_per_pass() -> None:
    order = _flat_order(_corpus(23), _config(epochs=3))
    for start in range(0, 69, 23):  # steps of 4 straddle two passes, but a step is sorted: compare what was drawn by the end of a pass
        seen = Counter(order[: (start + 23) // 4 * 4])
        assert set(seen.values()) <= {(start + 23) // 23, start // 23, (start + 23) // 23 + 1}
    assert Counter(order) == dict.fromkeys(range(23), 3)
    assert order[:20] != order[24:44]


def test_passes_that_end_with_a_step_are_permutations_of_their_own() -> None:
    order = _flat_order(_corpus(24), _config(epochs=2))
    assert sorted(order[:24]) == sorted(order[24:]) == list(range(24))
    assert order[:24] != order[24:]


def test_order_is_fixed_by_the_seed_alone() -> None:
    corpus = _corpus(23)
    order = _flat_order(corpus, _config())
    assert order == _flat_order(corpus, _config(micro_batch_tokens=1, packing="off", learning_rate=1.0, checkpoint_steps=3))
    assert order != _flat_order(corpus, _config(seed=1))
    longer = _flat_order(corpus, _config(epochs=2))
    assert longer[:20] == order[:20]


def test_steps_hold_documents_of_all_lengths_and_are_sorted_within() -> None:
    corpus = _corpus(400)
    order = _flat_order(corpus, _config(batch_size=100))
    lengths = np.array([len(corpus.sequences[index]) for index in order])
    for start in range(0, 400, 100):
        assert (np.diff(lengths[start : start + 100]) <= 0).all()
        assert lengths[start : start + 100].mean() == pytest.approx(lengths.mean(), abs=4 * lengths.std() / 10)


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (7, [7, 3]), (64, [10]), (1, [1] * 10)])
def test_any_number_of_documents_makes_a_step(batch_size: int, sizes: list[int]) -> None:
    assert [len(step) for step in order_documents(_corpus(10), _config(batch_size=batch_size))] == sizes


@pytest.mark.parametrize(("epochs", "expected"), [(0.5, 5), (0.04, 1), (1.0, 10), (1.3, 13), (2.5, 25)])
def test_fractions_of_a_pass(epochs: float, expected: int) -> None:
    seen = Counter(_flat_order(_corpus(10), _config(epochs=epochs)))
    assert seen.total() == expected
    assert max(seen.values()) - min(seen[index] for index in range(10)) <= 1


def test_settings_have_the_papers_defaults() -> None:
    assert (FinetuneConfig().peak_learning_rate, FinetuneConfig(lora=LoraSettings(rank=8)).peak_learning_rate) == (5e-5, 2e-4)
    assert FinetuneConfig(learning_rate=0.1).peak_learning_rate == 0.1
    assert LoraSettings(rank=8).scale_numerator == 16
    assert LoraSettings(rank=8, alpha=3.5).scale_numerator == 3.5


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"micro_batch_tokens": 0}, "greater than or equal to 1"),
        ({"packing": "maybe"}, "'auto', 'on' or 'off'"),
        ({"gradient_checkpointing": True}, "'auto', 'on' or 'off'"),
        ({"precision": "float16"}, "'auto', 'float32' or 'bfloat16'"),
        ({"skip_token_classes": ["numbers"]}, "'number', 'name', 'function_word', 'punctuation' or 'content'"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"warmup_fraction": 1.0}, "less than 1"),
        ({"bos": "sometimes"}, "'auto', 'always' or 'never'"),
        ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ({"batchsize": 4}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        FinetuneConfig.model_validate(settings)
