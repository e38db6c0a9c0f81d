"""A program that was started alone is process 0 of 1; groups are tested where they are used, under torchrun."""

import subprocess
import sys

import pytest

from lmdissect.errors import OutputLockedError
from lmdissect.models.processes import (
    any_process,
    ask_main_process,
    broadcast,
    is_main_process,
    num_processes,
    process_rank,
    wait_for_all,
)


def test_alone() -> None:
    assert (num_processes(), process_rank(), is_main_process()) == (1, 0, True)
    assert broadcast({"a": [1, None]}) == {"a": [1, None]}
    assert [any_process(flag) for flag in (False, True)] == [False, True]
    wait_for_all()


def test_the_only_process_does_the_work_and_raises_its_own_error() -> None:
    assert ask_main_process(lambda: {"steps": 3}) == {"steps": 3}

    def locked() -> None:
        message = "another process is writing it"
        raise OutputLockedError(message)

    with pytest.raises(OutputLockedError, match="another process is writing it"):
        ask_main_process(locked)


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}, {"WORLD_SIZE": "4"}])
def test_no_group_is_made_for_a_program_started_alone(variables: dict[str, str]) -> None:
    """A batch system may set WORLD_SIZE for purposes of its own."""
    code = "import torch; from lmdissect.models import processes; print(processes.num_processes(), torch.distributed.is_initialized())"
    done = subprocess.run([sys.executable, "-c", code], env={**variables}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
