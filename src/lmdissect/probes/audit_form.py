"""The form of what `probes.yaml` says of an audit. No hash covers that file, so a set of another maker, or one edited by hand, may say anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmdissect.errors import DamagedArtifactError
from lmdissect.probes.description import PROBES_FILE, ProbesFile
from lmdissect.recipes import AuditRule

__all__ = ["check_audit_form", "usable_summaries"]

_Count = Annotated[int, Field(ge=0)]


class _Form(BaseModel):
    """Fields that are read again. Others may be there: an audit with more of them is another audit, and no damage."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class _Summary(_Form):
    num_texts: _Count
    num_accepted: _Count
    acceptance_rate: float = Field(ge=0.0, le=1.0)
    rejected_by_rule: dict[str, _Count]
    not_measured: list[str]
    medians: dict[str, float]


class _Settings(_Form):
    rules: dict[str, list[AuditRule]]
    rules_of_any: list[str] | None = None


def check_audit_form(folder: Path, probes: ProbesFile) -> None:
    """Check the settings and the summaries of an audit.

    Raises:
        DamagedArtifactError: They are not as `lmdissect audit` writes them; the message names the place and the cure.
    """
    if probes.audit is None:
        return
    where = "audit.settings"
    try:
        _Settings.model_validate(probes.audit.settings)
        for entry in probes.variants:
            where = f"variants: {entry.variant}: audit"
            if entry.audit is not None:
                _Summary.model_validate(entry.audit)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join((where, *map(str, first["loc"])))
        reason = first["msg"].removeprefix("Value error, ")
        message = f"{folder / PROBES_FILE}: {place}: {reason}: run lmdissect audit {folder} again"
        raise DamagedArtifactError(" ".join(message.split())) from error


def usable_summaries(probes: ProbesFile) -> dict[str, Mapping[str, Any]]:
    """Summary of every audited variant, as it is recorded; none where there is no audit, and without those that are not of our form."""
    if probes.audit is None:
        return {}
    return {entry.variant: entry.audit for entry in probes.variants if entry.audit is not None and _is_summary(entry.audit)}


def _is_summary(summary: Mapping[str, Any]) -> bool:
    try:
        _Summary.model_validate(summary)
    except ValidationError:
        return False
    return True
