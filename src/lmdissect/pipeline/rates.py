"""The learning rate with the least validation loss: one trial for every rate of a grid, and the choice.

    loss(rate) = sum of -log p over the tokens of the validation documents / their number, after training at that rate

All trials train on the same documents in the same order from the same start. A trial that fails (a loss that is not finite, weights that do not move)
is an outcome and stays one; the grid goes on. Only when every trial failed is there no choice.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lmdissect.errors import DamagedArtifactError, NonFiniteLossError, OutOfMemoryError, OutOfSpaceError, RunFailedError
from lmdissect.finetune import FinetuneConfig
from lmdissect.interrupts import StopRequest
from lmdissect.models import ResolvedModel, fingerprint_model, fingerprint_tokenizer, load_tokenizer
from lmdissect.progress import Progress
from lmdissect.records import Document
from lmdissect.store import fingerprint, open_artifact, read_artifact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RATE_STAGE", "TRIAL_STAGE", "RateChoice", "choose_learning_rate", "choose_rate", "read_choice", "run_trial"]

TRIAL_STAGE = "trial"
RATE_STAGE = "rate"

_RUN = "run"
_TABLE = "rates.parquet"
_SCHEMA = pa.schema([("learning_rate", pa.float64()), ("validation_loss_nats", pa.float64()), ("failed", pa.string())])


@dataclass(frozen=True, slots=True)
class RateChoice:
    """What the trials said.

    Attributes:
        learning_rate: The rate with the least validation loss; of equal ones the smallest.
        losses: Validation loss of every rate, nats per token; None where the trial failed.
        failures: Why a trial failed, by rate.
        at_edge: Whether the choice is the smallest or largest rate that was tried, so that a better one may lie beyond.
    """

    learning_rate: float
    losses: dict[float, float | None]
    failures: dict[float, str]
    at_edge: bool

    def warning(self) -> str | None:
        """A sentence where the choice is at the edge of the grid."""
        if not self.at_edge:
            return None
        side = "smallest" if self.learning_rate == min(self.losses) else "largest"
        return f"the chosen learning rate {self.learning_rate:g} is the {side} of the grid: a better one may lie beyond"


def run_trial(
    base: ResolvedModel,
    documents: Sequence[Document],
    held_out: Sequence[Document],
    config: FinetuneConfig,
    folder: Path,
    *,
    inputs: "Mapping[str, Any] | None" = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Train at one rate and write down the validation loss, or why there is none; the tuned model is dropped.

    Args:
        base: The model to start from.
        documents: Training documents.
        held_out: Validation documents.
        config: Settings of the run, with the rate.
        folder: Where the trial's artifact goes.
        inputs: What identifies base and documents; default their hashes.
        progress: Where to report.
        stop: Looked at after every step.

    Raises:
        LmdissectError: As `finetune` raises it, but for a loss that is not finite and weights that do not move.
    """
    from lmdissect.finetune import finetune  # noqa: PLC0415 - loads the Trainer, which reading a choice does not need

    identity = inputs or _identify(base, documents, held_out)
    with open_artifact(folder, stage=TRIAL_STAGE, config=config.model_dump(mode="json"), inputs=identity) as artifact:
        if artifact.finished is None:
            details: dict[str, Any] = {"learning_rate": config.peak_learning_rate, "validation_loss_nats": None, "failed": None}
            try:
                summary = finetune(base, documents, config, folder / _RUN, held_out=held_out, progress=progress, stop=stop)
            except (OutOfMemoryError, OutOfSpaceError, DamagedArtifactError):  # of the machine, and not of the rate
                raise
            except (NonFiniteLossError, RunFailedError) as error:
                details["failed"] = str(error)
            else:
                details["validation_loss_nats"] = summary.held_out_after
                details["base_loss_nats"] = summary.held_out_before
            artifact.finish(counts={"documents": len(documents), "held_out": len(held_out)}, details=details, files=[])
    shutil.rmtree(folder / _RUN, ignore_errors=True)


