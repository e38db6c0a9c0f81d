"""`lmdissect audit`: did every variant change its factor and keep the rest?"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmdissect.cli import options
from lmdissect.errors import UserInputError

if TYPE_CHECKING:
    from lmdissect.audit import Judge
    from lmdissect.interrupts import StopRequest
    from lmdissect.records import AuditResult, ProbeSet

__all__ = ["EXAMPLE", "acceptance_lines", "run"]

EXAMPLE = "Example: lmdissect audit runs/probes --fail-under 0.8"

_SHOWN_RULES = 4
_JUDGE_TOKENS = 600  # a verdict is one short JSON object


def _print_measures(value: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if value:
        from lmdissect.audit import MEASURES

        for name, meaning in MEASURES.items():
            typer.echo(f"{name}\t{meaning}")
        raise typer.Exit


def run(
    source: Annotated[str, typer.Argument(metavar="PROBES", help="Probe set in any form; into a folder of ours the outcome is written.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the set and the outcome to this folder.")] = None,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipes", metavar="FILE", help="Your own recipes; one with an 'audit:' list sets its variant's rules.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="FILE", help="Rules by factor and variant (YAML). [default: the built-in ones]")
    ] = None,
    similarity: options.Similarity = options.DEFAULT_SIMILARITY,
    device: options.Device = "auto",
    factor: options.Factors = None,
    control: options.Control = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    show: Annotated[int, typer.Option("--show", metavar="N", min=0, help="Rejected texts to list for each variant.")] = 3,
    fail_under: Annotated[
        float | None, typer.Option("--fail-under", metavar="RATE", min=0.0, max=1.0, help="Exit with 1 if a variant's acceptance rate is lower.")
    ] = None,
    threads: options.Threads = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", metavar="M", help="Ask this model of an OpenAI-compatible server for an opinion on every pair.")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option("--judge-url", metavar="URL", help="Its server, up to /v1. [default: https://api.openai.com/v1]")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds its key; it is read from nowhere else.")
    ] = "OPENAI_API_KEY",
    judge_ledger: Annotated[
        Path | None,
        typer.Option("--judge-ledger", metavar="DIR", help="Folder that keeps its answers. [default: the probe folder's name with -judge]"),
    ] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Stop before the judge costs more.")] = None,
    price: options.Price = None,
    *,
    measures: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--measures", callback=_print_measures, is_eager=True, help="List the measures that rules may bound, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    strict: options.Strict = False,
) -> None:
    """Check every variant of a probe set against its original, and accept or reject it with reasons."""
    from lmdissect.audit import read_rules
    from lmdissect.interrupts import listen_for_interrupt
    from lmdissect.pipeline.auditing import AuditRequest, audit_folder, audit_probes
    from lmdissect.probes import limit_documents
    from lmdissect.progress import choose_progress
    from lmdissect.recipes import read_recipes

    book = read_rules(rules) if rules is not None else None
    known = read_recipes(recipes or ())
    probe_set = limit_documents(_read_all(source, factor=factor, control=control, strict=strict), limit, seed)
    target = _target(source, out, limit)
    options.use_threads(threads)
    with listen_for_interrupt() as stop:
        judge, judge_name = _judge(judge_model, judge_url, api_key_env, _judge_folder(judge_ledger, target, judge_model), max_cost, price, stop)
        request = AuditRequest(rules=book, recipes=known, similarity=similarity, device=device, judge=judge, judge_name=judge_name)
        if target is None:
            outcome = audit_probes(probe_set, request, progress=choose_progress(), stop=stop)
        else:
            if out is not None:
                _write_set(probe_set, out)
            outcome = audit_folder(probe_set, target, request, progress=choose_progress(), stop=stop)
    if as_json:
        typer.echo(json.dumps(_as_json(outcome), indent=2, ensure_ascii=False))
    else:
        for line in _lines(probe_set, outcome, show):
            typer.echo(line)
        typer.echo(
            f"outcome written: {target}" if target is not None else "nothing written: give --out DIR, or audit a folder of ours without --limit"
        )
    low = {name: rate for name, rate in _rates(outcome).items() if fail_under is not None and rate < fail_under}
    if low:
        typer.echo(f"acceptance under {fail_under}: " + ", ".join(f"{options.printable(name)} {rate:.1%}" for name, rate in low.items()), err=True)
        raise typer.Exit(1)


def _read_all(source: str, *, factor: Sequence[str] | None, control: str | None, strict: bool) -> "ProbeSet":
    """The set with the texts that an earlier audit rejected: an audit starts anew."""
    from lmdissect.probes import read_probe_set

    given = options.parse_pairs("--factor", factor or [], "plain=style")
    probe_set = read_probe_set(source, factors=given, control=control, include_rejected=True)
    options.report_rejected(probe_set.rejected, strict=strict)
    return probe_set


def _target(source: str, out: Path | None, limit: int | None) -> Path | None:
    """Where the outcome goes: the folder asked for, the folder of ours that was read as a whole, or nowhere."""
    from lmdissect.probes import probe_folder

    if out is not None:
        return out
    return probe_folder(source) if limit is None else None


def _write_set(probe_set: "ProbeSet", folder: Path) -> None:
    from dataclasses import replace

    from lmdissect.probes import write_probe_set

    write_probe_set(replace(probe_set, audits={}), folder)


def _judge_folder(given: Path | None, target: Path | None, model: str | None) -> Path | None:
    """Where the judge's answers are kept: beside the probe folder, and not in it, because a probe folder is made to be passed on.

    Raises:
        UserInputError: There is a judge, and no place for its answers.
    """
    if model is None:
        return None
    if given is None and target is None:
        message = "--judge-model: say with --judge-ledger DIR where its answers are kept, so that none is paid for twice"
        raise UserInputError(message)
    return given if given is not None or target is None else target.with_name(f"{target.name}-judge")


def _judge(
    model: str | None, url: str | None, key_variable: str, folder: Path | None, max_cost_usd: float | None, price: str | None, stop: "StopRequest"
) -> "tuple[Judge | None, str | None]":
    """The judge that the options name, and what to record as it.

    Raises:
        UserInputError: There is a limit on costs, and the price is not known.
    """
    if model is None or folder is None:
        return None, None
    from lmdissect.pipeline.auditing import ask_judge
    from lmdissect.progress import choose_progress
    from lmdissect.rewrite import ChatEndpoint, RewriteConfig, generator_price

    config = options.build(RewriteConfig, temperature=0.0, structured="off", max_output_tokens=_JUDGE_TOKENS, max_cost_usd=max_cost_usd)
    endpoint = ChatEndpoint(model, base_url=url, key_variable=key_variable, temperature=config.temperature, structured="off")
    known = generator_price(endpoint, options.parse_price(price))
    if max_cost_usd is not None and known is None:
        message = f"--max-cost: the price of {model} at {endpoint.location} is not known; give it with --price INPUT,OUTPUT"
        raise UserInputError(message)
    return ask_judge(endpoint, config, folder, price=known, progress=choose_progress(), stop=stop), f"{model} at {endpoint.location}"


def _rates(outcome: "AuditResult") -> dict[str, float]:
    return {name: float(str(summary["acceptance_rate"])) for name, summary in outcome.summaries.items()}


def _as_json(outcome: "AuditResult") -> dict[str, Any]:
    rejected = [
        {"document_id": verdict.document_id, "variant": verdict.variant, "reasons": list(verdict.reasons)}
        for verdict in outcome.verdicts
        if not verdict.accepted
    ]
    return {"summaries": outcome.summaries, "rejected": rejected, "settings": outcome.settings}


def acceptance_lines(probe_set: "ProbeSet", outcome: "AuditResult") -> Iterator[str]:
    """How many texts of each variant were accepted, what was broken, and what could not be measured."""
    yield "variant\tfactor\ttexts\taccepted\trate\trejected by (texts may break several rules)"
    for name, summary in outcome.summaries.items():
        counts: Mapping[str, int] = summary["rejected_by_rule"]  # type: ignore[assignment] # JSON types
        listed = ", ".join(f"{measure} {count}" for measure, count in list(counts.items())[:_SHOWN_RULES]) or "-"
        more = f", and {len(counts) - _SHOWN_RULES} more rules" if len(counts) > _SHOWN_RULES else ""
        cells = (
            name,
            probe_set.factors.get(name, "-"),
            summary["num_texts"],
            summary["num_accepted"],
            f"{float(str(summary['acceptance_rate'])):.1%}",
        )
        yield "\t".join(options.printable(str(cell)) for cell in cells) + f"\t{listed}{more}"
    rules: Mapping[str, Sequence[object]] = outcome.settings["rules"]  # type: ignore[assignment] # JSON types
    for name in (name for name in outcome.summaries if not rules.get(name)):
        yield f"NO RULES for {options.printable(name)}: all its texts were accepted unseen; docs/audit.md says how to write some"
    for name, summary in outcome.summaries.items():
        if missing := summary["not_measured"]:
            yield f"NOT MEASURED for {options.printable(name)}: {', '.join(missing)}; texts are accepted without these rules"  # type: ignore[arg-type] # JSON types


def _lines(probe_set: "ProbeSet", outcome: "AuditResult", show: int) -> Iterator[str]:
    yield from acceptance_lines(probe_set, outcome)
    for name in outcome.summaries:
        rejected = [verdict for verdict in outcome.verdicts if verdict.variant == name and not verdict.accepted]
        for verdict in rejected[:show]:
            yield options.printable(f"rejected {name} {verdict.document_id}: {'; '.join(verdict.reasons)}")
        if len(rejected) > show > 0:
            yield options.printable(f"and {len(rejected) - show} more of {name} (--show N, or --json for all)")
