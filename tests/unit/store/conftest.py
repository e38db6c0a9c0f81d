"""Fixtures for the store's tests."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def mount(*arguments: object) -> bool:
    """Run ``mount``; False where there is none, or no right to use it."""
    command = shutil.which("mount")
    return command is not None and subprocess.run([command, *map(str, arguments)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """An empty file system of 256 KiB; skips where the right to mount is missing."""
    folder = Path(tempfile.mkdtemp())
    if not mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", folder):
        folder.rmdir()
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", folder], check=True)
    folder.rmdir()


@pytest.fixture
def enlarge_disk(small_disk: Path) -> Callable[[], None]:
    """Frees some space on ``small_disk``, as an administrator would."""

    def enlarge() -> None:
        assert mount("-o", "remount,size=1m", small_disk)

    return enlarge
