"""The work of one node, whatever process or machine it is done in."""

import errno
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lmdissect.errors import DamagedArtifactError, InterruptedRunError, LmdissectError, OutOfSpaceError, OutputLockedError, StaleArtifactError
from lmdissect.finetune import FinetuneConfig, finetune
from lmdissect.interrupts import StopRequest
from lmdissect.models import ResolvedModel, load_tokenizer, resolve_model
from lmdissect.pipeline.drawing import draw_documents, excluded_probes, look_for_probes, read_documents, without_documents
from lmdissect.pipeline.experiment import ModelSettings, ProbeSettings
from lmdissect.pipeline.graph import Node, NodeKind, NodeOutcome
from lmdissect.pipeline.inputs import read_probes, resolve_base
from lmdissect.pipeline.rates import choose_rate, read_choice, run_trial
from lmdissect.pipeline.status import curve_folder, node_state
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ProbeSet
from lmdissect.scoring import ScoringConfig, Shard, score_probe_set
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import lock_folder, output_folder, read_artifact, write_json

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["Work", "read_scored_texts", "run_node", "score_node"]

_POLL_S = 0.5
Work: TypeAlias = Callable[[Node, Progress, StopRequest], None]
"""Makes the artifact of one node."""


def run_node(node: Node, *, work: Work | None = None, progress: Progress | None = None, stop: StopRequest | None = None) -> NodeOutcome:
    """Do a node's work, or find it done. What goes wrong with it is the outcome; the traceback of what nobody foresaw goes to standard error.

    Another run may be at the same node of a shared store: then this waits until that one is done with it, and takes what it made.

    Args:
        node: The node; its needs are done.
        work: How to do it, where an executor has another way (scoring on several machines); default: here.
        progress: Where its stage reports.
        stop: Looked at between two pieces of work.
    """
    shown, asked = progress or SilentProgress(), StopRequest() if stop is None else stop
    started_s = time.monotonic()
    try:
        _take_turn(node, work or _WORK[node.kind], shown, asked)
        outcome = NodeOutcome(node.key, "done")
    except InterruptedRunError as error:
        outcome = NodeOutcome(node.key, "interrupted", str(error), type(error).__name__, error.exit_code)
    except StaleArtifactError as error:
        outcome = NodeOutcome(node.key, "failed", _cure_stale(node, error), type(error).__name__, error.exit_code)
    except LmdissectError as error:
        outcome = NodeOutcome(node.key, "failed", str(error), type(error).__name__, error.exit_code)
    except OSError as error:
        traceback.print_exc(file=sys.stderr)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        message = f"disk full ({error}): free some space and run the same command again" if full else f"{type(error).__name__}: {error}"
        outcome = NodeOutcome(node.key, "failed", message, OutOfSpaceError.__name__ if full else type(error).__name__, 1)
    except Exception as error:  # noqa: BLE001 - one node must not take the others with it
        traceback.print_exc(file=sys.stderr)
        text = " ".join(str(error).split())
        outcome = NodeOutcome(node.key, "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__, type(error).__name__, 1)
    return NodeOutcome.from_json({**outcome.to_json(), "wall_s": round(time.monotonic() - started_s, 3)})


def _cure_stale(node: Node, error: StaleArtifactError) -> str:
    """Everything that the node left has to go: half of it would be refused again."""
    folders = [node.folder, *([str(curve_folder(node.folder))] if node.settings.get("measure") else [])]
    there = error.folder or node.folder
    return f"{there} was begun on another machine, or by hand: delete {' and '.join(folders)} and run again ({error})"


def _take_turn(node: Node, work: Work, progress: Progress, stop: StopRequest) -> None:
    """Work on the node once no other process does, unless it is done by then."""
    told = False
    while node_state(node) != "done":
        try:
            work(node, progress, stop)
        except OutputLockedError as error:
            if not told:
                progress.say(f"{node.name}: waiting ({error})")
                told = True
            _wait_for_lock(Path(node.folder), stop)
        else:
            break
    write_json(Path(f"{node.folder}.json"), {"key": node.key, "kind": node.kind, "label": node.label, "settings": node.settings})


def _wait_for_lock(folder: Path, stop: StopRequest) -> None:
    while True:
        if stop:
            message = f"stopped while waiting for {folder}; run the same command again to go on from there"
            raise InterruptedRunError(message)
        try:
            with lock_folder(output_folder(folder)):
                return
        except OutputLockedError:
            time.sleep(_POLL_S)


def _documents(node: Node, _progress: Progress, _stop: StopRequest) -> None:
    draw_documents(node.settings, node.key, Path(node.folder))


def _overlap(node: Node, _progress: Progress, _stop: StopRequest) -> None:
    look_for_probes(node.settings, node.key, Path(node.folder))


def _trial(node: Node, progress: Progress, stop: StopRequest) -> None:
    drawn = read_documents(Path(node.settings["documents"]))
    config = FinetuneConfig.model_validate(node.settings["finetune"])
    base = _base(node)
    run_trial(base, drawn.training, drawn.validation, config, Path(node.folder), inputs={"node": node.key}, progress=progress, stop=stop)


def _rate(node: Node, progress: Progress, _stop: StopRequest) -> None:
    choice = choose_rate([Path(trial) for trial in node.settings["trials"]], Path(node.folder), inputs={"node": node.key})
    progress.say(f"{node.label}: {choice.learning_rate:g}")


def _finetune(node: Node, progress: Progress, stop: StopRequest) -> None:
    settings = node.settings
    drawn = read_documents(Path(settings["documents"]))
    config = FinetuneConfig.model_validate(settings["finetune"])
    if settings["rate"] is not None:
        config = config.model_copy(update={"learning_rate": read_choice(Path(settings["rate"])).learning_rate})
    base = _base(node)
    measured = settings["measure"]["probes"] if settings["measure"] else {}
    callbacks = [_watcher(node, name, base, progress, stop) for name in measured]
    summary = finetune(base, drawn.training, config, Path(node.folder), held_out=drawn.validation, callbacks=callbacks, progress=progress, stop=stop)
    if summary.reused and node_state(node) != "done":
        message = f"{curve_folder(node.folder)}: what was measured while training is gone: delete {node.folder} too, and both are made again"
        raise DamagedArtifactError(message)


def _watcher(node: Node, name: str, base: ResolvedModel, progress: Progress, stop: StopRequest) -> "TrainerCallback":
    """What scores one probe set while a run trains."""
    from lmdissect.integrations import ShiftCallback  # noqa: PLC0415 - only where it is asked for

    measure = node.settings["measure"]
    read = read_probes(ProbeSettings.model_validate(measure["probes"][name]))
    probe_set = without_documents(read, excluded_probes(measure["exclude"][name]))
    return ShiftCallback(
        probe_set,
        curve_folder(node.folder) / name,
        steps=measure["steps"],
        limit=measure["limit"],
        scoring=ScoringConfig.model_validate(measure["scoring"]),
        shift=ShiftConfig.model_validate(measure["shift"]),
        tokenizer=load_tokenizer(base),
        name=base.reference,
        on_error="raise",
        progress=progress,
        stop=stop,
    )


def read_scored_texts(node: Node) -> ProbeSet:
    """The probe set that a `score` node scores.

    Raises:
        UserInputError: It cannot be read.
    """
    probe_set = read_probes(ProbeSettings.model_validate(node.settings["probes"]))
    return without_documents(probe_set, excluded_probes(node.settings["exclude"])) if node.settings["exclude"] else probe_set


def score_node(node: Node, progress: Progress, stop: StopRequest, *, shard: Shard | None = None, delegate: Callable[[], None] | None = None) -> None:
    """Make the artifact of a `score` node, or one shard of it; ``shard`` and ``delegate`` are those of `score_probe_set`.

    Raises:
        LmdissectError: As scoring raises it.
    """
    model = _base(node)
    if node.settings["tuned"] is not None:
        read_artifact(Path(node.settings["tuned"]), "finetune")
        model = resolve_model(node.settings["tuned"], model.trust)
    config = ScoringConfig.model_validate(node.settings["scoring"])
    folder = Path(node.folder)
    score_probe_set(model, read_scored_texts(node), config, folder, shard=shard, delegate=delegate, progress=progress, stop=stop)


def _shift(node: Node, progress: Progress, _stop: StopRequest) -> None:
    settings = node.settings
    checks = {} if settings["overlap"] is None else _overlap_check(Path(settings["overlap"]))
    config = ShiftConfig.model_validate(settings["shift"])
    measure_shifts(Path(settings["base"]), Path(settings["tuned"]), config, Path(node.folder), extra_checks=checks, progress=progress)


def _overlap_check(folder: Path) -> dict[str, dict[str, Any]]:
    counts = read_artifact(folder, "overlap").counts
    found = counts["probe_documents"]
    left_out = " and left out of the probes" if found else ""
    text = f"{found} probe documents found among {counts['corpus_documents']} training and validation documents (by id, text or near-duplicate){left_out}"
    return {"no probe document in the training corpus": {"passed": True, "text": text}}


def _base(node: Node) -> ResolvedModel:
    return resolve_base(ModelSettings.model_validate(node.settings["models"]))


_WORK: Mapping[NodeKind, Work] = {
    "documents": _documents,
    "overlap": _overlap,
    "trial": _trial,
    "rate": _rate,
    "finetune": _finetune,
    "score": score_node,
    "shift": _shift,
}
