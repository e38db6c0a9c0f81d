"""The HTML form: one file with everything in it, and a policy that lets it reach nothing else.

Document texts are data: they stand in a JSON block and reach the page as text nodes only. The content security policy names the hashes of our one style
sheet and our one script and allows nothing else: no connection, no image, no font, no frame, no other script.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lmdissect.alignment import changed_spans
from lmdissect.audit.criteria import Criterion
from lmdissect.audit.sheet_index import SheetPair, SheetTask
from lmdissect.store import write_text

__all__ = ["mark_changes", "write_form"]

_TEMPLATES = "templates"
_MAX_ALIGNED_WORDS = 4000  # the alignment is quadratic; longer texts are shown without marks
_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

Segments = list[tuple[str, bool]]


def write_form(
    path: Path, pairs: Sequence[SheetPair], tasks: Mapping[str, SheetTask], criteria: Sequence[Criterion], *, sheet_fingerprint: str, rater: str
) -> None:
    """Write one rater's HTML form.

    Args:
        path: The file.
        pairs: In the rater's order.
        tasks: What was asked, by variant.
        criteria: Every question that any of the variants has.
        sheet_fingerprint: Of the sheet; answers are saved and exported under it.
        rater: Their name, as the form proposes it.
    """
    page = {
        "sheet": sheet_fingerprint,
        "form": rater,
        "criteria": {criterion.name: {"question": criterion.question, "answers": list(criterion.answers)} for criterion in criteria},
        "tasks": {name: task.model_dump() for name, task in tasks.items()},
        "pairs": [_shown_pair(pair) for pair in pairs],
    }
    style, script = _read_template("form.css"), _read_template("form.js")
    environment = Environment(loader=FunctionLoader(_read_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template("form.html.j2").render(
        rater=rater,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        page=Markup(json.dumps(page).translate(_IN_SCRIPT)),  # noqa: S704 - ASCII JSON in which no character can end the block
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
    )
    write_text(path, html)


def _shown_pair(pair: SheetPair) -> dict[str, object]:
    original, text = mark_changes(pair.original, pair.text)
    return {"key": pair.key, "variant": pair.variant, "original": original, "text": text}


def mark_changes(original: str, text: str) -> tuple[Segments, Segments]:
    """Both texts cut into segments, each with whether its words are missing from the other text (word alignment as in `lmdissect.alignment`)."""
    if max(len(original.split()), len(text.split())) > _MAX_ALIGNED_WORDS:
        return [(original, False)], [(text, False)]
    spans = changed_spans(original, text)
    return _cut(original, [span.original for span in spans if span.original]), _cut(text, [span.variant for span in spans if span.variant])


def _cut(text: str, ranges: Sequence[tuple[int, int]]) -> Segments:
    segments: Segments = []
    position = 0
    for start, end in ranges:
        segments += [(text[position:start], False), (text[start:end], True)]
        position = end
    return [segment for segment in (*segments, (text[position:], False)) if segment[0]]


def _read_template(name: str) -> str:
    return resources.files("lmdissect.audit").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _policy_hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
