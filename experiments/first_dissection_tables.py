"""The tables of docs/studies/first-dissection.md, as Markdown on standard output, from the folders that first-dissection.sh makes.

python experiments/first_dissection_tables.py runs/first-dissection
"""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RUNS = ("full", "lora8")
SETS = ("published", "pubmed", "c4")
CONTROL = "paraphrase"


def read_rows(folder: Path, table: str) -> list[dict[str, str]]:
    """One table of a comparison."""
    with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def cell(row: dict[str, str] | None, digits: int = 3, *, starred: bool = False) -> str:
    """Estimate with interval; a star where the Holm-adjusted p is below 0.05."""
    if row is None:
        return "-"
    numbers = [float(row[name]) for name in ("estimate", "ci_low", "ci_high")]
    star = "*" if starred and float(row["p_holm"]) < 0.05 else ""
    return f"{numbers[0]:+.{digits}f} [{numbers[1]:+.{digits}f}, {numbers[2]:+.{digits}f}]{star}"


def training(out: Path) -> str:
    """Every finetuning run: rate and held-out loss."""
    rows = []
    for folder in [*sorted(out.glob("rate-*")), *(out / name for name in RUNS)]:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        details, counts = manifest["details"], manifest["counts"]
        losses = [f"{details[f'held_out_loss_{when}_nats']:.4f}" for when in ("before", "after")]
        rows.append([folder.name, f"{counts['documents']}", f"{details['num_steps']}", f"{details['learning_rate']:g}", *losses])
    return markdown(["run", "abstracts", "steps", "peak rate", "held-out loss before", "after"], rows)


def shifts(out: Path, probes: str) -> str:
    """Shift of every variant under both runs, against the original and net of the control, and the gain on the originals."""
    tables = {
        run: {(row["variant"], row["reference"], row["normalization"]): row for row in read_rows(out / f"{run}-{probes}", "shifts")} for run in RUNS
    }
    gains = {run: {(row["variant"], row["normalization"]): row for row in read_rows(out / f"{run}-{probes}", "gains")} for run in RUNS}
    variants = dict.fromkeys(variant for variant, _, _ in tables[RUNS[0]])
    rows = []
    for variant in variants:
        found = [tables[run].get((variant, reference, "token")) for run in RUNS for reference in ("original", "control")]
        first = found[0]
        rows.append([variant, first["num_documents"] if first else "-", *(cell(row, starred=True) for row in found)])
    rows.append(["*gain on originals*", gains[RUNS[0]]["original", "token"]["num_documents"]])
    for run in RUNS:
        rows[-1] += [cell(gains[run]["original", "token"]), ""]
    return markdown(["variant", "n", *(f"{run}, {name}" for run in RUNS for name in ("against original", "net of control"))], rows)


def losses(out: Path, probes: str) -> str:
    """Pooled losses per token under base and both tuned models."""
    tables = {run: {row["variant"]: row for row in read_rows(out / f"{run}-{probes}", "losses")} for run in RUNS}
    rows = [
        [
            variant,
            row["num_documents"],
            *(f"{float(value):.3f}" for value in (row["base_loss_nats"], *(tables[run][variant]["tuned_loss_nats"] for run in RUNS))),
        ]
        for variant, row in tables[RUNS[0]].items()
    ]
    return markdown(["text", "n", "base", *RUNS], rows)


def fact_tokens(out: Path, probes: str) -> str:
    """Shift on the changed words of the counterfactual, per token."""
    found = {run: [row for row in read_rows(out / f"{run}-{probes}", "fact_tokens") if row["statistic"] == "mean"] for run in RUNS}
    rows = []
    for first, *others in zip(*found.values(), strict=True):
        cells = [f"{cell(row)}, p {float(row['p_value']):.3f}" for row in (first, *others)]
        rows.append([first["selection"], first["num_documents"], first["num_original_tokens"], *cells])
    return markdown(["changed words", "n", "tokens", *RUNS], rows)


def position(out: Path, run: str, probes: str) -> str:
    """Gain and shifts by token position, all documents that reach the bin."""
    found = [row for row in read_rows(out / f"{run}-{probes}", "position") if row["document_set"] == "all"]
    variants = list(dict.fromkeys(row["variant"] for row in found))
    bins = list(dict.fromkeys((int(row["bin_start"]), int(row["bin_end"])) for row in found))
    table = {(row["variant"], int(row["bin_start"])): row for row in found}
    rows = []
    for start, end in sorted(bins):
        first = table[variants[0], start]
        gain = {"estimate": first["gain"], "ci_low": first["gain_ci_low"], "ci_high": first["gain_ci_high"]}
        name = f"{start}" if end == start + 1 else f"{start}-{end - 1}"
        rows.append([name, first["num_documents"], cell(gain, 2), *(cell(table.get((variant, start)), 2) for variant in variants)])
    return markdown(["position", "n", "gain on originals", *variants], rows)


def interactions(out: Path) -> str:
    """Whether topic and style move independently."""
    rows = [
        [run, probes, row["variant"], row["num_documents"], cell(row), f"{float(row['p_value']):.3f}"]
        for run in RUNS
        for probes in SETS
        for row in read_rows(out / f"{run}-{probes}", "interactions")
        if row["normalization"] == "token"
    ]
    return markdown(["run", "probes", "combination", "n", "interaction", "p"], rows)


def main() -> None:
    """Print every table with its title."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/first-dissection")
    print(f"## Training\n\n{training(out)}\n")
    for probes in SETS:
        print(f"## {probes}\n\n{shifts(out, probes)}\n\n{losses(out, probes)}\n\n{fact_tokens(out, probes)}\n")
    for run in RUNS:
        for probes in SETS:
            print(f"## By position: {run}, {probes}\n\n{position(out, run, probes)}\n")
    print(f"## Interactions\n\n{interactions(out)}")


if __name__ == "__main__":
    main()
