"""What is left of an experiment, estimated: the facts that costs need, gathered for the nodes that are missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmdissect.corpus import sample_documents
from lmdissect.errors import LmdissectError
from lmdissect.finetune import FinetuneConfig
from lmdissect.pipeline.build import Study
from lmdissect.pipeline.costs import Cost, CostModel, document_key, documents_of, measured_probes, method_of, mixed_key, text_key
from lmdissect.pipeline.experiment import CorpusSettings, ModelSettings, ProbeSettings
from lmdissect.pipeline.graph import Node
from lmdissect.pipeline.inputs import Inputs, read_training_documents
from lmdissect.pipeline.speeds import (
    ModelFacts,
    Speed,
    SpeedGauge,
    TextFacts,
    cpus_are_busy,
    document_facts,
    measure_scoring,
    measure_training,
    model_facts,
    probe_facts,
)
from lmdissect.progress import Progress
from lmdissect.records import Document
from lmdissect.scoring import ScoringConfig
from lmdissect.wording import format_count

__all__ = ["estimate_costs"]

_CALIBRATION_DOCUMENTS = 64


def estimate_costs(
    study: Study,
    nodes: Sequence[Node],
    inputs: Inputs,
    *,
    threads: int,
    calibrate: bool | None,
    progress: Progress,
    flops_per_s: float | None = None,
) -> tuple[dict[str, Cost], dict[str, str], CostModel]:
    """Cost of each node by key, and what could not be known, in words.

    Args:
        study: The experiment.
        nodes: Nodes to estimate.
        inputs: Its inputs.
        threads: CPU threads of one worker.
        calibrate: Measure speeds on this machine: True all, anew; None those that are not known yet; False none, and only what was measured before is used.
        progress: Where to say that something is being measured.
        flops_per_s: Operations per second to reckon with where nothing was measured.
    """
    gatherer = _Gatherer(study, inputs, threads, None if calibrate is False else progress, anew=calibrate is True)
    for node in nodes:
        gatherer.gather(node, timed=flops_per_s is None)
    model = CostModel(gatherer.models, gatherer.documents, gatherer.texts, gatherer.speeds, flops_per_s)
    return {node.key: model.of(node, study.graph) for node in nodes}, gatherer.problems, model


class _Gatherer:
    def __init__(self, study: Study, inputs: Inputs, threads: int, progress: Progress | None, *, anew: bool) -> None:
        self._study = study
        self._inputs = inputs
        self._progress = progress
        self._gauge = SpeedGauge(study.store, threads, None, anew=anew, is_busy=cpus_are_busy(threads))
        self.models: dict[str, ModelFacts | None] = {}
        self.documents: dict[str, TextFacts | None] = {}
        self.texts: dict[str, TextFacts | None] = {}
        self.speeds: dict[tuple[str, str], Speed] = {}
        self.problems: dict[str, str] = {}
        self._identities = {nodes.point.settings.models.base: nodes.content["content of"]["model"] for nodes in study.points}
        """Fingerprints of the bases, as the study has them: to hash large weights again takes long."""
        self._samples: dict[str, list[Document]] = {}
        self._unmeasured: set[tuple[str, str]] = set()

    def gather(self, node: Node, *, timed: bool) -> None:
        """What the cost of ``node`` hangs on."""
        if node.kind not in {"trial", "finetune", "score"}:
            return
        settings = ModelSettings.model_validate(node.settings["models"])
        if settings.base not in self.models:
            self.models[settings.base] = model_facts(settings, self.problems)
        if node.kind == "score":
            self._gather_texts(node.settings, settings)
            if timed:
                self._calibrate_scoring(settings, ScoringConfig.model_validate(node.settings["scoring"]))
        else:
            self._gather_documents(node, settings, timed=timed)
            for probes in measured_probes(node):
                self._gather_texts(probes, settings)

    def _gather_texts(self, scored: Mapping[str, Any], settings: ModelSettings) -> None:
        if (key := text_key(scored)) not in self.texts:
            probes, scoring = ProbeSettings.model_validate(scored["probes"]), ScoringConfig.model_validate(scored["scoring"])
            self.texts[key] = probe_facts(probes, self._inputs, settings, self._identities[settings.base], scoring, self._study.store, self.problems)

    def _gather_documents(self, node: Node, settings: ModelSettings, *, timed: bool) -> None:
        config = FinetuneConfig.model_validate(node.settings["finetune"])
        drawn, identity = documents_of(node, self._study.graph), self._identities[settings.base]
        corpus = CorpusSettings.model_validate(drawn.settings["corpus"])
        if (key := document_key(node, drawn)) not in self.documents:
            self.documents[key] = document_facts(corpus, drawn.settings["source"], settings, identity, config, self._study.store, self.problems)
        if corpus.mix is not None and (key := mixed_key(node, drawn)) not in self.documents:
            source = {"files": self._inputs.files(corpus.mix.files)}
            second = CorpusSettings(files=corpus.mix.files, size=1, tokens_per_document=corpus.tokens_per_document)
            self.documents[key] = document_facts(second, source, settings, identity, config, self._study.store, self.problems)
        found = self.documents[document_key(node, drawn)]
        if found is not None and not found.assumed and drawn.settings["size"] + drawn.settings["validation"] > found.number:
            self.problems.setdefault(
                f"{drawn.label}",
                f"more than there are: the corpus has {format_count(found.number, 'document')}, {drawn.settings['validation']} of them for validation",
            )
        self._check_mixture(node, drawn, corpus)
        if timed:
            self._calibrate_training(settings, config, corpus)
            self._calibrate_scoring(settings, self._study.experiment.scoring)

    def _check_mixture(self, node: Node, drawn: Node, corpus: CorpusSettings) -> None:
        """Say where the second corpus is too small for its share."""
        found = self.documents[mixed_key(node, drawn)] if corpus.mix is not None else None
        mixed_in = round(corpus.mix.share / (1 - corpus.mix.share) * corpus.size) if corpus.mix is not None else 0
        if found is not None and not found.assumed and mixed_in > found.number:
            self.problems.setdefault(
                drawn.label, f"more than there are: the second corpus has {format_count(found.number, 'document')}, and {mixed_in} are to be mixed in"
            )

    def _calibrate_training(self, settings: ModelSettings, config: FinetuneConfig, corpus: CorpusSettings) -> None:
        key, identity = (settings.base, method_of(config)), self._identities[settings.base]
        sample = self._sample(corpus) if self._wanted(key) else []
        if sample:
            self._measure(key, lambda gauge: measure_training(settings, identity, config, sample, gauge))

    def _calibrate_scoring(self, settings: ModelSettings, config: ScoringConfig) -> None:
        key, identity = (settings.base, "score"), self._identities[settings.base]
        sample = self._sample(self._study.experiment.corpus) if self._wanted(key) else []
        if sample:
            self._measure(key, lambda gauge: measure_scoring(settings, identity, config, sample, gauge))

    def _wanted(self, key: tuple[str, str]) -> bool:
        return key not in self.speeds and key not in self._unmeasured and f"model {key[0]}" not in self._inputs.problems

    def _measure(self, key: tuple[str, str], measure: Callable[[SpeedGauge], Speed | None]) -> None:
        progress = self._progress
        announce = None if progress is None else lambda: progress.say(f"measuring the speed of this machine: {key[0]}, {key[1]}")
        try:
            found = measure(replace(self._gauge, announce=announce))
        except LmdissectError as error:
            found = None
            self.problems.setdefault(f"speed of {key[0]}, {key[1]}", str(error))
        if found is None:
            self._unmeasured.add(key)
        else:
            self.speeds[key] = found
            if found.was_busy:
                self.problems.setdefault(
                    f"speed of {key[0]}, {key[1]}",
                    "measured while the CPUs had other work, so its times are too long; the same command with --calibrate measures it again",
                )

    def _sample(self, corpus: CorpusSettings) -> list[Document]:
        name = f"{corpus.files} {corpus.probe_set} {corpus.variant}"
        if name not in self._samples:
            try:
                documents, _ = read_training_documents(corpus, offline=True)
            except LmdissectError:
                documents = []
            self._samples[name] = sample_documents(documents, _CALIBRATION_DOCUMENTS, 0)
        return self._samples[name]
