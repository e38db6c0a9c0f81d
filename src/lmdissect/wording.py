"""How numbers are printed and words joined, in reports and in the sentences of a study: a true minus sign, and never a bound that rounds to a false 0."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

__all__ = [
    "ALPHA",
    "UNITS",
    "capitalize_first",
    "choose_decimals",
    "equate_p",
    "estimate_parts",
    "format_count",
    "format_estimate",
    "format_interval",
    "format_level",
    "format_p",
    "format_plain",
    "format_share",
    "format_signed",
    "join_words",
    "print_x",
    "share_parts",
]

ALPHA = 0.05
"""A Holm-adjusted p at or above this is said to be so."""

UNITS = {"token": "nats/token", "byte": "nats/byte", "document": "nats/document"}
"""Unit of a shift, by normalization."""

_MINUS = "\u2212"
_FEWEST_DECIMALS = {"token": 3, "byte": 4, "document": 1}
_MOST_DECIMALS = 6
_MORE_DECIMALS = 2
_SMALLEST_P = 0.001
_WHOLE_FROM = 100.0


def choose_decimals(half_widths: Iterable[float], normalization: str) -> int:
    """Decimals at which the median half-width of the intervals shows two digits, within what is sensible for the unit.

    Args:
        half_widths: Half of each interval's length, in the unit of ``normalization``.
        normalization: ``token``, ``byte`` or ``document``.
    """
    fewest = _FEWEST_DECIMALS[normalization]
    positive = [width for width in half_widths if width > 0 and math.isfinite(width)]
    if not positive:
        return fewest
    return min(max(1 - math.floor(math.log10(median(positive))), fewest), _MOST_DECIMALS)


def format_plain(value: float, decimals: int) -> str:
    """``value`` with a true minus sign and thousands separators; a value that rounds to 0 has no sign."""
    text = f"{value:,.{decimals}f}"
    if text.startswith("-"):
        digits = text[1:]
        return _MINUS + digits if any(character in "123456789" for character in digits) else digits
    return text


def format_signed(value: float, decimals: int) -> str:
    """``value`` with its sign, plus included; 0 has none."""
    text = format_plain(value, decimals)
    return f"+{text}" if value > 0 and any(character in "123456789" for character in text) else text


def _telling_decimals(low: float, high: float, decimals: int) -> int:
    """More decimals, two at most, where the interval leaves 0 out but a bound would be printed as 0; as they were where more do not help."""
    if low <= 0 <= high:
        return decimals
    nearest = min(abs(low), abs(high))
    return next((shown for shown in range(decimals, decimals + _MORE_DECIMALS + 1) if round(nearest, shown) != 0), decimals)


def format_interval(low: float, high: float, decimals: int) -> str:
    """``[0.034, 0.058]``; a bound that lies nearer to 0 than can be printed, in an interval that leaves 0 out, as ``[> 0, 0.058]``."""
    decimals = _telling_decimals(low, high, decimals)
    shown = [format_plain(bound, decimals) for bound in (low, high)]
    if not low <= 0 <= high:
        least = format_plain(math.copysign(10.0**-decimals, low), decimals)
        is_zero = [round(bound, decimals) == 0 for bound in (low, high)]
        near, far = (0, 1) if low > 0 else (1, 0)
        if is_zero[near]:
            shown[near] = "> 0" if low > 0 else "< 0"
        if is_zero[far]:
            shown[far] = f"< {least}" if low > 0 else f"> {least}"
    return f"[{shown[0]}, {shown[1]}]"


def estimate_parts(estimate: float, low: float, high: float, decimals: int) -> tuple[str, str]:
    """``+0.046`` and ``[0.034, 0.058]``, with equal decimals."""
    decimals = _telling_decimals(low, high, decimals)
    return format_signed(estimate, decimals), format_interval(low, high, decimals)


def format_estimate(estimate: float, low: float, high: float, decimals: int, unit: str = "") -> str:
    """``+0.046 nats/token [0.034, 0.058]``."""
    number, interval = estimate_parts(estimate, low, high, decimals)
    return f"{number} {unit} {interval}" if unit else f"{number} {interval}"


def share_parts(share: float, low: float, high: float) -> tuple[str, str]:
    """``16 %`` and ``[9, 24]``: a share and its interval, both in per cent."""
    decimals = _telling_decimals(100 * low, 100 * high, 0)
    return f"{format_plain(100 * share, decimals)} %", format_interval(100 * low, 100 * high, decimals)


def format_share(share: float, low: float, high: float) -> str:
    """A share and its interval in per cent: ``16 % [9, 24]``."""
    return " ".join(share_parts(share, low, high))


def format_p(p_value: float) -> str:
    """A p-value with three decimals: ``0.041``, or ``< 0.001``; with four where three would not tell on which side of the usual border it lies, ``0.0497``."""
    if p_value < _SMALLEST_P:
        return f"< {_SMALLEST_P}"
    text = f"{p_value:.3f}"
    return f"{p_value:.4f}" if float(text) == ALPHA else text


def equate_p(name: str, p_value: float) -> str:
    """``p = 0.041`` or ``p < 0.001``, with ``name`` in place of p."""
    text = format_p(p_value)
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


def format_level(level: float) -> str:
    """``95 %``."""
    return f"{100 * level:g} %"


def format_count(count: int, noun: str = "") -> str:
    """``1,024 documents``; ``noun`` in the singular."""
    if not noun:
        return f"{count:,}"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def print_x(value: float) -> str:
    """A place on an axis, or an amount: ``1,200``, ``9.9``, ``0.25``, ``2e-04``."""
    if value == int(value) or abs(value) >= _WHOLE_FROM:
        return format_plain(value, 0)
    return f"{value:.3g}".replace("-", _MINUS, 1) if value < 0 else f"{value:.3g}"


def join_words(words: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(words) <= 1:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def capitalize_first(text: str) -> str:
    """``text`` with a capital first letter; the rest, names among it, as it is."""
    return text[:1].upper() + text[1:]
