"""What is learned, in which order."""

from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lmdissect.finetune import FinetuneConfig, LoraSettings
from lmdissect.finetune.batches import IGNORED, TokenizedCorpus, collate, order_documents, tokenize_corpus
from lmdissect.models import TextTokenizer
from lmdissect.records import Document
from tiny_models import SENTENCES, tiny_tokenizer

BOS_ID, EOS_ID = 0, 1
DOCUMENTS = [Document(str(number), text) for number, text in enumerate(SENTENCES)]


def _config(**settings: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"batch_size": 4, "micro_batch_size": 2, **settings})


def _own_ids(text: str) -> list[int]:
    return list(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


def _targets(text: str, config: FinetuneConfig, *, bos: bool = True) -> tuple[list[int], list[int]]:
    """Ids of one document and those of them that are learned."""
    corpus = tokenize_corpus([Document("a", text)], TextTokenizer(tiny_tokenizer(bos=bos), config.bos), config)
    batch = collate(corpus.sequences, corpus.num_ignored)
    labels = batch["labels"][0]
    assert corpus.num_target_tokens == int((labels != IGNORED).sum())
    assert torch.equal(labels[labels != IGNORED], batch["input_ids"][0][labels != IGNORED])
    return batch["input_ids"][0].tolist(), labels[labels != IGNORED].tolist()


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
    batch = collate(corpus.sequences, corpus.num_ignored)
    assert (batch["labels"] == EOS_ID).sum(1).tolist() == [1] * len(DOCUMENTS)


def test_tokenizer_without_eos_learns_none() -> None:
    tokenizer = tiny_tokenizer(bos=False, special=False)
    corpus = tokenize_corpus(DOCUMENTS[:1], TextTokenizer(tokenizer, "auto"), _config())
    assert corpus.sequences[0].tolist() == _own_ids(SENTENCES[0])


def test_what_is_cut_and_what_is_too_short_is_counted() -> None:
    documents = [Document("a", SENTENCES[0]), Document("b", "x"), Document("c", "xy"), Document("d", "")]
    num_tokens = [len(_own_ids(document.text)) for document in documents]
    assert num_tokens[0] > 10
    config = _config(max_tokens=10, append_eos=False, bos="never")
    corpus = tokenize_corpus(documents, TextTokenizer(tiny_tokenizer(), "never"), config)
    assert (corpus.num_truncated, corpus.num_too_short, len(corpus.sequences)) == (1, 2, 2)
    assert corpus.num_target_tokens == 9 + num_tokens[2] - 1


def test_collate_pads_on_the_right() -> None:
    batch = collate([np.array([5, 6, 7]), np.array([8, 9])], 1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


def _corpus(num_documents: int) -> TokenizedCorpus:
    lengths = np.random.default_rng(0).integers(2, 30, num_documents)
    return TokenizedCorpus(tuple(np.arange(length) for length in lengths), 1, 0, 0)


def test_every_document_comes_once_per_pass() -> None:
    order = order_documents(_corpus(23), _config(epochs=3))
    for start in range(0, 69, 23):  # steps of 4 straddle two passes, but a step is sorted: compare what was drawn by the end of a pass
        seen = Counter(order[: (start + 23) // 4 * 4])
        assert set(seen.values()) <= {(start + 23) // 23, start // 23, (start + 23) // 23 + 1}
    assert Counter(order) == dict.fromkeys(range(23), 3)
    assert order[:20] != order[24:44]


def test_passes_that_end_with_a_step_are_permutations_of_their_own() -> None:
    order = order_documents(_corpus(24), _config(epochs=2))
    assert sorted(order[:24]) == sorted(order[24:]) == list(range(24))
    assert order[:24] != order[24:]


def test_order_is_fixed_by_the_seed_alone() -> None:
    corpus = _corpus(23)
    order = order_documents(corpus, _config())
    assert order == order_documents(corpus, _config(micro_batch_size=1, learning_rate=1.0, checkpoint_steps=3))
    assert order != order_documents(corpus, _config(seed=1))
    longer = order_documents(corpus, _config(epochs=2))
    assert longer[:20] == order[:20]


def test_steps_hold_documents_of_all_lengths_and_are_sorted_within() -> None:
    corpus = _corpus(400)
    order = order_documents(corpus, _config(batch_size=100, micro_batch_size=1))
    lengths = np.array([len(corpus.sequences[index]) for index in order])
    for start in range(0, 400, 100):
        assert (np.diff(lengths[start : start + 100]) <= 0).all()
        assert lengths[start : start + 100].mean() == pytest.approx(lengths.mean(), abs=4 * lengths.std() / 10)


@pytest.mark.parametrize(("epochs", "expected"), [(0.5, 5), (0.04, 1), (1.0, 10), (1.3, 13), (2.5, 25)])
def test_fractions_of_a_pass(epochs: float, expected: int) -> None:
    seen = Counter(order_documents(_corpus(10), _config(epochs=epochs)))
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
        ({"batch_size": 64, "micro_batch_size": 5}, "does not divide"),
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
