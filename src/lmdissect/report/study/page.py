"""The study page: sections, figures, tables and the explorer put into the template.

Everything from outside reaches the page as escaped text or as JSON that the script puts into the page by ``textContent`` alone.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lmdissect.formats.study_tables import VERDICTS
from lmdissect.report.palette import ROLES, STEPS, write_palette
from lmdissect.report.study.charts import Chart
from lmdissect.report.study.content import Row, StudyContent
from lmdissect.report.study.drawing import KINDS, draw_inline
from lmdissect.report.study.packing import PackedTexts
from lmdissect.report.study.scripts import content_policy, foreign_style_ids, plotly_script, plotly_version, safe_json
from lmdissect.report.study.sections import Section
from lmdissect.report.study.tables import StudyTable, cell_text
from lmdissect.report.study.words import SOURCES, limits, methods
from lmdissect.report.text import clean_text
from lmdissect.wording import format_count, format_level

__all__ = ["FIRST_ROWS", "PageParts", "write_study_page", "write_texts_page"]

FIRST_ROWS = 12
"""Rows of a table that the page shows before it is asked for more, and that stand in it where scripts are off."""

_LISTED = 40


@dataclass(frozen=True, slots=True)
class PageParts:
    """What a page is made of.

    Attributes:
        content: The study.
        overview: The figure of the overview, where there are shifts.
        sections: All sections.
        texts: The run shown token by token; None where there is none, or where a server has them.
        no_texts: Why there is no explorer, or which runs it cannot show, in words.
        served: Whether the page is served by `lmdissect view`, which has every run and token.
    """

    content: StudyContent
    overview: Chart | None
    sections: Sequence[Section]
    texts: PackedTexts | None = None
    no_texts: str = ""
    served: bool = False


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean
    )
    environment.globals.update(cell_text=cell_text, draw_inline=_draw_inline, format_count=format_count)
    return environment


def write_texts_page(label: str, *, has_report: bool) -> str:
    """A page with the explorer alone, for one comparison that is served.

    Args:
        label: The two models.
        has_report: Whether report.html is served beside it.
    """
    style, script = write_palette() + _read_template("study.css"), _read_template("study.js")
    payload = {"roles": _roles(), "charts": {}, "tables": {}, "explorer": None, "served": True, "first_rows": FIRST_ROWS}
    return (
        _environment()
        .get_template("texts.html.j2")
        .render(
            label=label,
            has_report=has_report,
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            policy=content_policy([script], [style], connect=True),
            payload=_json(payload),
            steps=sorted([*STEPS, 0]),
            served=True,
        )
    )


def _roles() -> dict[str, list[str]]:
    return {name: [shade.light, shade.dark] for name, shade in ROLES.items()}


def write_study_page(parts: PageParts) -> str:
    """The whole page as HTML."""
    content = parts.content
    style = write_palette() + _read_template("study.css")
    script, plotly = _read_template("study.js"), plotly_script()
    return (
        _environment()
        .get_template("study.html.j2")
        .render(
            content=content,
            details=content.details,
            overview=parts.overview,
            sections=parts.sections,
            learned=_by_verdict(content, "learned"),
            forgotten=_by_verdict(content, "forgotten"),
            further=_further(parts.sections),
            policy=content_policy([script, plotly], [style], connect=parts.served),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            plotly=Markup(plotly),  # noqa: S704 - the package's own file, allowed by its hash
            plotly_version=plotly_version(),
            foreign_ids=foreign_style_ids(plotly),
            payload=_json(_payload(parts)),
            text_blocks=_json(parts.texts.text_blocks if parts.texts else []),
            token_blocks=_json(parts.texts.token_blocks if parts.texts else []),
            texts=parts.texts,
            no_texts=parts.no_texts,
            served=parts.served,
            methods=methods(content),
            sources=SOURCES,
            limits=limits(content),
            checks=_checks(content),
            unavailable=list(content.details.get("unavailable", [])),
            listed=_LISTED,
            first_rows=FIRST_ROWS,
            kinds=KINDS,
            level=format_level(content.level),
            steps=sorted([*STEPS, 0]),
            rounding=_rounding_sentence(parts.texts),
            provenance=_provenance(content),
        )
    )


@cache
def _read_template(name: str) -> str:
    return resources.files("lmdissect.report.study").joinpath("templates", name).read_text(encoding="utf-8")


def _clean(value: object) -> object:
    return clean_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _draw_inline(chart: Chart) -> list[Markup]:
    return [Markup(svg) for svg in draw_inline(chart)]  # noqa: S704 - written by our own figures, texts in it escaped as XML


def _json(value: object) -> Markup:
    return Markup(safe_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)))  # noqa: S704 - nothing in it can end the element


def _payload(parts: PageParts) -> dict[str, Any]:
    """What the script draws: figures, tables, colours, and the explorer's index."""
    charts = [chart for section in parts.sections for chart in section.charts] + ([parts.overview] if parts.overview else [])
    return {
        "roles": _roles(),
        "charts": {chart.name: _chart_json(chart) for chart in charts},
        "tables": {table.name: _table_json(table) for section in parts.sections for table in section.tables},
        "explorer": parts.texts.index if parts.texts else None,
        "served": parts.served,
        "first_rows": FIRST_ROWS,
    }


