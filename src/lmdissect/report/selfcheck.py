"""What a reader needs to trust the numbers or to doubt them: checks, models, settings, counts, and what was left out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdissect.factors import CONTROL
from lmdissect.report.content import ReportContent
from lmdissect.report.findings import factor_noun
from lmdissect.wording import format_count, format_plain

__all__ = ["MOST_NAMED", "Check", "LeftOut", "SelfCheck", "check_content", "failed_sentence", "list_facts"]

MOST_NAMED = 20
"""Records that are named, of each kind that was left out."""

_SCORING_FACTS = ("probes", "generators", "control", "bos", "max_tokens", "tokenizers_equal")
_HASH_CHARS = 12
_SHA256_CHARS = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One check that the shift stage made."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One kind of record that was left out.

    Attributes:
        title: What they are.
        num_records: How many.
        reasons: (reason, count), most frequent first.
        named: (record, reason) of the first of them.
    """

    title: str
    num_records: int
    reasons: Sequence[tuple[str, int]]
    named: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The self-check box.

    Attributes:
        checks: In the stage's order.
        left_out: Records set aside while reading, texts that took no part, rows that could not be computed.
        facts: Titles with lists of (name, value): models, settings, inputs, counts, versions.
    """

    checks: Sequence[Check]
    left_out: Sequence[LeftOut]
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]]


def check_content(content: ReportContent) -> SelfCheck:
    """Collect the box from the manifest."""
    details, manifest = content.details, content.manifest
    facts = [
        ("Base model", list_facts(details["base_model"])),
        ("Tuned model", list_facts(details["tuned_model"])),
        ("Probes and scoring", list_facts({name: details.get(name) for name in _SCORING_FACTS})),
        ("Variants", _describe_variants(content)),
        ("Audit: rules broken", _broken_rules(details.get("audits", {}))),
        ("Statistics", list_facts(manifest.config)),
        ("Counts", list_facts(manifest.counts)),
        ("Versions", list_facts(manifest.versions)),
        ("Shift tables", [*_input_hashes(manifest.inputs), ("key", _short(manifest.key)), ("finished", manifest.finished_at)]),
    ]
    return SelfCheck(
        checks=[Check(name, bool(check["passed"]), str(check["text"])) for name, check in details.get("checks", {}).items()],
        left_out=_list_left_out(content),
        facts=[(title, rows) for title, rows in facts if rows],
    )


def _list_left_out(content: ReportContent) -> list[LeftOut]:
    details = content.details
    rejected = [(f"{source}, {record}", str(reason)) for source, record, reason in details.get("rejected", [])]
    dropped = [(f"{entry['document_id']}, {entry['variant']}", str(entry["reason"])) for entry in details["dropped"]]
    unavailable = [(_row_name(entry), str(entry["reason"])) for entry in details["unavailable"]]
    return [
        _leave_out("Records set aside while the probes were read", rejected, len(rejected)),
        _leave_out("Texts that took no part", dropped, int(details["num_dropped"])),
        _leave_out("Rows that could not be computed", unavailable, len(unavailable), most_named=len(unavailable)),
    ]


def _leave_out(title: str, records: Sequence[tuple[str, str]], num_records: int, most_named: int = MOST_NAMED) -> LeftOut:
    reasons = Counter(reason for _, reason in records).most_common()
    return LeftOut(title, num_records, reasons if len(reasons) < len(records) else (), records[:most_named])


def _row_name(entry: Mapping[str, Any]) -> str:
    return f"{entry['table']}, {entry['variant']}, {entry['reference']}, {entry['normalization']}"


def _describe_variants(content: ReportContent) -> list[tuple[str, str]]:
    rows = []
    for variant in content.variants:
        facts = content.details["variants"][variant.name]
        parts = [factor_noun(variant.factor), format_count(variant.num_documents, "document")]
        if variant.kept_words is not None:
            parts.append(f"keeps {format_plain(100 * variant.kept_words, 0)} % of the original\u2019s words")
        if facts.get("num_truncated"):
            parts.append(f"{facts['num_truncated']:,} cut by the token limit")
        if variant.name != content.control:
            parts.append("headline net of the control" if variant.headline_reference == CONTROL else "headline against the original")
        if variant.writer_match is not None:
            parts.append(f"writer against the control\u2019s: {variant.writer_match}")
        rows.append((variant.name, "; ".join(parts)))
    return rows


def _broken_rules(audits: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Per variant the rules that its rejected texts broke, most first, and those that could not be applied."""
    rows = []
    for variant, summary in audits.items():
        broken = sorted(dict(summary.get("rejected_by_rule", {})).items(), key=lambda entry: (-entry[1], entry[0]))
        parts = [f"{count} x {rule.replace('_', ' ')}" for rule, count in broken if count]
        if missing := summary.get("not_measured"):
            parts.append(f"not measured: {', '.join(name.replace('_', ' ') for name in missing)}")
        rows.append((variant, "; ".join(parts) or "none"))
    return rows


def failed_sentence(checks: Sequence[Check]) -> str:
    """One line for the top of the report where a check failed; empty where all passed."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return ""
    return f"{format_count(len(failed), 'self-check')} of {len(checks)} failed. {' '.join(f'{check.name}: {check.text}.' for check in failed)}"


def list_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested mappings as flat (name, value) pairs; hashes are cut, empty values left out."""
    return list(_walk(facts, ""))


def _walk(facts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _walk(value, f"{label}, ")
        elif isinstance(value, (list, tuple)):
            if value:
                yield label, ", ".join(_short(str(entry)) for entry in value)
        elif value is not None and value != "":
            yield label.replace("num ", "number of "), _print_fact(value, is_count=name.startswith("num_"))


def _print_fact(value: object, *, is_count: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if is_count and isinstance(value, int) else _short(str(value))


def _input_hashes(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _short(value)) for name, value in inputs.items() if isinstance(value, str)]


def _short(text: str) -> str:
    """A SHA-256 by its first characters; anything else as it is."""
    is_hash = len(text) == _SHA256_CHARS and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_HASH_CHARS]}\u2026" if is_hash else text
