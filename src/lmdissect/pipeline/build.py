"""Points -> the graph of all work, with every key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdissect.finetune import FinetuneConfig
from lmdissect.formats.shift_tables import FORMAT_VERSION
from lmdissect.pipeline.experiment import CorpusSettings, Experiment, LearningRateGrid, ProbeSettings
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.inputs import Inputs
from lmdissect.pipeline.points import Point, expand_points, settled_settings
from lmdissect.pipeline.status import node_state

__all__ = ["PointNodes", "Study", "build_study"]

_TRIAL_SEED = 0
"""Every rate of a grid sees the same documents in the same order, from the same start, whatever the seeds of the points."""

_OF_THE_POINT = {"skip_first_tokens": 0, "skip_token_classes": ()}
"""What a trial leaves at its default: losses over other tokens cannot be compared, and one rate serves all points of such a curve."""


@dataclass(frozen=True, slots=True)
class PointNodes:
    """The nodes of one point.

    Attributes:
        point: The point.
        nodes: Key by role: ``documents``, ``rate`` (where the rate is chosen), ``finetune``, and for each probe set ``overlap NAME``,
            ``trial overlap NAME`` (the look among documents that only trials train on), ``base NAME``, ``tuned NAME`` and ``shift NAME``.
        content: Settings and hashes of inputs that decide the keys, to say later which of them changed.
    """

    point: Point
    nodes: Mapping[str, str]
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Study:
    """An experiment with all its work laid out."""

    experiment: Experiment
    points: tuple[PointNodes, ...]
    graph: Graph

    @property
    def store(self) -> Path:
        """Folder of all artifacts."""
        return Path(self.experiment.store)

    def node(self, nodes: PointNodes, role: str) -> Node:
        """A node of a point."""
        return self.graph.nodes[nodes.nodes[role]]


def build_study(experiment: Experiment, source: str, inputs: Inputs) -> Study:
    """Lay out an experiment.

    Args:
        experiment: The experiment.
        source: Its file, for messages.
        inputs: What it reads.

    Raises:
        UserInputError: A combination of the grid is not allowed.
        LmdissectError: An input cannot be had, and ``inputs`` is not lenient.
    """
    points = expand_points(experiment, source)
    builder = _Builder(Path(experiment.store), inputs)
    drawn = [builder.draw(point) for point in points]
    builder.settle_exclusions()
    return Study(experiment, tuple(builder.finish(point, nodes) for point, nodes in zip(points, drawn, strict=True)), builder.graph)


class _Builder:
    """Adds the nodes of one point after the other. Documents of all points come first: which probes are left out depends on all of them."""

    def __init__(self, store: Path, inputs: Inputs) -> None:
        self.graph = Graph()
        self._store = store
        self._inputs = inputs
        self._overlaps: dict[str, list[str]] = {}
        """Checks that leave probes out, by the hash of the probe set's texts."""

    def draw(self, point: Point) -> dict[str, str]:
        """Documents of a point, and the look for probes among them."""
        corpus = point.settings.corpus
        draw_seed = corpus.seed + (point.seed if corpus.redraw else 0)
        documents = self._documents(point, corpus, draw_seed)
        tried = self._trial_documents(point)
        nodes = {"documents": documents.key}
        if corpus.on_overlap != "exclude_training":
            for name, probes in point.settings.probes.items():
                nodes[f"overlap {name}"] = self._overlap(documents, name, probes, corpus.on_overlap).key
                if tried is not None:  # not always among the point's own: it may have fewer, or draw others
                    nodes[f"trial overlap {name}"] = self._overlap(tried, name, probes, corpus.on_overlap).key
        return nodes

    def _trial_documents(self, point: Point) -> Node | None:
        """What the trials of learning rates train on; None where the rate is given."""
        rates = point.settings.finetune.learning_rate
        if not isinstance(rates, LearningRateGrid):
            return None
        corpus = point.settings.corpus.model_copy(update={"size": rates.size, "mix": None, "redraw": False})
        return self._documents(point, corpus, corpus.seed)

    def _documents(self, point: Point, corpus: CorpusSettings, draw_seed: int) -> Node:
        kept_out = point.settings.probes.values() if corpus.on_overlap == "exclude_training" else ()
        exclude = {self._inputs.probes(probes).texts: probes.model_dump(mode="json") for probes in kept_out}
        mix = corpus.mix if corpus.mix and corpus.mix.share > 0 else None
        source = self._inputs.corpus_source(corpus)
        draw = {"size": corpus.size, "draw_seed": draw_seed, "split_seed": corpus.seed, "validation": corpus.validation}
        settings = {
            **draw,
            "corpus": corpus.model_copy(update={"mix": mix}).model_dump(mode="json"),
            "source": source,
            "exclude": exclude,
        }
        depends_on = {
            **draw,
            "source": source,
            "mix": {"files": self._inputs.files(mix.files), "share": mix.share} if mix else None,
            "exclude": sorted(exclude),
        }
        mixed = f" + {mix.share:.0%} mixed in" if mix else ""
        label = f"{corpus.size} documents{mixed}, draw {draw_seed}" + (f", {corpus.variant}" if corpus.probe_set else "")
        return self.graph.add("documents", label, settings, depends_on=depends_on, needs=(), store=self._store)

    def _overlap(self, documents: Node, name: str, probes: ProbeSettings, policy: str) -> Node:
        found = self._inputs.probes(probes).texts
        node = self.graph.add(
            "overlap",
            f"{name} in {documents.label}",
            {"documents": documents.folder, "name": name, "probes": probes.model_dump(mode="json"), "policy": policy, "depends_on": documents.key},
            depends_on={"documents": documents.key, "probes": found, "policy": policy},
            needs=(documents.key,),
            store=self._store,
        )
        if policy == "exclude_probes":
            self._overlaps.setdefault(found, []).append(node.key)
        return node

    def settle_exclusions(self) -> None:
        """Probes that are in the documents of any point are left out at every point: a curve needs the same probes all along.

        Documents that cannot be drawn do not count: nothing is trained on them, and their point fails without taking the others along.
        """
        self._overlaps = {found: sorted(key for key in set(keys) if self._can_be_drawn(key)) for found, keys in self._overlaps.items()}

    def _can_be_drawn(self, check: str) -> bool:
        """Whether the corpora are large enough for the documents that a check is about; as far as that can be known here."""
        documents = self.graph.nodes[self.graph.nodes[check].needs[0]]
        if node_state(documents) == "done":
            return True
        corpus = CorpusSettings.model_validate(documents.settings["corpus"])
        first, second = self._inputs.num_documents(corpus)
        mixed_in = round(corpus.mix.share / (1 - corpus.mix.share) * corpus.size) if corpus.mix else 0
        return (first is None or corpus.size + corpus.validation <= first) and (second is None or mixed_in <= second)

    def _excluded(self, point: Point, probes: ProbeSettings) -> list[str]:
        """Checks whose findings are left out of a probe set at this point."""
        if point.settings.corpus.on_overlap != "exclude_probes":
            return []
        return self._overlaps.get(self._inputs.probes(probes).texts, [])

    def finish(self, point: Point, drawn: Mapping[str, str]) -> PointNodes:
        """Everything of a point after its documents."""
        nodes = dict(drawn)
        rate = self._rate(point, [key for role, key in drawn.items() if role.startswith("trial overlap ")])
        if rate is not None:
            nodes["rate"] = rate.key
        checks = [key for role, key in drawn.items() if role.startswith("overlap ")]
        tuned = self._finetune(point, self.graph.nodes[drawn["documents"]], rate, checks)
        nodes["finetune"] = tuned.key
        for name, probes in point.settings.probes.items():
            base = self._score(point, name, probes, None, ())
            own = [drawn[role] for role in (f"overlap {name}", f"trial overlap {name}") if role in drawn]
            score = self._score(point, name, probes, tuned, own)
            shift = self._shift(point, name, base, score, drawn.get(f"overlap {name}"))
            nodes |= {f"base {name}": base.key, f"tuned {name}": score.key, f"shift {name}": shift.key}
        return PointNodes(point, nodes, self._content(point))

    def _rate(self, point: Point, checks: Sequence[str]) -> Node | None:
        settings = point.settings
        rates = settings.finetune.learning_rate
        documents = self._trial_documents(point)
        if documents is None or not isinstance(rates, LearningRateGrid):
            return None
        model = self._inputs.model(settings.models)
        trials = []
        for rate in rates.grid:
            config = _filled(settings.finetune.with_rate(rate, _TRIAL_SEED).model_copy(update=_OF_THE_POINT)).model_dump(mode="json")
            trial = self.graph.add(
                "trial",
                f"rate {rate:g} of {_model_label(settings)} on {documents.label}",
                {"models": settings.models.model_dump(mode="json"), "documents": documents.folder, "finetune": config},
                depends_on={"model": model, "documents": documents.key, "finetune": config},
                needs=[documents.key, *checks],
                store=self._store,
            )
            trials.append(trial)
        return self.graph.add(
            "rate",
            f"rate of {_model_label(settings)} on {documents.label}",
            {"trials": [trial.folder for trial in trials], "rates": list(rates.grid)},
            depends_on={"trials": [trial.key for trial in trials]},
            needs=[trial.key for trial in trials],
            store=self._store,
        )

    def _finetune(self, point: Point, documents: Node, rate: Node | None, checks: Sequence[str]) -> Node:
        settings = point.settings
        given = None if rate else settings.finetune.learning_rate
        filled = _filled(settings.finetune.with_rate(given if isinstance(given, float) else None, point.seed))
        config = filled.model_copy(update={"learning_rate": None} if rate else {}).model_dump(mode="json")
        measure, watched, excluded = self._measure(point)
        depends_on = {
            "model": self._inputs.model(settings.models),
            "documents": documents.key,
            "finetune": config,
            "rate": rate.key if rate else None,
            "measure": watched,
        }
        node_settings = {
            "models": settings.models.model_dump(mode="json"),
            "documents": documents.folder,
            "finetune": config,
            "rate": rate.folder if rate else None,
            "measure": measure,
        }
        needs = [documents.key, *checks, *([rate.key] if rate else []), *excluded]
        return self.graph.add("finetune", point.label, node_settings, depends_on=depends_on, needs=needs, store=self._store)

    def _measure(self, point: Point) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
        """What a run measures on its way: as settings, as part of its key, and the nodes it waits for."""
        settings = point.settings
        if settings.measure is None:
            return None, None, []
        probes = {name: settings.probes[name] for name in settings.measure.probes}
        excluded = {name: self._excluded(point, probe) for name, probe in probes.items()}
        chosen = settings.measure.model_dump(mode="json") | {"scoring": settings.scoring.model_dump(mode="json")}
        measure = {
            **chosen,
            "probes": {name: probe.model_dump(mode="json") for name, probe in probes.items()},
            "exclude": {name: [self.graph.nodes[key].folder for key in keys] for name, keys in excluded.items()},
            "shift": settings.shift.model_dump(mode="json"),
        }
        watched = {**measure, "probes": {name: self._inputs.probes(probe).to_json() for name, probe in probes.items()}, "exclude": excluded}
        return measure, watched, [key for keys in excluded.values() for key in keys]

    def _score(self, point: Point, name: str, probes: ProbeSettings, tuned: Node | None, checks: Sequence[str]) -> Node:
        settings = point.settings
        excluded = self._excluded(point, probes)
        scoring = settings.scoring.model_dump(mode="json")
        model = {"tuned": tuned.key} if tuned else {"fingerprint": self._inputs.model(settings.models)["fingerprint"]}
        return self.graph.add(
            "score",
            f"{name}, {tuned.label}" if tuned else f"{name}, {settings.models.base}",
            {
                "models": settings.models.model_dump(mode="json"),
                "tuned": tuned.folder if tuned else None,
                "probes": probes.model_dump(mode="json"),
                "exclude": [self.graph.nodes[key].folder for key in excluded],
                "scoring": scoring,
            },
            depends_on={"model": model, "probes": self._inputs.probes(probes).to_json(), "exclude": excluded, "scoring": scoring},
            needs=[*([tuned.key] if tuned else []), *checks, *excluded],
            store=self._store,
        )

    def _shift(self, point: Point, name: str, base: Node, tuned: Node, overlap: str | None) -> Node:
        shift = point.settings.shift.model_dump(mode="json")
        return self.graph.add(
            "shift",
            f"{name}, {point.label}",
            {"base": base.folder, "tuned": tuned.folder, "shift": shift, "overlap": self.graph.nodes[overlap].folder if overlap else None},
            depends_on={"format_version": FORMAT_VERSION, "base": base.key, "tuned": tuned.key, "shift": shift, "overlap": overlap},
            needs=[base.key, tuned.key, *([overlap] if overlap else [])],
            store=self._store,
        )

    def _content(self, point: Point) -> dict[str, Any]:
        corpus = point.settings.corpus
        found = {
            "model": self._inputs.model(point.settings.models)["fingerprint"],
            "corpus": self._inputs.corpus_source(corpus),
            "mix": self._inputs.files(corpus.mix.files) if corpus.mix and corpus.mix.share > 0 else [],
            "probes": {name: self._inputs.probes(probe).to_json() for name, probe in point.settings.probes.items()},
        }
        return {**settled_settings(point.settings), "content of": found}


def _filled(config: FinetuneConfig) -> FinetuneConfig:
    """Settings with the defaults that depend on others written out, so that a run has one key whether they are given or not."""
    lora = config.lora
    if lora is not None:
        lora = lora.model_copy(update={"alpha": lora.scale_numerator, "targets": tuple(sorted(set(lora.targets))) if lora.targets else None})
    return config.model_copy(update={"lora": lora, "learning_rate": config.peak_learning_rate})


def _model_label(settings: Experiment) -> str:
    lora = settings.finetune.lora
    return f"{settings.models.base}, {f'rank {lora.rank}' if lora else 'full'}"
