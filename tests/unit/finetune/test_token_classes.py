"""Which tokens are numbers, names, function words, punctuation and content."""

import numpy as np
import pytest

from lmdissect.finetune.token_classes import TOKEN_CLASSES, character_classes, token_classes
from lmdissect.models import TextTokenizer
from tiny_models import SENTENCES, tiny_tokenizer


def _classes(text: str) -> dict[str, list[str]]:
    """Pieces of ``text`` by class: neighbours of one class, white space between them."""
    codes = character_classes(text)
    found: dict[str, list[str]] = {name: [] for name in TOKEN_CLASSES}
    start = 0
    for stop in range(1, len(text) + 1):
        if stop == len(text) or codes[stop] != codes[start]:
            if codes[start] >= 0:
                found[TOKEN_CLASSES[codes[start]]].append(text[start:stop])
            start = stop
    return found


@pytest.mark.parametrize(
    ("text", "name", "pieces"),
    [
        ("a dose of 0.05 mg in 1,200 of 3 women", "number", ["0.05", "1,200", "3"]),
        ("It rose by 12.", "number", ["12"]),
        ("a 12-week trial", "number", ["12"]),
        ("1.5mg and 10.25kg, 1,200x in 3D, v1.2.3", "number", ["1.5", "10.25", "1,200", "3", "2.3"]),
        ("1.5mg and 10.25kg, 1,200x in 3D, v1.2.3", "content", ["mg", "kg", "x"]),
        ("1.5mg and 10.25kg, 1,200x in 3D, v1.2.3", "name", ["D", "v1"]),
        ("1.5mg and 10.25kg, 1,200x in 3D, v1.2.3", "punctuation", [",", ",", "."]),
        ("loss of p53 and CO2 in CD4 cells", "number", []),
        ("loss of p53 and CO2 in CD4 cells", "name", ["p53", "CO2", "CD4"]),
        ("the DNA, mRNA and McNemar", "name", ["DNA", "mRNA", "McNemar"]),
        ("Patients in Boston. Women in Rome: Results of Cox", "name", ["Boston", "Rome", "Cox"]),
        ("Patients in Boston. Women in Rome: Results of Cox", "content", ["Patients", "Women", "Results"]),
        ("RESULTS\nThe drug", "function_word", ["The"]),
        ("The patients weren\u2019t in the trial", "function_word", ["The", "weren\u2019t", "in", "the"]),
        ("(p < 0.05); 8 mmHg", "punctuation", ["(", "<", ");"]),
        ("", "content", []),
        (" \n ", "punctuation", []),
    ],
)
def test_classes_of_english(text: str, name: str, pieces: list[str]) -> None:
    assert _classes(text)[name] == pieces


@pytest.mark.parametrize("text", [*SENTENCES, "β-carotene 25 µg", "日本語 のテキスト", "Ünal\u2019s 10²"])
def test_every_visible_character_has_one_class(text: str) -> None:
    codes = character_classes(text)
    assert [code >= 0 for code in codes] == [not character.isspace() for character in text]


@pytest.mark.parametrize("text", [*SENTENCES, "β-carotene 25 µg"])
def test_a_token_has_the_class_of_its_first_visible_character(text: str) -> None:
    tokens = TextTokenizer(tiny_tokenizer(), "auto").tokenize(text)
    codes = character_classes(text)
    found = token_classes(text, tokens)
    assert len(found) == len(tokens.token_id)
    for place, (start, end) in enumerate(zip(tokens.char_start, tokens.char_end, strict=True)):
        visible = [codes[position] for position in range(start, end) if not text[position].isspace()]
        assert found[place] == (visible[0] if visible else -1)
    assert len(np.unique(found)) >= 3
