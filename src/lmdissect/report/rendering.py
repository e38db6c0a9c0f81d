"""Matplotlib figures -> PNG, PDF and SVG files, and SVG that lives inside the page and takes its colours and fonts from there.

No pyplot: no global figure list, no window system. Output is a function of the figure alone: no dates, fixed ids, and the user's matplotlibrc is
not read.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib import style as mpl_style
from matplotlib.figure import Figure

from lmdissect.report.palette import ROLES

__all__ = ["drawing_style", "inline_svg", "render_figure"]

_STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "lmdissect",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.edgecolor": ROLES["muted"].light,
    "axes.labelcolor": ROLES["muted"].light,
    "xtick.color": ROLES["muted"].light,
    "ytick.color": ROLES["muted"].light,
    "text.color": ROLES["ink"].light,
}
_PNG_DPI = 200
_MARGIN_IN = 0.12
_ROLE_BY_COLOUR = {shade.light: role for role, shade in ROLES.items()}
_PAINTS = {"fill": "f", "stroke": "s"}
_DROPPED = frozenset({"metadata", "style", "title"})
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user configured. Figures are built and saved inside."""
    with mpl_style.context(["default", dict(_STYLE)]), warnings.catch_warnings():
        # A variant's name may hold characters that the font lacks: a box in the figure is fine, the page shows the name itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def render_figure(figure: Figure, kind: str) -> bytes:
    """``figure`` as a ``png``, ``pdf`` or ``svg`` file on a white page; text in SVG is drawn as outlines and needs no font."""
    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "svg": {"Date": None}}[
        kind
    ]
    sink = io.BytesIO()
    figure.savefig(sink, format=kind, dpi=_PNG_DPI, metadata=metadata, facecolor="white", bbox_inches=figure.bbox_inches.padded(_MARGIN_IN))
    return sink.getvalue()


def inline_svg(figure: Figure, name: str, label: str, width: str) -> str:
    """``figure`` as an ``<svg>`` element for our page.

    Text stays text, in the font of the page. Every painted colour becomes a class (``f-ink``, ``s-original``), so that the page's style sheet
    colours the figure, in light and in dark. Ids carry ``name``, so that several figures can stand on one page. There is no style attribute,
    which our content security policy would refuse.

    Args:
        figure: The drawing.
        name: Unique on the page; a safe identifier.
        label: What a screen reader says.
        width: ``wide`` or ``narrow``: the class by which the style sheet shows one and hides the other.
    """
    sink = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    root = ET.fromstring(sink.getvalue())  # noqa: S314 - written by matplotlib one line above
    _strip(root, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib.update({"role": "img", "aria-label": label, "class": f"drawing {width}"})
    return ET.tostring(root, encoding="unicode")


def _strip(element: ET.Element, name: str) -> None:
    """Drop namespaces, metadata and style attributes; scope ids."""
    element.tag = _local(element.tag)
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == "style":
            _apply_style(element, value)
        else:
            element.set(_local(key), _scoped(_local(key), value, name))
    if element.get("clip-path"):
        element.set("clip-path", _scoped("clip-path", element.attrib["clip-path"], name))
    for child in list(element):
        if _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _strip(child, name)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _scoped(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    return _REFERENCE.sub(rf"url(#{name}-\1)", value) if not value.startswith(f"url(#{name}-") else value


def _apply_style(element: ET.Element, style: str) -> None:
    """Turn a style attribute into presentation attributes, and known colours into classes."""
    classes = []
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in _PAINTS and value.lower() in _ROLE_BY_COLOUR:
            classes.append(f"{_PAINTS[key]}-{_ROLE_BY_COLOUR[value.lower()]}")
        elif key == "font":
            _apply_font(element, value)
        elif key:
            element.set(key, value)
    if classes:
        element.set("class", " ".join(classes))


def _apply_font(element: ET.Element, font: str) -> None:
    """``bold 9px 'DejaVu Sans', ...`` as size and weight; the family is the page's."""
    if size := re.search(r"([\d.]+)px", font):
        element.set("font-size", size.group(1))
    if re.search(r"\b(bold|600|700)\b", font):
        element.set("font-weight", "600")
