"""What can go wrong, named by what happened.

* LmdissectError
  x UserInputError (exit code 2: the user can mend it)
    + UnreadableInputError
    + MissingDependencyError
    + ModelReferenceError
      - UnsafeModelError
    + NothingToDoError
    + UnusableOutputError
      - OutputLockedError
      - StaleArtifactError
    + MismatchedScoresError
  x RunFailedError (exit code 1: the run failed)
    + NonFiniteScoreError
    + NonFiniteLossError
    + OutOfMemoryError
    + OutOfSpaceError
    + DamagedArtifactError
  x InterruptedRunError (exit code 130: the user asked to stop; finished work is kept)

Every message is one line that says what happened, where, and what to do. The command line prints it without a traceback.
"""

from pathlib import Path

__all__ = [
    "DamagedArtifactError",
    "InterruptedRunError",
    "LmdissectError",
    "MismatchedScoresError",
    "MissingDependencyError",
    "ModelReferenceError",
    "NonFiniteLossError",
    "NonFiniteScoreError",
    "NothingToDoError",
    "OutOfMemoryError",
    "OutOfSpaceError",
    "OutputLockedError",
    "RunFailedError",
    "StaleArtifactError",
    "UnreadableInputError",
    "UnsafeModelError",
    "UnusableOutputError",
    "UserInputError",
]


class LmdissectError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class UserInputError(LmdissectError):
    """Bad arguments or bad input; the message says how to mend it."""

    exit_code = 2


class UnreadableInputError(UserInputError):
    """A file is missing, truncated, corrupted, or not in a format we read."""


class MissingDependencyError(UserInputError):
    """A package that the request needs is not installed; the message holds the install line."""


class ModelReferenceError(UserInputError):
    """A model reference points at nothing, or at something that is not a model."""


class UnsafeModelError(ModelReferenceError):
    """Loading would run pickled or remote code, and the user did not allow it."""


class NothingToDoError(UserInputError):
    """After dropping what cannot be used, nothing is left."""


class UnusableOutputError(UserInputError):
    """The output path cannot be created or written."""


class OutputLockedError(UnusableOutputError):
    """Another process is writing this output folder."""


class StaleArtifactError(UnusableOutputError):
    """The output folder holds an artifact of other settings or inputs; the message names the fields.

    Attributes:
        folder: That folder, where it is one that can be deleted and made again.
    """

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class InterruptedRunError(LmdissectError):
    """The user pressed Ctrl-C; the message says how to go on."""

    exit_code = 130


class RunFailedError(LmdissectError):
    """The run started and could not be finished."""


class NonFiniteScoreError(RunFailedError):
    """A model gave a NaN or infinite log-probability; the message names the document."""


class NonFiniteLossError(RunFailedError):
    """The training loss became NaN or infinite; the message names the step."""


class OutOfMemoryError(RunFailedError):
    """Not even the smallest piece of the work fits in memory; another machine, or this one when it is free, may have more."""


class OutOfSpaceError(RunFailedError):
    """The disk of the output folder is full; the message names path and bytes."""


class DamagedArtifactError(RunFailedError):
    """A finished artifact's files do not match its manifest."""


class MismatchedScoresError(UserInputError):
    """Two score folders that are to be compared were made from different texts or settings."""
