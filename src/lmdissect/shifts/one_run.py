"""Tables of tokens for a point with one seed: those of its run, at the level and by the method of the study.

Where the run was measured at another level or by another method, they are computed again from its scores: an interval must not be called what it is not. Where
those are not at hand either, there are none.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lmdissect.errors import LmdissectError
from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.fact_seeds import facts_of_one_run
from lmdissect.shifts.fact_tokens import fact_token_rows
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.position import cumulative_rows, position_rows
from lmdissect.shifts.position_seeds import positions_of_one_run
from lmdissect.shifts.run_tokens import TokenReader
from lmdissect.store import Manifest, read_manifest, read_table

__all__ = ["tables_of_one_run"]

_Rows = list[dict[str, Any]]

_NAMES = {"position": "positions", "cumulative": "cumulative", "fact_tokens": "facts"}
"""Tables of a run, and what a study calls them."""


def tables_of_one_run(panel: Panel, config: ShiftConfig, reader: TokenReader) -> tuple[dict[str, _Rows], list[StudyGap]]:
    """The tables `positions`, `cumulative` and `facts`, without the point's own columns; and what is missing.

    Args:
        panel: A point with one seed.
        config: Settings of the study.
        reader: Reads the run's scores, if they are needed.
    """
    run = panel.runs[0]
    manifest = read_manifest(run.shift_folder)
    if not manifest.details["tokenizers_equal"] or _settings(manifest) == (config.level, config.ci_method):
        rows = {name: read_table(run.shift_folder / f"{name}.parquet").to_pylist() for name in _NAMES}
        return _named(rows), _gaps(panel, manifest.details["unavailable"])
    try:
        paired = reader.pair(run)
    except LmdissectError as error:
        level, method = _settings(manifest)
        reason = f"the run's intervals are made at level {level:g} by {method}, the study's at {config.level:g} by {config.ci_method}; made again they cannot be: {error}"
        return {}, [StudyGap(name, panel.experiment, panel.point, panel.probes, "all", reason) for name in _NAMES.values()]
    measures = {"position": position_rows, "cumulative": cumulative_rows, "fact_tokens": fact_token_rows}
    found = {name: measure(paired, config) for name, measure in measures.items()}
    missing = [asdict(row) for _, unavailable in found.values() for row in unavailable]
    return _named({name: rows for name, (rows, _) in found.items()}), _gaps(panel, missing)


def _settings(manifest: Manifest) -> tuple[float, str]:
    """Level and method of the run's intervals."""
    return manifest.config["level"], manifest.config["ci_method"]


def _named(rows: dict[str, _Rows]) -> dict[str, _Rows]:
    positions, cumulative = positions_of_one_run(rows["position"], rows["cumulative"])
    return {"positions": positions, "cumulative": cumulative, "facts": facts_of_one_run(rows["fact_tokens"])}


def _gaps(panel: Panel, unavailable: Sequence[dict[str, Any]]) -> list[StudyGap]:
    """What the run itself could not compute by position and on fact tokens."""
    return [
        StudyGap(_NAMES[row["table"]], panel.experiment, panel.point, panel.probes, row["variant"], row["reason"])
        for row in unavailable
        if row["table"] in _NAMES
    ]
