"""Properties of the store: canonical hashes, JSON that survives, and resumed work that ends where uninterrupted work ends."""

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmdissect.errors import StaleArtifactError
from lmdissect.store import fingerprint, open_artifact, read_artifact, read_json, read_table, write_json
from lmdissect.store.fingerprint import canonical_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4), max_leaves=12
)
CONFIGS = st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4)
ABSENT = "a text that hypothesis does not draw"
NUM_CHUNKS = 4


@contextmanager
def fresh_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def shuffled(value: object, draw: st.DataObject) -> object:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        names = draw.draw(st.permutations(sorted(value)))
        return {name: shuffled(value[name], draw) for name in names}
    if isinstance(value, list):
        return [shuffled(entry, draw) for entry in value]
    return value


@given(VALUES, st.data())
def test_fingerprint_ignores_key_order(value: object, data: st.DataObject) -> None:
    assert fingerprint(shuffled(value, data)) == fingerprint(value)


@given(VALUES)
def test_canonical_form_is_json_of_the_same_value(value: object) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@given(VALUES, VALUES)
def test_different_values_have_different_hashes(left: object, right: object) -> None:
    assume(repr(left) != repr(right))
    assume(left != right)
    assert fingerprint(left) != fingerprint(right)


@given(VALUES, st.sampled_from([math.nan, math.inf, -math.inf, object(), b"x", {1}, {1: 2}]), st.data())
def test_nothing_unstable_gets_through(value: object, bad: object, data: st.DataObject) -> None:
    wrapped: Any = data.draw(st.sampled_from([[value, bad], {"a": {"b": bad}, "c": value}, [[[bad]]], (bad,)]))
    with pytest.raises((TypeError, ValueError)):
        fingerprint(wrapped)


@settings(max_examples=50)
@given(VALUES)
def test_json_survives_the_disk(value: object) -> None:
    with fresh_folder() as folder:
        write_json(folder / "value.json", value)
        # a high and a low surrogate in a row are one character once read, as JSON has it
        assert read_json(folder / "value.json") == json.loads(json.dumps(value))


@settings(max_examples=15, deadline=None)
@given(
    stops=st.lists(st.integers(0, NUM_CHUNKS), max_size=3),
    spoils=st.lists(st.tuples(st.integers(0, NUM_CHUNKS - 1), st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
def test_interrupted_and_damaged_work_ends_like_uninterrupted_work(stops: list[int], spoils: list[tuple[int, int, int]]) -> None:
    """Work is stopped after any number of new chunks, bytes of finished chunks are flipped between the attempts, and the end is the same."""
    with fresh_folder() as folder:
        for stop in stops:
            work(folder / "a", stop)
            for index, position, mask in spoils:
                spoil_chunk(folder / "a", index, position, mask)
        work(folder / "a", NUM_CHUNKS)
        work(folder / "b", NUM_CHUNKS)
        assert (folder / "a" / "squares.parquet").read_bytes() == (folder / "b" / "squares.parquet").read_bytes()
        assert read_artifact(folder / "a", "square").files == read_artifact(folder / "b", "square").files


def work(folder: Path, num_new: int) -> None:
    with open_artifact(folder, stage="square", config={"num_chunks": NUM_CHUNKS}, inputs={}) as artifact:
        found = artifact.chunks()
        missing = [index for index in range(NUM_CHUNKS) if index not in found]
        for index in missing[:num_new]:
            found[index] = artifact.write_chunk(index, pa.table({"n": [index * index] * 3}))
        if len(missing) <= num_new:
            artifact.write_table("squares.parquet", pa.concat_tables([read_table(found[index]) for index in range(NUM_CHUNKS)]))
            artifact.finish(counts={"kept": NUM_CHUNKS}, details={})


def spoil_chunk(folder: Path, index: int, position: int, mask: int) -> None:
    for path in (folder / "chunks").glob(f"{index:06d}-*"):
        content = bytearray(path.read_bytes())
        content[position % len(content)] ^= mask
        path.write_bytes(content)


@settings(max_examples=30, deadline=None)
@given(CONFIGS, CONFIGS)
def test_another_config_is_never_served_and_its_fields_are_named(there: dict[str, Any], here: dict[str, Any]) -> None:
    assume(canonical_json(there) != canonical_json(here))
    with fresh_folder() as folder:
        with open_artifact(folder, stage="square", config=there, inputs={}) as artifact:
            artifact.finish(counts={}, details={})
        with pytest.raises(StaleArtifactError) as caught, open_artifact(folder, stage="square", config=here, inputs={}):
            pass
        differing = [name for name in {*there, *here} if canonical_json([there.get(name, ABSENT)]) != canonical_json([here.get(name, ABSENT)])]
        assert differing
        assert all(f"{name}: " in str(caught.value) or f"{name}." in str(caught.value) for name in differing)
        assert "format version" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
