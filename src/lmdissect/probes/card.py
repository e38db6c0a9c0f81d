"""Dataset card of a probe set: the header that names the splits, and a table of what they are."""

from collections.abc import Mapping
from pathlib import Path

from lmdissect.factors import ORIGINAL
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.records import ProbeSet
from lmdissect.store import write_text

__all__ = ["write_card"]


def write_card(path: Path, probe_set: ProbeSet, splits: Mapping[str, str], *, audited: bool) -> None:
    """Write the README.md of a probe set.

    Args:
        path: The card.
        probe_set: The set.
        splits: Split name of every variant, in order.
        audited: Whether `accepted/` holds the texts that an audit accepted.
    """
    import yaml  # noqa: PLC0415 - only needed here

    place = "accepted" if audited else "data"
    data_files = [{"split": split, "path": f"{place}/{split}.parquet"} for split in splits.values()]
    header = {"pretty_name": "lmdissect probe set", "configs": [{"config_name": "default", "data_files": data_files}]}
    write_text(path, f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{_body(probe_set, splits)}")


def _body(probe_set: ProbeSet, splits: Mapping[str, str]) -> str:
    table = probe_set.by_variant()
    lines = [
        "# Probe set",
        "",
        "Originals, and rewrites of them in which one factor was changed, paired by `document_id`: pair by id, never by row number.",
        "",
        "| split | variant | factor | texts | written by |",
        "|---|---|---|---|---|",
    ]
    for variant, split in splits.items():
        factor = "(reference)" if variant == ORIGINAL else probe_set.factors.get(variant, "unknown")
        generator = _cell(probe_set.generators.get(variant, "unknown"))
        lines.append(f"| {split} | {_cell(variant)} | {_cell(factor)} | {len(table[variant])} | {generator} |")
    lines += [
        "",
        f"Read from: {_cell(probe_set.source)}. Fingerprint: `{probe_fingerprint(probe_set)}`.",
        f"{len(probe_set.rejected)} input records were set aside; `import_report.json` names each with its reason.",
        "Factors, prompts, generators and audits: `probes.yaml`.",
        "",
        "```python",
        "import datasets",
        "",
        'probes = datasets.load_dataset("THIS_FOLDER")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """``text`` on one line, such that it cannot break the table or become markup."""
    plain = " ".join(text.split())
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>|#!" else character for character in plain)
