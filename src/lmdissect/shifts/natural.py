"""Style by natural pairs beside style by synthetic variants, of the same models.

Both texts of a natural pair were written by people (a technical abstract and the plain-language text about it), so no rewriter's fingerprint is in it; but
the two texts differ in more than style, which a pair made for the purpose does not. Where both move alike, the synthetic style shift is not the writer's
doing alone. Shifts against the original, per token (per byte where some probe set of the point has no numbers per token); Holm over all rows of one point.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmdissect.shifts.curves import shared_normalization
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import holm

__all__ = ["natural_rows"]

_STYLE = "style"
_NUMBERS = ("num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value")


def natural_rows(panels: Sequence[Panel], estimates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table `natural`: nothing for points that were not measured on natural pairs.

    Args:
        panels: All points.
        estimates: Rows of the table `estimates`.
    """
    points: dict[tuple[str, str], dict[str, Panel]] = {}
    for panel in panels:
        if panel.step is None:
            points.setdefault((panel.experiment, panel.point), {})[panel.probes] = panel
    compared = {place: found for place, found in points.items() if any(panel.runs[0].natural for panel in found.values())}
    unit_of = {place: shared_normalization(list(found.values())) for place, found in compared.items()}
    rows_of: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in estimates:
        place = (row["experiment"], row["point"])
        wanted = row["statistic"] == "shift" and row["reference"] == "original" and row["factor"] == _STYLE
        if not wanted or row["probes"] not in compared.get(place, {}) or row["normalization"] != unit_of[place]:
            continue
        kind = "natural" if compared[place][row["probes"]].runs[0].natural else "synthetic"
        kept = {name: row[name] for name in ("experiment", "point", "probes", "variant", "normalization", *_NUMBERS)}
        rows_of.setdefault(place, []).append({**kept, "kind": kind})
    rows: list[dict[str, Any]] = []
    for found_rows in rows_of.values():
        if any(row["kind"] == "natural" for row in found_rows):
            ordered = sorted(found_rows, key=lambda row: row["kind"] != "natural")
            adjusted = holm([row["p_value"] for row in ordered])
            rows += [{**row, "p_holm": p_holm} for row, p_holm in zip(ordered, adjusted, strict=True)]
    return rows
