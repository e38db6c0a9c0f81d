"""Names of models that were compared one by one: one name is one probe set for every model, and seeds of one training are one point."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from lmdissect.pipeline.comparisons import source_name
from lmdissect.pipeline.gathering import gather_runs
from lmdissect.shifts import measure_shifts
from lmdissect.store import open_artifact
from score_tables import documents_from_gains, save_scores
from study_runs import CONFIG


def _compare(
    folder: Path, model: str, source: str, *, num_words: int = 4, num_documents: int = 2, max_tokens: int | None = None, base_model: str = "base"
) -> Path:
    """A finished comparison; texts of another ``num_words`` are other texts under the same ids."""
    gains = {"original": [0.3, 0.5, 0.4][:num_documents], "casual": [0.1, 0.2, 0.3][:num_documents]}
    base, tuned = documents_from_gains(gains, num_words=num_words)
    shared: dict[str, Any] = {"source": source, "config": {"max_tokens": max_tokens}}
    save_scores(folder / "scores" / "base", base, model=base_model, **shared)
    save_scores(folder / "scores" / "tuned", tuned, model=model, **shared)
    measure_shifts(folder / "scores" / "base", folder / "scores" / "tuned", CONFIG, folder)
    return folder


def _train(folder: Path, seed: int, **config: Any) -> str:
    """What is left of a finished `lmdissect finetune`, as far as a study reads it."""
    with open_artifact(folder, stage="finetune", config={"learning_rate": 1e-3, **config, "seed": seed}, inputs={"corpus": "c"}) as artifact:
        artifact.finish(counts={"documents": 8}, details={"num_target_tokens": 100})
    return str(folder)


def _named(folders: Sequence[Path]) -> dict[str, tuple[str, str, int]]:
    return {run.shift_folder.name: (run.probes, run.point, run.seed) for run in gather_runs(folders).runs}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/pubmed-1.1.jsonl", "pubmed-1.1"),
        ("data/pubmed.json.gz", "pubmed"),
        ("owner/c4-v2.0", "c4-v2.0"),
        ("runs/pubmed/probes/", "probes"),
        ("p.jsonl with the control c.jsonl", "p"),
        ("demo texts, general", "demo texts, general"),
        ("/", "/"),
        (".json", ".json"),
    ],
)
def test_only_the_endings_of_files_are_taken_off(source: str, name: str) -> None:
    assert source_name(source) == name


def test_one_name_is_one_probe_set_in_every_order_of_the_folders(tmp_path: Path) -> None:
    folders = [
        _compare(tmp_path / f"{model}-{place}", model, f"{place}/probes.jsonl", num_words=words)
        for model in ("m1", "m2")
        for place, words in (("pubmed", 4), ("c4", 5))
    ]
    expected = {folder.name: f"{folder.name[3:]}/probes" for folder in folders}
    for order in permutations(folders):
        assert {name: probes for name, (probes, _, _) in _named(order).items()} == expected


def test_equal_texts_are_one_probe_set_wherever_they_were_read(tmp_path: Path) -> None:
    folders = [_compare(tmp_path / "a", "m1", "here/probes.jsonl"), _compare(tmp_path / "b", "m2", "there/probes.jsonl")]
    assert {probes for probes, _, _ in _named(folders).values()} == {"probes"}
    limited = [_compare(tmp_path / "c", "m1", "p.jsonl", num_documents=3), _compare(tmp_path / "d", "m2", "p.jsonl", num_documents=2)]
    assert {probes for probes, _, _ in _named(limited).values()} == {"p"}


def test_a_file_that_was_edited_between_is_two_probe_sets(tmp_path: Path) -> None:
    folders = [_compare(tmp_path / "a", "m1", "p.jsonl"), _compare(tmp_path / "b", "m2", "p.jsonl", num_words=5)]
    assert [_named(folders)[name][0] for name in "ab"] == ["p (a)", "p (b)"]


def test_seeds_of_one_training_are_one_point(tmp_path: Path) -> None:
    models = [_train(tmp_path / f"lora{seed}", seed) for seed in (0, 1, 2)]
    folders = [_compare(tmp_path / f"c{seed}", model, "p.jsonl") for seed, model in enumerate(models)]
    for order in (folders, folders[::-1]):
        assert _named(order) == {f"c{seed}": ("p", f"{models[0]} (3 seeds)", seed) for seed in (0, 1, 2)}
    assert {run.num_target_tokens for run in gather_runs(folders).runs} == {100}


@pytest.mark.parametrize(("config", "settings"), [({"learning_rate": 1e-4}, {}), ({}, {"max_tokens": 3}), ({}, {"base_model": "other"})])
def test_models_that_differ_in_more_than_the_seed_stand_alone(tmp_path: Path, config: dict[str, Any], settings: dict[str, Any]) -> None:
    models = [_train(tmp_path / "lora0", 0), _train(tmp_path / "lora1", 1, **config)]
    folders = [_compare(tmp_path / "c0", models[0], "p.jsonl"), _compare(tmp_path / "c1", models[1], "p.jsonl", **settings)]
    assert {name: found[1:] for name, found in _named(folders).items()} == {"c0": (models[0], 0), "c1": (models[1], 1)}


def test_a_seed_trained_twice_is_no_point_of_seeds(tmp_path: Path) -> None:
    models = [_train(tmp_path / "here", 0), _train(tmp_path / "there", 0)]
    folders = [_compare(tmp_path / name, model, "p.jsonl") for name, model in zip("ab", models, strict=True)]
    assert [found[1] for found in _named(folders).values()] == models


def test_one_model_compared_twice_on_one_probe_set_is_named_by_its_folders(tmp_path: Path) -> None:
    folders = [_compare(tmp_path / "a", "m1", "p.jsonl"), _compare(tmp_path / "b", "m1", "p.jsonl", max_tokens=3)]
    assert {name: probes for name, (probes, _, _) in _named(folders).items()} == {"a": "p (a)", "b": "p (b)"}


def test_a_comparison_whose_texts_cannot_be_read_keeps_its_name(tmp_path: Path) -> None:
    folders = [_compare(tmp_path / "a", "m1", "p.jsonl"), _compare(tmp_path / "b", "m2", "p.jsonl")]
    (folders[1] / "documents.parquet").write_bytes(b"")
    assert {probes for probes, _, _ in _named(folders).values()} == {"p"}
