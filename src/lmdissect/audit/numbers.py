"""Numbers of a text as values with units, and which numbers of a rewrite its original does not account for.

A rewrite may drop a number, round it, spell it out, or say it in another unit; what it may not do, unless facts are what it changes, is state one that does
not follow from the original. So the sign of a changed fact is a number of the *variant* without a source, not a number of the original that is gone.
"""

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from lmdissect.audit.lexicon import ordered_words
from lmdissect.audit.units import CONVERSIONS, UNITS

__all__ = ["Number", "NumberMatch", "find_numbers", "match_numbers"]

_ONES = {word: value for value, word in enumerate(ordered_words("ones"))}
_TENS = {word: 10 * value for value, word in enumerate(ordered_words("tens"), start=2)}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_ORDINALS = {word: value for value, word in enumerate(ordered_words("ordinals"), start=3)}
_WEAK: tuple[tuple[Mapping[str, float], str], ...] = (
    (_ORDINALS, ""),
    ({"half": 0.5, "halves": 0.5, "third": 1 / 3, "thirds": 1 / 3, "quarter": 0.25, "quarters": 0.25, "fifths": 0.2, "tenths": 0.1}, "part"),
    (
        {"twice": 2, "double": 2, "doubled": 2, "doubling": 2, "twofold": 2, "triple": 3, "tripled": 3, "tripling": 3, "threefold": 3, "thrice": 3},
        "fold",
    ),
    ({"quadruple": 4, "quadrupled": 4, "fourfold": 4, "fivefold": 5, "sixfold": 6, "tenfold": 10, "dozen": 12, "fortnight": 14}, "fold"),
    ({"b.i.d": 2, "t.i.d": 3, "q.i.d": 4}, "fold"),
)
_ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12}
_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(word for word, value in _ONES.items() if 0 < value < 10)}))?|{'|'.join(sorted(_ONES, key=len, reverse=True))})"
_SCALE_WORDS = "(?:hundred|thousand|million|billion)"
_SPELLED = re.compile(
    rf"\b(?:(?:{_SMALL}|an?)(?:[\s-]{_SCALE_WORDS})+(?:(?:\s+and)?[\s-]+{_SMALL}(?:[\s-]{_SCALE_WORDS})*)*|{_SMALL})\b(?!-first)", re.IGNORECASE
)
"""A tens word with its ones; "and" and further words only after a hundred or more: "two and three weeks", "three four-week cycles" are two numbers each."""
_SCALE_PARTS = re.compile(
    rf"\b(?:(?P<whole>{_SMALL})\s+and\s+a\s+half|(?:a[\s-])?half(?:\s+of)?(?:[\s-]an?)?"
    rf"|(?:(?:an?|one|(?P<three>three))[\s-])?(?P<quarter>quarters?)(?:\s+of\s+an?)?)[\s-](?P<scale>{_SCALE_WORDS})\b",
    re.IGNORECASE,
)
"""Half a million, a quarter of a million, two and a half million."""
_DIGITS = re.compile(
    r"(?<![\w.^])(?<!\^[-+])(?<![A-Za-z]-)(?<![A-Za-z]/)(?P<money>[$£€])?(?P<value>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?:\s*(?:x|\u00d7|\*)\s*10\s*[\^(]?\s*(?P<power>[+-]?\d{1,2})(?![\d.])\)?|(?:\^|(?<=\b10)\((?=[+-]?\d+\))| to the power of )(?P<exponent>[+-]?\d+)\)?)?"
    r"(?P<rest>[^\W\d_]*)"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SPACED_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3} \d{3}(?: \d{3})*(?![\w.,])")
