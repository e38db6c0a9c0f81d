"""Calibration artifact -> one page, "how far to trust these numbers", and its figures. No script, no network; every caption is written from the numbers."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lmdissect.formats.calibration_tables import read_calibration_tables
from lmdissect.progress import Progress, SilentProgress
from lmdissect.report.calibration_figures import Curve, CurvePanel, Drawing, Strip, StripPoint, draw_both, draw_curves, draw_strips
from lmdissect.report.calibration_words import BIAS_LIMIT, COVERAGE_BAND, LEAK_BAND, Captions, plant_words
from lmdissect.report.palette import write_palette
from lmdissect.report.text import clean_text
from lmdissect.store import Manifest, lock_folder, write_bytes, write_text
from lmdissect.wording import format_plain, format_signed

__all__ = ["write_calibration_report"]

_PAGE = "calibration.html"
_UNIT = "token"

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Figure:
    """A drawing with its caption, for the template."""

    name: str
    caption: str
    drawings: Sequence[Markup]


def write_calibration_report(folder: Path, *, progress: Progress | None = None) -> Path:
    """Write ``calibration.html`` and ``figures/`` into the calibration artifact in ``folder``.

    Returns:
        Path of the page.

    Raises:
        UnreadableInputError: No finished calibration there.
        DamagedArtifactError: A table is missing or changed.
    """
    shown = progress or SilentProgress()
    manifest, tables = read_calibration_tables(folder)
    shown.say(f"{folder}: drawing the page")
    drawings = _draw(tables)
    with lock_folder(folder):
        for drawing in drawings.values():
            for kind, content in drawing.files.items():
                write_bytes(folder / "figures" / f"{drawing.name}.{kind}", content)
        write_text(folder / _PAGE, _write_page(manifest, tables, drawings))
    return folder / _PAGE


def _write_page(manifest: Manifest, tables: Mapping[str, _Rows], drawings: Mapping[str, Drawing]) -> str:
    environment = Environment(
        loader=FunctionLoader(_read_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean
    )
    environment.filters.update(percent=_percent, signed=format_signed, plain=format_plain, plant=plant_words)
    captions = Captions(manifest, tables)
    style = write_palette() + _read_template("report.css")
    figures = {
        name: _Figure(name, captions.of(name), [Markup(svg) for svg in drawing.inline])  # noqa: S704 - our own figures, texts in them escaped as XML
        for name, drawing in drawings.items()
    }
    return environment.get_template("calibration.html.j2").render(
        manifest=manifest,
        config=manifest.config,
        details=manifest.details,
        style=Markup(style),  # noqa: S704 - our own files
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        figures=figures,
        captions=captions,
        goals=tables["goals"],
        **{name: _by_token(tables[name]) for name in ("recovery", "coverage", "leak", "power", "slips", "trained")},
    )


def _by_token(rows: _Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["normalization"] == _UNIT]


def _read_template(name: str) -> str:
    return resources.files("lmdissect.report").joinpath("templates", name).read_text(encoding="utf-8")


def _clean(value: object) -> object:
    return clean_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _percent(value: float | None, decimals: int = 1) -> str:
    return "\u2013" if value is None else f"{format_plain(100 * value, decimals)}\u00a0%"


def _draw(tables: Mapping[str, _Rows]) -> dict[str, Drawing]:
    """Every figure whose table has rows."""
    recovered = [row for row in _by_token(tables["recovery"]) if row["bias_share"] is not None]
    covered = _by_token(tables["coverage"])
    leaked = [row for row in _by_token(tables["leak"]) if not row["num_exact"]]
    strips = {
        "recovery": (recovered, "bias_share", (-BIAS_LIMIT, BIAS_LIMIT), 0.0, "bias, % of the planted shift", 1, True),
        "coverage": (covered, "rate", COVERAGE_BAND, 0.95, "intervals that hold the truth, %", 1, False),
        "leak": (leaked, "rate", LEAK_BAND, 0.05, "called moved at 5 %, % of probe sets", 1, False),
    }
    drawn: dict[str, Drawing] = {}
    for name, (rows, column, band, target, unit, decimals, signed) in strips.items():
        if rows:
            draw = partial(draw_strips, _strips(rows, column), band=band, target=target, unit=unit, decimals=decimals, signed=signed)
            drawn[name] = draw_both(name, name, draw)
    if power := _by_token(tables["power"]):
        draw = partial(
            draw_curves, _power_panels(power), x_label="probe documents", y_label="found, %", log_x=True, x_percent=False, goal=0.8, limits=(0, 1.03)
        )
        drawn["power"] = draw_both("power", "power against the number of probe documents", draw)
    if slips := _slip_panels(_by_token(tables["slips"])):
        label = "documents with a slip, %"
        draw = partial(draw_curves, slips, x_label=label, y_label="% of the planted shift", log_x=False, x_percent=True, goal=0.0, limits=None)
        drawn["slips"] = draw_both("slips", "what a careless rewriter does", draw)
    return drawn


def _strips(rows: _Rows, column: str) -> list[Strip]:
    found: dict[str, list[StripPoint]] = {}
    for row in rows:
        value = row[column]
        margin = 1.96 * row["bias_share_se"] if column == "bias_share" else 0.0
        low, high = (value - margin, value + margin) if column == "bias_share" else (row["ci_low"], row["ci_high"])
        planted = column == "bias_share" or abs(row.get("truth", 0.0)) > 0
        found.setdefault(row["plant"], []).append(StripPoint(value, low, high, row["reference"] == "control", planted))
    return [Strip(plant_words(plant), points) for plant, points in found.items()]


def _power_panels(rows: _Rows) -> list[CurvePanel]:
    panels = []
    for factor in dict.fromkeys(row["factor"] for row in rows):
        curves = []
        for size in dict.fromkeys(row["size"] for row in rows):
            chosen = [row for row in rows if row["factor"] == factor and row["size"] == size and row["reference"] == "original"]
            columns = ([float(row[name]) for row in chosen] for name in ("num_documents", "rate", "ci_low", "ci_high"))
            curves.append(Curve(size, *columns))
        panels.append(CurvePanel("facts" if factor == "factual" else factor, curves))
    return panels


def _slip_panels(rows: _Rows) -> list[CurvePanel]:
    """What the variants of the unplanted factors show, as a share of the planted shift: measured, and expected (dashed)."""
    panels = []
    for plant in dict.fromkeys(row["plant"] for row in rows):
        curves = []
        for label, reference in (("against the original", "original"), ("net of the control", "control")):
            chosen = [
                row for row in rows if row["plant"] == plant and row["reference"] == reference and row["factor"] != "control" and row["planted"]
            ]
            chosen = [row for row in chosen if row["factor"] != {"new_facts": "factual"}.get(plant, plant)]
            rates = sorted({row["slips"] for row in chosen})
            if rates:
                measured = [_mean_share(chosen, rate, "mean_estimate") for rate in rates]
                curves.append(Curve(label, rates, measured, measured, measured, [_mean_share(chosen, rate, "truth") for rate in rates]))
        if curves:
            panels.append(CurvePanel(f"{plant_words(plant)} planted", curves))
    return panels


def _mean_share(rows: _Rows, rate: float, column: str) -> float:
    shares = [row[column] / row["planted"] for row in rows if row["slips"] == rate]
    return float(sum(shares) / len(shares))
