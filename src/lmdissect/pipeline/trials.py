"""One trial: probe documents of the synthetic world, exact scores under two worlds, the real pairing and estimating, and the truth beside the estimate."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lmdissect.calibration import (
    PLANTS,
    CalibrationConfig,
    Grammar,
    Job,
    Plant,
    ProbeDraw,
    Rewriter,
    WorldModel,
    base_world,
    draw_probes,
    expected_shift,
    make_score_table,
    plant_world,
    write_score_artifact,
)
from lmdissect.errors import RunFailedError
from lmdissect.factors import ORIGINAL
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.records import FactorShift
from lmdissect.shifts import ShiftConfig, estimate_shifts, pair_scores

__all__ = ["compare_with_disk", "estimate_rows", "exact_shift", "simulate_trials", "trial_row"]

_DISK_TOLERANCE_NATS = 1e-6


def simulate_trials(job: Job, config: CalibrationConfig) -> Iterator[dict[str, Any]]:
    """Rows of the table `trials` for every probe set of ``job``."""
    base = base_world(Grammar())
    tuned = plant_world(base, job.plant)
    rewriter = Rewriter(job.slips)
    for number in range(job.first, job.first + job.num_sets):
        draw = draw_probes(base, rewriter, job.num_documents, job.rng(config, number))
        if job.part == "power":
            draw = ProbeDraw({variant: texts for variant, texts in draw.texts.items() if variant in (ORIGINAL, _variant_of(job.name))})
        base_scores, tuned_scores = make_score_table(base, draw, "base world"), make_score_table(tuned, draw, "tuned world")
        for row in estimate_rows(base_scores, tuned_scores, config, number):
            truth = exact_shift(job.plant, row.variant, row.reference, row.normalization, job.slips)
            yield trial_row(job, number, row, truth=truth, world_shift=truth, truth_se=None)


def _variant_of(factor: str) -> str:
    """The variant that changes ``factor``."""
    return {"topic": "nontopic", "style": "restyled", "factual": "counterfactual"}[factor]


@cache
def exact_shift(plant: Plant, variant: str, reference: str, normalization: str, slips: float) -> float:
    """What the world's exact likelihoods say of a row, in nats per ``normalization``."""
    base = base_world(Grammar())
    return expected_shift(base, plant_world(base, plant), variant, reference, normalization, Rewriter(slips))


def estimate_rows(base: ScoreTable, tuned: ScoreTable, config: CalibrationConfig, number: int) -> list[FactorShift]:
    """Every row of the shift table, with draws of its own for each probe set."""
    rows, _ = estimate_shifts(pair_scores(base, tuned), ShiftConfig(level=config.level, num_draws=config.num_draws, seed=number))
    return rows


def trial_row(job: Job, number: int, row: FactorShift, *, truth: float, world_shift: float, truth_se: float | None) -> dict[str, Any]:
    """A row of the table `trials`."""
    taken = ("variant", "factor", "reference", "normalization", "num_documents", "estimate", "ci_low", "ci_high", "p_value", "p_holm")
    return {
        "part": job.part,
        "plant": job.name,
        "size": job.size,
        "slips": job.slips,
        "number": number,
        **{name: getattr(row, name) for name in taken},
        "truth": truth,
        "world_shift": world_shift,
        "truth_se": truth_se,
    }


def compare_with_disk(config: CalibrationConfig, folder: Path) -> float:
    """Send one probe set through scores artifacts on disk and through memory, and compare every number.

    Returns:
        The largest difference of an estimate or a bound, in nats per token (float32 tokens on disk).

    Raises:
        RunFailedError: The two ways disagree by more than rounding.
    """
    base = base_world(Grammar())
    tuned = plant_world(base, PLANTS["topic_style"])
    job = Job("disk", "topic_style", PLANTS["topic_style"], None, 0.05, config.num_documents, 0, 1)
    draw = draw_probes(base, Rewriter(job.slips), job.num_documents, job.rng(config, 0))
    worlds: dict[str, WorldModel] = {"base": base, "tuned": tuned}
    memory = [make_score_table(world, draw, name) for name, world in worlds.items()]
    disk = [read_scores(write_score_artifact(world, draw, name, folder / name)) for name, world in worlds.items()]
    pairs = zip(estimate_rows(memory[0], memory[1], config, 0), estimate_rows(disk[0], disk[1], config, 0), strict=True)
    worst = max(
        abs(float(getattr(here, name)) - float(getattr(there, name)))
        for here, there in pairs
        if here.normalization == "token"
        for name in ("estimate", "ci_low", "ci_high")
    )
    if worst > _DISK_TOLERANCE_NATS:
        message = f"exact scores give other shifts from memory than from disk (by {worst:.1e} nats per token): this is a bug, please report it"
        raise RunFailedError(message)
    return worst
