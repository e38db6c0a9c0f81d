"""Experiments that are killed, interrupted, or run twice at once, with real processes: the tables are those of an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment_world import make_world, write_experiment
from killed_runs import ENVIRONMENT
from lmdissect.pipeline.executors import InlineExecutor, LocalExecutor
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.graph import Graph, Node
from lmdissect.pipeline.run import ExperimentSummary, run_experiment
from lmdissect.store import lock_folder, output_folder
from lmdissect_cli import CliOutcome

NUM_KILLED_RUNS = int(os.environ.get("LMDISSECT_KILLED_RUNS", "6"))

Run = Callable[..., CliOutcome]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def table_bytes(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.suffix in {".csv", ".parquet", ".png", ".svg"}}


def start(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lmdissect", "run", *arguments, "--threads", "1", "--no-calibrate"]
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(file: Path) -> ExperimentSummary:
    """Run what is missing in this process."""
    return run_experiment(read_experiment(file), str(file), lambda _: InlineExecutor())


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 300.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.02)


def processes_of(module: str, folder: Path) -> list[int]:
    """Processes that run ``module`` in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                if module in command and (entry / "cwd").resolve() == folder.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def kill_command(folder: Path, reached: str) -> None:
    """Run the command with its worker until something is there in the store, and kill it."""
    process = start("study.yaml", cwd=folder)
    wait_for(lambda: list((folder / "store").glob(reached)), reached)
    process.kill()
    assert process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "it was still running"
    wait_for(lambda: not processes_of("lmdissect.pipeline.worker", folder), "the worker's end", 60)


# One process imports what is heavy, then forks the ones that run and are killed.