def _identify(base: ResolvedModel, documents: Sequence[Document], held_out: Sequence[Document]) -> dict[str, Any]:
    hashes = [fingerprint([[document.document_id, document.text] for document in part]) for part in (documents, held_out)]
    return {
        "base": fingerprint_model(base).to_json(),
        "tokenizer": fingerprint_tokenizer(load_tokenizer(base)),
        "documents": hashes[0],
        "held_out": hashes[1],
    }


def choose_rate(trials: Sequence[Path], folder: Path, *, inputs: "Mapping[str, Any] | None" = None) -> RateChoice:
    """Read finished trials, choose, and write the choice down: rates.parquet, and the manifest's details.

    Args:
        trials: Folders of `run_trial`.
        folder: Where the choice's artifact goes.
        inputs: What identifies the trials; default their keys.

    Raises:
        RunFailedError: Every trial failed; the message says why.
        UnreadableInputError: A trial is not finished.
    """
    manifests = [read_artifact(trial, TRIAL_STAGE) for trial in trials]
    for trial in trials:  # killed between its end and the removal of its model, it would never be run again to remove it
        shutil.rmtree(trial / _RUN, ignore_errors=True)
    losses = {float(manifest.details["learning_rate"]): manifest.details["validation_loss_nats"] for manifest in manifests}
    failures = {float(m.details["learning_rate"]): str(m.details["failed"]) for m in manifests if m.details["failed"] is not None}
    usable = {rate: loss for rate, loss in sorted(losses.items()) if loss is not None and math.isfinite(loss)}
    if not usable:
        reasons = "; ".join(f"{rate:g}: {reason}" for rate, reason in failures.items()) or "no validation document gave a loss"
        message = f"every learning rate of the grid failed ({reasons})"
        raise RunFailedError(message)
    best = min(usable, key=lambda rate: usable[rate])
    choice = RateChoice(best, losses, failures, at_edge=len(losses) > 1 and best in {min(losses), max(losses)})
    rows = [{"learning_rate": rate, "validation_loss_nats": losses[rate], "failed": failures.get(rate)} for rate in sorted(losses)]
    with open_artifact(
        folder, stage=RATE_STAGE, config={"rates": sorted(losses)}, inputs=inputs or {"trials": [m.key for m in manifests]}
    ) as artifact:
        if artifact.finished is None:
            artifact.write_table(_TABLE, pa.Table.from_pylist(rows, schema=_SCHEMA))
            details = {"learning_rate": best, "at_edge": choice.at_edge, "warning": choice.warning(), "rates": rows}
            artifact.finish(counts={"rates": len(losses), "failed": len(failures)}, details=details, files=[_TABLE])
    return choice


def read_choice(folder: Path) -> RateChoice:
    """Read what `choose_rate` wrote.

    Raises:
        UnreadableInputError: Nothing finished is there.
    """
    details = read_artifact(folder, RATE_STAGE).details
    losses = {row["learning_rate"]: row["validation_loss_nats"] for row in details["rates"]}
    failures = {row["learning_rate"]: row["failed"] for row in details["rates"] if row["failed"] is not None}
    return RateChoice(details["learning_rate"], losses, failures, details["at_edge"])


def choose_learning_rate(
    base: ResolvedModel,
    documents: Sequence[Document],
    held_out: Sequence[Document],
    config: FinetuneConfig,
    rates: Sequence[float],
    folder: Path,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> RateChoice:
    """Try every rate, one after the other, and choose. Run again after a kill, it goes on where it was.

    Args:
        base: The model to start from.
        documents: Training documents.
        held_out: Validation documents.
        config: Settings of every run; its learning rate is replaced.
        rates: Peak rates to try.
        folder: Output folder: one subfolder for each trial, and the choice in ``choice``.
        progress: Where to report.
        stop: Looked at after every step.

    Raises:
        RunFailedError: Every rate failed.
        LmdissectError: As `run_trial` raises it.
    """
    trials = []
    for rate in sorted(rates):
        trials.append(folder / f"rate-{rate:g}")
        run_trial(base, documents, held_out, config.model_copy(update={"learning_rate": rate}), trials[-1], progress=progress, stop=stop)
    return choose_rate(trials, folder / "choice")
