"""Finetuning by several processes, started as users start them: torchrun on this machine, gloo on the CPU."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from lmdissect.errors import UserInputError
from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
from lmdissect.models import resolve_model
from lmdissect.progress import SilentProgress
from lmdissect.records import Document
from lmdissect.store import read_artifact
from tiny_models import SENTENCES, save_tiny_llama

pytestmark = pytest.mark.slow

DOCUMENTS = [Document(f"d{number}", (text * 2)[: 8 + 17 * number % 90]) for number, text in enumerate(SENTENCES)]
PATIENCE_S = 240

# The launcher starts Python unbuffered: a print is then several writes, between which the other process writes too. A line is one write here.
_WORKER = """
import json, os, sys
from pathlib import Path
from lmdissect.errors import LmdissectError
from lmdissect.finetune import FinetuneConfig, finetune
from lmdissect.interrupts import StopRequest
from lmdissect.models import resolve_model
from lmdissect.models.processes import process_rank
from lmdissect.records import Document
from transformers import TrainerCallback

task = json.loads(sys.argv[1])

class AtStep(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == task.get("stop_at") and process_rank() == 1:
            stop.asked = True  # one process alone is told
        if state.global_step + 1 == task.get("die_at") and process_rank() == 1:
            os.kill(os.getpid(), 9)

    def on_log(self, args, state, control, **kwargs):
        if state.global_step == task.get("stop_after") and process_rank() == 1:
            stop.asked = True  # after all have asked each other for the last time in a step

stop = StopRequest()
documents = [Document(name, text) for name, text in task["documents"]]
config = FinetuneConfig.model_validate(task["config"])
try:
    summary = finetune(resolve_model(task["base"]), documents, config, Path(task["out"]), held_out=documents[:3], callbacks=[AtStep()], stop=stop)
except LmdissectError as error:
    sys.stdout.write(f"rank {process_rank()}: {type(error).__name__}: {error}\\n")
    sys.exit(error.exit_code)
sys.stdout.write(f"rank {process_rank()}: {summary.num_steps} steps, held-out {summary.held_out_after!r}\\n")
"""

_SHARDED = """
import json, os, sys, types
from pathlib import Path
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from lmdissect.finetune import FinetuneConfig
from lmdissect.finetune.batches import order_documents, tokenize_corpus
from lmdissect.finetune.loss import loss_in_forward, sum_nll_nats
from lmdissect.finetune.micro_batches import build_micro_batch
from lmdissect.finetune.steps import Memory, StepRunner
from lmdissect.models import LoadOptions, TextTokenizer, load_model, resolve_model
from lmdissect.models.processes import num_processes, process_rank
from lmdissect.progress import SilentProgress
from lmdissect.records import Document

task = json.loads(sys.argv[1])
assert num_processes() == 2
config = FinetuneConfig.model_validate(task["config"])
loaded, plain = (load_model(resolve_model(task["base"]), LoadOptions("float32", "cpu")) for _ in range(2))
corpus = tokenize_corpus([Document(*entry) for entry in task["documents"]], TextTokenizer(loaded.tokenizer, "auto"), config)
model, mesh = loaded.model, init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
tail = [model.model.norm, model.lm_head, *([model.model.embed_tokens] if task["tied"] else [])]
fully_shard(tail, mesh=mesh, reshard_after_forward=False)  # as accelerate groups them
fully_shard(model, mesh=mesh)

class Sync:
    def __init__(self, wrapped):
        self.wrapped = wrapped
    def __enter__(self):
        self.wrapped.set_requires_gradient_sync(False)
    def __exit__(self, *_):
        self.wrapped.set_requires_gradient_sync(True)

accelerator = types.SimpleNamespace(  # the part of accelerate that a step uses, as it is where FSDP 2 runs
    gradient_state=types.SimpleNamespace(_set_sync_gradients=lambda flag: None),
    no_sync=Sync, backward=lambda loss: loss.backward(), distributed_type="FSDP", device=torch.device("cpu"),
)
runner = StepRunner(model, corpus, config, torch.device("cpu"), task["packed"], Memory(80, task["recompute"]), SilentProgress())
if task["recompute"]:
    from lmdissect.finetune.steps import recompute_activations
    recompute_activations(model)
worst = 0.0
with loss_in_forward(model, loaded.head, torch.device("cpu"), torch.float32):
    for number, documents in enumerate(order_documents(corpus, config), start=1):
        model.train()
        loss = runner.run(model, documents, number, accelerator)
        plain.model.zero_grad()
        chosen = [corpus.sequences[index] for index in documents]
        expected = sum_nll_nats(plain.model, plain.head, build_micro_batch(chosen, packed=False)) / sum(one.num_targets for one in chosen)
        expected.backward()
        worst = max(worst, abs(float(loss) - float(expected.detach())))
        with torch.no_grad():
            for here, there in zip(model.parameters(), plain.model.parameters(), strict=True):
                worst = max(worst, float((here.grad.full_tensor() - there.grad).abs().max()))
                there -= 0.1 * there.grad
                here.to_local().sub_(0.1 * here.grad.to_local())
        model.zero_grad()
sys.stdout.write(f"rank {process_rank()}: sharded {type(next(model.parameters())).__name__}, {number} steps, worst {worst:.2e}\\n")
assert worst < 2e-5
"""


def _config(**settings: object) -> FinetuneConfig:
    defaults = {
        "batch_size": 3,
        "micro_batch_tokens": 80,
        "max_tokens": 60,
        "device": "cpu",
        "learning_rate": 1e-3,
        "epochs": 1.5,
        "checkpoint_steps": 2,
    }
    return FinetuneConfig.model_validate({**defaults, **settings})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base", seed=0, tie=True)


class _Launcher:
    """Starts groups of processes, and ends what a test left running."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "worker.py"
        self.script.write_text(_WORKER, encoding="utf-8")
        self.started: list[subprocess.Popen[str]] = []

    def start(self, arguments: Sequence[str], num_processes: int = 2, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **(variables or {})}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True)
        self.started.append(process)
        return process

    def run(self, base: Path, out: Path, config: FinetuneConfig, *, variables: dict[str, str] | None = None, **task: Any) -> tuple[int, str]:
        """Exit code and everything printed."""
        documents = [(document.document_id, document.text) for document in DOCUMENTS]
        payload = {"base": str(base), "out": str(out), "config": config.model_dump(mode="json"), "documents": documents, **task}
        process = self.start([str(self.script), json.dumps(payload)], variables=variables)
        printed, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, printed


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[_Launcher]:
    made = _Launcher(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _alone(base: Path, out: Path, config: FinetuneConfig) -> None:
    finetune(resolve_model(str(base)), DOCUMENTS, config, out, held_out=DOCUMENTS[:3])


def _assert_same_up_to_rounding(folder: Path, expected: Path) -> None:
    here, there = (pq.read_table(path / "training_steps.parquet").to_pydict() for path in (folder, expected))
    assert here["step"] == there["step"]
    assert here["learning_rate"] == there["learning_rate"]
    assert here["loss_nats"] == pytest.approx(there["loss_nats"], rel=1e-4)
    assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-3)
    name = "adapter_model.safetensors" if (expected / "adapter_config.json").exists() else "model.safetensors"
    left, right = load_file(folder / name), load_file(expected / name)
    assert left.keys() == right.keys()
    for key, weight in right.items():
        assert float((left[key] - weight).abs().mean()) < 2e-5, key  # the runs move weights by about 3e-3
    details = [read_artifact(path, "finetune").details for path in (folder, expected)]
    assert details[0]["held_out_loss_after_nats"] == pytest.approx(details[1]["held_out_loss_after_nats"], rel=1e-4)
    assert details[0]["held_out_loss_before_nats"] == pytest.approx(details[1]["held_out_loss_before_nats"], rel=1e-6)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
