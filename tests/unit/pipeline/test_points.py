"""Grid and seeds -> points."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.pipeline.experiment import Experiment, parse_experiment
from lmdissect.pipeline.points import cell_value, expand_points, settled_settings, shown_field, shown_forms, shown_value, table_cell


def experiment(**settings: Any) -> Experiment:
    smallest = {
        "name": "study",
        "models": {"base": "owner/name"},
        "corpus": {"files": ["corpus.jsonl"], "size": 10},
        "probes": {"pubmed": {"path": "probes.jsonl"}},
    }
    return parse_experiment({**smallest, **settings}, "e.yaml")


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=4, unique=True),
    ranks=st.lists(st.one_of(st.none(), st.integers(1, 64)), min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_points_are_the_product_of_values_and_seeds(sizes: list[int], ranks: list[int | None], seeds: list[int]) -> None:
    points = expand_points(experiment(grid={"corpus.size": sizes, "finetune.lora.rank": ranks}, seeds=seeds), "e")
    found = [(point.fields["corpus.size"], point.fields["finetune.lora.rank"], point.seed) for point in points]
    assert found == [(size, rank, seed) for size in sizes for rank in ranks for seed in seeds]
    assert len({point.label for point in points}) == len(points)
    for point in points:
        lora = point.settings.finetune.lora
        assert point.settings.corpus.size == point.fields["corpus.size"]
        assert (lora.rank if lora else None) == point.fields["finetune.lora.rank"]


def test_null_under_lora_means_all_weights_whatever_else_is_set() -> None:
    points = expand_points(experiment(finetune={"lora": {"rank": 8, "alpha": 4}}, grid={"finetune.lora.rank": [2, None]}), "e")
    assert points[0].settings.finetune.lora is not None
    assert points[0].settings.finetune.lora.alpha == 4
    assert points[1].settings.finetune.lora is None
    assert [point.label for point in points] == ["rank=2 seed=0", "rank=full seed=0"]


def test_null_elsewhere_under_lora_is_a_default_and_trains_adapters() -> None:
    points = expand_points(experiment(grid={"finetune.lora.rank": [4, None], "finetune.lora.alpha": [16]}), "e")
    assert [point.settings.finetune.lora is not None for point in points] == [True, False]
    points = expand_points(experiment(grid={"finetune.lora.rank": [4], "finetune.lora.alpha": [None, 16]}), "e")
    assert [point.settings.finetune.lora.rank for point in points if point.settings.finetune.lora] == [4, 4]
    assert [point.label for point in points] == ["rank=4 alpha=unset seed=0", "rank=4 alpha=16 seed=0"]
    united = expand_points(experiment(grid=[{"finetune.lora.rank": [4]}, {"finetune.lora.rank": [2], "finetune.lora.alpha": [16]}]), "e")
    assert united[0].label == "rank=4 alpha=unset seed=0"


MIXES = [{"files": ["data/web/web_text_with_a_name_that_is_as_long_as_it_gets.jsonl"], "share": share} for share in (0.2, 0.6)]


@pytest.mark.parametrize(
    ("field", "values", "forms"),
    [
        ("corpus.mix", MIXES, ["share=0.2", "share=0.6"]),
        ("finetune.lora", [{"rank": 4, "alpha": 1.0}, {"rank": 4, "alpha": 64.0}, None], ["alpha=1.0", "alpha=64.0", "full"]),
        ("finetune.lora", [{"rank": 4, "alpha": 1.0}, {"rank": 8, "alpha": 1.0}], ["rank 4", "rank 8"]),
        ("finetune.learning_rate", [0.001, 0.0010000001], ["0.001", "0.0010000001"]),
        ("finetune.learning_rate", [{"grid": [0.1], "size": 4}, {"grid": [0.1], "size": 8}], ["size=4", "size=8"]),
        ("corpus.files", [["a" * 70 + "1"], ["a" * 70 + "2"]], [f'["{"a" * 70}1"]', f'["{"a" * 70}2"]']),
        ("corpus.size", [3, 3, 4], ["3", "3", "4"]),
    ],
)
def test_different_values_have_different_forms(field: str, values: list[object], forms: list[str]) -> None:
    assert shown_forms(field, values) == forms


@pytest.mark.parametrize(
    "grid",
    [
        {"corpus.mix": MIXES},
        {"finetune.lora": [{"rank": 4, "alpha": 1}, {"rank": 4, "alpha": 64}]},
        {"finetune.learning_rate": [0.001, 0.0010000001]},
        {"finetune.learning_rate": [{"grid": [0.1, 0.2], "size": 4}, {"grid": [0.1, 0.2], "size": 8}]},
        {"probes.pubmed.path": ["p" * 70 + "1", "p" * 70 + "2"]},
    ],
)
def test_no_two_points_have_one_name(grid: dict[str, list[Any]]) -> None:
    points = expand_points(experiment(grid=grid, seeds=[0, 1]), "e")
    assert len({point.label for point in points}) == len({point.identity for point in points}) == 4


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner | st.text()),
    )
)
def test_a_cell_keeps_all_of_a_section(value: object) -> None:
    cell = cell_value(table_cell(value))
    assert cell == (value if isinstance(value, (list, dict)) else table_cell(value))


def test_a_list_of_grids_is_their_union_in_order() -> None:
    grid = [{"corpus.size": [10, 20]}, {"corpus.size": [20], "finetune.lora.rank": [4]}]
    points = expand_points(experiment(grid=grid), "e")
    assert [(point.fields["corpus.size"], point.fields["finetune.lora.rank"]) for point in points] == [(10, None), (20, None), (20, 4)]


def test_a_section_or_an_assumption_can_be_varied() -> None:
    grid = [
        {"models.base": ["a/b"], "models.num_parameters": [5], "finetune.lora": [{"rank": 2}]},
        {"models.base": ["c/d"], "models.num_parameters": [7], "corpus.mix": [{"files": ["web.jsonl"], "share": 0.5}]},
    ]
    points = expand_points(experiment(grid=grid), "e")
    assert [point.settings.models.num_parameters for point in points] == [5, 7]
    assert list(points[0].fields) == ["models.base", "finetune.lora", "corpus.mix"]
    assert points[1].settings.corpus.mix is not None
    assert "lora=rank 2" in points[0].label


def test_assumptions_and_folders_are_no_part_of_what_a_point_is() -> None:
    one = experiment(store="a", out="b", description="c")
    other = experiment(
        models={"base": "owner/name", "num_parameters": 3},
        corpus={"files": ["corpus.jsonl"], "size": 10, "tokens_per_document": 5},
        probes={"pubmed": {"path": "probes.jsonl", "num_texts": 3, "tokens_per_text": 4}},
    )
    assert settled_settings(one) == settled_settings(other)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        (0.00005, "5e-05"),
        (3, "3"),
        ("casual", "casual"),
        (["a", "b"], "a+b"),
        ({"rank": 4, "alpha": 8}, "rank 4"),
        ({"grid": [0.1, 0.2]}, "0.1/0.2"),
        (True, "true"),
    ],
)
def test_values_are_shown_in_short(value: object, shown: str) -> None:
    assert shown_value(value) == shown


def test_no_adapters_are_full() -> None:
    assert shown_field("finetune.lora.rank", None) == shown_field("finetune.lora", None) == "full"
    assert shown_field("finetune.lora.alpha", None) == "unset"
    assert shown_field("corpus.mix", None) == "none"
