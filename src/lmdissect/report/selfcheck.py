"""What a reader needs to trust the numbers or to doubt them: checks, models, settings, counts, and what was left out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdissect.report.content import ReportContent
from lmdissect.report.numbers import format_count

__all__ = ["MOST_NAMED", "Check", "SelfCheck", "check_content", "failed_sentence", "list_facts"]

MOST_NAMED = 20
"""Dropped documents that are named."""

_TOLD_ELSEWHERE = frozenset({"variants", "dropped", "unavailable", "checks", "level"})
_HASH_CHARS = 12
_SHA256_CHARS = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One check that the shift stage made."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The self-check box.

    Attributes:
        checks: In the stage's order.
        facts: Titles with lists of (name, value): models, settings, inputs, counts, versions.
        num_dropped: Pairs that were set aside.
        dropped_reasons: (reason, count), most frequent first.
        dropped_named: The first of them: (variant, document, reason).
        unavailable: (row, reason).
    """

    checks: Sequence[Check]
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    num_dropped: int
    dropped_reasons: Sequence[tuple[str, int]]
    dropped_named: Sequence[tuple[str, str, str]]
    unavailable: Sequence[tuple[str, str]]


def check_content(content: ReportContent) -> SelfCheck:
    """Collect the box from the manifest."""
    details, manifest = content.details, content.manifest
    dropped = details.get("dropped", [])
    told = {name: value for name, value in details.items() if name not in _TOLD_ELSEWHERE}
    facts = [
        ("What was measured", list_facts(told)),
        ("Settings", list_facts(manifest.config)),
        ("Inputs", list_facts(manifest.inputs)),
        ("Counts", list_facts(manifest.counts)),
        ("Versions", list_facts(manifest.versions)),
        ("Shift tables", [("key", _short(manifest.key)), ("finished", manifest.finished_at), ("machine", str(manifest.machine.get("platform", "")))]),
    ]
    return SelfCheck(
        checks=_read_checks(details.get("checks", {})),
        facts=[(title, rows) for title, rows in facts if rows],
        num_dropped=int(details.get("num_dropped", len(dropped))),
        dropped_reasons=Counter(str(entry["reason"]) for entry in dropped).most_common(),
        dropped_named=[(str(entry["variant"]), str(entry["document_id"]), str(entry["reason"])) for entry in dropped[:MOST_NAMED]],
        unavailable=[(_row_name(entry), str(entry["reason"])) for entry in details.get("unavailable", [])],
    )


def _read_checks(checks: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    return [Check(name.replace("_", " "), bool(check["passed"]), str(check["text"])) for name, check in checks.items()]


def failed_sentence(checks: Sequence[Check]) -> str:
    """One line for the top of the report where a check failed; empty where all passed."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return ""
    return f"{format_count(len(failed), 'self-check')} of {len(checks)} failed: {' '.join(f'{check.name}: {check.text}' for check in failed)}"


def list_facts(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as flat (name, value) pairs; hashes are cut, empty values left out."""
    return list(_walk(facts, prefix))


def _walk(facts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{name}, ")
        elif isinstance(value, (list, tuple)):
            if value:
                yield label, ", ".join(_short(str(entry)) for entry in value)
        elif value is not None and value != "":
            yield label, f"{value:,}" if name.startswith("num_") and isinstance(value, int) else _printed(value)


def _printed(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _short(str(value))


def _short(text: str) -> str:
    """A SHA-256 by its first characters; anything else as it is."""
    is_hash = len(text) == _SHA256_CHARS and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_HASH_CHARS]}\u2026" if is_hash else text


def _row_name(entry: Mapping[str, Any]) -> str:
    named = [str(entry[name]) for name in ("variant", "reference", "normalization") if entry.get(name)]
    return f"{entry.get('table', 'row')}: {', '.join(named)}"
