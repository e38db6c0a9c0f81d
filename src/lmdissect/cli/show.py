"""`lmdissect show`: what a folder of ours holds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lmdissect.errors import UserInputError

_ALPHA = 0.05

EXAMPLE = "Example: lmdissect show runs/compare"


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Any folder made by this program.")],
    *,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Check every file against the manifest.")] = True,
) -> None:
    """Show what made a folder, what it holds, and whether its files are as they were written."""
    from lmdissect.store import read_artifact, read_manifest

    if not (folder / "manifest.json").is_file() and (folder / "probes.yaml").is_file():
        message = f"{folder} is a probe set: lmdissect probes show {folder}"
        raise UserInputError(message)
    manifest = read_manifest(folder)
    if verify:
        read_artifact(folder, manifest.stage)
    typer.echo(f"{folder}: {manifest.stage}, finished {manifest.finished_at} after {manifest.wall_s:.0f} s, key {manifest.key[:12]}")
    typer.echo("counts:   " + ", ".join(f"{name} {value}" for name, value in manifest.counts.items()))
    typer.echo("config:   " + ", ".join(f"{name} {value}" for name, value in manifest.config.items() if value is not None))
    typer.echo("versions: " + ", ".join(f"{name} {value}" for name, value in manifest.versions.items()))
    typer.echo("files:    " + ", ".join(manifest.files) + (" (verified)" if verify else ""))
    if manifest.details.get("held_out_loss_after_nats") is not None:
        before, after = manifest.details["held_out_loss_before_nats"], manifest.details["held_out_loss_after_nats"]
        typer.echo(f"held-out loss: {before:.4f} -> {after:.4f} nats/token")
    if manifest.stage == "shift":
        for line in shift_lines(folder):
            typer.echo(line)


def shift_lines(folder: Path) -> list[str]:
    """The shift table of a shift folder as plain text: per variant, shift against the original and net of the control."""
    from lmdissect.formats.shift_tables import read_shift_tables

    manifest, tables = read_shift_tables(folder)
    normalization = "token" if manifest.details["tokenizers_equal"] else "byte"
    level = round(100 * manifest.details["level"])
    rows = {(row["variant"], row["reference"]): row for row in tables["shifts"] if row["normalization"] == normalization}
    lines = [
        *_what_was_compared(manifest.details, manifest.counts),
        f"shift in nats per {normalization}, {level} % interval over documents; * Holm-adjusted p < 0.05",
        f"{'variant':<22}{'factor':<14}{'n':>5}  {'against original':<30}{'net of control':<30}",
    ]
    for variant, details in manifest.details["variants"].items():
        cells = [_cell(rows.get((variant, reference))) for reference in ("original", "control")]
        lines.append(f"{variant:<22}{details['factor']:<14}{details['num_documents']:>5}  {cells[0]:<30}{cells[1]:<30}".rstrip())
    gain = next((row for row in tables["gains"] if row["variant"] == "original" and row["normalization"] == normalization), None)
    lines += [f"gain on originals: {_cell(gain)}"] if gain else []
    lines += [
        f"facts on the words that {row['variant']} changes: {_cell(row)}, p {row['p_value']:.3f}"
        for row in tables["fact_tokens"]
        if (row["selection"], row["statistic"]) == ("changed", "mean")
    ]
    lines += _audit_lines(manifest.details.get("audits", {}))
    lines += [f"CHECK FAILED: {name}: {check['text']}" for name, check in manifest.details["checks"].items() if not check["passed"]]
    return lines


def _audit_lines(audits: dict[str, Any]) -> list[str]:
    rates = [f"{name} {audit['num_accepted']} of {audit['num_texts']}" for name, audit in audits.items() if "acceptance_rate" in audit]
    return [
        f"accepted by the audit: {', '.join(rates)}"
        if rates
        else "the variants were not audited: lmdissect audit checks that only the factor changed"
    ]


def _what_was_compared(details: dict[str, Any], counts: dict[str, int]) -> list[str]:
    left_out = f", {counts['dropped_texts']} texts left out (why: manifest.json)" if counts["dropped_texts"] else ""
    limit = "" if details["max_tokens"] is None else f", first {details['max_tokens']} tokens"
    return [
        f"base {details['base_model']['reference']}, tuned {details['tuned_model']['reference']}",
        f"probes {details['probes']}: {counts['documents']} documents{limit}{left_out}",
    ]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    star = "*" if row.get("p_holm", 1.0) < _ALPHA else ""
    return f"{row['estimate']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]{star}"
