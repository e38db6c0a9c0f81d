"""What a node takes: tokens, operations, bytes, and with a calibration seconds.

    operations of training    = 6 N tokens            all weights
                              = (4 N + 6 A) tokens    adapters of A parameters on frozen weights: no gradients of the N
    operations of scoring     = 2 N tokens
    seconds                   = start-up + tokens / (tokens per second), as measured, or operations / (operations per second), as given

N counts each distinct parameter once. Attention's own products and recomputed activations are left out: a few per cent at 1,000 tokens. A run that
measures on its way scores its probes once for every measured step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmdissect.finetune import FinetuneConfig
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.speeds import ModelFacts, Speed, TextFacts
from lmdissect.store import fingerprint

__all__ = ["Cost", "CostModel", "document_key", "documents_of", "measured_probes", "method_of", "mixed_key", "text_key", "working_bytes"]

_BYTES_PER_WEIGHT = 4
_BYTES_PER_SCORED_TOKEN = 24
_CHECKPOINT_COPIES = 6
"""Two checkpoints at most, each with weights and two moments."""
_LIGHT_S = {"documents": 3.0, "overlap": 3.0, "rate": 0.1, "shift": 4.0}
"""What takes seconds whatever the model; a guess that the first of them corrects."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one node takes; None where it is not known.

    Attributes:
        tokens: Tokens that a model reads.
        flops: Operations.
        seconds: Time on one worker.
        disk_bytes: What stays.
    """

    tokens: float | None = 0.0
    flops: float | None = 0.0
    seconds: float | None = 0.0
    disk_bytes: float | None = 0.0


@dataclass(slots=True)
class CostModel:
    """Everything that costs are worked out from.

    Attributes:
        models: Facts by model reference.
        documents: Training documents, by `document_key`; those mixed in, by `mixed_key`.
        texts: Scored texts, by `text_key`.
        speeds: Measured speed by model reference and method.
        flops_per_s: Given operations per second, for a machine that is not here; used where nothing was measured.
    """

    models: Mapping[str, ModelFacts | None]
    documents: Mapping[str, TextFacts | None]
    texts: Mapping[str, TextFacts | None]
    speeds: Mapping[tuple[str, str], Speed] = field(default_factory=dict)
    flops_per_s: float | None = None

    def of(self, node: Node, graph: Graph) -> Cost:
        """What a node takes."""
        if node.kind in {"trial", "finetune"}:
            return self._training(node, graph)
        if node.kind == "score":
            return self._scoring(node)
        return Cost(seconds=_LIGHT_S[node.kind])

    def _training(self, node: Node, graph: Graph) -> Cost:
        config = FinetuneConfig.model_validate(node.settings["finetune"])
        facts = self.models.get(node.settings["models"]["base"])
        drawn = documents_of(node, graph)
        length = self.documents.get(document_key(node, drawn))
        if length is None:
            return Cost(None, None, None, self._weights_bytes(facts, config))
        size, mix = drawn.settings["size"], drawn.settings["corpus"]["mix"]
        mixed_in = round(mix["share"] / (1 - mix["share"]) * size) if mix else 0
        mixed = self.documents.get(mixed_key(node, drawn)) if mixed_in else length
        watched = self._watched_tokens(node, max(1, round((size + mixed_in) * config.epochs)), config)
        disk = 0.0 if node.kind == "trial" else self._weights_bytes(facts, config)
        if mixed is None or watched is None:
            return Cost(None, None, None, disk)
        trained = (length.mean_tokens * size + mixed.mean_tokens * mixed_in) * config.epochs
        scored = 2 * length.mean_tokens * drawn.settings["validation"] + watched
        flops = None if facts is None else _training_flops(facts, config) * trained + 2 * facts.num_parameters * scored
        return Cost(trained + scored, flops, self._seconds(node, method_of(config), trained, scored, flops), disk)

    def _watched_tokens(self, node: Node, num_documents: int, config: FinetuneConfig) -> float | None:
        """Tokens of probes that are scored while a run trains."""
        found = [self.texts.get(text_key(probes)) for probes in measured_probes(node)]
        if not found:
            return 0.0
        from lmdissect.integrations.callback import choose_steps  # noqa: PLC0415 - heavy; few runs measure

        steps = choose_steps(node.settings["measure"]["steps"], -(-num_documents // config.batch_size))
        return None if None in found else len(steps) * sum(texts.mean_tokens * texts.number for texts in found if texts is not None)

    def _scoring(self, node: Node) -> Cost:
        texts = self.texts.get(text_key(node.settings))
        facts = self.models.get(node.settings["models"]["base"])
        if texts is None:
            return Cost(None, None, None, None)
        tokens = texts.mean_tokens * texts.number
        flops = None if facts is None else 2 * facts.num_parameters * tokens
        return Cost(tokens, flops, self._seconds(node, None, 0.0, tokens, flops), tokens * _BYTES_PER_SCORED_TOKEN)

    def _seconds(self, node: Node, method: str | None, trained: float, scored: float, flops: float | None) -> float | None:
        base = node.settings["models"]["base"]
        scoring = self.speeds.get((base, "score"))
        training = None if method is None else self.speeds.get((base, method))
        if scoring is not None and (method is None or training is not None):
            train_s = 0.0 if training is None else training.start_s + trained / training.tokens_per_s
            return train_s + (scoring.start_s if training is None else 0.0) + scored / scoring.tokens_per_s
        return None if self.flops_per_s is None or flops is None else flops / self.flops_per_s

    def _weights_bytes(self, facts: ModelFacts | None, config: FinetuneConfig) -> float | None:
        if facts is None:
            return None
        trained = facts.num_parameters if config.lora is None else facts.adapter_parameters(config.lora.rank)
        return None if trained is None else float(trained * _BYTES_PER_WEIGHT)


def documents_of(node: Node, graph: Graph) -> Node:
    """The node that draws the documents of a run."""
    return next(graph.nodes[key] for key in node.needs if graph.nodes[key].folder == node.settings["documents"])


def working_bytes(facts: ModelFacts, config: FinetuneConfig) -> float | None:
    """Disk that one run takes while it trains, for its checkpoints."""
    trained = facts.num_parameters if config.lora is None else facts.adapter_parameters(config.lora.rank)
    return None if trained is None else float(trained * _BYTES_PER_WEIGHT * _CHECKPOINT_COPIES)


def _training_flops(facts: ModelFacts, config: FinetuneConfig) -> float:
    """Operations for one token."""
    if config.lora is None:
        return 6.0 * facts.num_parameters
    return 4.0 * facts.num_parameters + 6.0 * (facts.adapter_parameters(config.lora.rank) or 0)


def method_of(config: FinetuneConfig) -> str:
    """``full`` or ``lora``: ranks differ little in speed."""
    return "full" if config.lora is None else "lora"


def document_key(node: Node, drawn: Node) -> str:
    """What the length of a training document depends on: the corpus, and how a run reads it."""
    config: Mapping[str, Any] = node.settings["finetune"]
    return fingerprint([drawn.settings["source"], node.settings["models"]["base"], *(config[name] for name in ("max_tokens", "bos", "append_eos"))])


def mixed_key(node: Node, drawn: Node) -> str:
    """As `document_key`, of the documents that are mixed in."""
    return fingerprint([document_key(node, drawn), drawn.settings["corpus"]["mix"]["files"]])


def text_key(settings: Mapping[str, Any]) -> str:
    """What the number and length of scored texts depend on: settings of a `score` node, or one of `measured_probes`."""
    scoring: Mapping[str, Any] = settings["scoring"]
    return fingerprint([settings["probes"], settings["models"]["base"], scoring["max_tokens"], scoring["bos"]])


def measured_probes(node: Node) -> list[dict[str, Any]]:
    """What a run scores at every step that it measures, as settings like those of a `score` node."""
    measure: Mapping[str, Any] | None = node.settings.get("measure")
    if not measure:
        return []
    limits = {name: [limit for limit in (measure["limit"], probes.get("limit")) if limit is not None] for name, probes in measure["probes"].items()}
    return [
        {"probes": {**probes, "limit": min(limits[name], default=None)}, "models": node.settings["models"], "scoring": measure["scoring"]}
        for name, probes in measure["probes"].items()
    ]