def test_two_processes_do_what_one_does(base: Path, tmp_path: Path, launcher: _Launcher, lora: LoraSettings | None) -> None:
    """Fifteen documents, three a step: the processes never have equally many."""
    _alone(base, tmp_path / "one", _config(lora=lora))
    code, printed = launcher.run(base, tmp_path / "two", _config(lora=lora))
    assert code == 0, printed
    _assert_same_up_to_rounding(tmp_path / "two", tmp_path / "one")
    assert read_artifact(tmp_path / "two", "finetune").details["num_processes"] == 2
    told = dict(re.findall(r"rank (\d): (\d+ steps, held-out [\d.]+)", printed))  # a progress bar may stand before it on its line
    assert told.keys() == {"0", "1"}, printed
    assert told["0"] == told["1"]  # both get what one of them wrote


def test_a_stop_on_one_process_stops_all_and_one_alone_goes_on(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    """No dropout is drawn: the outcome does not depend on how many processes go on."""
    code, printed = launcher.run(base, tmp_path / "tuned", _config(), stop_at=3)
    assert code != 0
    assert printed.count("InterruptedRunError: stopped after step 3; run the same command again") == 2
    watch = _Said()
    finetune(resolve_model(str(base)), DOCUMENTS, _config(), tmp_path / "tuned", held_out=DOCUMENTS[:3], progress=watch)
    assert watch.said == ["going on from step 3 of 5"]
    _alone(base, tmp_path / "one", _config())
    _assert_same_up_to_rounding(tmp_path / "tuned", tmp_path / "one")


def test_a_stop_after_the_last_step_stops_all(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    code, printed = launcher.run(base, tmp_path / "tuned", _config(), stop_after=5)
    assert code != 0
    assert printed.count("InterruptedRunError: stopped after step 5; run the same command again") == 2
    code, printed = launcher.run(base, tmp_path / "tuned", _config())
    assert code == 0, printed


class _Said(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_with_dropout_the_number_of_processes_must_stay(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    config = _config(lora=LoraSettings(rank=4, dropout=0.2))
    code, printed = launcher.run(base, tmp_path / "tuned", config, stop_at=3)
    assert code != 0, printed
    with pytest.raises(
        UserInputError, match=r"written by 2 processes \(multi_cpu\), this is a run of 1 \(no\), and dropout is drawn by each of them: start 2"
    ):
        _alone(base, tmp_path / "tuned", config)
    code, printed = launcher.run(base, tmp_path / "tuned", config)
    assert code == 0, printed
    code, printed = launcher.run(base, tmp_path / "whole", config)
    assert code == 0, printed
    assert torch.equal(
        *(
            load_file(tmp_path / name / "adapter_model.safetensors")["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"]
            for name in ("tuned", "whole")
        )
    )


def test_a_killed_process_ends_the_others_and_the_run_goes_on(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    start_s = time.monotonic()
    code, printed = launcher.run(base, tmp_path / "tuned", _config(), die_at=3)
    assert code != 0, printed
    assert time.monotonic() - start_s < 120
    assert not (tmp_path / "tuned" / "manifest.json").exists()
    code, printed = launcher.run(base, tmp_path / "tuned", _config())
    assert code == 0, printed
    _alone(base, tmp_path / "one", _config())
    _assert_same_up_to_rounding(tmp_path / "tuned", tmp_path / "one")


_LEAVING = """
import atexit, sys
from lmdissect.models.processes import process_rank, wait_for_all
import torch.distributed as group

def tell():  # what is asked for first is called last
    sys.stdout.write(f"rank {rank}: group {group.is_initialized()}\\n")

atexit.register(tell)
rank = process_rank()
assert group.is_initialized()
wait_for_all()
"""


def test_the_group_is_taken_down_before_the_interpreter(tmp_path: Path, launcher: _Launcher) -> None:
    """Else a thread of gloo may abort a process that has done its work."""
    script = tmp_path / "leaving.py"
    script.write_text(_LEAVING, encoding="utf-8")
    process = launcher.start([str(script)])
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, printed
    assert {f"rank {rank}: group False" for rank in range(2)} <= set(printed.splitlines()), printed


def test_every_process_hears_of_an_error_of_the_main_one(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    """The main process alone opens the folder; the other one would wait for it for ever."""
    _alone(base, tmp_path / "tuned", _config())
    code, printed = launcher.run(base, tmp_path / "tuned", _config(learning_rate=1e-2))
    assert code != 0
    for rank in (0, 1):
        assert f"rank {rank}: StaleArtifactError" in printed
    assert "learning_rate" in printed


@pytest.mark.parametrize(("tied", "packed", "recompute"), [(True, True, False), (False, False, True)])
def test_gradients_of_sharded_weights_are_those_of_whole_ones(tmp_path: Path, launcher: _Launcher, tied: bool, packed: bool, recompute: bool) -> None:
    """FSDP 2 as accelerate applies it, on the CPU, where accelerate itself does not: several steps, because weights gathered in one must not be used in the next."""
    base = save_tiny_llama(tmp_path / "whole", seed=0, tie=tied)
    launcher.script.write_text(_SHARDED, encoding="utf-8")
    code, printed = launcher.run(base, tmp_path / "none", _config(), tied=tied, packed=packed, recompute=recompute)
    assert code == 0, printed
    assert printed.count("sharded DTensor, 5 steps") == 2


def test_the_command_line_under_torchrun(base: Path, tmp_path: Path, launcher: _Launcher) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": document.document_id, "text": document.text}) + "\n" for document in DOCUMENTS), encoding="utf-8")
    arguments = ["--model", str(base), "--corpus", str(corpus), "--device", "cpu", "--batch-size", "4", "--learning-rate", "1e-3"]
    process = launcher.start(["-m", "lmdissect", "finetune", *arguments, "--out", str(tmp_path / "two")])
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, printed
    assert printed.count("finetune: 3/3 steps") == 1  # one process reports
    assert resolve_model(str(tmp_path / "two")).folder == tmp_path / "two"
