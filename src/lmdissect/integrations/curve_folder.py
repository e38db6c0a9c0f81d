"""The folder of a curve: what was measured at which step, kept so that a run that is killed and resumed measures nothing twice.

    measuring.json        what is measured and in which training run: a folder of another one is refused, by the names of the fields that differ
    steps/000016/         shift artifact of step 16 against the base, for `lmdissect report` and `lmdissect show`
    steps/000016/scores/  its scores artifact
    steps/000016/step.json  appears last: the step is measured
    failed_steps.json     steps that could not be measured, with the reason; absent where there are none
    curve*.parquet, .csv  see `lmdissect.integrations.curve`

Scores are keyed by the hash of the weights, so a step that another attempt measured (killed after its last checkpoint, or begun again) is taken over where
the weights are the same, bit for bit, and measured anew where they are not.
"""

import contextlib
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lmdissect.errors import DamagedArtifactError, LmdissectError, StaleArtifactError, UserInputError
from lmdissect.formats.shift_tables import read_shift_tables
from lmdissect.integrations.curve import MeasuredStep
from lmdissect.progress import Progress
from lmdissect.scoring import ScoringSummary
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import output_folder, output_guard, read_json, write_json
from lmdissect.store.fingerprint import canonical_json

__all__ = ["CurveFolder"]

_VERSION = 1
_SETTINGS = "measuring.json"
_FAILED = "failed_steps.json"
_STEP = "step.json"


