"""An artifact's life: begun, killed, resumed, finished, reused, damaged, mended; and never served for another key."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lmdissect.errors import DamagedArtifactError, OutOfSpaceError, OutputLockedError, StaleArtifactError, UnreadableInputError, UnusableOutputError
from lmdissect.store import ArtifactFolder, Manifest, hash_file, open_artifact, read_artifact, read_manifest, read_table, versions
from lmdissect.store.artifact import SCHEMA_VERSION

CONFIG = {"bos": "auto", "limits": (1, 2), "lora": {"rank": 8, "alpha": 16}}
INPUTS = {"probes": "a" * 64, "model": {"weights": "b" * 64}}


def table(*numbers: int) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64())})


def make(folder: Path, *, config: Mapping[str, Any] = CONFIG, inputs: Mapping[str, Any] = INPUTS, stage: str = "score") -> Manifest:
    """Make, resume or reuse a small artifact of three chunks."""
    with open_artifact(folder, stage=stage, config=config, inputs=inputs) as artifact:
        if artifact.finished is not None:
            return artifact.finished
        found = artifact.chunks()
        for index in range(3):
            if index not in found:
                found[index] = artifact.write_chunk(index, table(index, 10 * index))
        artifact.write_table("scores.parquet", pa.concat_tables([read_table(found[index]) for index in range(3)]))
        return artifact.finish(counts={"kept": 3}, details={"rejected": []})


def leave_half_done(folder: Path, *, num_chunks: int = 2) -> list[Path]:
    """Begin an artifact and stop after some chunks."""
    with open_artifact(folder, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        return [artifact.write_chunk(index, table(index, 10 * index)) for index in range(num_chunks)]


def flip_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has opened ``folder``, written a chunk and a leftover, and holds on."""
    script = """
import sys, time
from pathlib import Path
import pyarrow as pa
from lmdissect.store import open_artifact
folder = Path(sys.argv[1])
config = {"bos": "auto", "limits": (1, 2), "lora": {"rank": 8, "alpha": 16}}
with open_artifact(folder, stage="score", config=config, inputs={"probes": "a" * 64, "model": {"weights": "b" * 64}}) as artifact:
    artifact.write_chunk(0, pa.table({"n": [0, 0]}))
    (folder / ".tmp-half.parquet").write_bytes(b"PAR1")
    (folder / "chunks" / ".tmp-half.parquet").write_bytes(b"PAR1")
    print("ready", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


class TestNew:
    def test_finish(self, tmp_path: Path) -> None:
        manifest = make(tmp_path / "out")
        assert manifest == read_manifest(tmp_path / "out") == read_artifact(tmp_path / "out", "score")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "manifest.json", "scores.parquet"]
        assert read_table(tmp_path / "out" / "scores.parquet").equals(table(0, 0, 1, 10, 2, 20))

    def test_manifest_says_what_made_it(self, tmp_path: Path) -> None:
        manifest = make(tmp_path)
        stored = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
        assert stored["stage"] == "score"
        assert stored["config"] == {"bos": "auto", "limits": [1, 2], "lora": {"rank": 8, "alpha": 16}}
        assert stored["inputs"] == INPUTS
        assert stored["counts"] == {"kept": 3}
        assert stored["versions"] == versions()
        assert {"python", "lmdissect", "torch", "pyarrow"} <= set(stored["versions"])
        assert stored["started_at"] <= stored["finished_at"]
        assert stored["started_at"].endswith("+00:00")
        assert 0 <= stored["wall_s"] < 60
        path = tmp_path / "scores.parquet"
        assert stored["files"] == {"scores.parquet": {"sha256": hash_file(path), "size_bytes": path.stat().st_size}}
        assert manifest.files["scores.parquet"].sha256 == hash_file(path)

    def test_nothing_is_finished_before_the_manifest(self, tmp_path: Path) -> None:
        with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
            assert artifact.finished is None
            artifact.write_table("scores.parquet", table(1))
        assert not (tmp_path / "manifest.json").exists()
        with pytest.raises(UnreadableInputError, match="its work is not finished: run the command that was making it again"):
            read_artifact(tmp_path, "score")

    def test_only_named_files_are_recorded(self, tmp_path: Path) -> None:
        with open_artifact(tmp_path, stage="score", config={}, inputs={}) as artifact:
            artifact.write_table("scores.parquet", table(1))
            (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
            assert set(artifact.finish(counts={}, details={}, files=["scores.parquet"]).files) == {"scores.parquet"}

    def test_config_without_a_canonical_form_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError), open_artifact(tmp_path, stage="score", config={"path": Path("x")}, inputs={}):
            pass
        with pytest.raises(ValueError, match="no canonical form"), open_artifact(tmp_path, stage="score", config={"x": math.nan}, inputs={}):
            pass

    def test_the_lock_is_released_when_the_body_fails(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS):
            raise KeyError("document")
        make(tmp_path)


class TestReuse:
    def test_finished_work_is_served_untouched(self, tmp_path: Path) -> None:
        first = make(tmp_path)
        before = snapshot(tmp_path)
        assert make(tmp_path) == first
        assert {name: content for name, content in snapshot(tmp_path).items() if name != ".lock"} == {
            name: content for name, content in before.items() if name != ".lock"
        }

    def test_equal_settings_in_other_clothes(self, tmp_path: Path) -> None:
        first = make(tmp_path)
        assert make(tmp_path, config={"lora": {"alpha": 16, "rank": 8}, "limits": [1, 2], "bos": "auto"}) == first

    def test_half_done_work_is_taken_up(self, tmp_path: Path) -> None:
        leave_half_done(tmp_path / "a")
        with open_artifact(tmp_path / "a", stage="score", config=CONFIG, inputs=INPUTS) as artifact:
            assert sorted(artifact.chunks()) == [0, 1]
            assert artifact.damage == []
        started = json.loads((tmp_path / "a" / "started.json").read_text(encoding="utf-8"))
        (tmp_path / "a" / "started.json").write_text(json.dumps({**started, "started_at": "2020-01-01T00:00:00+00:00"}), encoding="utf-8")
        assert make(tmp_path / "a").started_at == "2020-01-01T00:00:00+00:00"  # when its first session began
        make(tmp_path / "b")
        assert (tmp_path / "a" / "scores.parquet").read_bytes() == (tmp_path / "b" / "scores.parquet").read_bytes()

    def test_work_left_by_a_kill_between_manifest_and_clean_up_goes(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / "chunks").mkdir()
        (tmp_path / "chunks" / "000000-0123456789abcdef.parquet").write_bytes(b"old")
        (tmp_path / "started.json").write_text("{}", encoding="utf-8")
        assert make(tmp_path).counts == {"kept": 3}
        assert not (tmp_path / "chunks").exists()
        assert not (tmp_path / "started.json").exists()


class TestOtherKey:
    def test_fields_are_named_with_both_values(self, tmp_path: Path) -> None:
        make(tmp_path)
        before = snapshot(tmp_path)
        config = {"bos": "never", "limits": (1, 2), "lora": {"rank": 4, "alpha": 16}}
        with pytest.raises(StaleArtifactError) as caught:
            make(tmp_path, config=config, inputs={**INPUTS, "probes": "c" * 64})
        message = str(caught.value)
        assert 'bos: "auto" there, "never" here' in message
        assert "lora.rank: 8 there, 4 here" in message
        assert f'probes: "{"a" * 38}… there, "{"c" * 38}… here' in message
        assert "limits" not in message, "a tuple is the list it was stored as"
        assert "alpha" not in message
        assert str(tmp_path) in message
        assert "\n" not in message
        assert caught.value.exit_code == 2
        changed = {name for name, content in snapshot(tmp_path).items() if before.get(name) != content}
        assert changed <= {".lock"}

    def test_half_done_work_of_another_key_is_refused(self, tmp_path: Path) -> None:
        chunks = leave_half_done(tmp_path)
        with pytest.raises(StaleArtifactError, match='bos: "auto" there, "never" here'):
            make(tmp_path, config={**CONFIG, "bos": "never"})
        assert all(path.exists() for path in chunks)

    def test_another_stage(self, tmp_path: Path) -> None:
        make(tmp_path)
        with pytest.raises(StaleArtifactError, match="of the stage 'score', not 'shift'"):
            make(tmp_path, stage="shift")

    @pytest.mark.parametrize(
        ("there", "here", "named"),
        [
            ({}, {"seed": None}, "seed: nothing there, null here"),
            ({"seed": None}, {}, "seed: null there, nothing here"),
            ({"seed": 1}, {"seed": True}, "seed: 1 there, true here"),
            ({"seed": 1}, {"seed": 1.0}, "seed: 1 there, 1.0 here"),
            ({"lora": None}, {"lora": {"rank": 8}}, 'lora: null there, {"rank":8} here'),
            ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c: 1 there, 2 here"),
            ({"text": "two\nlines"}, {"text": "one"}, r'text: "two\\nlines" there'),
        ],
    )
    def test_every_difference_has_a_name(self, tmp_path: Path, there: dict[str, object], here: dict[str, object], named: str) -> None:
        make(tmp_path, config=there)
        with pytest.raises(StaleArtifactError) as caught:
            make(tmp_path, config=here)
        assert named.replace(r"\\", "\\") in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_another_format_version(self, tmp_path: Path) -> None:
        make(tmp_path)
        stored = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
        stored.update(schema_version=0, key="0" * 64)
        (tmp_path / "manifest.json").write_text(json.dumps(stored), encoding="utf-8")
        with pytest.raises(StaleArtifactError, match="the format version"):
            make(tmp_path)
        with pytest.raises(UnreadableInputError, match=rf"has the format version 0, and this program reads {SCHEMA_VERSION}: make it again"):
            read_artifact(tmp_path, "score")


class TestDamage:
    @pytest.mark.parametrize(
        "spoil", [lambda path: flip_byte(path, 100), lambda path: flip_byte(path, 0), truncate, lambda path: path.write_bytes(b"")]
    )
    def test_a_spoilt_chunk_is_removed_and_made_again(self, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
        chunks = leave_half_done(tmp_path / "a")
        spoil(chunks[1])
        with open_artifact(tmp_path / "a", stage="score", config=CONFIG, inputs=INPUTS) as artifact:
            assert sorted(artifact.chunks()) == [0]
            assert artifact.damage == [f"chunks/{chunks[1].name}"]
            assert not chunks[1].exists()
        make(tmp_path / "a")
        make(tmp_path / "b")
        assert (tmp_path / "a" / "scores.parquet").read_bytes() == (tmp_path / "b" / "scores.parquet").read_bytes()

    @pytest.mark.parametrize(
        "spoil", [lambda path: flip_byte(path, 50), truncate, lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes() + b"x")]
    )
    def test_a_spoilt_file_is_named_and_made_again(self, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
        first = make(tmp_path)
        spoil(tmp_path / "scores.parquet")
        with pytest.raises(DamagedArtifactError, match=r"scores\.parquet missing or changed since the manifest was written: run the command"):
            read_artifact(tmp_path, "score")
        with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
            assert artifact.finished is None
            assert artifact.damage == ["scores.parquet"]
            assert artifact.describe_damage() == [f"{tmp_path}: scores.parquet is missing or damaged and is made again"]
            assert not (tmp_path / "manifest.json").exists()
        assert make(tmp_path).files == first.files
        assert read_artifact(tmp_path, "score").files == first.files

    def test_damage_of_another_key_is_still_another_key(self, tmp_path: Path) -> None:
        make(tmp_path)
        truncate(tmp_path / "scores.parquet")
        with pytest.raises(StaleArtifactError):
            make(tmp_path, config={})
        assert (tmp_path / "manifest.json").exists()

    def test_a_kill_while_damage_is_being_taken_up_loses_nothing(self, tmp_path: Path) -> None:
        """started.json is there before the manifest goes; with both, the folder is still ours."""
        make(tmp_path)
        truncate(tmp_path / "scores.parquet")
        manifest = (tmp_path / "manifest.json").read_bytes()
        with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS):
            pass
        (tmp_path / "manifest.json").write_bytes(manifest)
        assert make(tmp_path).counts == {"kept": 3}

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "a browser extension"}', "\ufffd{", "null"])
    def test_a_manifest_we_do_not_understand(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
        (tmp_path / "theirs.txt").write_text("precious", encoding="utf-8")
        with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
            read_manifest(tmp_path)
        with pytest.raises(UnusableOutputError, match="damaged or not ours: choose another --out"):
            make(tmp_path)
        assert (tmp_path / "manifest.json").read_text(encoding="utf-8") == content
        assert (tmp_path / "theirs.txt").exists()

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"stage": "score"}'])
    def test_a_started_file_we_do_not_understand(self, tmp_path: Path, content: str) -> None:
        leave_half_done(tmp_path)
        (tmp_path / "started.json").write_text(content, encoding="utf-8")
        with pytest.raises(UnusableOutputError, match="cannot be understood: choose another --out, or delete that folder first"):
            make(tmp_path)


class TestForeign:
    def test_other_peoples_files_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
        (tmp_path / ".lock").write_text("somebody else's", encoding="utf-8")
        before = snapshot(tmp_path)
        with pytest.raises(
            UnusableOutputError, match=f"{tmp_path} is not empty and holds nothing of ours: choose a new or empty --out folder"
        ) as caught:
            make(tmp_path)
        assert caught.value.exit_code == 2
        assert snapshot(tmp_path) == before

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("x", encoding="utf-8")
        with pytest.raises(UnusableOutputError, match="cannot write"):
            make(tmp_path / "out")

    def test_hidden_files_do_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / ".DS_Store").touch()
        assert set(make(tmp_path).files) == {"scores.parquet"}

    def test_an_empty_folder_will_do(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        make(tmp_path / "out")


class TestNested:
    def test_an_artifact_may_hold_artifacts(self, tmp_path: Path) -> None:
        make(tmp_path / "scores-base")
        make(tmp_path / "deeper" / "scores-tuned")
        with open_artifact(tmp_path, stage="shift", config={}, inputs={}) as outer:
            make(tmp_path / "made-inside")
            outer.write_table("shifts.parquet", table(1))
            manifest = outer.finish(counts={}, details={})
        assert {name for name in manifest.files if name.endswith("scores.parquet")} == {
            "scores-base/scores.parquet",
            "deeper/scores-tuned/scores.parquet",
            "made-inside/scores.parquet",
        }
        assert "scores-base/manifest.json" in manifest.files
        assert not any(".lock" in name for name in manifest.files)
        read_artifact(tmp_path, "shift")

    def test_reusing_an_inner_one_does_not_harm_the_outer_one(self, tmp_path: Path) -> None:
        with open_artifact(tmp_path, stage="shift", config={}, inputs={}) as outer:
            make(tmp_path / "scores")
            outer.finish(counts={}, details={})
        make(tmp_path / "scores")
        read_artifact(tmp_path, "shift")

    def test_a_changed_inner_one_is_damage(self, tmp_path: Path) -> None:
        with open_artifact(tmp_path, stage="shift", config={}, inputs={}) as outer:
            make(tmp_path / "scores")
            outer.finish(counts={}, details={})
        shutil.rmtree(tmp_path / "scores")
        make(tmp_path / "scores", config={})
        with pytest.raises(DamagedArtifactError, match=r"scores/manifest\.json"):
            read_artifact(tmp_path, "shift")


class TestRead:
    def test_another_stage_is_needed(self, tmp_path: Path) -> None:
        make(tmp_path)
        with pytest.raises(UnreadableInputError, match="of the stage 'score', and one of 'shift' is needed"):
            read_artifact(tmp_path, "shift")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableInputError, match="no such folder"):
            read_artifact(tmp_path / "none", "score")

    def test_no_artifact(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableInputError, match=r"is not a finished artifact \(it holds no manifest\.json\)"):
            read_artifact(tmp_path, "score")

    def test_reading_needs_no_lock(self, tmp_path: Path) -> None:
        make(tmp_path)
        with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS):
            read_artifact(tmp_path, "score")


class TestLock:
    def test_a_second_process_is_refused_and_told_who_has_it(self, tmp_path: Path) -> None:
        with holder(tmp_path) as process:
            with pytest.raises(
                OutputLockedError, match=rf"another process \(pid {process.pid} on \S+\) is writing {tmp_path}: wait until it ends"
            ) as caught:
                make(tmp_path)
            assert caught.value.exit_code == 2
            assert process.poll() is None
        assert make(tmp_path).counts == {"kept": 3}

    def test_a_killed_holder_leaves_its_finished_work_and_nothing_else(self, tmp_path: Path) -> None:
        with holder(tmp_path) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
                assert sorted(artifact.chunks()) == [0]
            assert not list(tmp_path.glob(".tmp-*"))  # one in chunks/ may be that of a process that has joined: it goes with the folder
        make(tmp_path)
        assert not list(tmp_path.rglob(".tmp-*"))
        assert read_table(tmp_path / "scores.parquet").equals(table(0, 0, 1, 10, 2, 20))

    def test_twice_in_one_process(self, tmp_path: Path) -> None:
        with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS), pytest.raises(OutputLockedError, match=f"pid {os.getpid()}"):
            make(tmp_path)

    def test_a_lock_file_from_before_is_no_lock(self, tmp_path: Path) -> None:
        (tmp_path / ".lock").write_text("pid 1 on elsewhere, and a long story after it " * 20, encoding="utf-8")
        make(tmp_path)
        assert (tmp_path / ".lock").read_text(encoding="utf-8").startswith(f"pid {os.getpid()} on ")
        assert "elsewhere" not in (tmp_path / ".lock").read_text(encoding="utf-8")


def test_a_full_disk_keeps_what_is_done(small_disk: Path, enlarge_disk: Callable[[], None], tmp_path: Path) -> None:
    """The run stops, the chunks before it are whole, and with some room the same call goes on to the same end."""
    blocks = [pa.table({"noise": np.random.default_rng(seed).standard_normal(8_000)}) for seed in range(6)]

    def run(folder: Path) -> None:
        with open_artifact(folder, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
            done = artifact.chunks()
            for index, block in enumerate(blocks):
                if index not in done:
                    artifact.write_chunk(index, block)

    def contents(folder: Path) -> dict[str, bytes]:
        return snapshot(folder / "chunks")

    with pytest.raises(OutOfSpaceError, match=rf"disk full while writing {small_disk}/out/chunks/\S+ \(\d+ bytes free\)"):
        run(small_disk / "out")
    run(tmp_path)
    assert 0 < len(contents(small_disk / "out")) < len(blocks)
    assert contents(small_disk / "out").items() < contents(tmp_path).items()
    enlarge_disk()
    run(small_disk / "out")
    assert contents(small_disk / "out") == contents(tmp_path)


def test_a_disk_without_a_byte_left(small_disk: Path) -> None:
    with (small_disk / ".ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(OutOfSpaceError):
        make(small_disk)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_manifest_never_hides_a_broken_number(tmp_path: Path, number: float) -> None:
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact, pytest.raises(ValueError, match="Out of range float"):
        artifact.finish(counts={}, details={"loss": {"held_out": number}})
    assert not (tmp_path / "manifest.json").exists()


def test_details_may_hold_untrusted_text(tmp_path: Path) -> None:
    details = {"rejected": [{"record": "line 3: \ud800 \0 </script>", "reason": "naïve"}]}
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        artifact.finish(counts={}, details=details)
    assert read_manifest(tmp_path).details == details


def test_a_failing_finish_leaves_the_work(tmp_path: Path) -> None:
    def failing(artifact: ArtifactFolder) -> None:
        artifact.write_chunk(0, table(0, 0))
        artifact.finish(counts={}, details={}, files=["not-there.parquet"])

    with pytest.raises(FileNotFoundError), open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        failing(artifact)
    with open_artifact(tmp_path, stage="score", config=CONFIG, inputs=INPUTS) as artifact:
        assert artifact.finished is None
        assert sorted(artifact.chunks()) == [0]
