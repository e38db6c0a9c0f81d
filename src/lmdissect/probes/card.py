"""Dataset card of a probe set: the header by which the hub and `datasets` find its splits, and what a reader must know before using it.

Everything that comes from outside (names, sources, licences) is put on one line and escaped: a card is shown as HTML.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.language import identify_language
from lmdissect.plain_yaml import dump_yaml
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.records import ProbeSet
from lmdissect.store import fingerprint, write_text

__all__ = ["REPOSITORY_PLACEHOLDER", "hide_folders", "write_card"]

REPOSITORY_PLACEHOLDER = "PATH_OR_REPOSITORY"
"""Stands in the examples of a card for wherever the reader has the set."""

_HUB_LICENCES = frozenset(
    re.findall(
        r"\S+",
        """
        afl-3.0 agpl-3.0 apache-2.0 bsd-2-clause bsd-3-clause c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
        cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
        cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 etalab-2.0 gfdl gpl-3.0 lgpl-3.0 mit odbl odc-by pddl unlicense
        """,
    )
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_LARGEST = "10M<n<100M"
_PATH_BEGIN = r"""
    (?<![\w.~%/\\:-])/+                                  # /home
    | (?<![^\s"'(\[]-)(?<=-)/+(?=\w[\w.-]*/)             # -/srv/ann, and no pre-/post-test
    | (?<=[%\u0080-\U0010ffff-])/+(?=(?:home|Users|root)/)  # %/home/ann, and no 5 %/year; é/home/ann, and no données/a
    | (?<=:)/(?![/])                                     # model:/home, and no http://host
    | (?i:\bfile:)/+                                     # file:///home
    | (?<![\w.~%/\\-])(?:[\w.-]+[/\\])*?\.\.[/\\]+       # ../../home, runs/../../home
    | (?<![\w.~%/\\-])~[\w.-]*[/\\]+                    # ~/probes, ~ann/probes
    | (?<![\w/\\])[A-Za-z]:[/\\]+(?!/)                   # C:\Users
    | (?<![\w.~%/\\:-])\\\\                              # \\server\share
"""
# A folder may hold spaces, but one that ends in a space, an opening bracket or a quote is the text before the next path.
_PATH_FOLDER = r"""(?![\s/\\])[^/\\\r\n]*(?<![\s"'`(\[{<=,;:+])[/\\]+(?=[^\s/\\"'`)\]}>,;])"""
_FOLDERS = re.compile(rf"(?:{_PATH_BEGIN})(?:{_PATH_FOLDER})+", re.VERBOSE)
_SHOWN_RULES = 3
_HASH_CHARS = 16
_LANGUAGE_TEXTS, _LANGUAGE_CHARS, _LANGUAGE_SHARE = 40, 400, 0.9
_MIN_LANGUAGE_CHARS = 1_000


def write_card(path: Path, probe_set: ProbeSet, splits: Mapping[str, str], files: Mapping[str, str], *, audited: bool) -> None:
    """Write the README.md of a probe set.

    Args:
        path: The card.
        probe_set: The set, with the texts that an audit rejected.
        splits: Split name of every variant, in order, the original first.
        files: Hash of every file of the set. Where one changes, so does the header: `datasets` keeps what it read from a folder under a hash of the header and
            the file names, and would go on showing the texts of an earlier audit.
        audited: Whether `accepted/` holds the texts that an audit accepted.
    """
    header = dump_yaml(_header(probe_set, splits, fingerprint(dict(files))[:_HASH_CHARS], audited=audited))
    body = "\n".join(_body(probe_set, splits, audited=audited))
    write_text(path, f"---\n{header}---\n{body}\n")


def hide_folders(source: str) -> str:
    """``source`` with absolute paths, and those that lead upwards, cut to the file's name: where a file lay on its maker's machine is nobody's business.

    Paths are known anywhere in a sentence: in quotes and brackets, after ``file://`` or ``name=``, with spaces in their folders. Where it cannot be told
    whether a word belongs to a folder, it goes too.
    """
    return _FOLDERS.sub("", source)


def _header(probe_set: ProbeSet, splits: Mapping[str, str], contents: str, *, audited: bool) -> dict[str, Any]:
    language = _language(probe_set)
    return {
        "pretty_name": "lmdissect probe set",
        **_licence_fields(probe_set.licence),
        **({"language": [language]} if language else {}),
        "task_categories": ["text-generation"],
        "tags": ["lmdissect", "probe-set", "controlled-rewrites", "synthetic", *(["audited"] if audited else [])],
        "size_categories": [_size(len(probe_set.texts))],
        "configs": _configs(splits, _loadable(probe_set, splits, audited=audited), contents, audited=audited),
    }


def _licence_fields(licence: str | None) -> dict[str, str]:
    """Licence as the hub knows it: an identifier of its list, ``other`` for any other words (they stand in the card), ``unknown``."""
    if licence is None:
        return {"license": "unknown"}
    if licence.strip().lower() in _HUB_LICENCES:
        return {"license": licence.strip().lower()}
    return {"license": "other", "license_name": "see-card"}


def _size(num_rows: int) -> str:
    return next((name for limit, name in _SIZES if num_rows < limit), _LARGEST)


def _language(probe_set: ProbeSet) -> str | None:
    """ISO 639-1 code that nine in ten of the first originals are detected as; None where they are mixed or too short to tell."""
    originals = [text.text[:_LANGUAGE_CHARS] for text in probe_set.texts if text.variant == ORIGINAL][:_LANGUAGE_TEXTS]
    if sum(map(len, originals)) < _MIN_LANGUAGE_CHARS:
        return None
    [(code, count)] = Counter(identify_language(text)[0] for text in originals).most_common(1)
    return code if count >= _LANGUAGE_SHARE * len(originals) else None


def _loadable(probe_set: ProbeSet, splits: Mapping[str, str], *, audited: bool) -> dict[str, str]:
    """Splits without those of which the audit accepted no text: `datasets` fails on a Parquet file without rows, and on everything beside it."""
    return {variant: split for variant, split in splits.items() if not (audited and probe_set.audits.get(variant, {}).get("num_accepted") == 0)}


def _configs(splits: Mapping[str, str], loadable: Mapping[str, str], contents: str, *, audited: bool) -> list[dict[str, Any]]:
    """``default``: all splits (accepted texts, once audited); ``all``: everything as written, once audited; and each variant beside its original."""
    place = "accepted" if audited else "data"
    configs = [_config("default", loadable.values(), place, contents)]
    configs += [_config("all", splits.values(), "data", contents)] if audited else []
    for variant, split in loadable.items():
        if variant != ORIGINAL:
            names = [*([splits[ORIGINAL]] if ORIGINAL in splits else []), split]
            configs.append(_config(_config_name(split), names, place, contents))
    return configs


def _config_name(split: str) -> str:
    return f"{split}_only" if split.casefold() == "default" else split


def _config(name: str, splits: Iterable[str], place: str, contents: str) -> dict[str, Any]:
    files = [{"split": split, "path": f"{place}/{split}.parquet"} for split in splits]
    return {"config_name": name, "description": f"contents {contents}", "data_files": files}


def _body(probe_set: ProbeSet, splits: Mapping[str, str], *, audited: bool) -> Iterator[str]:
    yield "# Probe set"
    yield ""
    yield (
        "Original texts, and rewrites of them in which one factor (topic, style, facts) was changed and the rest was to stay. Made to measure with"
        " `lmdissect` what finetuning changed in a language model. Pair texts by `document_id`, never by row number."
    )
    yield ""
    yield from _splits_table(probe_set, splits)
    yield ""
    yield from _audit_part(probe_set, splits) if audited else _no_audit_part()
    yield ""
    yield from _usage(_loadable(probe_set, splits, audited=audited), audited=audited)
    yield ""
    yield from _provenance(probe_set, splits)
    yield ""
    yield from _licence_part(probe_set.licence)
    yield ""
    yield from _limits(probe_set, audited=audited)


def _splits_table(probe_set: ProbeSet, splits: Mapping[str, str]) -> Iterator[str]:
    table = probe_set.by_variant()
    yield "| split | variant | factor changed | texts written | written by |"
    yield "|---|---|---|---:|---|"
    for variant, split in splits.items():
        factor = "(reference)" if variant == ORIGINAL else _factor(probe_set, variant)
        generator = hide_folders(probe_set.generators.get(variant, "not recorded"))
        yield f"| {_cell(split)} | {_cell(variant)} | {_cell(factor)} | {len(table.get(variant, {}))} | {_cell(generator)} |"


def _factor(probe_set: ProbeSet, variant: str) -> str:
    factor = probe_set.factors.get(variant, "unknown")
    return "none (control)" if factor == CONTROL else factor


def _audit_part(probe_set: ProbeSet, splits: Mapping[str, str]) -> Iterator[str]:
    yield "## Audit"
    yield ""
    yield (
        "Every rewrite was checked by a program for whether its factor changed and the rest stayed. Rejected texts are not in the default configuration;"
        " `audit.parquet` has each verdict with its reasons and measurements, `probes.yaml` the rules."
    )
    yield ""
    yield "| variant | accepted | of | share | most frequent reasons for rejection (texts) | not checked |"
    yield "|---|---:|---:|---:|---|---|"
    for variant in splits:
        if variant in probe_set.audits:
            yield _audit_row(variant, probe_set.audits[variant])


def _audit_row(variant: str, audit: Mapping[str, Any]) -> str:
    rate = audit.get("acceptance_rate")
    share = f"{100 * rate:.1f}\u00a0%" if isinstance(rate, (int, float)) else "-"
    rules = audit.get("rejected_by_rule")
    counts = (
        sorted(((name, count) for name, count in rules.items() if count), key=lambda rule: (-rule[1], rule[0])) if isinstance(rules, Mapping) else []
    )
    reasons = ", ".join(f"{name} ({count})" for name, count in counts[:_SHOWN_RULES]) or "-"
    more = f" and {len(counts) - _SHOWN_RULES} more" if len(counts) > _SHOWN_RULES else ""
    unmeasured = audit.get("not_measured")
    not_checked = ", ".join(map(str, unmeasured)) if isinstance(unmeasured, (list, tuple)) and unmeasured else "-"
    cells = (variant, audit.get("num_accepted", "-"), audit.get("num_texts", "-"), share, f"{reasons}{more}", not_checked)
    return f"| {' | '.join(_cell(str(cell)) for cell in cells)} |"


def _no_audit_part() -> Iterator[str]:
    yield "## Audit"
    yield ""
    yield "**Not audited.** Nobody checked that only the named factor changed. `lmdissect audit` does, and keeps the outcome here."


def _usage(splits: Mapping[str, str], *, audited: bool) -> Iterator[str]:
    names = [_config_name(split) for variant, split in splits.items() if variant != ORIGINAL]
    yield "## How to load it"
    yield ""
    yield "```python"
    yield "import datasets"
    yield ""
    yield f'probes = datasets.load_dataset("{REPOSITORY_PLACEHOLDER}")' + ("  # texts that the audit accepted" if audited else "")
    if audited:
        yield f'written = datasets.load_dataset("{REPOSITORY_PLACEHOLDER}", "all")  # every text as it was written'
    if names:
        yield f'pair = datasets.load_dataset("{REPOSITORY_PLACEHOLDER}", "{names[0]}")  # one variant beside its originals'
    yield "```"
    yield ""
    yield "```"
    yield f"lmdissect probes pull {REPOSITORY_PLACEHOLDER} --out probes"
    yield "lmdissect compare --base BASE_MODEL --tuned TUNED_MODEL --probes probes --out comparison"
    yield "```"


def _provenance(probe_set: ProbeSet, splits: Mapping[str, str]) -> Iterator[str]:
    yield "## Where it comes from"
    yield ""
    fingerprint = probe_fingerprint(probe_set)[:_HASH_CHARS]
    yield f"Read from: {_cell(hide_folders(probe_set.source))}. Fingerprint of texts, pairing and factors: `{fingerprint}`. All hashes in full: `probes.yaml`."
    hashed = [variant for variant in splits if variant in probe_set.prompt_hashes or variant in probe_set.instruction_hashes]
    if hashed:
        yield ""
        yield "Variants with the same writer and the same prompt frame as the control differ from it by their instruction alone. Hashes of both:"
        yield ""
        for variant in hashed:
            frame, instruction = (
                known[variant][:_HASH_CHARS] if variant in known else "not recorded"
                for known in (probe_set.prompt_hashes, probe_set.instruction_hashes)
            )
            yield f"- {_cell(variant)}: prompt frame {_cell(frame)}, instruction {_cell(instruction)}"


def _licence_part(licence: str | None) -> Iterator[str]:
    yield "## Licence"
    yield ""
    if licence is None:
        yield "Not stated. Originals stay under the terms of whoever published them; ask before you pass the texts on."
    else:
        yield f"{_cell(licence)}"


def _limits(probe_set: ProbeSet, *, audited: bool) -> Iterator[str]:
    yield "## Known limits"
    yield ""
    yield "- Variants were written by language models unless the table above says otherwise: they carry their writer's fingerprint besides the factor."
    if CONTROL in probe_set.factors.values():
        yield "- The control (a paraphrase) shows how much rewriting alone does, for variants of the same writer and prompt frame; read shifts net of it."
    else:
        yield "- There is no control (a paraphrase that changes nothing), so what rewriting alone does cannot be told from the change of a factor."
    yield "- Counterfactual texts are false on purpose. Do not train on them as if they were true, and quote none as a fact."
    if audited:
        yield "- The audit is a program: it misses errors and rejects good texts. Its rates say what it did, not how good the texts are."
    yield "- A text that stood in a model's training data tells less: `lmdissect probes check --corpus` looks for it."


def _cell(text: str) -> str:
    """``text`` on one line, such that it cannot break the table or become markup."""
    known = "".join(character if character.isprintable() or character.isspace() else "\ufffd" for character in text)
    plain = "\u00a0".join(" ".join(part.split()) for part in known.split("\u00a0"))
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>|#!~$&" else character for character in plain)