_SCALE_AFTER = re.compile(r"[\s-]*(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_UNIT_AFTER = re.compile(r"[\s-]*(°?[^\W\d_]+(?:\.[a-z](?:\.[a-z])?)?|%|°)")
_WEAK_WORD = re.compile(r"\b[a-z]+(?:\.[a-z]\.[a-z]|-first)?\b", re.IGNORECASE)
_CENTURY_AFTER = re.compile(r"(?:[\s-]+(?:and|or|to|early|late|mid|\w+th)){0,4}[\s-]+centur")
_JOINED = re.compile(r"\s*(?:,|and|or|to|through|-|/|±|\+/-|\+-|versus|vs\.?|respectively|between|\(|\)|\s)+\s*")
_HEDGE = re.compile(r"(?:about|around|nearly|almost|roughly|over|than|under|approximately|like|some|circa|least|most|~|≈|>|<)\s*$", re.IGNORECASE)
_HEDGE_CHARS = 16
_JOINED_CHARS = 24
_VAGUE_UNITS = frozenset({"part", "fold"})
_ORDINAL_ENDINGS = frozenset({"st", "nd", "rd", "th"})
_COUNTABLE = 10
"""Spelled-out numbers up to ten come with the telling ("these two", "all three"): alone they are no sign of a changed fact."""
_MAX_EXPONENT = 99
"""A power above 10^99 is not read as one."""
_MAX_DIGITS = 150
"""Digits of a longer run (a sequence, a key) do not count: with any scale and power its value stays far from where floats end."""
_MAX_SPELLED = 1e150
_NAME_LETTERS = frozenset("DHSGYX")
_NO_UNITS = _NAME_LETTERS | {"M"}
"""Capitals that are no units though their small letters are: 3D is no three days, 5 M no five metres."""
_PART_TOLERANCE = 0.03
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a text.

    Attributes:
        value: Its value; a percentage as written (50 for 50 %), a fraction as a fraction.
        unit: Unit it stands with, in its canonical form; empty where none is known.
        written: As it stands in the text.
        kind: ``digits``; ``words`` (twelve); ``weak`` for what may account for a number but states none (ordinals, fractions, double, phase II; a hundred and
            a million, which are as often a figure of speech).
        precision: Step of its last digit (0.1 for 7.2, 100 for 1,200): what rounding to it leaves open.
        start: Where it begins.
        hedged: Whether it is said to be about so much (about, nearly, over).
        unit_inferred: Whether its unit is that of a number further on (the 12 of "12, 15 and 20 %").
    """

    value: float
    unit: str
    written: str
    kind: str
    precision: float
    start: int
    hedged: bool = False
    unit_inferred: bool = False


@dataclass(frozen=True, slots=True)
class NumberMatch:
    """Numbers of a pair.

    Attributes:
        kept: Numbers of the original that the variant states, whatever the form.
        dropped: Numbers of the original that it does not.
        added: Numbers of the variant that nothing in the original accounts for.
        unit_changed: Numbers of the variant whose value stands in the original with other units alone.
        displacing: Where a number was dropped: numbers that the variant says more often than the original, or spelled-out small ones without a source.
    """

    kept: tuple[Number, ...]
    dropped: tuple[Number, ...]
    added: tuple[Number, ...]
    unit_changed: tuple[Number, ...]
    displacing: tuple[Number, ...]


@lru_cache(maxsize=8_192)
def find_numbers(text: str) -> tuple[Number, ...]:
    """Numbers of a plain text in order. Digits inside a name (IL-6, P-450, 3D) belong to the name."""
    found = [number for match in _DIGITS.finditer(text) if (number := _from_digits(text, match)) is not None]
    taken = [(number.start, number.start + len(number.written)) for number in found]
    parts = [match for match in _SCALE_PARTS.finditer(text) if not _overlaps(match, taken)]
    of_scales = [match.span() for match in parts]
    taken = sorted((*taken, *of_scales))
    found += [_from_part(text, match) for match in parts]
    found += [_from_words(text, match) for match in _SPELLED.finditer(text) if not _overlaps(match, taken)]
    found = _share_units(text, sorted(found, key=lambda number: number.start))
    weak = [number for number in _weak_numbers(text) if not _is_inside(number, of_scales)]
    return tuple(sorted((*found, *weak), key=lambda number: number.start))


def _overlaps(match: re.Match[str], taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a match has a character in common with one of the spans, which are in order and apart."""
    before = bisect_left(taken, (match.end(), 0)) - 1
    return before >= 0 and taken[before][1] > match.start()


def _is_inside(number: Number, spans: Sequence[tuple[int, int]]) -> bool:
    before = bisect_left(spans, (number.start + 1, 0)) - 1
    return before >= 0 and spans[before][1] > number.start


def match_numbers(original: str, variant: str) -> NumberMatch:
    """Pair the numbers of two plain texts.

    A number of the original accounts for one of the variant that is equal, rounded from decimals or with a hedge (about 90), in another unit of its kind (14 days,
    two weeks), or a share of it (50 %, half). Spelled-out numbers of the variant up to ten need no source, unless a number of the original went.
    """
    sources, stated = find_numbers(original), find_numbers(variant)
    firm = [number for number in sources if number.kind != "weak"]
    said = [number for number in stated if number.kind != "weak"]
    any_source = _distinct(sources)
    apart = {number: _apart(number, any_source) for number in said}
    spaced = _spaced_thousands(variant, sources)
    checked = [number for number in said if not (_is_small_word(number) or apart[number] or _is_inside(number, spaced))]
    any_stated = _distinct((*stated, *(part for parts in apart.values() for part in parts)))
    kept = tuple(number for number in firm if any(_accounts_for(number, other) for other in any_stated))
    dropped = tuple(number for number in firm if not any(_accounts_for(number, other) for other in any_stated))
    return NumberMatch(
        kept,
        dropped,
        added=tuple(number for number in checked if not any(_accounts_for(source, number) for source in any_source)),
        unit_changed=tuple(number for number in checked if _unit_differs(number, any_source)),
        displacing=_displacing(sources, said) if dropped else (),
    )


def _spaced_thousands(variant: str, sources: Sequence[Number]) -> list[tuple[int, int]]:
    """Where a variant writes a number of the original with spaces (12 000 for 12,000)."""
    return [
        match.span()
        for match in _SPACED_THOUSANDS.finditer(variant)
        if any(_close(source.value, _parse_value(match.group().replace(" ", ""))[0]) for source in sources)
    ]


def _apart(number: Number, sources: Sequence[Number]) -> list[Number]:
    """The two numbers that "groups of a hundred and twenty" may mean, where the original has both of them; else none."""
    words = re.split(r"\s+and\s+", number.written) if number.kind == "words" else []
    parts = [replace(number, value=_spelled_value(part), kind="weak") for part in words]
    return parts if len(parts) > 1 and all(any(_accounts_for(source, part) for source in sources) for part in parts) else []


def _distinct(numbers: Sequence[Number]) -> list[Number]:
    """One of every kind of number: a table that repeats its numbers is compared once."""
    return list({replace(number, start=0): number for number in numbers}.values())


def _is_small_word(number: Number) -> bool:
    return number.kind == "words" and number.value <= _COUNTABLE


def _displacing(sources: Sequence[Number], said: Sequence[Number]) -> tuple[Number, ...]:
    """The last mention of every number that is said more often than in the original (and more than once), and small words that nothing accounts for."""
    before, after = (Counter(float(f"{number.value:.9g}") for number in numbers) for numbers in (sources, said))
    last = {float(f"{number.value:.9g}"): number for number in said}
    any_source = _distinct(sources)
    found = []
    for number in said:
        value = float(f"{number.value:.9g}")
        if number.kind == "words" and value <= 1:
            continue  # "one" is mostly no number
        more_often = number is last[value] and after[value] > max(before[value], 1)
        if more_often or (_is_small_word(number) and not any(_accounts_for(source, number) for source in any_source)):
            found.append(number)
    return tuple(found)


def _from_digits(text: str, match: re.Match[str]) -> Number | None:
    value, precision = _parse_value(match["value"])
    rest = match["rest"]
    if rest == "s" and value >= _COUNTABLE and value % 10 == 0:
        rest = ""  # the 1990s, his mid-80s
    if rest in _NAME_LETTERS or (
        rest and rest.casefold() not in UNITS and rest not in _ORDINAL_ENDINGS and rest != "k" and (rest[0].isupper() or len(rest) == 1)
    ):
        return None  # 3D, 30B, 2a: a name
    if match["power"]:
        value, precision = value * 10.0 ** int(match["power"]), precision * 10.0 ** int(match["power"])
    elif match["exponent"] and (raised := _raised(value, match["exponent"])) is not None:
        value, precision = raised, 0.0
    scale_match = None if rest else _SCALE_AFTER.match(text, match.end())
    scale = _SCALES[scale_match[1].casefold()] if scale_match else 1e3 if rest == "k" else 1.0
    end = scale_match.end() if scale_match else match.end("value")
    start = match.start("value")
    unit = UNITS[match["money"]] if match["money"] else _unit_of(text, match, scale_match)
    kind = "weak" if rest in _ORDINAL_ENDINGS and value <= _COUNTABLE else "digits"
    hedged = bool(_HEDGE.search(text[max(0, start - _HEDGE_CHARS) : start]))
    return Number(value * scale, unit, text[start:end], kind, precision * scale, start, hedged)


def _raised(value: float, exponent: str) -> float | None:
    """``value`` to the power of ``exponent``; None where that is no power that a text would state."""
    if value <= 0 or len(exponent) > 1 + len(str(_MAX_EXPONENT)):
        return None
    power = int(exponent)
    return value**power if abs(power) * max(1.0, abs(math.log10(value))) <= _MAX_EXPONENT else None


def _unit_of(text: str, match: re.Match[str], scale_match: re.Match[str] | None) -> str:
    rest = match["rest"]
    if rest == "s" and len(match["value"]) > 1 and match["value"].endswith("0"):
        return ""  # the 1990s
    return _unit_at(text, scale_match.end() if scale_match else match.end() if rest == "k" else match.start("rest"))


def _parse_value(written: str) -> tuple[float, float]:
    """Value and step of the last digit. A comma before three digits separates thousands, any other one is a decimal comma."""
    digits = written.replace(",", "") if _THOUSANDS.fullmatch(written) else written.replace(",", ".")
    whole, point, decimals = digits.partition(".")
    whole, decimals = whole[:_MAX_DIGITS], decimals[:_MAX_DIGITS]
    value, significant = float(f"{whole}.{decimals}" if point else whole), whole.rstrip("0")
    if point:
        return value, 10.0 ** -len(decimals)
    return value, 10.0 ** (len(whole) - len(significant)) if significant else 1.0


def _unit_at(text: str, end: int) -> str:
    match = _UNIT_AFTER.match(text, end)
    return UNITS.get(match[1].casefold().rstrip("."), "") if match and match[1] not in _NO_UNITS else ""


def _from_words(text: str, match: re.Match[str]) -> Number:
    first, *others = re.findall(r"[a-z]+", match.group().casefold())
    kind = "weak" if first in {"a", "an"} and all(word in _SCALES for word in others) else "words"
    return Number(_spelled_value(match.group()), _unit_at(text, match.end()), match.group(), kind, 1.0, match.start())


def _spelled_value(written: str) -> float:
    total = current = 0.0
    for word in re.findall(r"[a-z]+", written.casefold()):
        scale = _SCALES.get(word)
        if scale is None:
            current += _ONES.get(word, _TENS.get(word, 0))
        else:
            current = min((current or 1.0) * scale, _MAX_SPELLED)
            if scale > _SCALES["hundred"]:
                total, current = total + current, 0.0
    return total + current


def _from_part(text: str, match: re.Match[str]) -> Number:
    """Half a million has the precision of 500,000, a quarter of one that of 250,000."""
    scale = _SCALES[match["scale"].casefold()]
    share, step = (0.75 if match["three"] else 0.25, 0.01) if match["quarter"] else (0.5, 0.1)
    whole = _spelled_value(match["whole"]) if match["whole"] else 0.0
    hedged = bool(_HEDGE.search(text[max(0, match.start() - _HEDGE_CHARS) : match.start()]))
    return Number((whole + share) * scale, _unit_at(text, match.end()), match.group(), "words", step * scale, match.start(), hedged)


def _weak_numbers(text: str) -> list[Number]:
    """What may account for a number elsewhere: ordinals and centuries, fractions, multiples, Roman numerals, thousands set apart by a space."""
    found = []
    for match in _WEAK_WORD.finditer(text):
        word = match.group().casefold()
        found += [Number(float(table[word]), unit, match.group(), "weak", 0.0, match.start()) for table, unit in _WEAK if word in table]
        if word in _ORDINALS and _CENTURY_AFTER.match(text, match.end()):
            found.append(Number(100.0 * (_ORDINALS[word] - 1), "", match.group(), "weak", 0.0, match.start()))
        if match.group() in _ROMAN:
            found.append(Number(float(_ROMAN[match.group()]), "", match.group(), "weak", 0.0, match.start()))
    spaced = _SPACED_THOUSANDS.finditer(text)  # 60 000: thousands, or two numbers side by side
    return found + [Number(_parse_value(match.group().replace(" ", ""))[0], "", match.group(), "weak", 0.0, match.start()) for match in spaced]


def _share_units(text: str, numbers: Sequence[Number]) -> list[Number]:
    """In "12, 15 and 20 %" or "3-4 days" every number has the unit of the last one."""
    found = list(numbers)
    for index in range(len(found) - 2, -1, -1):
        here, following = found[index], found[index + 1]
        end = here.start + len(here.written)
        if not here.unit and following.unit and following.start - end <= _JOINED_CHARS and _JOINED.fullmatch(text, end, following.start):
            found[index] = replace(here, unit=following.unit, unit_inferred=True)
    return found


def _close(left: float, right: float, tolerance: float = 0.0) -> bool:
    return abs(left - right) <= tolerance + _EPSILON * max(abs(left), abs(right))


def _accounts_for(source: Number, other: Number) -> bool:
    return (_may_share_unit(source, other) and _same_value(source, other)) or _converted(source, other) or _as_part(source, other)


def _same_value(source: Number, other: Number) -> bool:
    """Equal; or rounded to fewer digits: to the nearest from decimals, up or down where it is hedged (over 60 for 64)."""
    if _close(source.value, other.value):
        return True
    if other.kind == "weak" or other.precision <= max(source.precision, 1.0 if other.kind == "words" else 0.0):
        return False
    return _close(source.value, other.value, other.precision if other.hedged else other.precision / 2 if "." in source.written else 0.0)


def _may_share_unit(source: Number, other: Number) -> bool:
    """Whether two numbers can mean the same by their units: equal, or one not known for certain."""
    return source.unit == other.unit or any(not number.unit or number.unit_inferred or number.unit in _VAGUE_UNITS for number in (source, other))


def _converted(source: Number, other: Number) -> bool:
    """The same quantity in another unit of its kind, or a percentage as a share of one (25 %, 0.25)."""
    if source.unit == other.unit:
        return False
    for scale, tolerance in CONVERSIONS:
        if source.unit in scale and other.unit in scale:
            left, right = source.value * scale[source.unit], other.value * scale[other.unit]
            return _close(left, right, tolerance * left)
    if "%" in (source.unit, other.unit):
        share, percentage = (other, source) if source.unit == "%" else (source, other)
        return not share.unit and share.value <= 1 and _close(100 * share.value, percentage.value)
    return False


def _as_part(source: Number, other: Number) -> bool:
    """50 % as half, 0.25 as a quarter, within rounding."""
    for part, share in ((source, other), (other, source)):
        if part.unit == "part":
            return _close(part.value, share.value / 100 if share.unit == "%" else share.value, _PART_TOLERANCE)
    return False


def _unit_differs(number: Number, sources: Sequence[Number]) -> bool:
    same = [source for source in sources if _close(source.value, number.value)]
    return bool(same) and not any(_may_share_unit(source, number) or _accounts_for(other, number) for source in same for other in sources)
