"""How numbers are printed in a report: as everywhere else (`lmdissect.wording`)."""

from lmdissect.wording import (
    ALPHA,
    UNITS,
    choose_decimals,
    equate_p,
    estimate_parts,
    format_count,
    format_estimate,
    format_interval,
    format_level,
    format_p,
    format_plain,
    format_share,
    format_signed,
    print_x,
    share_parts,
)

__all__ = [
    "ALPHA",
    "UNITS",
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
    "print_x",
    "share_parts",
]
