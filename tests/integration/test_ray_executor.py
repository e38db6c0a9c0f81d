"""The Ray executor on real Ray clusters on this machine: the same tables as a worker process makes, whatever is lost on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from lmdissect import __version__
from lmdissect.errors import MissingDependencyError, UserInputError
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.build import Study
from lmdissect.pipeline.executors import Executor, LocalExecutor
from lmdissect.pipeline.graph import Node
from lmdissect.pipeline.ray_executor import RayExecutor
from lmdissect.pipeline.ray_executor import _check_machine as check_machine
from lmdissect.pipeline.ray_executor import _choose_needs as choose_needs
from lmdissect.pipeline.ray_executor import _Desk as Desk
from lmdissect.pipeline.ray_executor import _look_around as look_around
from lmdissect.pipeline.schedule import missing_nodes, run_nodes
from lmdissect.pipeline.work import score_node
from lmdissect.plain_yaml import dump_yaml
from lmdissect.progress import LineProgress, SilentProgress
from lmdissect.store.chunks import find_chunks
from tiny_study import make_study, study_settings, study_tables, write_study_inputs

PATIENCE_S = 900
"""A run takes about 20 s here, and many times that where other work has the processors."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables that one worker process makes."""
    with pytest.MonkeyPatch.context() as patch:
        enter_fresh_folder(tmp_path_factory.mktemp("local"), patch)
        study = make_study()
        run_study(study, LocalExecutor(workers=1, threads=1, logs=Path("logs")))
        return study_tables(study)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The same experiment in a fresh folder, in which the test runs."""
    enter_fresh_folder(tmp_path, monkeypatch)
    return make_study()


def enter_fresh_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_study_inputs(folder)


def run_study(study: Study, executor: Executor) -> str:
    """What was said."""
    stream = StringIO()
    try:
        summary = run_nodes(study, missing_nodes(study), executor, progress=LineProgress(stream), stop=StopRequest())
    finally:
        executor.close()
    assert summary.failures == {}, stream.getvalue()
    assert missing_nodes(study) == []
    return stream.getvalue()


@contextmanager
def when(condition: Callable[[], bool], action: Callable[[], object]) -> Iterator[list[bool]]:
    """Do ``action`` once, as soon as ``condition`` holds, while the block runs; the list says whether it was done."""
    done: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if condition():
                action()
                done.append(True)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def is_under_way(run: Node) -> bool:
    """Whether a finetuning run has a checkpoint to go on from."""
    return any((Path(run.folder) / ".checkpoints").glob("checkpoint-*/complete.json"))


def starts(node: Node) -> list[tuple[str, int]]:
    """Host and process of every task that has begun a node."""
    lines = [line for path in Path("runs/tiny/logs").glob(f".ray-*/{node.key}") for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@dataclass
class Machines:
    """A cluster of two machines and a head in a process of its own."""

    address: str
    process: "subprocess.Popen[str]"

    def lose_machine_of(self, worker: int) -> None:
        """Kill everything of the machine that a worker process runs on, the worker too, which gets no further from now on."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.kill(worker, signal.SIGSTOP)
        self.process.stdin.write(f"{worker}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "lost\n"
        os.kill(worker, signal.SIGKILL)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """One for all tests; the last one loses a machine."""
    command = [sys.executable, str(Path(__file__).parents[1] / "ray_machines.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "no cluster could be started"
        yield Machines(address, process)
        process.stdin.close()


def start_command(*options: str) -> "subprocess.Popen[str]":
    """`lmdissect run` of the study on a Ray cluster, in a process group of its own."""
    Path("tiny.yaml").write_text(dump_yaml(study_settings()), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("lmdissect")), "run", "tiny.yaml", "--executor", "ray", "--no-calibrate", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.mark.slow
def test_a_killed_worker_changes_no_table(study: Study, expected: dict[str, bytes], machines: Machines) -> None:
    run = study.node(study.points[0], "finetune")
    with when(lambda: is_under_way(run), lambda: os.kill(starts(run)[0][1], signal.SIGKILL)) as killed:
        said, _ = start_command("--address", machines.address).communicate(timeout=PATIENCE_S)
    assert killed, said
    assert study_tables(study) == expected, said
    assert "run again 1 time, because the worker or machine that ran it was lost" in said
    assert not list(Path("runs/tiny/logs").glob(".ray-*"))


@pytest.mark.slow
def test_scoring_is_shared_where_a_slot_is_idle(study: Study, expected: dict[str, bytes], machines: Machines) -> None:
    """One score alone is missing, on two machines. A helper that comes too late is no fault: its shard is taken back."""
    run_study(study, LocalExecutor(workers=1, threads=1, logs=Path("logs")))
    score = study.node(study.points[0], "tuned p")
    shutil.rmtree(score.folder)
    said, _ = start_command("--address", machines.address).communicate(timeout=PATIENCE_S)
    assert study_tables(study) == expected, said
    assert "shards" in (Path("runs/tiny/logs") / score.log_name).read_text(encoding="utf-8"), "an idle slot was not used"


HELP = """
import json, sys
from lmdissect.pipeline.ray_executor import _Desk, _score_on_worker, import_ray
address, node, desk = json.loads(sys.argv[1])
ray = import_ray()
ray.init(address=address, log_to_driver=False)
desk = _Desk(**desk)
print(repr(ray.get(ray.remote(_score_on_worker).options(**desk.needs("score")).remote(node, desk, 1, 2))))
"""


@pytest.mark.slow
def test_a_helper_adds_every_second_chunk_to_what_another_process_holds(study: Study, expected: dict[str, bytes], machines: Machines) -> None:
    """What `_share_scoring` starts on another machine, with the time it needs there."""
    run_study(study, LocalExecutor(workers=1, threads=1, logs=Path("logs")))
    score = study.node(study.points[0], "tuned p")
    shutil.rmtree(score.folder)
    logs = Path("logs").resolve()
    desk = Desk(str(Path.cwd()), str(logs / ".ray-test"), str(logs), 1, 0, 2)
    Path(desk.folder).mkdir()
    found: list[list[int]] = []

    def help_once() -> None:
        command = [sys.executable, "-c", HELP, json.dumps([machines.address, score.to_json(), asdict(desk)])]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.stdout.splitlines()[-1] == "''", done.stdout
        found.append(sorted(find_chunks(Path(score.folder))[0]))

    score_node(score, SilentProgress(), StopRequest(), delegate=help_once)
    assert desk.shard_began(score, 1).exists()
    assert len(found[0]) > 1
    assert found == [list(range(1, 2 * len(found[0]), 2))], "the second of two shards has the odd chunks"
    assert study_tables(study) == expected


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_a_second_one_goes_on(study: Study, expected: dict[str, bytes], machines: Machines) -> None:
    run = study.node(study.points[0], "finetune")
    process = start_command("--workers", "2", "--threads", "2")  # on a cluster of its own
    with when(lambda: is_under_way(run), lambda: os.killpg(process.pid, signal.SIGINT)) as asked:  # as a terminal does: to all processes
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert asked, said
    assert process.returncode == 130, said
    assert "run the same command again" in said
    assert not all((Path(node.folder) / "manifest.json").exists() for node in study.graph.nodes.values()), "stopped before the end"
    said, _ = start_command("--address", machines.address).communicate(timeout=PATIENCE_S)
    assert study_tables(study) == expected, said


@pytest.mark.slow
def test_a_lost_machine_changes_no_table(study: Study, expected: dict[str, bytes], machines: Machines) -> None:
    run = study.node(study.points[0], "finetune")
    with when(lambda: is_under_way(run), lambda: machines.lose_machine_of(starts(run)[0][1])) as lost:
        said, _ = start_command("--address", machines.address).communicate(timeout=PATIENCE_S)
    assert lost, said
    assert study_tables(study) == expected, said
    assert "because the worker or machine that ran it was lost" in said


def test_without_ray_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r'pip install "lmdissect\[ray\]"'):
        RayExecutor(logs=tmp_path)


MACHINE = {"version": __version__, "token": True, "cwd": True}


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({**MACHINE, "token": False}, "does not see .*logs as it is here: run from a folder on a file system that all machines share"),
        ({**MACHINE, "cwd": False}, "does not see /study as it is here"),
        ({**MACHINE, "version": "0.0.1"}, "has lmdissect 0.0.1"),
        ({"problem": "ModuleNotFoundError: No module named 'lmdissect'"}, "install it there .*No module named"),
    ],
)
def test_a_machine_that_cannot_take_part_is_named(view: dict[str, Any], words: str) -> None:
    desk = Desk("/study", "/study/logs/.ray-0", "/study/logs", 1, 0, 1)
    with pytest.raises(UserInputError, match=f"the machine far-away of the Ray cluster .*{words}"):
        check_machine("far-away", view, desk)


