"""Settings of a calibration."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CalibrationConfig"]


class CalibrationConfig(BaseModel):
    """Sizes of every part. The defaults are the full calibration; `quick` has the same parts, too small to judge by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="seed of every draw")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="confidence level of every interval")
    num_draws: int = Field(default=1000, ge=100, description="bootstrap resamples and sign flips of one probe set")
    num_probe_sets: int = Field(default=2000, ge=2, description="probe sets for every planted change")
    num_documents: int = Field(default=200, ge=2, description="documents of a probe set")
    power_documents: tuple[int, ...] = Field(default=(20, 50, 100, 200, 500, 1000), description="sizes of probe sets for power")
    num_power_sets: int = Field(default=200, ge=2, description="probe sets for each factor, size of change and number of documents")
    slip_rates: tuple[float, ...] = Field(
        default=(0.0, 0.02, 0.05, 0.1, 0.2), description="shares of documents in which a rewriter changes another factor too"
    )
    num_slip_sets: int = Field(default=300, ge=2, description="probe sets for each rate")
    num_seeds: int = Field(default=20, ge=1, description="trained models for every planted change")
    num_truth_documents: int = Field(default=20_000, ge=100, description="fresh documents that say what a trained model's shift is")
    pretraining_steps: int = Field(default=4000, ge=1, description="steps of 64 documents in which the tiny base model learns the world")
    training_documents: int = Field(default=768, ge=1, description="documents of a finetuning corpus")

    @classmethod
    def quick(cls, seed: int = 0) -> "CalibrationConfig":
        """The same parts in under a minute: shows that everything runs, not how good the instrument is."""
        return cls(
            seed=seed,
            num_draws=200,
            num_probe_sets=20,
            num_documents=100,
            power_documents=(20, 100),
            num_power_sets=10,
            slip_rates=(0.0, 0.2),
            num_slip_sets=10,
            num_seeds=2,
            num_truth_documents=400,
            pretraining_steps=60,
            training_documents=128,
        )
