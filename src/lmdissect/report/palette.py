"""Colours by role, for light and dark pages. Chosen to be told apart by colour-blind readers; marks and dashes differ as well.

Source of the hues: the palette of Okabe & Ito (2008), darkened for text on white and lightened for dark pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LINES", "ROLES", "STEPS", "Shade", "light", "write_palette"]


@dataclass(frozen=True, slots=True)
class Shade:
    """One role's colour on a light page and on a dark one."""

    light: str
    dark: str


ROLES: Mapping[str, Shade] = {
    "ink": Shade("#1b1f24", "#e8eaee"),
    "muted": Shade("#59626e", "#a6b0bd"),
    "rule": Shade("#d9dee4", "#39414c"),
    "surface": Shade("#fefefe", "#15181d"),
    "original": Shade("#0b67a3", "#6fbaf2"),
    "net": Shade("#bf4e08", "#ff9f60"),
    "facts": Shade("#00755a", "#4fcba4"),
    "line4": Shade("#86458f", "#dba3e3"),
    "line5": Shade("#846700", "#dfc04d"),
    "line6": Shade("#59626f", "#a6b0be"),
}
"""Every colour a figure may use. Light values differ pairwise, so that a drawn colour tells its role."""

STEPS: Mapping[int, Shade] = {
    -4: Shade("#ee8b3c", "#a05208"),
    -3: Shade("#f6b177", "#7c440f"),
    -2: Shade("#fbd3b0", "#573317"),
    -1: Shade("#fdebdd", "#35261c"),
    1: Shade("#e2eefa", "#1a2b3c"),
    2: Shade("#bbd8f2", "#1c405f"),
    3: Shade("#87bce8", "#1d5685"),
    4: Shade("#559fdc", "#1e69a8"),
}
"""Background of a token by its gain, from far less likely (orange) to far more likely (blue); ink on it stays readable."""

LINES = ("original", "net", "facts", "line4", "line5", "line6")
"""Roles of curves that share one panel, in order."""


def light(role: str) -> str:
    """The colour of ``role`` on paper."""
    return ROLES[role].light


def write_palette() -> str:
    """Style sheet rules: one variable per role and step, in light and dark, and the classes that paint with them."""
    variables = {**ROLES, **{_step_name(step): shade for step, shade in STEPS.items()}}
    day = "".join(f"--{name}:{shade.light};" for name, shade in variables.items())
    night = "".join(f"--{name}:{shade.dark};" for name, shade in variables.items())
    paints = "".join(f".f-{role}{{fill:var(--{role})}}.s-{role}{{stroke:var(--{role})}}" for role in ROLES)
    steps = "".join(f".{_step_name(step)}{{background:var(--{_step_name(step)})}}" for step in STEPS)
    return f":root{{color-scheme:light dark;{day}}}\n@media(prefers-color-scheme:dark){{:root{{{night}}}}}\n{paints}\n{steps}\n"


def _step_name(step: int) -> str:
    return f"more{step}" if step > 0 else f"less{-step}"
