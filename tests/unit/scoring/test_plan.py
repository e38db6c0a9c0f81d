"""Which texts are scored together: distinct texts once, whatever they are, in chunks that depend on texts and settings alone."""

import numpy as np
import pytest

from lmdissect.errors import UnreadableInputError
from lmdissect.models import TextTokenizer
from lmdissect.records import ProbeText
from lmdissect.scoring.config import ScoringConfig
from lmdissect.scoring.plan import ScoringPlan, batch_windows, make_plan
from lmdissect.scoring.windows import Window
from tiny_models import SENTENCES, tiny_tokenizer


def _plan(texts: list[str], *, max_input: int | None = None, **settings: object) -> ScoringPlan:
    probes = [ProbeText(f"d{number}", "original", text) for number, text in enumerate(texts)]
    return make_plan(probes, TextTokenizer(tiny_tokenizer()), max_input, ScoringConfig.model_validate(settings).sized_for("cpu"))


def test_identical_texts_are_planned_once() -> None:
    plan = _plan(["one text", "another", "one text", "another", "one text"])
    assert [text.text for text in plan.texts] == ["one text", "another"]
    assert plan.index_of == (0, 1, 0, 1, 0)
    assert plan.first_asked == (0, 1)
    assert sorted(index for chunk in plan.chunks for index in chunk) == [0, 1]


def test_texts_without_anything_to_score_are_in_no_chunk() -> None:
    plan = _plan(["", "x", ""])
    assert plan.index_of == (0, 1, 0)
    assert plan.chunks == ((1,),)
    assert plan.texts[0].num_tokens == 0


def test_longest_texts_come_first_and_chunks_are_bounded() -> None:
    plan = _plan([f"{sentence} {number}" for number in range(30) for sentence in SENTENCES], batch_tokens=64)
    sizes = [plan.texts[index].num_inputs for chunk in plan.chunks for index in chunk]
    assert sizes == sorted(sizes, reverse=True)
    assert len(plan.chunks) > 5
    for chunk in plan.chunks:
        assert sum(plan.texts[index].num_inputs for index in chunk) < 8 * 64 + max(sizes)


def test_a_limit_keeps_the_first_tokens_and_the_whole_count() -> None:
    plan = _plan([SENTENCES[0]], max_tokens=5)
    [text] = plan.texts
    whole = TextTokenizer(tiny_tokenizer()).tokenize(SENTENCES[0])
    assert text.num_tokens == len(whole.token_id) > 5
    assert text.tokens.token_id.tolist() == whole.token_id[:5].tolist()
    assert text.tokens.char_end.tolist() == whole.char_end[:5].tolist()


def test_a_lone_surrogate_is_refused_by_name() -> None:
    with pytest.raises(UnreadableInputError, match=r"document d1 \(original\): character 2 is a lone surrogate") as caught:
        _plan(["fine", "ab\ud800"])
    assert caught.value.exit_code == 2


def _window(length: int) -> Window:
    return Window(np.zeros(length, np.int64), np.zeros(length, np.int64), 0, 0)


@pytest.mark.parametrize("batch_tokens", [1, 7, 16, 1000])
def test_batches_hold_every_window_once_and_respect_the_padded_size(batch_tokens: int) -> None:
    windows = [_window(length) for length in (3, 9, 1, 9, 4, 7, 2, 30)]
    batches = batch_windows(windows, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        padded = len(batch) * max(len(windows[index].input_ids) for index in batch)
        assert padded <= batch_tokens or len(batch) == 1


def test_sizes_suit_the_device_unless_they_are_given() -> None:
    assert [(sized.batch_tokens, sized.logits_megabytes) for sized in map(ScoringConfig().sized_for, ("cpu", "cuda", "mps"))] == [
        (1024, 64),
        (32_768, 2048),
        (32_768, 2048),
    ]
    given = ScoringConfig(batch_tokens=7, logits_megabytes=9, max_tokens=5, bos="always").sized_for("cuda")
    assert (given.batch_tokens, given.logits_megabytes, given.max_tokens, given.bos) == (7, 9, 5, "always")
