"""Does the audit tell variants apart by what changed, and does it catch what is broken?

    python benchmarks/audit.py                 measure everything and write docs/benchmarks-audit.md (about twelve minutes on 2 quiet cores)
    python benchmarks/audit.py --fit           print the fitted bounds (from one half of the published documents) beside those of rules.yaml
    python benchmarks/audit.py --rejected      print every rejected genuine text of the measured half with its original, for reading

Bounds are fitted on one half of the published documents (split by a seeded hash of the id); every figure is from the other half. The two sets by another writer
are a second test, without refitting. Broken variants are made here, from a seed, from texts of the measured half. Numbers to alter are found by a pattern of
this script's own, not by the audit's.
"""

import argparse
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmdissect.audit import audit_probe_set, read_rules
from lmdissect.audit.measures import measure_pair
from lmdissect.audit.rules import RuleBook, broken_rules
from lmdissect.audit.similarity import SentenceVectors, embed_sentences
from lmdissect.audit.words import plain_text
from lmdissect.demo_texts import demo_text_path
from lmdissect.factors import ORIGINAL, VARIANT_FACTORS
from lmdissect.models.embedding import DEFAULT_EMBEDDER, load_embedder
from lmdissect.probes import read_probe_set
from lmdissect.progress import LineProgress
from lmdissect.records import ProbeSet
from lmdissect.store import seeded_rank

ROOT = Path(__file__).resolve().parent.parent
PROBES = ROOT.parent / "shared" / "data" / "probes"
OTHERS = {
    "rewrites, PubMed": PROBES / "rewrites" / "pubmed.jsonl.gz",
    "rewrites, C4": PROBES / "rewrites" / "c4.jsonl.gz",
    "demo, biomedical": demo_text_path("biomedical"),
    "demo, general": demo_text_path("general"),
}
PAGE = ROOT / "docs" / "benchmarks-audit.md"
SEED = 20
NUMBER = re.compile(r"(?<![\w.,/^+-])\d+(?:[.,]\d+)*(?=$|[\s%);:?!]|[.,](?:\s|$))")
NAME = re.compile(r"(?<=[a-z,] )(?:[A-Z][a-z]+(?:-[A-Z][a-z]+)?|[A-Z]{2,}[0-9]*)(?=[\s,.;)])")
MAX_ALTERED = 2
SPREADS = 3
Texts = Mapping[str, str]
Table = Mapping[str, Texts]


@dataclass(frozen=True)
class Fit:
    """One fitted bound: the quantile of the genuine texts of a variant at which it stands, or so many robust standard deviations from their median."""

    variant: str
    scope: str
    measure: str
    side: str
    share: float | None


FITS = (
    Fit("paraphrase", "factor", "frame_kept_share", "maximum", 0.01),
    Fit("paraphrase", "factor", "similarity", "minimum", 0.005),
    Fit("paraphrase", "factor", "informality_change", "minimum", None),
    Fit("paraphrase", "factor", "informality_change", "maximum", None),
    Fit("casual", "variant", "frame_kept_share", "maximum", 0.005),
    Fit("casual", "variant", "similarity", "minimum", 0.005),
    Fit("casual", "variant", "informality_change", "minimum", 0.02),
    Fit("counterfactual", "factor", "frame_kept_share", "minimum", 0.02),
    Fit("counterfactual", "factor", "similarity", "minimum", 0.01),
)


def published() -> ProbeSet:
    """The published set with its control."""
    return read_probe_set(str(PROBES / "pubmed_derived.json.gz"), control=str(PROBES / "pubmed_keyword.json.gz"))


def in_fit_half(document_id: str) -> bool:
    """Which half a document is in: a seeded hash of its id."""
    return int(seeded_rank(document_id, SEED, "audit half"), 16) % 2 == 0


def half(table: Table, *, fit: bool) -> dict[str, dict[str, str]]:
    """The texts of one half."""
    return {name: {key: text for key, text in column.items() if in_fit_half(key) == fit} for name, column in table.items()}


def measure_all(originals: Texts, variants: Texts, vectors: SentenceVectors) -> dict[str, dict[str, float]]:
    """Measures of every pair, by document."""
    return {key: measure_pair(originals[key], text, vectors=vectors) for key, text in variants.items() if key in originals}


