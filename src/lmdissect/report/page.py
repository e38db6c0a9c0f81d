"""The page: tables, figures and texts put into the template. Everything that comes from outside is cleaned and escaped; there is no script.

The content security policy names the hash of our one style sheet and allows nothing else: no script, no image, no font, no connection, and no
style that a document could bring along.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lmdissect.factors import ORIGINAL
from lmdissect.report import captions, findings, tables
from lmdissect.report.content import Example, ReportContent
from lmdissect.report.figures import DrawnFigure
from lmdissect.report.palette import STEPS, write_palette
from lmdissect.report.selfcheck import check_content, failed_sentence
from lmdissect.report.spans import TextPiece, choose_scale, cut_text
from lmdissect.report.text import clean_text
from lmdissect.wording import UNITS, format_count, format_level, format_plain, format_signed

__all__ = ["write_page"]

_TEMPLATES = "templates"
_GLUED = (
    (re.compile(r"([<>]) (\u2212?\d[\d.,]*[,\]])"), "\\1\u00a0\\2"),
    (re.compile(r"(\[[<>\u2212\d.,\u00a0]+), ([<>\u2212\d.,\u00a0]+\])"), "\\1,\u00a0\\2"),
    (re.compile(r"(\d) (nats/|%)"), "\\1\u00a0\\2"),
    (re.compile(r"\bp ([=<]) (\d)"), "p\u00a0\\1\u00a0\\2"),
)


@dataclass(frozen=True, slots=True)
class ShownText:
    """One text of the token view."""

    title: str
    note: str
    pieces: Sequence[TextPiece]


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """One document of the token view: the original, and the variants beside it."""

    document_id: str
    summary: str
    original: ShownText | None
    variants: Sequence[ShownText]


def write_page(content: ReportContent, figures: Mapping[str, DrawnFigure]) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=FunctionLoader(_read_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean
    )
    environment.filters.update(piece_class=_piece_class, piece_title=_piece_title, glue=_glue)
    style = write_palette() + _read_template("report.css")
    scale_nats = choose_scale(content.examples)
    return environment.get_template("report.html.j2").render(
        content=content,
        details=content.details,
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=_hash_style(style),
        figures={name: _Placed(figure) for name, figure in figures.items()},
        findings=findings,
        captions=captions,
        tables=tables,
        normalizations=[(name, UNITS[name]) for name in content.normalizations()],
        selfcheck=(box := check_content(content)),
        alarm=failed_sentence(box.checks),
        documents=_show_documents(content, scale_nats),
        scale=f"{scale_nats:g}",
        steps=sorted([*STEPS, 0]),
        level=format_level(content.level),
        num_documents=format_count(content.num_documents, "document"),
        original=ORIGINAL,
    )


class _Placed:
    """A figure whose drawings go into the page unescaped: they are ours."""

    def __init__(self, figure: DrawnFigure) -> None:
        self.name, self.caption = figure.name, figure.caption
        self.drawings = [Markup(svg) for svg in figure.inline]  # noqa: S704 - written by our own figures, texts in it escaped as XML


def _glue(text: str) -> str:
    """``text`` with the spaces inside a number and its interval, unit or per cent sign made unbreakable: no line ends in the middle of one."""
    for pattern, replacement in _GLUED:
        text = pattern.sub(replacement, text)
    return text


def _read_template(name: str) -> str:
    return resources.files("lmdissect.report").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _clean(value: object) -> object:
    return clean_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash_style(style: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


def _show_documents(content: ReportContent, scale_nats: float) -> list[ShownDocument]:
    return [
        _show_document(content, document_id, list(texts), scale_nats)
        for document_id, texts in groupby(content.examples, lambda text: text.document_id)
    ]


def _show_document(content: ReportContent, document_id: str, texts: Sequence[Example], scale_nats: float) -> ShownDocument:
    shown = {example.variant: _show_text(content, example, scale_nats) for example in texts}
    shifts = [f"{example.variant} {_signed(content, example.shift)}" for example in texts if example.shift is not None]
    return ShownDocument(document_id, ", ".join(shifts), shown.pop(ORIGINAL, None), list(shown.values()))


def _show_text(content: ReportContent, example: Example, scale_nats: float) -> ShownText:
    pieces = cut_text(example, scale_nats)
    gains = list(_piece_gains(pieces))
    factors = {variant.name: findings.factor_noun(variant.factor) for variant in content.variants}
    factor = factors.get(example.variant, "")
    notes = [f"shift {_signed(content, example.shift)} nats/token"] if example.shift is not None else []
    if gains:
        notes.append(f"gain {format_signed(sum(gains), 1)} nats in all")
    return ShownText(f"{example.variant} ({factor})" if factor else example.variant, ", ".join(notes), pieces)


def _piece_gains(pieces: Sequence[TextPiece]) -> Iterator[float]:
    for piece in pieces:
        if piece.base_nats is not None and piece.tuned_nats is not None:
            yield piece.tuned_nats - piece.base_nats


def _signed(content: ReportContent, shift: float) -> str:
    return format_signed(shift, content.decimals["token"])


def _piece_class(piece: TextPiece) -> str:
    if not piece.is_token:
        return "outside"
    if piece.step is None:
        return "unscored"
    if piece.step == 0:
        return ""
    return f"more{piece.step}" if piece.step > 0 else f"less{-piece.step}"


def _piece_title(piece: TextPiece) -> str:
    if piece.base_nats is None or piece.tuned_nats is None:
        return "no score: the model had no context before it"
    several = f", {piece.num_tokens} tokens" if piece.num_tokens > 1 else ""
    gain = format_signed(piece.tuned_nats - piece.base_nats, 3)
    return f"{gain} nats: base {format_plain(piece.base_nats, 3)}, tuned {format_plain(piece.tuned_nats, 3)}{several}"
