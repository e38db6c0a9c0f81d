"""Estimates, against numbers worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from lmdissect.models import load_model, resolve_model
from lmdissect.pipeline.costs import CostModel, document_key, measured_probes, mixed_key, text_key
from lmdissect.pipeline.experiment import ModelSettings
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.speeds import ModelFacts, Speed, TextFacts, model_facts
from tiny_models import save_tiny_gpt2, save_tiny_llama

N, ROWS, RANK = 1000, 50, 4
CONFIG = {"max_tokens": 64, "epochs": 2.0, "batch_size": 4}


def training_graph(*, lora: bool, mix_share: float = 0.0, measure: dict[str, Any] | None = None) -> tuple[Graph, Node]:
    graph = Graph()
    corpus = {"files": ["c"], "size": 30, "mix": {"files": ["w"], "share": mix_share} if mix_share else None}
    drawn_settings = {"corpus": corpus, "source": {"files": ["h"]}, "size": 30, "validation": 10}
    drawn = graph.add("documents", "d", drawn_settings, depends_on={}, needs=(), store=Path("store"))
    finetune = {**CONFIG, "bos": "auto", "append_eos": True, "lora": {"rank": RANK} if lora else None}
    settings = {"models": {"base": "m"}, "documents": drawn.folder, "finetune": finetune, "measure": measure}
    return graph, graph.add("finetune", "f", settings, depends_on={}, needs=[drawn.key], store=Path("store"))


def cost_model(graph: Graph, node: Node, **more: object) -> CostModel:
    drawn = graph.nodes[node.needs[0]]
    return CostModel({"m": ModelFacts(N, ROWS)}, {document_key(node, drawn): TextFacts(100, 20.0)}, {}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("lora", "per_token", "weights"), [(False, 6 * N, N), (True, 4 * N + 6 * RANK * ROWS, RANK * ROWS)])
def test_training_counts_trained_and_measured_tokens(lora: bool, per_token: int, weights: int) -> None:
    graph, node = training_graph(lora=lora)
    cost = cost_model(graph, node).of(node, graph)
    trained, measured = 30 * 20 * 2, 2 * 10 * 20
    assert cost.tokens == trained + measured
    assert cost.flops == per_token * trained + 2 * N * measured
    assert cost.disk_bytes == 4 * weights
    assert cost.seconds is None, "nothing was measured"


def test_documents_mixed_in_come_on_top_with_their_own_length() -> None:
    graph, node = training_graph(lora=False, mix_share=0.25)
    model = cost_model(graph, node)
    assert model.of(node, graph).tokens is None, "nobody knows how long they are"
    model.documents = {**model.documents, mixed_key(node, graph.nodes[node.needs[0]]): TextFacts(50, 70.0)}
    assert model.of(node, graph).tokens == (30 * 20 + 10 * 70) * 2 + 400


def test_a_run_that_measures_scores_its_probes_at_every_step_of_the_curve() -> None:
    scoring = {"max_tokens": 8, "bos": "auto"}
    measure = {"steps": "log", "limit": 5, "probes": {"p": {"path": "p", "limit": 3}, "q": {"path": "q"}}, "scoring": scoring}
    graph, node = training_graph(lora=False, measure=measure)
    model = cost_model(graph, node)
    assert model.of(node, graph).tokens is None
    assert [probes["probes"]["limit"] for probes in measured_probes(node)] == [3, 5]
    model.texts = {text_key(probes): TextFacts(12, 8.0) for probes in measured_probes(node)}
    steps = len({0, 1, 2, 4, 8, 15})  # 60 documents, 4 at a time
    cost = model.of(node, graph)
    assert cost.tokens == 30 * 20 * 2 + 400 + steps * 2 * 12 * 8
    assert cost.flops == 6 * N * 1200 + 2 * N * (400 + steps * 192)


def test_seconds_come_from_measured_speeds_or_from_given_ones() -> None:
    graph, node = training_graph(lora=False)
    speeds = {("m", "full"): Speed(100.0, 3.0), ("m", "score"): Speed(400.0, 1.0)}
    assert cost_model(graph, node, speeds=speeds).of(node, graph).seconds == 3.0 + 1200 / 100 + 400 / 400
    given = cost_model(graph, node, flops_per_s=1e6).of(node, graph)
    assert given.flops is not None
    assert given.seconds == given.flops / 1e6


def test_what_is_not_known_stays_unknown() -> None:
    graph, node = training_graph(lora=False)
    cost = CostModel({"m": None}, {}, {}).of(node, graph)
    assert (cost.tokens, cost.flops, cost.seconds, cost.disk_bytes) == (None, None, None, None)


def test_scoring_reads_every_text_once() -> None:
    graph = Graph()
    settings = {"models": {"base": "m"}, "tuned": None, "probes": {"path": "p"}, "exclude": [], "scoring": {"max_tokens": 8, "bos": "auto"}}
    node = graph.add("score", "s", settings, depends_on={}, needs=(), store=Path("store"))
    model = CostModel({"m": ModelFacts(N)}, {}, {text_key(node.settings): TextFacts(40, 8.0)}, {("m", "score"): Speed(10.0, 2.0)})
    cost = model.of(node, graph)
    assert (cost.tokens, cost.flops, cost.seconds) == (320, 2 * N * 320, 34.0)


@pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt2])
def test_the_size_of_a_model_is_counted_without_its_weights(tmp_path: Path, save: object) -> None:
    folder = save(tmp_path / "model", seed=0)  # type: ignore[operator]
    facts = model_facts(ModelSettings(base=str(folder)), problems := {})
    model = load_model(resolve_model(str(folder)))
    assert facts is not None
    assert facts.num_parameters == model.num_parameters
    linear = [module.weight for name, module in model.model.named_modules() if "proj" in name or "c_attn" in name or "c_fc" in name]
    assert facts.adapter_parameters(3) == 3 * sum(sum(weight.shape) for weight in linear)
    assert not problems


def test_the_paper_s_models_are_known_and_others_ask(tmp_path: Path) -> None:
    problems: dict[str, str] = {}
    assert model_facts(ModelSettings(base="openai-community/gpt2-xl"), problems) == ModelFacts(1_557_611_200, 1_228_800)
    assert model_facts(ModelSettings(base="some/body", num_parameters=7), problems) == ModelFacts(7)
    assert not problems
    assert model_facts(ModelSettings(base="some/body"), problems) is None
    assert problems == {"size of some/body": "not known: give models.num_parameters"}
