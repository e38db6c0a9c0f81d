"""An artifact that several processes fill: one holds its lock and finishes, the others add chunks."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from lmdissect.errors import StaleArtifactError, UnreadableInputError
from lmdissect.store import join_artifact, open_artifact, read_manifest, read_table

CONFIG = {"bos": "auto", "limits": (1, 2)}
INPUTS = {"probes": "a" * 64}


def join(folder: Path, **changed: object) -> object:
    return join_artifact(folder, **{"stage": "score", "config": CONFIG, "inputs": INPUTS, **changed})  # type: ignore[arg-type]


def piece(number: int) -> pa.Table:
    return pa.table({"n": [number] * 3})


def test_the_holder_of_the_lock_finds_what_the_others_added(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        artifact.write_chunk(0, piece(0))
        joined = join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS)
        assert joined.finished is None
        joined.write_chunk(1, piece(1))
        assert sorted(joined.chunks()) == sorted(artifact.chunks()) == [0, 1]
        assert read_table(artifact.chunks()[1]).equals(piece(1))


def test_two_who_write_the_same_chunk_leave_one(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        joined = join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS)
        assert joined.write_chunk(3, piece(3)) == artifact.write_chunk(3, piece(3))
        assert list(artifact.chunks()) == [3]


def test_a_temporary_file_of_another_process_is_left_alone_until_the_end(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        artifact.write_chunk(0, piece(0))
        half = tmp_path / "chunks" / ".tmp-half.parquet"
        half.write_bytes(b"PAR1")
        joined = join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS)
        assert list(joined.chunks()) == list(artifact.chunks()) == [0]
        assert half.exists()
        artifact.finish(counts={}, details={}, files=[])
    assert not half.exists()


def test_a_damaged_chunk_is_removed_by_the_holder_alone(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        path = artifact.write_chunk(0, piece(0))
        path.write_bytes(b"PAR1 and no more")
        assert join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS).chunks() == {}
        assert path.exists()
        assert artifact.chunks() == {}
        assert not path.exists()
        assert artifact.damage == [f"chunks/{path.name}"]


def test_there_must_be_something_to_join(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="no work was begun"):
        join(tmp_path)
    with pytest.raises(UnreadableInputError, match="no work was begun"):
        join(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"config": {**CONFIG, "bos": "never"}}, r'bos: "auto" there, "never" here'),
        ({"inputs": {"probes": "b" * 64}}, "probes: "),
        ({"stage": "shift"}, "stage 'score'"),
    ],
)
def test_other_work_cannot_be_joined(tmp_path: Path, changed: dict[str, object], named: str, finished: bool) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        if finished:
            artifact.finish(counts={}, details={}, files=[])
        with pytest.raises(StaleArtifactError, match=named):
            join(tmp_path, **changed)


def test_finished_work_says_so(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        artifact.finish(counts={"texts": 7}, details={}, files=[])
    joined = join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS)
    assert joined.finished == read_manifest(tmp_path)
    assert joined.chunks() == {}


def test_joining_needs_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    """The process that began it was killed: a straggler still adds its chunk, and the next one that holds the lock takes it."""
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS):
        pass
    before = json.loads((tmp_path / "started.json").read_text())
    join_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS).write_chunk(5, piece(5))
    assert json.loads((tmp_path / "started.json").read_text()) == before
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        assert list(artifact.chunks()) == [5]
