"""The pieces a calibration is made of: each small enough to lose, named by what it does, and with draws of its own."""

from dataclasses import dataclass

import numpy as np

from lmdissect.calibration.config import CalibrationConfig
from lmdissect.calibration.plants import PLANTS, Plant, resize_plant
from lmdissect.calibration.rewriting import FACTORS

__all__ = ["PARTS", "SIZES", "TRAINED_PLANTS", "Job", "list_jobs"]

PARTS = ("oracle", "power", "slips", "trained")
SIZES = ("small", "medium", "large")
"""Of the changes whose power is measured."""

TRAINED_PLANTS = ("nothing", "topic", "style", "new_facts", "changed_facts", "topic_style")
_DOCUMENTS_AT_ONCE = 20_000
_SLIP_PLANTS = ("topic", "style", "new_facts")


@dataclass(frozen=True, slots=True)
class Job:
    """Some probe sets of one kind, or one trained model.

    Attributes:
        part: One of `PARTS`.
        name: Name of the planted change, or its factor where its size is varied.
        plant: The change.
        size: One of `SIZES`, or None.
        slips: Rate at which the rewriter changes another factor too.
        num_documents: Documents of a probe set.
        first: Number of the first probe set (or of the trained model).
        num_sets: How many probe sets.
    """

    part: str
    name: str
    plant: Plant
    size: str | None
    slips: float
    num_documents: int
    first: int
    num_sets: int

    def rng(self, config: CalibrationConfig, number: int) -> np.random.Generator:
        """Draws of probe set ``number``: others in every job, the same whatever ran before."""
        purpose = f"{self.part} {self.name} {self.size} {self.slips} {self.num_documents}"
        return np.random.default_rng([config.seed, number, *purpose.encode()])


def list_jobs(config: CalibrationConfig) -> list[Job]:
    """All jobs, in the order in which they run; a job's number is its place."""
    jobs: list[Job] = []
    for name, plant in PLANTS.items():
        jobs += _split("oracle", name, plant, None, 0.0, config.num_documents, config.num_probe_sets)
    for factor in FACTORS:
        for size in SIZES:
            for number in config.power_documents:
                jobs += _split("power", factor, resize_plant(factor, size), size, 0.0, number, config.num_power_sets)
    for name in _SLIP_PLANTS:
        for rate in config.slip_rates:
            jobs += _split("slips", name, PLANTS[name], None, rate, config.num_documents, config.num_slip_sets)
    for number in range(config.num_seeds):
        jobs += [Job("trained", name, PLANTS[name], None, 0.0, config.num_documents, number, 1) for name in TRAINED_PLANTS]
    return jobs


def _split(part: str, name: str, plant: Plant, size: str | None, slips: float, num_documents: int, num_sets: int) -> list[Job]:
    step = max(1, _DOCUMENTS_AT_ONCE // num_documents)
    return [Job(part, name, plant, size, slips, num_documents, first, min(step, num_sets - first)) for first in range(0, num_sets, step)]
