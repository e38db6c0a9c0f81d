"""Canonical hashes: one value pinned for ever, and everything without a stable form refused."""

import datetime as dt
import enum
from pathlib import Path

import numpy as np
import pytest

from lmdissect.store import fingerprint, hash_file, hash_text
from lmdissect.store.fingerprint import canonical_json

CONFIG = {"bos": "auto", "learning_rate": 1e-5, "seeds": [1, 2], "lora": {"rank": 8, "dropout": None}, "name": "Ångström", "resume": True}


class Mood(enum.Enum):
    """Something without a canonical form."""

    GOOD = "good"


def test_canonical_form() -> None:
    assert canonical_json(CONFIG) == (
        '{"bos":"auto","learning_rate":1e-05,"lora":{"dropout":null,"rank":8},"name":"Ångström","resume":true,"seeds":[1,2]}'
    )


def test_pinned_hash() -> None:
    """If this changes, every artifact made so far becomes stale: raise the schema version and say so."""
    assert fingerprint(CONFIG) == "1d24534c9c56c317c2e0a713d036be4303138d38d911ecf26b9da8e9d0a70398"


def test_key_order_and_sequence_type_do_not_matter() -> None:
    assert fingerprint({"a": (1, 2), "b": {"x": 1, "y": 2}}) == fingerprint({"b": {"y": 2, "x": 1}, "a": [1, 2]})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, 2], [2, 1]),
        (1, 1.0),
        (1, True),
        (0, None),
        ("1", 1),
        ("", None),
        ({}, []),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}),
        ({"a": None}, {}),
        (0.1, 0.1 + 1e-17 + 2e-17),
        ("é", "e\u0301"),
    ],
)
def test_different_values_differ(left: object, right: object) -> None:
    assert fingerprint(left) != fingerprint(right)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), np.float64("nan"), [1, float("nan")], {"a": {"b": float("inf")}}],
    ids=str,
)
def test_floats_without_a_number_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no canonical form for the float"):
        fingerprint(value)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        Path("folder"),
        dt.date(2024, 1, 1),
        Mood.GOOD,
        np.int64(3),
        np.zeros(2),
        1j,
        {"a": [object()]},
        (number for number in (1, 2)),
        print,
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no canonical form for"):
        fingerprint(value)


def test_other_keys_than_strings_are_refused() -> None:
    with pytest.raises(TypeError, match="only string keys"):
        fingerprint({"a": {1: "x"}})


def test_lone_surrogates_have_a_hash() -> None:
    assert hash_text("\ud800") != hash_text("\udfff")
    assert fingerprint({"text": "\ud800"}) == hash_text('{"text":"\ud800"}')


def test_hash_of_text_and_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "text"
    text = "β" * 1_000_000  # two bytes each: more than one block
    path.write_text(text, encoding="utf-8")
    assert hash_file(path) == hash_text(text)


def test_known_hash(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert hash_file(path) == hash_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