def fitted_bounds(table: Table, vectors: SentenceVectors) -> dict[Fit, float]:
    """Each fit's bound: the quantile, or the median -+ 3 x 1.4826 x the median absolute deviation, moved outward to two digits."""
    measured = {name: list(measure_all(table[ORIGINAL], table[name], vectors).values()) for name in {fit.variant for fit in FITS}}
    bounds = {}
    for fit in FITS:
        values = [found[fit.measure] for found in measured[fit.variant] if fit.measure in found]
        sign = -1 if fit.side == "minimum" else 1
        if fit.share is None:
            middle = float(np.median(values))
            bound = middle + sign * SPREADS * 1.4826 * float(np.median(np.abs(np.array(values) - middle)))
        else:
            bound = float(np.quantile(values, fit.share if sign < 0 else 1 - fit.share))
        bounds[fit] = (math.floor if sign < 0 else math.ceil)(bound * 100) / 100
    return bounds


def stated_bound(rules: RuleBook, fit: Fit) -> float | None:
    """The bound that rules.yaml has for a fit."""
    scope = rules.factors[VARIANT_FACTORS[fit.variant]] if fit.scope == "factor" else rules.variants[fit.variant]
    [rule] = [rule for rule in scope if rule.measure == fit.measure]
    return rule.minimum if fit.side == "minimum" else rule.maximum


# ----- broken variants


def swapped(texts: Texts) -> dict[str, str]:
    """Every document gets the text of the next one."""
    keys = sorted(texts)
    return {key: texts[other] for key, other in zip(keys, [*keys[1:], keys[0]], strict=True)}


def altered(texts: Texts, pattern: re.Pattern[str], change: Callable[[str, np.random.Generator], str | None]) -> dict[str, tuple[str, str]]:
    """Texts with one match of ``pattern`` changed, up to two a document (each in a text of its own), as {id#n: (document id, text)}."""
    broken: dict[str, tuple[str, str]] = {}
    for key in sorted(texts):
        rng = np.random.default_rng([SEED, *key.encode()])
        matches = list(pattern.finditer(texts[key]))
        for position in rng.permutation(len(matches))[:MAX_ALTERED]:
            match = matches[int(position)]
            new = change(match.group(), rng)
            if new is not None:
                broken[f"{key}#{position}"] = (key, texts[key][: match.start()] + new + texts[key][match.end() :])
    return broken


def other_digit(written: str, rng: np.random.Generator) -> str:
    """One digit replaced by another one; a first digit never becomes 0."""
    places = [index for index, character in enumerate(written) if character.isdigit()]
    place = places[int(rng.integers(len(places)))]
    choices = [digit for digit in "0123456789" if digit != written[place] and not (digit == "0" and place == places[0])]
    return written[:place] + choices[int(rng.integers(len(choices)))] + written[place + 1 :]


SMALL_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
SMALL_WORD = re.compile(rf"\b(?:{'|'.join(SMALL_WORDS)})\b")


def other_word(written: str, rng: np.random.Generator) -> str:
    """Another number word."""
    choices = [word for word in SMALL_WORDS if word != written]
    return choices[int(rng.integers(len(choices)))]


def name_changer(originals: Texts) -> Callable[[str, np.random.Generator], str | None]:
    """Changes a name that an original holds to one of the same form of another document."""
    pool = sorted({name for text in originals.values() for name in NAME.findall(plain_text(text))})

    def change(written: str, rng: np.random.Generator) -> str | None:
        if written not in pool:
            return None
        choices = [name for name in pool if name != written and name.isupper() == written.isupper()]
        return choices[int(rng.integers(len(choices)))]

    return change


# ----- figures


class Judge:
    """Whether a text passes the rules of a variant, with measures computed once."""

    def __init__(self, rules: RuleBook, vectors: SentenceVectors) -> None:
        self._rules, self._vectors = rules, vectors
        self._measured: dict[tuple[str, str], dict[str, float]] = {}

    def reasons(self, original: str, text: str, variant: str) -> list[tuple[str, str]]:
        """Broken rules of ``text`` taken as ``variant``."""
        key = (original, text)
        if key not in self._measured:
            self._measured[key] = measure_pair(original, text, vectors=self._vectors)
        return broken_rules(self._rules.rules_for(variant, VARIANT_FACTORS[variant]), self._measured[key])

    def accepted(self, pairs: Iterable[tuple[str, str]], variant: str) -> list[bool]:
        """Acceptance of (original, text) pairs."""
        return [not self.reasons(original, text, variant) for original, text in pairs]


