"""Which class each token of an English text belongs to: number, name, function word, punctuation or content word.

The classes are of characters; they share out all characters of a text but its white space:

    number          a run of digits that no letter precedes, with dots and commas between digits: 12, 0.05, 1,200, and the 1.5 of 1.5mg
    function_word   a word of the list below, in any case: the, of, were, that
    name            another word that holds a digit (p53, CO2), a capital after its first letter (DNA, mRNA, McNemar), or begins with a capital in the
                    middle of a sentence (in Boston)
    content         every other word: patients, measured, and a capitalised word at the beginning of a sentence
    punctuation     everything else: signs, brackets, symbols

A word is a run of letters and digits that begins with a letter, with apostrophes between letters (don't); hyphens and slashes part words, and letters that follow
a number at once are a word of their own (the mg of 1.5mg is content). A sentence begins at the start of the text, of a
line, and after ``. ! ? :`` and white space. Rules, not a parser: they are the same for everyone, and wrong now and then (a gene in small letters is
content, a capitalised common noun of German a name).

A token belongs to the class of the first character it covers that is not white space; one of white space alone has no class.
"""

import re
from typing import get_args

import numpy as np
import numpy.typing as npt

from lmdissect.finetune.config import TokenClass
from lmdissect.models import TokenizedText

__all__ = ["TOKEN_CLASSES", "character_classes", "token_classes"]

TOKEN_CLASSES: tuple[TokenClass, ...] = get_args(TokenClass)
"""Names of the classes; their place in it is their code."""

_PIECE = re.compile(r"(?P<number>\d+(?:[.,]\d+)*)|[^\W_]+(?:['\u2019][^\W\d_]+)*")
"""A number or a word; whatever a piece is, the next one begins after it, so that the digits of p53 are no number."""
_SENTENCE_START = re.compile(r"(?:\A|\n|[.!?:]\s)[\s\"'\u201c\u2018(\[]*\Z")
_LOOKED_BACK_CHARS = 8
_NONE = -1
_FUNCTION_WORD_LIST = """
    a an the this that these those each every either neither some any no none all both half such same other another many much more most few fewer less least several
    i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours ourselves they them their theirs themselves one ones
    who whom whose which what whatever whoever whichever where when why how there here
    and or but nor so yet if unless whether because although though while whereas since until till than as
    of in on at by for with from to into onto upon about above across after against along among amongst around before behind below beneath beside besides between beyond
    despite down during except inside like near off out outside over past per through throughout toward towards under underneath up via within without
    am is are was were be been being have has had having do does did doing done will would shall should can could may might must ought cannot
    not n't don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't hasn't haven't hadn't it's i'm you're we're they're i've we've i'll
    also only just very too even still again ever never then thus hence therefore however moreover furthermore
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
"""English words that carry grammar."""


def character_classes(text: str) -> npt.NDArray[np.int8]:
    """Code of the class of every character, -1 for white space, shape (len(text),)."""
    code = {name: place for place, name in enumerate(TOKEN_CLASSES)}
    classes = np.array([_NONE if character.isspace() else code["punctuation"] for character in text], dtype=np.int8)
    for match in _PIECE.finditer(text):
        name: TokenClass = "number" if match["number"] else _class_of_word(match.group(), text, match.start())
        classes[match.start() : match.end()] = code[name]
    return classes


def token_classes(text: str, tokens: TokenizedText) -> npt.NDArray[np.int8]:
    """Code of the class of every token of ``text`` (index into `TOKEN_CLASSES`), -1 for white space alone, shape (n,)."""
    of_character = character_classes(text)
    found = np.full(len(tokens.token_id), _NONE, dtype=np.int8)
    for place, (start, end) in enumerate(zip(tokens.char_start, tokens.char_end, strict=True)):
        covered = of_character[start:end]
        visible = covered[covered != _NONE]
        if len(visible):
            found[place] = visible[0]
    return found


def _class_of_word(word: str, text: str, start: int) -> TokenClass:
    if word.casefold().replace("\u2019", "'") in _FUNCTION_WORDS:
        return "function_word"
    if any(character.isdigit() for character in word) or any(character.isupper() for character in word[1:]):
        return "name"
    if word[0].isupper() and not _SENTENCE_START.search(
        text[max(0, start - _LOOKED_BACK_CHARS) : start] if start > _LOOKED_BACK_CHARS else "\n" + text[:start]
    ):
        return "name"
    return "content"
