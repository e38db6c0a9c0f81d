"""What a point trains on: nested sizes, validation documents apart, a second corpus, and probes kept out."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmdissect.errors import UserInputError
from lmdissect.pipeline.drawing import draw_documents, excluded_probes, look_for_probes, read_documents, without_documents
from lmdissect.pipeline.experiment import ProbeSettings
from lmdissect.pipeline.inputs import read_probes
from lmdissect.store import read_manifest

WORDS = ["patient", "drug", "dose", "trial", "mouse", "gene", "cell", "blood", "risk", "level", "study", "group", "week", "effect", "score", "nurse"]


def text(number: int) -> str:
    """A text of its own: no two share a word 5-gram."""
    return " ".join(f"{word}{number}" for word in WORDS)


def write_corpus(path: Path, ids: Sequence[int]) -> Path:
    path.write_text("".join(json.dumps({"id": f"d{number}", "text": text(number)}) + "\n" for number in ids), encoding="utf-8")
    return path


def write_probes(path: Path, ids: Sequence[int]) -> Path:
    rows = [
        {"document_id": f"d{number}", "variant": variant, "text": f"{text(number)} {variant}"} for number in ids for variant in ("original", "casual")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def node_settings(corpus: dict[str, Any], *, draw_seed: int = 0, exclude: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "size": corpus["size"],
        "draw_seed": draw_seed,
        "split_seed": 0,
        "validation": corpus.get("validation", 64),
        "corpus": corpus,
        "source": {"files": ["hash"]},
        "exclude": {name: {"path": path} for name, path in (exclude or {}).items()},
    }


def drawn_ids(folder: Path) -> tuple[list[str], list[str]]:
    found = read_documents(folder)
    return [document.document_id for document in found.training], [document.document_id for document in found.validation]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=3, unique=True), seed=st.integers(0, 5), validation=st.integers(0, 8))
def test_sizes_nest_and_validation_stays_apart(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, validation: int) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    corpus = write_corpus(folder / "c.jsonl", range(40))
    found = []
    for size in sorted(sizes):
        wanted = {"files": [str(corpus)], "size": size, "validation": validation}
        draw_documents(node_settings(wanted, draw_seed=seed), f"k{size}", folder / str(size))
        found.append(drawn_ids(folder / str(size)))
    for (smaller, held_out), (larger, same) in itertools.pairwise(found):
        assert larger[: len(smaller)] == smaller
        assert held_out == same
        assert len(held_out) == validation
        assert not set(larger) & set(held_out)


def test_a_size_beyond_the_corpus_names_both_numbers(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", range(20))
    with pytest.raises(UserInputError, match=r"corpus.size is 18, and .*c\.jsonl has 15 documents to train on \(5 more are kept out"):
        draw_documents(node_settings({"files": [str(corpus)], "size": 18, "validation": 5}), "k", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_redraw_takes_other_documents_and_the_same_validation(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", range(40))
    wanted = {"files": [str(corpus)], "size": 10, "validation": 5}
    for seed in (0, 1):
        draw_documents(node_settings(wanted, draw_seed=seed), f"k{seed}", tmp_path / str(seed))
    one, other = drawn_ids(tmp_path / "0"), drawn_ids(tmp_path / "1")
    assert set(one[0]) != set(other[0])
    assert one[1] == other[1]


@pytest.mark.parametrize(("share", "mixed"), [(0.25, 4), (0.5, 12), (0.75, 36)])
def test_a_mixture_keeps_the_number_of_the_first_corpus(tmp_path: Path, share: float, mixed: int) -> None:
    corpus, web = write_corpus(tmp_path / "c.jsonl", range(20)), write_corpus(tmp_path / "w.jsonl", range(100, 160))
    wanted = {"files": [str(corpus)], "size": 12, "validation": 2, "mix": {"files": [str(web)], "share": share}}
    draw_documents(node_settings(wanted), "k", tmp_path / "out")
    training, _ = drawn_ids(tmp_path / "out")
    counts = read_manifest(tmp_path / "out").counts
    assert (len(training), counts["mixed_in"]) == (12 + mixed, mixed)
    assert all(name in {f"d{number}" for number in range(20)} for name in training[:12])


def test_a_variant_of_a_probe_set_is_a_corpus(tmp_path: Path) -> None:
    probes = write_probes(tmp_path / "p.jsonl", range(12))
    wanted = {"probe_set": str(probes), "variant": "casual", "size": 6, "validation": 3}
    draw_documents(node_settings(wanted), "k", tmp_path / "out")
    found = read_documents(tmp_path / "out")
    assert all(document.text.endswith("casual") for document in (*found.training, *found.validation))
    with pytest.raises(UserInputError, match=r"no variant 'rap' to train on \(it has original, casual\)"):
        draw_documents(node_settings({**wanted, "variant": "rap"}), "k", tmp_path / "other")


def test_probes_can_be_kept_out_of_the_training_documents(tmp_path: Path) -> None:
    corpus, probes = write_corpus(tmp_path / "c.jsonl", range(40)), write_probes(tmp_path / "p.jsonl", range(0, 40, 2))
    wanted = {"files": [str(corpus)], "size": 12, "validation": 6, "on_overlap": "exclude_training"}
    draw_documents(node_settings(wanted, exclude={"p": str(probes)}), "k", tmp_path / "out")
    draw_documents(node_settings({**wanted, "size": 6}, exclude={"p": str(probes)}), "k6", tmp_path / "smaller")
    training, validation = drawn_ids(tmp_path / "out")
    counts = read_manifest(tmp_path / "out").counts
    assert len(training) == 12
    assert all(int(name[1:]) % 2 for name in (*training, *validation))
    assert counts["left_out"] > 0
    assert counts["validation_left_out"] == 6 - len(validation)
    assert training[:6] == drawn_ids(tmp_path / "smaller")[0]
    with pytest.raises(UserInputError, match=r"corpus.size is 30, and .* has \d+ documents"):
        draw_documents(node_settings({**wanted, "size": 30}, exclude={"p": str(probes)}), "k30", tmp_path / "larger")


def overlap(tmp_path: Path, policy: str, probe_ids: Sequence[int]) -> Path:
    """Look for probes among all of 20 documents."""
    corpus, probes = write_corpus(tmp_path / "c.jsonl", range(20)), write_probes(tmp_path / "p.jsonl", probe_ids)
    draw_documents(node_settings({"files": [str(corpus)], "size": 15, "validation": 5}), "k", tmp_path / "drawn")
    settings = {"documents": str(tmp_path / "drawn"), "name": "p", "probes": {"path": str(probes)}, "policy": policy}
    look_for_probes(settings, "k", tmp_path / policy)
    return tmp_path / policy


def test_probes_among_the_documents_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"2 documents of the probe set p are among the 20 documents of the corpus \(d3, d7\).*exclude_training"):
        overlap(tmp_path, "refuse", [3, 7, 90])
    assert not (tmp_path / "refuse" / "manifest.json").exists()


def test_probes_among_the_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = overlap(tmp_path, "exclude_probes", [3, 7, 90])
    assert excluded_probes([str(folder)]) == {"d3", "d7"}
    assert read_manifest(folder).counts["probe_documents"] == 2
    left = without_documents(read_probes(ProbeSettings(path=str(tmp_path / "p.jsonl"))), {"d3", "d7"})
    assert {one.document_id for one in left.texts} == {"d90"}


def test_no_probe_among_the_documents_is_fine(tmp_path: Path) -> None:
    assert read_manifest(overlap(tmp_path, "refuse", [90, 91])).counts == {"probe_documents": 0, "corpus_documents": 20, "matches": 0}