def pairs_of(table: Table, name: str) -> list[tuple[str, str]]:
    """(original, text) of a variant."""
    return [(table[ORIGINAL][key], text) for key, text in table[name].items() if key in table[ORIGINAL]]


def confusion(judge: Judge, table: Table, names: Sequence[str], taken_as: Sequence[str]) -> list[str]:
    """Markdown: share of each variant that passes each variant's rules."""
    rows = [f"| text | n | {' | '.join(f'as {name}' for name in taken_as)} |", "|---|---:|" + "---:|" * len(taken_as)]
    for name in names:
        pairs = pairs_of(table, name)
        shares = [np.mean(judge.accepted(pairs, other)) for other in taken_as]
        rows.append(f"| {name} | {len(pairs)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return rows


def broken_sets(table: Table, names: Sequence[str]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(kind of damage, taken as variant) to (original, broken text) pairs."""
    originals = table[ORIGINAL]
    sets: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in names:
        mine = {key: text for key, text in table[name].items() if key in originals}
        sets["unchanged copy", name] = [(originals[key], originals[key]) for key in mine]
        sets["another document's variant", name] = [(originals[key], text) for key, text in swapped(mine).items()]
        if VARIANT_FACTORS[name] in {"style", "control"}:
            for damage, pattern, change in (
                ("one number altered", NUMBER, other_digit),
                ("one spelled-out number altered", SMALL_WORD, other_word),
                ("one name altered", NAME, name_changer(originals)),
            ):
                sets[damage, name] = [(originals[key], text) for key, text in altered(mine, pattern, change).values()]
        if VARIANT_FACTORS[name] == "factual":
            sets["nothing altered (the paraphrase)", name] = pairs_of(table, "paraphrase")
    return sets


def broken_table(judge: Judge, table: Table, names: Sequence[str]) -> list[str]:
    """Markdown: share of broken texts that are caught."""
    rows = ["| damage | taken as | n | caught |", "|---|---|---:|---:|"]
    for (damage, name), pairs in broken_sets(table, names).items():
        if pairs:
            rows.append(f"| {damage} | {name} | {len(pairs)} | {1 - np.mean(judge.accepted(pairs, name)):.1%} |")
    return rows


def rejection_table(judge: Judge, table: Table, names: Sequence[str]) -> list[str]:
    """Markdown: genuine texts rejected, and by which measure."""
    rows = ["| genuine | n | rejected | by measure |", "|---|---:|---:|---|"]
    for name in names:
        found = [judge.reasons(original, text, name) for original, text in pairs_of(table, name)]
        counts = Counter(measure for reasons in found for measure in {measure for measure, _ in reasons})
        listed = ", ".join(f"{measure} {count}" for measure, count in sorted(counts.items(), key=lambda row: (-row[1], row[0])))
        rows.append(f"| {name} | {len(found)} | {np.mean([bool(reasons) for reasons in found]):.1%} | {listed} |")
    return rows


def rejected_list(judge: Judge, table: Table, names: Sequence[str]) -> list[str]:
    """Markdown: id and reasons of every rejected genuine text."""
    lines = []
    for name in names:
        for key, text in table[name].items():
            if key in table[ORIGINAL] and (reasons := judge.reasons(table[ORIGINAL][key], text, name)):
                lines.append(f"- {name} {key}: " + "; ".join(reason.split(":")[0] for _, reason in reasons))
    return lines


def print_rejected(judge: Judge, table: Table, names: Sequence[str]) -> None:
    """Rejected genuine texts in full, for reading."""
    for name in names:
        for key, text in table[name].items():
            if key in table[ORIGINAL] and (reasons := judge.reasons(table[ORIGINAL][key], text, name)):
                print(f"== {name} {key}", *(reason for _, reason in reasons), f"ORIGINAL: {table[ORIGINAL][key]}", f"VARIANT: {text}", "", sep="\n")


def timing(probe_set: ProbeSet, num_documents: int) -> str:
    """Wall time of a whole audit."""
    chosen = {text.document_id for text in probe_set.texts if text.variant == ORIGINAL}
    kept = set(sorted(chosen)[:num_documents])
    part = ProbeSet(tuple(text for text in probe_set.texts if text.document_id in kept), probe_set.factors, probe_set.source)
    embedder = load_embedder()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    outcome = audit_probe_set(part, similarity=embedder)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    texts = len(kept) + len(outcome.verdicts)
    return (
        f"{len(kept)} documents with {len(outcome.verdicts)} variants: {wall_s:.0f} s wall, {cpu_s:.0f} CPU seconds (load of the machine {os.getloadavg()[0]:.1f}); "
        f"1,000 documents with 5 variants each need about {6000 / texts * cpu_s / 60:.0f} CPU minutes, nearly all of it embeddings"
    )


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rejected", action="store_true")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    main_set = published()
    tables = {"published": main_set.by_variant()}
    tables |= {name: read_probe_set(str(path)).by_variant() for name, path in OTHERS.items()}
    measured = half(tables["published"], fit=False)
    names = ("casual", "counterfactual", "paraphrase")
    texts = {text for table in tables.values() for column in table.values() for text in column.values()}
    for table in (measured, *(tables[name] for name in OTHERS)):
        texts |= {text for pairs in broken_sets(table, [name for name in table if name != ORIGINAL]).values() for _, text in pairs}
    vectors = embed_sentences(map(plain_text, sorted(texts)), load_embedder(), progress=LineProgress())
    rules = read_rules()
    bounds = fitted_bounds(half(tables["published"], fit=True), vectors)
    agree = all(stated_bound(rules, fit) == bound for fit, bound in bounds.items())
    if options.fit:
        for fit, bound in bounds.items():
            print(f"{fit.variant:15} {fit.measure:24} {fit.side:8} fitted {bound:7.2f}   rules.yaml {stated_bound(rules, fit)}")
        return
    judge = Judge(rules, vectors)
    if options.rejected:
        print_rejected(judge, measured, names)
        return
    page = write_page(judge, tables, measured, names, agree=agree, speed=timing(main_set, 100))
    options.out.write_text(page, encoding="utf-8")
    print(page)
    sys.exit(0 if agree else "rules.yaml does not hold the fitted bounds: run with --fit")


def write_page(judge: Judge, tables: Mapping[str, Table], measured: Table, names: Sequence[str], *, agree: bool, speed: str) -> str:
    """The page of figures."""
    others = {name: [variant for variant in tables[name] if variant != ORIGINAL] for name in OTHERS}
    every = ("casual", "counterfactual", "paraphrase", "nonbiomedical", "rap")
    lines = [
        "# Figures of the audit",
        "",
        f"Written by `python benchmarks/audit.py` (embedder {DEFAULT_EMBEDDER}). Bounds marked *fitted* in `src/lmdissect/audit/rules.yaml` come",
        f"from one half of the published documents ({'they equal the fit' if agree else 'THEY DIFFER FROM THE FIT'}); figures are from the other half unless they",
        "say otherwise. What they mean, and how far they reach: `docs/audit.md`.",
        "",
        "## Published documents, measured half",
        "",
        "Share of texts that pass the rules of each variant:",
        "",
        *confusion(judge, measured, names, every),
        "",
        f"The same on all {len(tables['published'][ORIGINAL])} documents, half of which set the bounds:",
        "",
        *confusion(judge, tables["published"], names, every),
        "",
        "Genuine texts rejected, measured half:",
        "",
        *rejection_table(judge, measured, names),
        "",
        "Broken texts, made by script:",
        "",
        *broken_table(judge, measured, names),
        "",
        "## Other writers",
        "",
        "No bound was fitted on these sets. The bounds set by reasoning were loosened after reading the last two, this project's own demo texts.",
        "",
    ]
    for name, variants in others.items():
        columns = [*variants]
        lines += [
            f"### {name}: {len(tables[name][ORIGINAL])} documents",
            "",
            *confusion(judge, tables[name], variants, columns),
            "",
            *rejection_table(judge, tables[name], variants),
            "",
        ]
        lines += [*broken_table(judge, tables[name], variants), ""]
    lines += ["## Time", "", speed + ".", "", "## Rejected genuine texts of the measured half", ""]
    return "\n".join([*lines, *rejected_list(judge, measured, names), ""])


if __name__ == "__main__":
    main()
