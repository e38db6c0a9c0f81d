"""The callback in TRL's SFTTrainer, full and with LoRA, and the code of the documentation, run as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from live_training import SCORING, SHIFT, make_probes
from lmdissect.integrations import ShiftCallback, read_curve
from lmdissect.progress import SilentProgress
from tiny_models import SENTENCES, save_tiny_llama

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft asks transformers by the old name
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "measure-while-training.md"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


def _train(llama: Path, folder: Path, callback: ShiftCallback | None, **arguments: Any) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    lora = arguments.pop("lora", False)
    settings = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "max_length": 32,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "activation_checkpointing": False,
        "dataloader_pin_memory": False,
        **arguments,
    }
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(str(llama), dtype=torch.float32),
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_dict({"text": list(SENTENCES)}),
        processing_class=AutoTokenizer.from_pretrained(str(llama)),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear") if lora else None,
    )
    if callback is not None:
        callback.attach(trainer)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="plain"),
        pytest.param({"lora": True}, id="lora"),
        pytest.param({"packing": True}, id="packing", marks=pytest.mark.slow),
        pytest.param({"activation_checkpointing": True}, id="activation checkpointing", marks=pytest.mark.slow),
        pytest.param({"bf16": True}, id="bf16", marks=pytest.mark.slow),
    ],
)
def test_supervised_finetuning(llama: Path, tmp_path: Path, arguments: dict[str, Any]) -> None:
    callback = ShiftCallback(make_probes(), tmp_path / "curve", scoring=SCORING, shift=SHIFT, progress=SilentProgress(), on_error="raise")
    measured = _train(llama, tmp_path / "measured", callback, **arguments)
    plain = _train(llama, tmp_path / "plain", None, **arguments)
    for (name, here), there in zip(measured.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(here, there), name
    own = {"loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "mean_token_accuracy"}
    logs = [[{key: row[key] for key in own if key in row} for row in run.state.log_history if "loss" in row] for run in (measured, plain)]
    assert logs[0] == logs[1]  # TRL's own running means are not disturbed
    assert len(logs[0]) == 4
    rows = [row for row in read_curve(tmp_path / "curve") if row["normalization"] == "token"]
    assert sorted({row["step"] for row in rows}) == [0, 1, 2, 4]
    assert all(row["estimate"] == 0 for row in rows if row["step"] == 0)
    assert max(abs(row["estimate"]) for row in rows if row["step"] == 4) > 1e-4
    assert [row["step"] for row in measured.state.log_history if "gain" in row] == [0, 1, 2, 4]


def _blocks() -> Iterator[str]:
    """The Python blocks of the page."""
    return iter(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own default, under the old name
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")  # the documented run has the trainer's defaults
def test_the_code_of_the_documentation_runs(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    """Both blocks, in order, with a tiny model in the place of the real one and fewer resamples."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    replaced = {
        "REAL_MODEL": str(llama),
        "ABSTRACTS": str(shared_data / "pubmed" / "abstracts.jsonl.gz"),
        "PROBES": str(shared_data / "probes" / "rewrites" / "pubmed.jsonl.gz"),
    }
    ran = 0
    for block in _blocks():
        code = block
        for name, value in replaced.items():
            code = re.sub(rf'^{name} = ".*"$', f"{name} = {value!r}", code, flags=re.MULTILINE)
        exec(compile(code, str(PAGE), "exec"), names)
        ran += 1
    assert ran >= 2
    assert (tmp_path / "runs" / "curve" / "curve.csv").is_file()
