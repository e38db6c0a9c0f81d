"""Atomic files: the old one or the new one, never half, and the operating system's refusals in our words."""

import errno
import gc
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from lmdissect.errors import DamagedArtifactError, LmdissectError, OutOfSpaceError, UnusableOutputError
from lmdissect.store import (
    output_folder,
    output_guard,
    read_json,
    read_table,
    replace_folder,
    write_bytes,
    write_json,
    write_table,
    write_text,
)


def random_table(num_rows: int) -> pa.Table:
    """A table that does not compress."""
    return pa.table({"noise": np.random.default_rng(0).standard_normal(num_rows)})


def unstorable_table() -> pa.Table:
    """A table that Parquet has no form for, which shows only once its file is open."""
    union: Any = pa.UnionArray
    return pa.table({"b": union.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    table = pa.table({"document_id": ["a", "b"], "logprob_nats": pa.array([None, -1.5], pa.float32())})
    write_bytes(tmp_path / "b", b"\x00\xff")
    write_text(tmp_path / "t", "naïve\n")
    write_json(tmp_path / "j", {"text": "naïve", "number": 0.1, "nothing": None})
    write_table(tmp_path / "p.parquet", table)
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert (tmp_path / "t").read_bytes() == "naïve\n".encode()
    assert read_json(tmp_path / "j") == {"text": "naïve", "number": 0.1, "nothing": None}
    assert read_table(tmp_path / "p.parquet").equals(table)
    assert names(tmp_path) == ["b", "j", "p.parquet", "t"]


def test_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "x"


def test_others_may_read(tmp_path: Path) -> None:
    write_text(tmp_path / "c.txt", "x")
    assert (tmp_path / "c.txt").stat().st_mode & 0o777 == 0o644


def test_json_is_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "j.json", {"name": "naïve"})
    assert (tmp_path / "j.json").read_text(encoding="utf-8") == '{\n  "name": "naïve"\n}\n'


def test_json_with_a_lone_surrogate_can_be_read_back(tmp_path: Path) -> None:
    value = {"record": 'a "quoted" \\\ud800 id', "fine": "naïve"}
    write_json(tmp_path / "j.json", value)
    assert read_json(tmp_path / "j.json") == value


@pytest.mark.parametrize("value", [math.nan, {"a": [math.inf]}], ids=str)
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "j.json", 1)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "j.json", value)
    assert read_json(tmp_path / "j.json") == 1
    assert names(tmp_path) == ["j.json"]


def test_a_failing_writer_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_table(path, pa.table({"a": [1]}))
    before = path.read_bytes()
    with pytest.raises(pa.ArrowException):
        write_table(path, unstorable_table())
    assert path.read_bytes() == before
    assert names(tmp_path) == ["p.parquet"]


def test_a_failing_writer_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowException):
        write_table(tmp_path / "p.parquet", unstorable_table())
    assert names(tmp_path) == []


def test_full_disk(small_disk: Path) -> None:
    size_bytes = shutil.disk_usage(small_disk).total
    write_text(small_disk / "kept.txt", "old")
    for name, write in {
        "kept.txt": lambda path: write_bytes(path, os.urandom(2 * size_bytes)),
        "p.parquet": lambda path: write_table(path, random_table(size_bytes)),
    }.items():
        with pytest.raises(OutOfSpaceError, match="disk full while writing") as caught:
            write(small_disk / name)
        assert str(small_disk / name) in str(caught.value)
        assert f"({size_bytes - 4096} bytes free)" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1
    assert names(small_disk) == ["kept.txt"]
    assert (small_disk / "kept.txt").read_text(encoding="utf-8") == "old"


def test_full_disk_told_by_a_writer_in_rust(small_disk: Path) -> None:
    """Safetensors says so in words only: its error is no OSError."""
    import torch
    from safetensors.torch import save_file

    path = small_disk / "model.safetensors"
    with pytest.raises(OutOfSpaceError, match="disk full while writing"), output_guard(path):
        save_file({"weight": torch.zeros(shutil.disk_usage(small_disk).total)}, path)