def test_a_machine_sees_the_token_or_does_not(tmp_path: Path) -> None:
    desk = Desk(str(tmp_path), str(tmp_path / ".ray-1"), str(tmp_path), 1, 0, 1)
    assert look_around(desk) == {**MACHINE, "token": False}
    desk.token.parent.mkdir()
    desk.token.write_text(".ray-1", encoding="utf-8")
    assert look_around(desk) == MACHINE
    desk.token.write_text(".ray-2", encoding="utf-8")  # a folder of the same path on another disk
    assert look_around(desk) == {**MACHINE, "token": False}


@pytest.mark.parametrize(
    ("machines", "asked", "expected"),
    [
        ([{"CPU": 2.0}], (None, None), (2, 0, 1)),
        ([{"CPU": 2.0}], (1, None), (1, 0, 2)),
        ([{"CPU": 4.0}, {"CPU": 16.0}], (None, None), (4, 0, 5)),
        ([{}, {"CPU": 8.0}], (None, None), (8, 0, 1)),
        ([{"CPU": 16.0, "GPU": 8.0}], (None, None), (2, 1, 8)),
        ([{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}], (None, None), (8, 1, 2)),
        ([{"CPU": 16.0, "GPU": 1.0}], (4, 0.5), (4, 0.5, 2)),
        ([{"CPU": 16.0, "GPU": 1.0}], (4, 0), (4, 0, 4)),
    ],
)
def test_needs_of_a_model_fit_the_machines(machines: list[dict[str, float]], asked: tuple[Any, Any], expected: tuple[int, float, int]) -> None:
    assert choose_needs(machines, *asked) == expected


@pytest.mark.parametrize(("machines", "asked"), [([{"CPU": 2.0}], (3, None)), ([{"CPU": 2.0}], (None, 1)), ([], (None, None))])
def test_needs_that_no_machine_meets_are_refused(machines: list[dict[str, float]], asked: tuple[Any, Any]) -> None:
    with pytest.raises(UserInputError, match="no machine of the Ray cluster has"):
        choose_needs(machines, *asked)
