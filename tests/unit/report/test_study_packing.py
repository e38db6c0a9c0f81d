"""Texts of a run on a page: cut, rounded, packed, and unpacked to the same within the rounding that is told."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmdissect.errors import MismatchedScoresError, NothingToDoError, UnreadableInputError
from lmdissect.records import ExplorerSource
from lmdissect.report.study.packing import BLOCK_DOCUMENTS, pack_texts, unpack_block
from lmdissect.report.study.texts import read_run_texts
from score_tables import ScoredText, save_scores
from study_world import build_scores, make_texts

HOSTILE = "</script><script>window.__pwned=1</script> \u202eabc \x00 \U0001f600 word " + "x" * 100_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExplorerSource:
    texts = make_texts(BLOCK_DOCUMENTS + 3, num_words=40)
    texts["doc0001", "casual"] = HOSTILE
    del texts["doc0002", "rap"]
    return build_scores(tmp_path_factory.mktemp("scores"), texts)


def test_unpacked_texts_are_the_packed_ones_within_the_rounding_that_is_told(source: ExplorerSource) -> None:
    run = read_run_texts(source)
    packed = pack_texts(run)
    names = ["original", *packed.index["variants"]]
    found = [
        piece
        for tokens, texts in zip(packed.token_blocks, packed.text_blocks, strict=True)
        for piece in unpack_block(tokens, texts, packed.index["base_scale"], packed.index["gain_scale"])
    ]
    assert len(packed.token_blocks) == 2
    wanted = [run.pieces(document, name) for document in run.document_ids for name in names]
    assert len(found) == len(wanted)
    assert sum(piece is None for piece in found) == 1
    worst = 0.0
    for shown, true in zip(found, wanted, strict=True):
        if shown is None or true is None:
            assert shown is true
            continue
        assert shown.text == true.text
        np.testing.assert_array_equal(shown.start, true.start)
        np.testing.assert_array_equal(shown.end, true.end)
        np.testing.assert_array_equal(shown.num_tokens, true.num_tokens)
        worst = max(worst, float(np.abs(shown.base_nats - true.base_nats).max()))
        assert np.abs((shown.tuned_nats - shown.base_nats) - (true.tuned_nats - true.base_nats)).max() <= packed.rounding.gain_max + 1e-9
    assert worst == pytest.approx(packed.rounding.base_max)
    assert packed.rounding.base_median < 0.05
    assert packed.rounding.gain_max < 0.05


def test_the_index_holds_shifts_as_the_method_defines_them(tmp_path: Path) -> None:
    words = "a b c d"
    base = [ScoredText("d0", name, words, [-2.0] * 4) for name in ("original", "casual", "paraphrase")]
    gains = {"original": 0.5, "casual": 0.1, "paraphrase": 0.3}
    tuned = [ScoredText("d0", name, words, [-2.0 + gain] * 4) for name, gain in gains.items()]
    save_scores(tmp_path / "base", base)
    save_scores(tmp_path / "tuned", tuned, model="tuned")
    index = pack_texts(read_run_texts(ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run"))).index
    assert index["variants"] == ["casual", "paraphrase"]
    document, snippet, gain, shifts, net, num_tokens = index["documents"][0]
    assert (document, snippet, num_tokens) == ("d0", "a b c d", 4)
    assert gain == pytest.approx(0.5, abs=1e-6)
    assert shifts == pytest.approx([0.4, 0.2], abs=1e-6)
    assert net[0] == pytest.approx(0.2, abs=1e-6)
    assert net[1] is None


def test_tokens_without_a_score_stay_without(tmp_path: Path) -> None:
    nan = float("nan")
    for name, first in (("base", -1.0), ("tuned", -0.5)):
        save_scores(
            tmp_path / name, [ScoredText("d", "original", "a b c", [nan, first, -3.0]), ScoredText("d", "casual", "a b", [nan, -1.0])], model=name
        )
    packed = pack_texts(read_run_texts(ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run")))
    pieces = unpack_block(packed.token_blocks[0], packed.text_blocks[0], packed.index["base_scale"], packed.index["gain_scale"])[0]
    assert pieces is not None
    assert np.isnan(pieces.base_nats).tolist() == [True, False, False]
    assert pieces.tuned_nats[1] == pytest.approx(-0.5, abs=0.01)


def test_control_characters_are_shown_and_do_not_act(source: ExplorerSource) -> None:
    pieces = read_run_texts(source).pieces("doc0001", "casual")
    assert pieces is not None
    assert len(pieces.text) == len(HOSTILE)
    assert "\u202e" not in pieces.text
    assert "\x00" not in pieces.text
    json.dumps(pieces.text)


def test_other_tokenizers_are_refused_by_name(tmp_path: Path) -> None:
    texts = [ScoredText("d", "original", "a b", [-1.0, -1.0])]
    save_scores(tmp_path / "base", texts)
    save_scores(tmp_path / "tuned", texts, model="tuned", tokenizer="bytes")
    with pytest.raises(MismatchedScoresError, match="run 7: base and tuned model have different tokenizers"):
        read_run_texts(ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run 7"))


def test_other_texts_are_refused_by_document(tmp_path: Path) -> None:
    save_scores(tmp_path / "base", [ScoredText("d", "original", "a b", [-1.0, -1.0])])
    save_scores(tmp_path / "tuned", [ScoredText("d", "original", "a c", [-1.0, -1.0])], model="tuned")
    with pytest.raises(MismatchedScoresError, match="document 'd', 'original'"):
        read_run_texts(ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run"))


def test_no_original_is_nothing_to_show(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        save_scores(tmp_path / name, [ScoredText("d", "casual", "a b", [-1.0, -1.0])], model=name)
    with pytest.raises(NothingToDoError, match="no document has an original"):
        read_run_texts(ExplorerSource(tmp_path / "base", tmp_path / "tuned", "run"))


def test_no_scores_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="nowhere"):
        read_run_texts(ExplorerSource(tmp_path / "nowhere", tmp_path / "nowhere", "run"))
