"""A trial with tiny transformers: finetune on a planted corpus, score a probe set through the scoring stage, estimate.

The truth is the model's own shift: the mean over very many fresh documents.
"""

import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmdissect.calibration import CalibrationConfig, Floats, Grammar, Job, ProbeDraw, Rewriter, base_world, draw_probes, plant_world, probe_set_of
from lmdissect.errors import RunFailedError
from lmdissect.factors import ORIGINAL
from lmdissect.finetune import FinetuneConfig
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.models import LoadOptions, ResolvedModel, load_model, resolve_model
from lmdissect.pipeline.trained_world import TUNING, corpus_documents, document_scores, one_thread, pretrain_base
from lmdissect.pipeline.trials import estimate_rows, exact_shift, trial_row
from lmdissect.progress import Progress, SilentProgress
from lmdissect.scoring import ScoringConfig, score_probe_set

__all__ = ["TrainedTrials"]

_TOLERANCE_NATS = 1e-4


class TrainedTrials:
    """Everything that the trials with trained models share: the base model, its scores, and the fresh documents."""

    def __init__(self, config: CalibrationConfig, folder: Path, progress: Progress) -> None:
        self._config, self._folder, self._progress = config, folder, progress
        self._world = base_world(Grammar())
        self._rewriter = Rewriter()
        self._scoring = ScoringConfig(device="cpu", dtype="float32")

    def run(self, job: Job) -> Iterator[dict[str, Any]]:
        """Rows of the table `trials` for one trained model.

        Raises:
            RunFailedError: The scoring stage and the quick scores of the fresh documents disagree.
        """
        with one_thread():
            base_scores = self._score(self._base, job, self._work / f"base-{job.name}-{job.first}")
            tuned_folder = self._finetune(job)
            tuned_model = resolve_model(str(tuned_folder))
            tuned_scores = self._score(tuned_model, job, self._work / f"scores-{job.name}-{job.first}")
            self._compare_ways(tuned_model, tuned_scores, job)
            gains = self._fresh_gains(tuned_model)
        for row in estimate_rows(base_scores, tuned_scores, self._config, job.first):
            reference = ORIGINAL if row.reference == "original" else "paraphrase"
            shifts = (gains[reference] - gains[row.variant]) / self._divisor(row.normalization)
            truth_se = float(shifts.std(ddof=1) / np.sqrt(len(shifts)))
            world_shift = exact_shift(job.plant, row.variant, row.reference, row.normalization, 0.0)
            yield trial_row(job, job.first, row, truth=float(shifts.mean()), world_shift=world_shift, truth_se=truth_se)
        for kind in ("base", "tuned", "scores"):
            shutil.rmtree(self._work / f"{kind}-{job.name}-{job.first}", ignore_errors=True)

    @property
    def _work(self) -> Path:
        return self._folder / "work"

    @cached_property
    def _base(self) -> ResolvedModel:
        folder = self._folder / "models" / "base"
        return resolve_model(str(pretrain_base(self._world, self._config.pretraining_steps, self._config.seed, folder, self._progress)))

    @cached_property
    def _fresh(self) -> ProbeDraw:
        """Documents that no probe set and no training corpus holds but by chance: other draws."""
        return draw_probes(self._world, self._rewriter, self._config.num_truth_documents, np.random.default_rng([self._config.seed, 13]))

    @cached_property
    def _fresh_base_scores(self) -> Mapping[str, Floats]:
        return document_scores(load_model(self._base, LoadOptions("float32", "cpu")), self._fresh, self._world.grammar)

    def _fresh_gains(self, tuned: ResolvedModel) -> dict[str, Floats]:
        """Gain of every fresh text in nats, ``[variant]`` -> shape (D,)."""
        scores = document_scores(load_model(tuned, LoadOptions("float32", "cpu")), self._fresh, self._world.grammar)
        return {variant: scores[variant] - self._fresh_base_scores[variant] for variant in scores}

    def _divisor(self, normalization: str) -> Any:  # noqa: ANN401 - an array, or 1
        num_sentences = self._fresh.texts[ORIGINAL].num_sentences  # a rewrite has as many as its original
        grammar = self._world.grammar
        return {"token": grammar.num_tokens(num_sentences), "byte": grammar.num_bytes(num_sentences), "document": 1}[normalization]

    def _probes(self, job: Job) -> ProbeDraw:
        """The probe set of one model: every model has its own, or the misses of several would be one."""
        return draw_probes(self._world, self._rewriter, job.num_documents, job.rng(self._config, job.first))

    def _score(self, model: ResolvedModel, job: Job, folder: Path) -> ScoreTable:
        score_probe_set(model, probe_set_of(self._world, self._probes(job)), self._scoring, folder, progress=SilentProgress())
        return read_scores(folder)

    def _finetune(self, job: Job) -> Path:
        from lmdissect.finetune import finetune  # noqa: PLC0415 - loads the Trainer

        folder = self._work / f"tuned-{job.name}-{job.first}"
        corpus = corpus_documents(plant_world(self._world, job.plant), self._config.training_documents, self._config.seed * 1000 + job.first)
        settings = FinetuneConfig(**TUNING, seed=job.first)
        finetune(self._base, corpus, settings, folder, progress=SilentProgress())
        return folder

    def _compare_ways(self, tuned: ResolvedModel, table: ScoreTable, job: Job) -> None:
        quick = document_scores(load_model(tuned, LoadOptions("float32", "cpu")), self._probes(job), self._world.grammar)
        worst = max(
            abs(quick[variant][int(document_id[1:])] - table.logprob_nats[row]) / table.num_scored[row]
            for (document_id, variant), row in table.rows.items()
        )
        if not worst <= _TOLERANCE_NATS:
            message = f"the tiny model's quick scores and the scoring stage's differ by {worst:.1e} nats per token: this is a bug, please report it"
            raise RunFailedError(message)