_KILLED = """
import json, os, sys
from pathlib import Path
import numpy as np
from killed_runs import run_killed, run_whole
import lmdissect.finetune.train
from transformers.models.llama import modeling_llama
from lmdissect.pipeline.curves import draw_curves
from lmdissect.pipeline.executors import InlineExecutor
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.run import run_experiment
from lmdissect.pipeline.work import run_node

request = json.loads(sys.stdin.readline())

def run(folder):
    os.chdir(folder)
    run_experiment(read_experiment(Path("study.yaml")), "study.yaml", lambda _: InlineExecutor())

whole_s = run_whole(lambda: run(request["whole"]))
rng = np.random.default_rng(request["seed"])
for folder in request["folders"]:
    kills = run_killed(lambda: run(folder), 0.7 * whole_s, rng, most_kills=3)  # a second run is faster than the first: no kill may come too late
    print(json.dumps({"kills": kills}), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_and_run_again_the_tables_are_the_same(world: Path, tmp_path: Path) -> None:
    rates = {"grid": [1e-3, 1e-2], "size": 4}
    finetune = {"batch_size": 4, "max_tokens": 40, "device": "cpu", "learning_rate": rates, "checkpoint_steps": 1}
    measure = {"probes": ["p"], "steps": "log", "limit": 2}
    names = ["whole", "command", *map(str, range(min(max(2, NUM_KILLED_RUNS // 3), 17)))]  # three kills each at most: about 50 in the long storm
    for name in names:
        file = write_experiment(world, tmp_path / name, grid={"corpus.size": [4, 8]}, finetune=finetune, measure=measure)
        file.write_text(file.read_text().replace(f"{tmp_path / name}/", ""))  # the same relative paths in every folder
    request = {"whole": str(tmp_path / "whole"), "folders": [str(tmp_path / name) for name in names[2:]], "seed": 11}
    process = subprocess.Popen([sys.executable, "-c", _KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    output, _ = process.communicate(json.dumps(request) + "\n", timeout=1700)
    assert process.returncode == 0, output
    kills = [json.loads(line)["kills"] for line in output.splitlines() if line.startswith("{")]
    assert all(kills), f"each was to be killed at least once: {kills}"
    for reached in ("trial/*/manifest.json", "finetune/*-curve/p"):
        kill_command(tmp_path / "command", reached)
    last = start("study.yaml", "--workers", "2", cwd=tmp_path / "command")
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    expected = table_bytes(tmp_path / "whole" / "study")
    assert {"shifts.csv", "curve.csv"} <= set(expected)
    for name in names[1:]:
        assert table_bytes(tmp_path / name / "study") == expected


@pytest.mark.slow
def test_the_command_killed_outright_takes_its_workers_and_goes_on(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"corpus.size": [4, 8]})
    process = start(file.name, cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "store").glob("finetune/*/manifest.json")), "the first run's end")
    assert processes_of("lmdissect.pipeline.worker", tmp_path)
    process.kill()
    process.communicate()
    wait_for(lambda: not processes_of("lmdissect.pipeline.worker", tmp_path), "the workers' end", 60)
    assert not (tmp_path / "study" / "manifest.json").exists()
    again = start(file.name, "--workers", "2", cwd=tmp_path)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "2 points" in out
    assert finish(file).reused


@pytest.mark.slow
def test_ctrl_c_stops_at_a_safe_point_with_130(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"corpus.size": [4, 8]})
    process = start(file.name, cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "store").glob("finetune/*/started.json")), "the first finetuning")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "run the same command again to go on from there" in err
    assert "Traceback" not in err
    summary = finish(file)
    assert summary.num_made > 0
    assert not summary.failures


@pytest.mark.slow
def test_two_runs_at_once_share_a_store(world: Path, tmp_path: Path) -> None:
    files = [write_experiment(world, tmp_path, name, grid={"corpus.size": [4, 8]}) for name in ("one", "other")]
    processes = [start(file.name, cwd=tmp_path) for file in files]
    for process in processes:
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    one, other = (table_bytes(tmp_path / name) for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name] and not name.startswith("study/")] == []  # a study names its experiment in each row
    assert len(list((tmp_path / "store").glob("finetune/*/manifest.json"))) == 2


@pytest.mark.slow
def test_the_command_reports_a_failing_point_and_exits_1(world: Path, tmp_path: Path) -> None:
    file = write_experiment(world, tmp_path, grid={"finetune.learning_rate": [1e-2, 1e30]})
    process = start(file.name, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "2 points" in out
    assert "failed: finetune learning_rate=1e+30 seed=0:" in err
    log = next((tmp_path / "study" / "logs").glob("finetune-*.log"))
    assert f"(log: {tmp_path / 'study' / 'logs'}" in err
    assert "finetune/" in log.read_text()
    assert "Traceback" not in err


@pytest.fixture
def waiting_node(world: Path, tmp_path: Path) -> Node:
    """A node that draws documents, once somebody lets go of its folder."""
    corpus = {"files": [str(world / "corpus.jsonl")], "size": 4, "validation": 2}
    settings = {"size": 4, "draw_seed": 0, "split_seed": 0, "validation": 2, "corpus": corpus, "source": {}, "exclude": {}}
    return Graph().add("documents", "a draw", settings, depends_on={"x": 1}, needs=(), store=tmp_path / "store")


def _kill_worker(executor: LocalExecutor, node: Node, logs: Path, times: int) -> None:
    """Kill the worker once it waits for the folder."""
    wait_for(lambda: (logs / node.log_name).exists() and (logs / node.log_name).read_text().count("waiting (") >= times, "the node's wait")
    process = executor._workers[0]._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_worker_s_node_is_run_once_more(waiting_node: Node, tmp_path: Path, kills: int) -> None:
    logs = tmp_path / "logs"
    executor = LocalExecutor(workers=1, threads=1, logs=logs)
    try:
        with lock_folder(output_folder(Path(waiting_node.folder))):
            future = executor.submit(waiting_node)
            for number in range(kills):
                _kill_worker(executor, waiting_node, logs, number + 1)
        outcome = future.result(timeout=120)
        again = executor.submit(waiting_node).result(timeout=120)
    finally:
        executor.close()
    if kills == 1:
        assert (outcome.status, outcome.message) == ("done", "")
    else:
        assert outcome.status == "failed"
        assert "its worker process was killed (SIGKILL), 2 times" in outcome.message
    assert again.status == "done"
