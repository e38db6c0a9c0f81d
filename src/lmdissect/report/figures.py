"""The report's figures: which rows and curves each one draws. Each is drawn twice, for a page and for a phone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift
from lmdissect.report import captions
from lmdissect.report.content import SELECTIONS, FactTokenShift, PositionBin, ReportContent, Variant
from lmdissect.report.findings import fact_headline, fact_unit, factor_noun, select_headline
from lmdissect.report.forest import NARROW, WIDE, ForestKey, ForestPoint, ForestRow, PageWidth, draw_forest
from lmdissect.report.profiles import Curve, Panel, draw_cumulative, draw_panels
from lmdissect.report.rendering import drawing_style, inline_svg, render_figure
from lmdissect.wording import UNITS, format_estimate

__all__ = ["KINDS", "DrawnFigure", "draw_figures"]

KINDS = ("png", "svg", "pdf")
"""File formats of every figure."""

_AGAINST_ORIGINAL = ForestKey("original", "o", "against the original")
_NET = ForestKey("net", "D", "net of the control")
_FACTS = ForestKey("facts", "s", "on the changed words")
_CONTROL = ForestKey("muted", "o", "the control")
_WHOLE_TEXT = ForestKey("original", "o", "over the whole text")


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """One figure in every form.

    Attributes:
        name: File name without its ending; also the figure's id on the page.
        label: What it shows, in a few words.
        caption: What it says.
        inline: Two ``<svg>`` elements, for a page and for a phone.
        files: Content by kind of file.
    """

    name: str
    label: str
    caption: str
    inline: tuple[str, ...]
    files: dict[str, bytes]


def draw_figures(content: ReportContent) -> dict[str, DrawnFigure]:
    """Every figure that the tables allow, by name."""
    wanted: list[tuple[str, str, Callable[[ReportContent], str], Callable[[ReportContent, PageWidth], Figure | None]]] = [
        ("shifts", "Shift of every variant, with intervals", captions.shift_caption, _draw_shifts),
        ("position", "Gain and shifts by token position", captions.position_caption, _draw_position),
        ("cumulative", "Share of each shift made before a token position", captions.cumulative_caption, _draw_cumulative),
        ("fact-tokens", "Shift on the words that the factual variant changes", captions.fact_caption, _draw_facts),
    ]
    drawn = [_draw(content, name, label, write(content), draw) for name, label, write, draw in wanted]
    return {figure.name: figure for figure in drawn if figure is not None}


def _draw(
    content: ReportContent, name: str, label: str, caption: str, draw: Callable[[ReportContent, PageWidth], Figure | None]
) -> DrawnFigure | None:
    with drawing_style():
        wide, narrow = draw(content, WIDE), draw(content, NARROW)
        if wide is None or narrow is None:
            return None
        inline = tuple(inline_svg(figure, f"{name}-{width.name}", label, width.name) for figure, width in ((wide, WIDE), (narrow, NARROW)))
        return DrawnFigure(name, label, caption, inline, {kind: render_figure(wide, kind) for kind in KINDS})


def _draw_shifts(content: ReportContent, width: PageWidth) -> Figure | None:
    rows: list[ForestRow] = []
    factor = None
    for variant in content.changed():
        points = _variant_points(content, variant)
        if points:
            header = "" if variant.factor == factor else _capitalize(factor_noun(variant.factor))
            rows.append(ForestRow(variant.name, points, header=header))
            factor = variant.factor
    row = content.shifts.get((content.control or "", ORIGINAL, content.normalization))
    if row is not None:
        rows.append(
            ForestRow(row.variant, [_point(content, row, _CONTROL, filled=True)], header="Control: what rewriting alone does", apart=bool(rows))
        )
    return draw_forest(rows, width, unit=UNITS[content.normalization]) if rows else None


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _variant_points(content: ReportContent, variant: Variant) -> list[ForestPoint]:
    headline = select_headline(content, variant)
    points = []
    for reference, key in ((ORIGINAL, _AGAINST_ORIGINAL), (CONTROL, _NET)):
        row = content.shifts.get((variant.name, reference, content.normalization))
        if row is not None:
            points.append(_point(content, row, key, filled=headline is not None and headline.row is row))
    facts = fact_headline(content, variant.name) if variant.factor == "factual" else None
    if facts is not None and content.tokenizers_equal:
        points.append(_fact_point(content, facts, filled=True))
    return points


def _point(content: ReportContent, row: FactorShift, key: ForestKey, *, filled: bool) -> ForestPoint:
    text = format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[row.normalization])
    return ForestPoint(key, row.estimate, row.ci_low, row.ci_high, text, filled)


def _fact_point(content: ReportContent, row: FactTokenShift, *, filled: bool) -> ForestPoint:
    decimals = content.decimals["token" if content.tokenizers_equal else "document"]
    return ForestPoint(_FACTS, row.estimate, row.ci_low, row.ci_high, format_estimate(row.estimate, row.ci_low, row.ci_high, decimals), filled)


def _draw_facts(content: ReportContent, width: PageWidth) -> Figure | None:
    rows: list[ForestRow] = []
    for variant in content.variants:
        selected = [(text, row) for selection, text in SELECTIONS.items() if (row := fact_headline(content, variant.name, selection)) is not None]
        for index, (text, row) in enumerate(selected):
            header = "" if index else variant.name
            rows.append(ForestRow(text, [_fact_point(content, row, filled=index == 0)], header=header, apart=bool(rows) and not index))
        whole = content.shifts.get((variant.name, ORIGINAL, "token"))
        if selected and whole is not None and content.tokenizers_equal:
            rows.append(ForestRow("the whole text", [_point(content, whole, _WHOLE_TEXT, filled=False)]))
    return draw_forest(rows, width, unit=fact_unit(content)) if rows else None


def _draw_position(content: ReportContent, width: PageWidth) -> Figure | None:
    gain = captions.gain_profile(content, "all")
    if not gain:
        return None
    starts = sorted({row.bin_start for row in content.positions})
    fixed = captions.gain_profile(content, "fixed")
    panels = []
    for variant in content.variants:
        profile = captions.position_profile(content, variant.name, "all")
        if profile:
            role = "muted" if variant.name == content.control else "original"
            dashed = captions.position_profile(content, variant.name, "fixed")
            panels.append(Panel(variant.name, role, _shift_curve(profile, starts), _shift_curve(dashed, starts) if dashed else None))
    top = Panel("gain on the originals", "facts", _gain_curve(gain, starts), _gain_curve(fixed, starts) if fixed else None)
    return draw_panels(top, panels, starts, width)


def _shift_curve(rows: Sequence[PositionBin], starts: Sequence[int]) -> Curve:
    x = [starts.index(row.bin_start) for row in rows]
    return Curve(x, [row.estimate for row in rows], [row.ci_low for row in rows], [row.ci_high for row in rows])


def _gain_curve(rows: Sequence[PositionBin], starts: Sequence[int]) -> Curve:
    x = [starts.index(row.bin_start) for row in rows]
    return Curve(x, [row.gain for row in rows], [row.gain_ci_low for row in rows], [row.gain_ci_high for row in rows])


def _draw_cumulative(content: ReportContent, width: PageWidth) -> Figure | None:
    curves = [(variant.name, curve) for variant, curve in captions.cumulative_curves(content)]
    return draw_cumulative(curves, width) if curves else None
