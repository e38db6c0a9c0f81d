"""The texts that ship with the package keep what their data card promises."""

import json
import re
from collections import Counter

import pytest

from lmdissect.alignment import kept_word_share
from lmdissect.demo_texts import DEMO_TEXTS, demo_text_path
from lmdissect.errors import UserInputError
from lmdissect.probes import check_probe_set, find_overlap, read_probe_set
from lmdissect.records import Document, ProbeSet

COUNTS = {
    "biomedical": {
        "original": 40,
        "paraphrase": 40,
        "casual": 40,
        "rap": 40,
        "nonbiomedical": 40,
        "counterfactual": 40,
        "nonbiomedical_casual": 20,
    },
    "general": {"original": 40, "paraphrase": 40, "academic": 40, "biomedical": 40, "counterfactual": 40},
}
FIELDS = {"train": ["document_id", "text"], "biomedical": ["document_id", "variant", "text"], "general": ["document_id", "variant", "text"]}
SETS = pytest.mark.parametrize("name", sorted(COUNTS))


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in demo_text_path(name).read_text(encoding="utf-8").splitlines()]


def _probes(name: str) -> ProbeSet:
    return read_probe_set(str(demo_text_path(name)))


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


@pytest.mark.parametrize("name", DEMO_TEXTS)
def test_rows_have_the_documented_form(name: str) -> None:
    rows = _rows(name)
    assert all(list(row) == FIELDS[name] for row in rows)
    order = [*COUNTS.get(name, {"original": 0})]
    keys = [(row["document_id"], order.index(row.get("variant", "original"))) for row in rows]
    assert keys == sorted(set(keys))
    for row in rows:
        assert row["text"] == " ".join(row["text"].split()), "one paragraph without stray white space"
        assert not re.search(r"https?:|www\.|\*\*|^#", row["text"])


@SETS
def test_counts(name: str) -> None:
    probes = _probes(name)
    assert Counter(text.variant for text in probes.texts) == COUNTS[name]
    assert probes.rejected == ()
    check = check_probe_set(probes)
    assert check.duplicate_originals == ()
    for entry in check.variants:
        assert (entry.num_orphans, entry.num_identical) == (0, 0)
        assert entry.num_missing == 40 - COUNTS[name][entry.variant]


def test_training_texts() -> None:
    rows = _rows("train")
    assert len({row["document_id"] for row in rows}) == len({row["text"] for row in rows}) == 60
    assert all(540 <= len(row["text"]) <= 800 for row in rows)


@SETS
def test_lengths_stay_near_the_original(name: str) -> None:
    table = _probes(name).by_variant()
    assert all(540 <= len(text) <= 800 for text in table["original"].values())
    for variant, texts in table.items():
        tolerance = 0.35 if variant == "rap" else 0.20
        for document_id, text in texts.items():
            ratio = len(text) / len(table["original"][document_id])
            assert abs(ratio - 1) <= tolerance, (document_id, variant, ratio)


@SETS
def test_numbers_are_kept_where_facts_are(name: str) -> None:
    table = _probes(name).by_variant()
    kept = {"paraphrase": "original", "casual": "original", "academic": "original", "nonbiomedical_casual": "nonbiomedical"}
    for variant, reference in kept.items():
        for document_id, text in table.get(variant, {}).items():
            assert _numbers(table[reference][document_id]) <= _numbers(text), (document_id, variant)


@SETS
def test_counterfactuals_keep_the_words_and_change_the_facts(name: str) -> None:
    table = _probes(name).by_variant()
    for document_id, text in table["counterfactual"].items():
        original = table["original"][document_id]
        assert 0.80 <= kept_word_share(original, text) <= 0.92, document_id
        assert _numbers(original) != _numbers(text), document_id


@SETS
def test_controls_are_rewritten(name: str) -> None:
    [control] = [entry for entry in check_probe_set(_probes(name)).variants if entry.factor == "control"]
    assert control.median_kept_word_share is not None
    assert control.median_kept_word_share < 0.5


@SETS
def test_no_probe_is_in_the_training_texts(name: str) -> None:
    corpus = [Document(row["document_id"], row["text"]) for row in _rows("train")]
    assert find_overlap(_probes(name), corpus, threshold=0.2).matches == ()


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UserInputError, match="choose one of train, biomedical, general"):
        demo_text_path("../records.py")
