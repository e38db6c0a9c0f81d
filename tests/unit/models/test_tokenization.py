"""Text to tokens: one prefix policy, offsets that cover the text, and a fingerprint of what decides a text's tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from lmdissect.errors import ModelReferenceError
from lmdissect.models import BosPolicy, TextTokenizer
from tiny_models import BOS, EOS, SENTENCES, tiny_tokenizer

BOS_ID, EOS_ID = 0, 1
load_saved: Any = AutoTokenizer.from_pretrained  # its type allows for tokenizers without offsets
TOKENIZERS: dict[str, dict[str, bool]] = {
    "adds BOS": {"bos": True},
    "adds nothing": {"bos": False},
    "adds EOS after": {"bos": False, "eos_after": True},
    "adds both": {"bos": True, "eos_after": True},
}


def reframed(template: str) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with another frame around a text."""
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)])
    return tokenizer


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("adds BOS", "auto", (BOS_ID,)),
        ("adds BOS", "always", (BOS_ID,)),
        ("adds BOS", "never", ()),
        ("adds nothing", "auto", ()),
        ("adds nothing", "always", (BOS_ID,)),
        ("adds nothing", "never", ()),
        ("adds EOS after", "auto", ()),
        ("adds EOS after", "always", (BOS_ID,)),
        ("adds EOS after", "never", ()),
        ("adds both", "auto", (BOS_ID,)),
        ("adds both", "always", (BOS_ID,)),
        ("adds both", "never", ()),
    ],
)
def test_prefix(name: str, policy: BosPolicy, expected: tuple[int, ...]) -> None:
    tokenizer = TextTokenizer(tiny_tokenizer(**TOKENIZERS[name]), policy)
    assert tokenizer.prefix_ids == expected
    assert tokenizer.bos == policy
    assert tokenizer.eos_id == EOS_ID


def test_eos_stands_in_for_a_missing_bos() -> None:
    bare = tiny_tokenizer(bos=False)
    bare.bos_token = None
    assert TextTokenizer(bare, "always").prefix_ids == (EOS_ID,)
    assert TextTokenizer(bare, "auto").prefix_ids == ()


def test_neither_bos_nor_eos() -> None:
    bare = tiny_tokenizer(bos=False, special=False)
    assert TextTokenizer(bare, "auto").prefix_ids == ()
    assert TextTokenizer(bare, "never").prefix_ids == ()
    assert TextTokenizer(bare, "never").eos_id is None
    with pytest.raises(ModelReferenceError, match="neither BOS nor EOS; use --bos auto or never"):
        TextTokenizer(bare, "always")


@pytest.mark.parametrize("template", [f"{BOS} {BOS} $A", f"{BOS} {EOS} $A", f"{BOS} {BOS} $A {EOS}"])
def test_more_than_one_token_before_a_text_is_refused(template: str) -> None:
    with pytest.raises(ModelReferenceError, match=r"puts 2 tokens before a text \(a doubled BOS\?\): use --bos always or never"):
        TextTokenizer(reframed(template), "auto")
    assert TextTokenizer(reframed(template), "always").prefix_ids == (BOS_ID,)
    assert TextTokenizer(reframed(template), "never").prefix_ids == ()


def test_a_frame_that_repeats_the_text_is_no_prefix() -> None:
    assert TextTokenizer(reframed("$A $A"), "auto").prefix_ids == ()


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("policy", ["auto", "always", "never"])
def test_a_text_has_its_own_tokens_only(name: str, policy: BosPolicy) -> None:
    tokenizer = TextTokenizer(tiny_tokenizer(**TOKENIZERS[name]), policy)
    plain = TextTokenizer(tiny_tokenizer(bos=False), "never")
    for text in SENTENCES:
        tokens = tokenizer.tokenize(text)
        assert tokens.token_id.tolist() == plain.tokenize(text).token_id.tolist()
        assert BOS_ID not in tokens.token_id
        assert EOS_ID not in tokens.token_id


def test_known_tokens_and_offsets() -> None:
    tokens = TextTokenizer(tiny_tokenizer()).tokenize("γé a")
    assert tokens.char_start.tolist() == [0, 0, 1, 1, 2]
    assert tokens.char_end.tolist() == [1, 1, 2, 2, 4]
    assert {tokens.token_id.dtype, tokens.char_start.dtype, tokens.char_end.dtype} == {np.dtype(np.int32)}


@pytest.mark.parametrize("text", ["", " ", "\0", "a", "\n\n", "\u200b", "🙂"])
def test_odd_texts(text: str) -> None:
    tokens = TextTokenizer(tiny_tokenizer()).tokenize(text)
    assert tokens.token_id.shape == tokens.char_start.shape == tokens.char_end.shape
    assert (len(tokens.token_id) == 0) is (text == "")
    if text:
        assert (tokens.char_start[0], tokens.char_end[-1]) == (0, len(text))


