"""Tokens -> coloured pieces: no character lost or doubled, whatever the offsets are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdissect.report.content import Example
from lmdissect.report.spans import NUM_STEPS, choose_scale, cut_text
from lmdissect.report.text import REPLACEMENT, clean_text


def _example(text: str, spans: list[tuple[int, int]], base: list[float | None], tuned: list[float | None]) -> Example:
    return Example("d", "casual", text, None, [start for start, _ in spans], [end for _, end in spans], base, tuned)


def test_text_outside_tokens_is_kept() -> None:
    pieces = cut_text(_example("ab cd", [(0, 2), (3, 5)], [-1.0, -2.0], [-0.5, -3.0]), 1.0)
    assert [(piece.text, piece.is_token) for piece in pieces] == [("ab", True), (" ", False), ("cd", True)]
    assert [piece.step for piece in pieces] == [2, None, -NUM_STEPS]


def test_tokens_that_share_a_character_are_one_piece_with_summed_gain() -> None:
    pieces = cut_text(_example("x🧪", [(0, 1), (1, 2), (1, 2), (1, 2)], [-1.0, -1.0, -2.0, -0.5], [-1.0, -0.5, -1.0, -0.25]), 10.0)
    assert [piece.text for piece in pieces] == ["x", "🧪"]
    assert (pieces[1].base_nats, pieces[1].tuned_nats, pieces[1].num_tokens) == (-3.5, -1.75, 3)


def test_tokens_of_no_width_go_with_their_neighbour() -> None:
    pieces = cut_text(_example("ab", [(0, 0), (0, 1), (1, 1), (1, 2)], [-1.0] * 4, [-0.5] * 4), 1.0)
    assert [(piece.text, piece.num_tokens) for piece in pieces] == [("a", 3), ("b", 1)]


def test_a_token_without_a_score_has_no_colour() -> None:
    pieces = cut_text(_example("ab", [(0, 1), (1, 2)], [None, -1.0], [None, -1.0]), 1.0)
    assert [(piece.step, piece.base_nats) for piece in pieces] == [(None, None), (0, -1.0)]


def test_hostile_characters_do_not_move_offsets() -> None:
    pieces = cut_text(_example("a\x00b\u202ec", [(0, 2), (2, 5)], [-1.0, -1.0], [-1.0, -1.0]), 1.0)
    assert [piece.text for piece in pieces] == [f"a{REPLACEMENT}", f"b{REPLACEMENT}c"]


@settings(deadline=None)
@given(st.data())
def test_pieces_join_to_the_text_and_keep_every_gain(data: st.DataObject) -> None:
    text = data.draw(st.text(st.characters(codec="utf-8"), max_size=20))
    places = st.integers(0, len(text))
    spans = data.draw(st.lists(st.tuples(places, places).map(lambda pair: (min(pair), max(pair))), max_size=12))
    gains = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=len(spans), max_size=len(spans)))
    pieces = cut_text(_example(text, spans, [-2.0] * len(spans), [-2.0 + gain for gain in gains]), 1.0)
    assert "".join(piece.text for piece in pieces) == clean_text(text)
    shown = sum(piece.tuned_nats - piece.base_nats for piece in pieces if piece.tuned_nats is not None and piece.base_nats is not None)
    if any(end > start for start, end in spans):
        assert shown == pytest.approx(sum(gains))


def test_the_scale_covers_nearly_all_tokens_with_a_round_number() -> None:
    gains = [0.01] * 98 + [7.0, 9.0]
    example = _example("x" * 100, [(index, index + 1) for index in range(100)], [-10.0] * 100, [-10.0 + gain for gain in gains])
    assert choose_scale([example]) == 0.01 or choose_scale([example]) == 0.02  # 0.01 is not exact in binary
    assert choose_scale([]) == 10.0


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        *[(character, REPLACEMENT) for character in ("\x00", "\x1b", "\x85", "\u202e", "\u2066", "\ud800", "\ufffe")],
        *[(character, character) for character in ("\n", "\t", "é", "\u200f")],
        ("\r", "\n"),
    ],
)
def test_clean_text_keeps_one_character_per_character(character: str, shown: str) -> None:
    assert clean_text(f"a{character}b") == f"a{shown}b"
