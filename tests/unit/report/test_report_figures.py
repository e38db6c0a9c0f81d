"""Figures: every kind of file, SVG that fits into the page, colours that can be read."""

import re
from pathlib import Path

import pytest

from lmdissect.report.figures import KINDS, DrawnFigure, draw_figures
from lmdissect.report.palette import ROLES, STEPS
from unit.report.shift_artifact import Details, Tables, build_content, set_zero, split_tokenizers

_MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DrawnFigure]:
    return draw_figures(build_content(tmp_path_factory.mktemp("shifts")))


def test_every_figure_is_png_svg_and_pdf_and_two_drawings(figures: dict[str, DrawnFigure]) -> None:
    assert list(figures) == ["shifts", "position", "cumulative", "fact-tokens"]
    for figure in figures.values():
        assert set(figure.files) == set(KINDS)
        assert all(content.startswith(_MAGIC[kind]) for kind, content in figure.files.items())
        assert len(figure.inline) == 2
        assert figure.caption


def test_inline_svg_needs_nothing_from_elsewhere_and_shares_no_id(figures: dict[str, DrawnFigure]) -> None:
    drawings = [svg for figure in figures.values() for svg in figure.inline]
    ids = [found for svg in drawings for found in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))
    references = {found for svg in drawings for found in re.findall(r'(?:href="|url\()#([^")]+)', svg)}
    assert references <= set(ids)
    for svg in drawings:
        assert svg.startswith("<svg ")
        assert 'role="img"' in svg
        assert "style=" not in svg
        assert "http" not in svg
        assert "<text" in svg


def test_every_inline_colour_is_a_class(figures: dict[str, DrawnFigure]) -> None:
    svg = figures["shifts"].inline[0]
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg)) <= {"none"}
    assert {"s-original", "s-net", "f-facts", "f-ink"} <= set(re.findall(r"[fs]-\w+", svg))


def test_figures_without_numbers_are_left_out(tmp_path: Path) -> None:
    assert list(draw_figures(build_content(tmp_path, split_tokenizers))) == ["shifts"]


def test_a_model_compared_with_itself_can_be_drawn(tmp_path: Path) -> None:
    assert list(draw_figures(build_content(tmp_path, set_zero))) == ["shifts", "position", "fact-tokens"]


def test_names_that_no_font_and_no_formula_can_print_are_drawn(tmp_path: Path) -> None:
    name = "$\\frac{1}{ <b>&\x00 漢字 " + "long " * 20

    def change(tables: Tables, details: Details) -> None:
        details["variants"] = {name if key == "casual" else key: facts for key, facts in details["variants"].items()}
        for rows in tables.values():
            for row in rows:
                row["variant"] = name if row["variant"] == "casual" else row["variant"]

    figures = draw_figures(build_content(tmp_path, change))
    assert "&lt;b&gt;&amp;\ufffd" in figures["shifts"].inline[0]


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["light", "dark"])
def test_text_colours_can_be_read(page: str) -> None:
    surface, ink = getattr(ROLES["surface"], page), getattr(ROLES["ink"], page)
    for name, shade in ROLES.items():
        if name not in {"surface", "rule"}:
            assert _contrast(getattr(shade, page), surface) >= 4.5, name
    for step, shade in STEPS.items():
        assert _contrast(ink, getattr(shade, page)) >= 4.5, step


def test_roles_can_be_told_by_colour() -> None:
    assert len({shade.light for shade in ROLES.values()}) == len(ROLES)