def test_lone_surrogates_are_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        TextTokenizer(tiny_tokenizer()).tokenize("a\ud800b")


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: BOS not in text and EOS not in text)


@given(TEXTS | st.lists(st.sampled_from(SENTENCES)).map(" ".join))
def test_offsets_cover_the_text_in_order(text: str) -> None:
    tokenizer = tiny_tokenizer()
    tokens = TextTokenizer(tokenizer).tokenize(text)
    assert (np.diff(tokens.char_start) >= 0).all()
    assert (tokens.char_start < tokens.char_end).all()
    covered = {index for start, end in zip(tokens.char_start, tokens.char_end, strict=True) for index in range(start, end)}
    assert covered == set(range(len(text)))
    assert tokenizer.decode(tokens.token_id.tolist()) == text


def test_settings_of_a_training_run_do_not_cut_or_pad(tmp_path: Path) -> None:
    """tokenizer.json can carry truncation and padding; a text is scored whole, and nothing but the text."""
    text = " ".join(SENTENCES)
    whole = TextTokenizer(tiny_tokenizer()).tokenize(text).token_id.tolist()
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=8)
    tokenizer.backend_tokenizer.enable_padding(length=4096)
    tokenizer.model_max_length = 8
    tokenizer.save_pretrained(tmp_path)
    for loaded in (tokenizer, load_saved(tmp_path)):
        assert TextTokenizer(loaded).prefix_ids == (BOS_ID,)
        assert TextTokenizer(loaded).tokenize(text).token_id.tolist() == whole


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow(PreTrainedTokenizer):
        vocab_size = 1

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    with pytest.raises(ModelReferenceError, match=r"the tokenizer Slow gives no character offsets: convert it .*tokenizer\.json"):
        TextTokenizer(Slow())  # type: ignore[arg-type, no-untyped-call]


def test_special_tokens_in_a_text_are_read_one_way(tmp_path: Path) -> None:
    """Whatever the tokenizer's files say about splitting them: two copies with one fingerprint give one sequence of tokens."""
    tiny_tokenizer().save_pretrained(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text(encoding="utf-8")), "split_special_tokens": True}), encoding="utf-8")
    plain, loaded = TextTokenizer(tiny_tokenizer()), TextTokenizer(load_saved(tmp_path))
    assert loaded.tokenizer.split_special_tokens
    assert loaded.fingerprint() == plain.fingerprint()
    text = f"a {BOS} b"
    assert loaded.tokenize(text).token_id.tolist() == plain.tokenize(text).token_id.tolist()
    assert plain.tokenize(text).token_id.tolist().count(BOS_ID) == 1


class TestFingerprint:
    def test_a_saved_copy_is_the_same(self, tmp_path: Path) -> None:
        tiny_tokenizer().save_pretrained(tmp_path)
        assert TextTokenizer(load_saved(tmp_path)).fingerprint() == TextTokenizer(tiny_tokenizer()).fingerprint()

    def test_use_leaves_no_trace(self) -> None:
        tokenizer = TextTokenizer(tiny_tokenizer())
        before = tokenizer.fingerprint()
        tokenizer.tokenize(SENTENCES[0])
        tokenizer.tokenizer(list(SENTENCES), truncation=True, max_length=5)
        assert tokenizer.fingerprint() == before

    def test_padding_and_truncation_do_not_count(self) -> None:
        tokenizer = tiny_tokenizer()
        before = TextTokenizer(tokenizer).fingerprint()
        tokenizer.backend_tokenizer.enable_padding(length=7)
        tokenizer.backend_tokenizer.enable_truncation(max_length=7)
        assert TextTokenizer(tokenizer).fingerprint() == before

    def test_the_prefix_does_not_count(self) -> None:
        """It is recorded beside the fingerprint; the text's own tokens are the same."""
        found = {
            TextTokenizer(tiny_tokenizer(**options), policy).fingerprint()
            for options in TOKENIZERS.values()
            for policy in ("auto", "always", "never")
        }
        assert len(found) == 1

    def test_what_changes_tokens_counts(self) -> None:
        plain = tiny_tokenizer()
        lower: Any = tiny_tokenizer()
        lower.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        added = tiny_tokenizer()
        added.add_tokens(["the"])
        found = [TextTokenizer(tokenizer).fingerprint() for tokenizer in (plain, tiny_tokenizer(vocab_size=383), lower, added)]
        assert len(set(found)) == 4

    def test_the_order_of_the_vocabulary_in_the_file_does_not_count(self) -> None:
        build: Any = PreTrainedTokenizerFast
        found = {
            TextTokenizer(build(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a"))), "never").fingerprint()  # noqa: S106 - no password
            for vocabulary in ({"a": 0, "b": 1, "c": 2}, {"c": 2, "b": 1, "a": 0})
        }
        assert len(found) == 1