def _chart_json(chart: Chart) -> dict[str, Any]:
    """A chart as JSON, texts made harmless; numbers in six digits, which is more than a screen shows."""
    found: dict[str, Any] = _cleaned(asdict(chart), lambda value: float(f"{value:.6g}"))
    return found


def _cleaned(value: Any, number: Callable[[float], float]) -> Any:  # noqa: ANN401 - JSON is whatever it is
    if isinstance(value, dict):
        return {name: _cleaned(entry, number) for name, entry in value.items() if name != "is_weak"}  # captions alone read it
    if isinstance(value, (list, tuple)):
        return [_cleaned(entry, number) for entry in value]
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else None
    return value


def _table_json(table: StudyTable) -> dict[str, Any]:
    return {
        "source": table.source,
        "title": table.title,
        "shared": _cleaned([[column.key, cell] for column, cell in table.shared], float),
        "columns": [{"key": column.key, "label": column.label, "kind": column.kind} for column in table.columns],
        "rows": _cleaned([list(row) for row in table.rows], float),  # every digit: what is downloaded or drawn anew is the number itself
    }


def _by_verdict(content: StudyContent, analysis: str) -> dict[str, list[Row]]:
    """Statements of the overview: by verdict, in their order."""
    rows = content.statements(analysis)
    return {verdict: [row for row in rows if row["verdict"] == verdict] for verdict in VERDICTS}


def _further(sections: Sequence[Section]) -> list[tuple[Section, Row]]:
    """One statement of every other section that was measured: a finding where there is one."""
    others = [section for section in sections if section.statements and section.name not in ("learned", "forgotten")]
    return [(section, section.statements[0]) for section in others if section.statements[0]["verdict"] != "not measured"]


def _checks(content: StudyContent) -> list[tuple[str, bool, str]]:
    """Self-checks: name, whether it passed, what it says. Failed ones first."""
    checks: Mapping[str, Any] = content.details.get("checks", {})
    found = [(name, bool(check.get("passed")), str(check.get("text", ""))) for name, check in checks.items()]
    return sorted(found, key=lambda check: check[1])


def _rounding_sentence(texts: PackedTexts | None) -> str:
    if texts is None:
        return ""
    size = texts.rounding
    return (
        "Token values on this page are rounded (7 to 8 bits each): a base log-probability is off by "
        f"{size.base_median:.3f} nats in the median and {size.base_max:.3f} at most, "
        f"a gain by {size.gain_median:.3f} in the median and {size.gain_max:.3f} at most. Shifts and gains of whole documents are not rounded. "
        "All runs, unrounded: lmdissect view."
    )


def _provenance(content: StudyContent) -> list[tuple[str, str]]:
    manifest = content.manifest
    models = sorted({str(row["base_model"]) for row in content.tables["runs"]})
    probes = sorted({str(row["probes"]) for row in content.tables["runs"]})
    seeds = sorted({int(row["seed"]) for row in content.tables["runs"] if row["seed"] is not None})
    return [
        ("Runs", format_count(content.num_runs)),
        ("Base models", ", ".join(models)),
        ("Probe sets", ", ".join(probes)),
        ("Training seeds", ", ".join(str(seed) for seed in seeds)),
        ("Interval level", format_level(content.level)),
        ("Study key", manifest.key),
        ("Made", f"{manifest.started_at} to {manifest.finished_at}"),
        *[(f"Version of {name}", value) for name, value in sorted(manifest.versions.items())],
        ("Figures", f"plotly.js {plotly_version()}"),
    ]