class CurveFolder:
    """Measured steps on disk.

    Args:
        folder: Output folder of the curve.
        measuring: What identifies the measurement: probe set, settings, base; JSON types.
        base: Scores artifact of the base, or None for step 0 of this run.
        shift: How to do the statistics.
    """

    def __init__(self, folder: Path, measuring: Mapping[str, Any], base: Path | None, shift: ShiftConfig) -> None:
        self.folder = folder
        self._measuring = dict(measuring)
        self._base = base
        self._shift = shift
        self._points: dict[int, MeasuredStep] = {}
        self._failed: dict[int, str] = {}
        self._failed_on_disk = True

    def begin(self, training: Mapping[str, Any], resumed_at: int, scheduled: Collection[int]) -> None:
        """Take up the folder for a training run, from the step at which it goes on.

        Args:
            training: What identifies the run: settings that decide its course; JSON types.
            resumed_at: Optimiser steps already done.
            scheduled: Steps that are to be measured.

        Raises:
            StaleArtifactError: The folder holds the curve of something else; the fields are named.
            UserInputError: The run goes on from the middle, and there is no base to compare with.
            UnusableOutputError: It cannot be written.
        """
        settings = {"schema_version": _VERSION, "measuring": self._measuring, "training": dict(training)}
        path = self.folder / _SETTINGS
        output_folder(self.folder)
        if path.is_file():
            self._refuse_other(read_json(path), settings)
        elif any(self.folder.iterdir()):
            message = f"{self.folder} is not empty and holds no curve: choose a new or empty folder"
            raise StaleArtifactError(message, self.folder)
        write_json(path, settings)
        self._points = {step: self._read(step) for step in sorted(scheduled) if step <= resumed_at and self._is_measured(step)}
        failed = read_json(self.folder / _FAILED) if (self.folder / _FAILED).is_file() else {}
        self._failed = {int(step): reason for step, reason in failed.items() if int(step) <= resumed_at}
        if resumed_at > 0 and self._base is None and 0 not in self._points:
            message = (
                f"the training goes on from step {resumed_at}, and {self.folder} has no measurement of step 0 to compare with: give the folder that "
                "the run began with, or base=FOLDER with the base model's scores (lmdissect score)"
            )
            raise UserInputError(message)

    def _refuse_other(self, there: Any, here: Mapping[str, Any]) -> None:  # noqa: ANN401 - whatever the file holds
        if there == here:
            return
        parts = ("measuring", "training")
        if not isinstance(there, dict) or not all(isinstance(there.get(part), dict) for part in parts):
            message = f"{self.folder / _SETTINGS} cannot be understood: choose another folder, or delete that one first"
            raise StaleArtifactError(message, self.folder)
        differing = [
            f"{name}: {_shown(there[part].get(name))} there, {_shown(here[part].get(name))} here"
            for part in parts
            for name in sorted({*there[part], *here[part]})
            if there[part].get(name) != here[part].get(name)
        ]
        message = (
            f"{self.folder} holds the curve of another run ({'; '.join(differing) or 'the format'}): choose another folder, or delete that one first"
        )
        raise StaleArtifactError(message, self.folder)

    def _is_measured(self, step: int) -> bool:
        return (self._step_folder(step) / _STEP).is_file()

    def _step_folder(self, step: int) -> Path:
        return self.folder / "steps" / f"{step:06d}"

    def _read(self, step: int) -> MeasuredStep:
        facts = read_json(self._step_folder(step) / _STEP)
        _, tables = read_shift_tables(self._step_folder(step))
        try:
            return MeasuredStep(step, facts["num_trained_documents"], facts["num_trained_tokens"], tables)
        except (KeyError, TypeError) as error:
            message = f"{self._step_folder(step) / _STEP} cannot be understood: delete that folder, and the step is left out"
            raise DamagedArtifactError(message) from error

    @property
    def points(self) -> list[MeasuredStep]:
        """All measured steps, in order."""
        return [self._points[step] for step in sorted(self._points)]

    @property
    def failed(self) -> Mapping[int, str]:
        """Steps that could not be measured, and why."""
        return self._failed

    def measure(
        self,
        step: int,
        score: Callable[[Path], ScoringSummary],
        num_trained_documents: int | None,
        num_trained_tokens: int | None,
        progress: Progress,
    ) -> MeasuredStep:
        """Score the model as it is at ``step`` and measure what moved since the base.

        Args:
            step: Optimiser steps done.
            score: Writes the scores artifact of the model as it is now into a folder.
            num_trained_documents: What it was trained on so far, where known.
            num_trained_tokens: Likewise.
            progress: Where to report.

        Raises:
            LmdissectError: As scoring and the statistics raise it.
        """
        folder = self._step_folder(step)
        (folder / _STEP).unlink(missing_ok=True)  # until it is known that the weights are the same
        try:
            self._measure(folder, score)
        except StaleArtifactError:
            progress.say(f"{folder}: an earlier attempt came here with other weights; measured anew")
            with output_guard(folder):
                shutil.rmtree(folder)
            self._measure(folder, score)
        write_json(folder / _STEP, {"step": step, "num_trained_documents": num_trained_documents, "num_trained_tokens": num_trained_tokens})
        self._points[step] = self._read(step)
        self._failed_on_disk &= self._failed.pop(step, None) is None
        self.write_failed()
        return self._points[step]

    def _measure(self, folder: Path, score: Callable[[Path], ScoringSummary]) -> None:
        score(folder / "scores")
        measure_shifts(self._base or self._step_folder(0) / "scores", folder / "scores", self._shift, folder)

    def fail(self, step: int, error: BaseException) -> None:
        """Record that ``step`` could not be measured; on the disk as soon as it takes it."""
        reason = str(error) if isinstance(error, LmdissectError) else f"{type(error).__name__}: {error}"
        self._failed[step] = " ".join(reason.split())
        self._points.pop(step, None)
        self._failed_on_disk = False
        self.write_failed()

    def write_failed(self) -> bool:
        """Write down which steps could not be measured, where that is not done yet.

        Returns:
            Whether it is on the disk: what kept a step from being measured (a full disk) may keep this from being written too, and is no reason to fail.
        """
        path = self.folder / _FAILED
        if not self._failed_on_disk:
            with contextlib.suppress(LmdissectError, OSError):
                if self._failed:
                    write_json(path, {str(step): self._failed[step] for step in sorted(self._failed)})
                else:
                    path.unlink(missing_ok=True)
                self._failed_on_disk = True
        return self._failed_on_disk


def _shown(value: object) -> str:
    limit = 40
    text = canonical_json(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
