"""The sets that are found in the wild, read as they are."""

import gzip
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from lmdissect.probes import check_probe_set, find_overlap, read_probe_set
from lmdissect.records import Document


def test_papers_file_with_its_control(shared_data: Path) -> None:
    probes = read_probe_set(str(shared_data / "probes/pubmed_derived.json.gz"), control=str(shared_data / "probes/pubmed_keyword.json.gz"))
    assert Counter(text.variant for text in probes.texts) == {"original": 493, "casual": 493, "counterfactual": 493, "paraphrase": 489}
    assert dict(probes.factors) == {"casual": "style", "counterfactual": "factual", "paraphrase": "control"}
    assert probes.rejected == ()
    assert len(probes.metadata) == 489
    assert all(text.document_id.isdigit() for text in probes.texts)
    check = {entry.variant: entry for entry in check_probe_set(probes).variants}
    assert check["paraphrase"].num_missing == 4
    shares = {name: entry.median_kept_word_share for name, entry in check.items()}
    assert shares == pytest.approx({"casual": 0.39, "counterfactual": 0.78, "paraphrase": 0.41}, abs=0.01)


def test_natural_pairs(shared_data: Path) -> None:
    probes = read_probe_set(str(shared_data / "probes/style_pairs.jsonl.gz"))
    assert Counter(text.variant for text in probes.texts) == {"original": 827, "plain": 827}
    assert dict(probes.factors) == {"plain": "style"}
    assert probes.rejected == ()


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("pubmed", {"nonbiomedical", "casual", "rap", "counterfactual", "paraphrase", "nonbiomedical_casual"}),
        ("c4", {"biomedical", "academic", "counterfactual", "paraphrase", "biomedical_academic"}),
    ],
)
def test_rewrites_by_one_writer(shared_data: Path, name: str, variants: set[str]) -> None:
    probes = read_probe_set(str(shared_data / f"probes/rewrites/{name}.jsonl.gz"))
    assert Counter(text.variant for text in probes.texts) == dict.fromkeys(["original", *variants], 80)
    assert set(probes.factors) == variants
    assert probes.rejected == ()


def test_probes_are_not_among_real_abstracts_and_one_put_there_is_found(shared_data: Path) -> None:
    probes = read_probe_set(str(shared_data / "probes/rewrites/pubmed.jsonl.gz"))
    with gzip.open(shared_data / "pubmed/abstracts.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in islice(stream, 2000)]
    corpus = [Document(row["id"], row["text"]) for row in rows]
    assert find_overlap(probes, corpus).matches == ()
    planted = probes.by_variant()["original"]["468436"]
    [match] = find_overlap(probes, [*corpus, Document("planted", planted.replace(" the ", " this ", 1))]).matches
    assert (match.document_id, match.variant, match.corpus_id, match.kind) == ("468436", "original", "planted", "near")
