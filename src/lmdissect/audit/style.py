"""How a text is said: reading level, marks of informal and of academic prose, lines and rhymes."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from lmdissect.audit.lexicon import word_list
from lmdissect.audit.words import count_syllables, split_sentences, word_tokens

__all__ = ["StyleProfile", "informality_change", "line_break_rate", "rhyming_share", "style_profile"]

_CONTRACTION = re.compile(
    r"\b\w+(?:n't|'(?:s|re|ve|ll|d|m))\b|\b(?:gonna|wanna|gotta|kinda|sorta|lotta|dunno|lemme|gimme|cuz|'em|y'all|ain't)\b", re.IGNORECASE
)
_POSSESSIVE_HEAD = re.compile(r"^(?:it|that|there|here|what|who|he|she|how|where|let|so)'s$", re.IGNORECASE)
_SECOND_PERSON = word_list("second_person")
_FIRST_PERSON = word_list("first_person")
_CHATTY = word_list("chatty")
_PASSIVE = re.compile(
    r"\b(?:is|are|was|were|be|been|being)\s+(?:\w+ly\s+)?(?:\w+(?:ed|en|wn|ne|ung|ught)|found|made|held|kept|led|lost|put|read|set|told|built)\b",
    re.IGNORECASE,
)
_PER_WORDS = 100
_LEAST_VARIANCE = 2.0
_PER_TEN_WORDS = 10.0
_LINE_END = re.compile(r"[\r\n]+|\s/\s")
_MIN_LINES = 4
_VOWEL_GROUP = re.compile(r"[aeiouy]+[^aeiouy]*$")
_RHYME_WINDOW = 2


@dataclass(frozen=True, slots=True)
class StyleProfile:
    """Marks of style of one text. Rates are per 100 words.

    Attributes:
        grade: Flesch-Kincaid grade: 0.39 words per sentence + 11.8 syllables per word - 15.59.
        sentence_words: Mean words per sentence.
        word_letters: Mean characters per word.
        contractions: Contractions (it's, don't, gonna), without possessives.
        first_person: I, we and their forms.
        second_person: You and its forms.
        chatty: Words of talk (stuff, basically, turns out).
        marks: Exclamation and question marks.
        passive: Forms of *be* before a participle.
        num_words: Words, not a rate.
    """

    grade: float
    sentence_words: float
    word_letters: float
    contractions: float
    first_person: float
    second_person: float
    chatty: float
    marks: float
    passive: float

    num_words: int

    @property
    def talk(self) -> float:
        """Marks of talk: chatty + contractions + first_person + second_person + marks, per 100 words."""
        return self.chatty + self.contractions + self.first_person + self.second_person + self.marks

    @property
    def informality(self) -> float:
        """Informality = talk - grade / 2 - 2 word_letters - passive / 2: the marks on which casual rewrites and academic texts differ most, with round weights."""
        return self.talk - self.grade / 2 - 2 * self.word_letters - self.passive / 2


@lru_cache(maxsize=8_192)
def style_profile(text: str) -> StyleProfile:
    """Count the marks of style of a plain text; a text without words has zeros."""
    words = [word for word in word_tokens(text) if word[0].isalpha()]
    if not words:
        return StyleProfile(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, num_words=0)
    sentences = max(len(split_sentences(text)), 1)
    lower = [word.casefold() for word in words]
    rate = _PER_WORDS / len(words)
    contracted = sum(
        1 for match in _CONTRACTION.finditer(text) if not match.group().casefold().endswith("'s") or _POSSESSIVE_HEAD.match(match.group())
    )
    return StyleProfile(
        grade=0.39 * len(words) / sentences + 11.8 * sum(map(count_syllables, words)) / len(words) - 15.59,
        sentence_words=len(words) / sentences,
        word_letters=sum(map(len, words)) / len(words),
        contractions=contracted * rate,
        first_person=sum(word in _FIRST_PERSON for word in lower) * rate,
        second_person=sum(word in _SECOND_PERSON for word in lower) * rate,
        chatty=sum(word in _CHATTY for word in lower) * rate,
        marks=sum(text.count(mark) for mark in "!?") * rate,
        passive=len(_PASSIVE.findall(text)) * rate,
        num_words=len(words),
    )


def informality_change(before: StyleProfile, after: StyleProfile) -> float:
    """How much more like talk a rewrite is than its original, in units in which chance is about one; positive is more casual.

        (informality_after - informality_before) / sqrt(2 + 100 talk_before / num_words_before)

    Marks of talk are counts: their rate in a text that has many varies by sqrt(100 rate / words) alone, so a chatty original gives more room.
    """
    return (after.informality - before.informality) / math.sqrt(_LEAST_VARIANCE + _PER_WORDS * before.talk / max(before.num_words, 1))


def line_break_rate(text: str) -> float:
    """(lines with a letter - 1) / words x 10: prose is near 0, verse near 1. A slash between spaces ends a line too, as where verse is quoted."""
    lines = [line for line in _LINE_END.split(text) if any(character.isalpha() for character in line)]
    return _PER_TEN_WORDS * max(len(lines) - 1, 0) / max(len(word_tokens(text)), 1)


def rhyming_share(text: str) -> float:
    """Share of lines whose last word rhymes by its spelling or sound with that of one of the two lines before or after; 0 under four lines."""
    ends = [words[-1].casefold() for line in _LINE_END.split(text) if (words := [word for word in word_tokens(line) if word[0].isalpha()])]
    if len(ends) < _MIN_LINES:
        return 0.0
    rhymes = 0
    for index, word in enumerate(ends):
        near = [ends[other] for other in range(max(index - _RHYME_WINDOW, 0), min(index + _RHYME_WINDOW + 1, len(ends))) if other != index]
        rhymes += any(_rhyme(word, other) for other in near)
    return rhymes / len(ends)


def _rhyme(left: str, right: str) -> bool:
    return left != right and _ending(left) == _ending(right)


def _ending(word: str) -> str:
    """The last vowel group and what follows, spelled as it sounds: no silent e, no doubled letters, no h, one letter for ie, y and ee."""
    sound = re.sub(r"(.)\1", r"\1", word.removesuffix("'s"))
    for spelled, spoken in (
        ("igh", "i"),
        ("ough", "o"),
        ("ph", "f"),
        ("ck", "k"),
        ("ea", "e"),
        ("ie", "i"),
        ("ay", "a"),
        ("ey", "e"),
        ("ai", "a"),
        ("oa", "o"),
        ("ow", "o"),
        ("c", "k"),
        ("z", "s"),
        ("y", "i"),
        ("w", "u"),
    ):
        sound = sound.replace(spelled, spoken)
    silent = re.sub(r"([aeiou][^aeiou]+)e(s|d)?$", r"\1\2", sound)
    match = _VOWEL_GROUP.search(silent)
    return match.group()[-4:] if match else silent[-2:]
