"""The tables of docs/studies/what-finetuning-changes.md, as Markdown on standard output, from one study of the small experiments.

    lmdissect study runs/small-data_size runs/small-mixing runs/small-capacity --out runs/small-study
    python experiments/small_study_tables.py runs/small-study

Numbers are nats per token with 95 % intervals, in the reference that the study reads first (net of the control, or against the original); a star marks a
Holm-adjusted p below 0.05.
"""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, str]

ALPHA = 0.05
EARLY_BINS = 9
REFERENCES = {"control": "net", "original": "raw"}


def read_rows(study: Path, table: str) -> list[dict[str, str]]:
    """One table of the study."""
    with (study / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def cell(row: Row | None, digits: int = 3) -> str:
    """Estimate with interval; a star where the Holm-adjusted p is below 0.05."""
    if row is None:
        return "-"
    low, high = (float(row[name]) for name in ("ci_low", "ci_high"))
    star = "*" if row.get("p_holm") and float(row["p_holm"]) < ALPHA and not low <= 0.0 <= high else ""
    return f"{float(row['estimate']):+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{star}"


def is_read_first(row: Row) -> bool:
    """Whether a row is per token, and of the reference of its variant that is read first; controls have but one."""
    return row["normalization"] == "token" and (row["statistic"] == "gain" or row["is_headline"] == "true" or row["factor"] == "control")


def title(row: Row) -> str:
    """Column of a shift: its variant, and what it is against; of facts on the changed words, that."""
    return f"{row['variant']}, {'changed words' if row.get('selection') == 'changed' else REFERENCES[row['reference']]}"


def curve(study: Path, experiment: str, axis: str, probes: str) -> str:
    """Gain on the originals and every variant's shift along an axis; last row: the change from the first number to the last, document by document."""
    found = [row for row in read_rows(study, "curves") if (row["experiment"], row["axis"], row["probes"]) == (experiment, axis, probes)]
    found = [row for row in found if is_read_first(row)]
    shifts = {title(row): row for row in found if row["statistic"] == "shift"}
    lines = []
    for x_label in dict.fromkeys(row["x_label"] for row in sorted(found, key=lambda row: float(row["x"] or "inf"))):
        here = [row for row in found if row["x_label"] == x_label]
        gain = next((row for row in here if row["variant"] == "original"), None)
        cells = {title(row): cell(row) for row in here if row["statistic"] == "shift"}
        counts = f"{gain['num_documents']} x {gain['num_seeds']}" if gain else "-"
        lines.append([x_label, counts, cell(gain), *(cells.get(name, "-") for name in shifts)])
    wanted = {(row["variant"], row["reference"], row["selection"]): name for name, row in shifts.items()}
    changes = {
        wanted[key]: cell(row)
        for row in read_rows(study, "changes")
        if (row["experiment"], row["axis"], row["probes"], row["normalization"]) == (experiment, axis, probes, "token")
        and (key := (row["variant"], row["reference"], row["selection"])) in wanted
    }
    lines.append(["*change*", "", "", *(changes.get(name, "-") for name in shifts)])
    return markdown([axis.rpartition(".")[2], "n x seeds", "gain on originals", *shifts], lines)


def seeds(study: Path, experiment: str, axis: str) -> str:
    """Least and greatest of the training seeds, for the gain and every variant, at each point."""
    fields = {(row["experiment"], row["point"]): json.loads(row["fields"]).get(axis) for row in read_rows(study, "runs")}
    headline = {
        (row["probes"], row["variant"], row["reference"])
        for row in read_rows(study, "estimates")
        if row["experiment"] == experiment and is_read_first(row)
    }
    table: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in read_rows(study, "seeds"):
        if row["experiment"] != experiment or row["normalization"] != "token" or (row["statistic"] == "gain" and row["variant"] != "original"):
            continue
        if row["statistic"] == "shift" and (row["probes"], row["variant"], row["reference"]) not in headline:
            continue
        name = "gain on originals" if row["statistic"] == "gain" else title(row)
        x = str(fields[experiment, row["point"]])
        table.setdefault((row["probes"], name, ""), {}).setdefault(x, []).append(float(row["estimate"]))
    xs = list(dict.fromkeys(x for values in table.values() for x in values))
    lines = [
        [probes, name, *(f"{min(values[x]):+.3f} to {max(values[x]):+.3f}" if x in values else "-" for x in xs)]
        for (probes, name, _), values in table.items()
    ]
    return markdown(["probes", "number", *(f"{axis.rpartition('.')[2]} {x}" for x in xs)], lines)


def facts(study: Path) -> str:
    """Shift on the changed words, mean per token, at every point."""
    found = [row for row in read_rows(study, "facts") if row["statistic"] == "mean"]
    selections = list(dict.fromkeys(row["selection"] for row in found))
    places = dict.fromkeys((row["experiment"], row["point"], row["probes"]) for row in found)
    lines = []
    for place in places:
        here = {row["selection"]: row for row in found if (row["experiment"], row["point"], row["probes"]) == place}
        lines.append([*place, *(cell(here.get(selection)) for selection in selections)])
    return markdown(["experiment", "point", "probes", *selections], lines)


def position(study: Path, experiment: str, point: str, probes: str) -> str:
    """Gain and shifts against the original by token position, over all documents that reach the bin."""
    here = (experiment, point, probes, "all")
    found = [row for row in read_rows(study, "positions") if (row["experiment"], row["point"], row["probes"], row["document_set"]) == here]
    variants = list(dict.fromkeys(row["variant"] for row in found))
    lines = []
    for start in sorted({int(row["bin_start"]) for row in found})[:EARLY_BINS]:
        rows = {row["variant"]: row for row in found if int(row["bin_start"]) == start}
        first = next(iter(rows.values()))
        gain = {"estimate": first["gain"], "ci_low": first["gain_ci_low"], "ci_high": first["gain_ci_high"]}
        end = int(first["bin_end"] or 0)
        name = str(start) if end == start + 1 else f"{start}-{end - 1}" if end else f"{start}-"
        lines.append([name, first["num_documents"], cell(gain, 2), *(cell(rows.get(variant), 2) for variant in variants)])
    return markdown(["position", "n", "gain on originals", *variants], lines)


def statements(study: Path) -> str:
    """What the study says, with its verdicts."""
    return "\n".join(f"- *{row['analysis']}, {row['verdict']}*: {row['sentence']}" for row in read_rows(study, "statements"))


def main() -> None:
    """Print every table with its title."""
    study = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/small-study")
    rows = read_rows(study, "curves")
    for experiment, axis, probes in dict.fromkeys((row["experiment"], row["axis"], row["probes"]) for row in rows):
        print(f"## {experiment} along {axis}: {probes}\n\n{curve(study, experiment, axis, probes)}\n")
    for experiment, axis in dict.fromkeys((row["experiment"], row["axis"]) for row in rows if int(row["num_seeds"]) > 1):
        print(f"## {experiment}: least and greatest of the seeds\n\n{seeds(study, experiment, axis)}\n")
    print(f"## Changed words\n\n{facts(study)}\n")
    last = {(row["experiment"], row["probes"]): row["point"] for row in read_rows(study, "positions")}
    for (experiment, probes), point in last.items():
        print(f"## By position: {experiment}, {point}, {probes}\n\n{position(study, experiment, point, probes)}\n")
    print(f"## Statements\n\n{statements(study)}")


if __name__ == "__main__":
    main()