def test_file_size_limit_counts_as_full(tmp_path: Path) -> None:
    """Like a full disk, but needs no right to mount: the kernel refuses the process any file above 100 kB."""
    script = """
import resource, sys
from pathlib import Path
from typing import Any
import numpy as np, pyarrow as pa
from lmdissect.errors import OutOfSpaceError
from lmdissect.store import write_bytes, write_table
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
table = pa.table({"noise": np.random.default_rng(0).standard_normal(100_000)})
for write in (lambda: write_bytes(folder / "kept.bin", bytes(200_000)), lambda: write_table(folder / "p.parquet", table)):
    try:
        write()
    except OutOfSpaceError as error:
        print(error)
"""
    write_bytes(tmp_path / "kept.bin", b"old")
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"disk full while writing {tmp_path / name}" for name in ("kept.bin", "p.parquet")]
    assert names(tmp_path) == ["kept.bin"]
    assert (tmp_path / "kept.bin").read_bytes() == b"old"


def test_no_file_descriptor_is_lost(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        write_json(tmp_path / "j.json", number)
        output_folder(tmp_path / "folder")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before


@pytest.mark.parametrize("parent", ["/proc", "/proc/self", "/dev/null"])
def test_unwritable_places(parent: str) -> None:
    path = Path(parent) / "run" / "file.json"
    for attempt in (lambda: write_json(path, 1), lambda: output_folder(path.parent)):
        with pytest.raises(UnusableOutputError, match=r"cannot write .*; choose another --out$") as caught:
            attempt()
        assert parent in str(caught.value)
        assert caught.value.exit_code == 2


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for attempt in (lambda: write_json(tmp_path / "file" / "j.json", 1), lambda: output_folder(tmp_path / "file")):
        with pytest.raises(UnusableOutputError, match=f"cannot write {tmp_path / 'file'}"):
            attempt()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(UnusableOutputError, match="File name too long"):
        output_folder(tmp_path / ("x" * 300))


def test_output_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == []


def test_guard_lets_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_guard(tmp_path):
        raise KeyError("document")
    with pytest.raises(LmdissectError, match=r"^ours$"), output_guard(tmp_path):
        raise DamagedArtifactError("ours")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, OutOfSpaceError), (errno.EDQUOT, OutOfSpaceError), (errno.EROFS, UnusableOutputError), (errno.EIO, UnusableOutputError)],
)
def test_guard_reads_the_error_number(tmp_path: Path, number: int, kind: type[LmdissectError]) -> None:
    for error in (OSError(number, os.strerror(number)), Exception(f"I/O error: something (os error {number})")):
        with pytest.raises(kind) as caught, output_guard(tmp_path / "missing" / "file"):
            raise error
        assert str(tmp_path / "missing" / "file") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_hive_like_folder_name_adds_no_column(tmp_path: Path) -> None:
    path = tmp_path / "lr=1e-5" / "scores.parquet"
    write_table(path, pa.table({"a": [1]}))
    assert read_table(path).column_names == ["a"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{", b"\xff\xfe", b"PAR1" + bytes(100) + b"PAR1"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken").write_bytes(content)
    for read in (read_json, read_table):
        with pytest.raises(DamagedArtifactError, match=f"{tmp_path / 'broken'} cannot be read"):
            read(tmp_path / "broken")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_table):
        with pytest.raises(DamagedArtifactError, match=f"{tmp_path / 'none'} cannot be read"):
            read(tmp_path / "none")


def test_replace_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for version in ("1", "2"):
        temporary = Path(tempfile.mkdtemp(dir=tmp_path))
        (temporary / "deep").mkdir()
        (temporary / "deep" / "weights").write_text(version, encoding="utf-8")
        (temporary / f"only-{version}").touch()
        replace_folder(temporary, target)
        assert (target / "deep" / "weights").read_text(encoding="utf-8") == version
        assert names(target) == ["deep", f"only-{version}"], "nothing of an older version stays"
        assert names(tmp_path) == ["model"]
        assert target.stat().st_mode & 0o777 == 0o755


def test_replace_folder_into_nowhere(tmp_path: Path) -> None:
    temporary = tmp_path / "new"
    temporary.mkdir()
    with pytest.raises(UnusableOutputError, match="cannot write"):
        replace_folder(temporary, tmp_path / "no" / "such" / "folder")
    assert temporary.is_dir()


def test_a_disk_that_fills_up_while_torch_saves(small_disk: Path) -> None:
    with pytest.raises(OutOfSpaceError, match="disk full while writing"), output_guard(small_disk):
        torch.save({"weights": torch.zeros(1_000_000)}, small_disk / "optimizer.pt")
    gc.collect()  # the traceback holds torch's open file, and the disk could not be unmounted


def test_another_error_of_torch_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not exist"), output_guard(tmp_path):
        torch.save({}, tmp_path / "no" / "such" / "folder.pt")
