"""The page's scripts and its content security policy: our script, plotly.js from the plotly package, and the hash of each.

plotly.js asks two things of a policy. It writes its rules into an empty style element that it adds, so the hash of the empty string is among the allowed
styles (rules are then added through the CSS object model, which no policy forbids). And a part of it that draws maps, which no figure here uses, adds a style
sheet with text of its own unless an element with a certain id is there: the page has such an element, and the sheet is never added. Attributes ``style`` set by
script through the object model need no permission. No 'unsafe-inline', no 'unsafe-eval', no origin at all.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lmdissect.errors import MissingDependencyError

__all__ = ["content_policy", "foreign_style_ids", "plotly_script", "plotly_version", "safe_json"]

_SCRIPT = Path("package_data") / "plotly.min.js"
_STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@cache
def plotly_script() -> str:
    """The text of plotly.js, ready to stand inside a script element.

    Raises:
        MissingDependencyError: The plotly package is not installed.
    """
    found = find_spec("plotly")  # its script is read as a file: importing the package would take a second, and nothing of it is used
    path = Path(found.origin).parent / _SCRIPT if found is not None and found.origin is not None else None
    if path is None or not path.is_file():
        message = "interactive figures need plotly's script: pip install plotly"
        raise MissingDependencyError(message)
    script = path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(/script|!--)", r"\\x3c\1", script, flags=re.IGNORECASE)


def plotly_version() -> str:
    """Version that the script's own first lines tell."""
    found = re.search(r"plotly\.js v([\d.]+)", plotly_script()[:400])
    return found.group(1) if found else "unknown"


def foreign_style_ids(script: str) -> list[str]:
    """Ids whose presence keeps plotly.js from adding style sheets with text."""
    return sorted(set(_STYLE_ID.findall(script)))


def content_policy(scripts: Sequence[str], styles: Sequence[str], *, connect: bool = False) -> str:
    """A policy that allows these scripts and styles by hash and nothing else; ``connect`` allows requests to the page's own server."""
    script_hashes = " ".join(_hash(script) for script in scripts)
    style_hashes = " ".join(_hash(style) for style in [*styles, ""])
    connections = "connect-src 'self'; " if connect else ""
    return f"default-src 'none'; {connections}script-src {script_hashes}; style-src {style_hashes}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def safe_json(text: str) -> str:
    """JSON that can stand inside a script element: no character that could end it or begin another."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
