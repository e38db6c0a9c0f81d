"""A made-up study: every table of the study artifact with plausible numbers, and the scores of one run, at any size.

The numbers follow simple curves (style moves early, topic moves some, facts hardly, the control a little) with seeded noise, so that a report of them
looks like one of real runs. Nothing here was measured.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lmdissect.formats.study_tables import SCHEMAS, STAGE, write_study_table
from lmdissect.records import ExplorerSource
from lmdissect.store import open_artifact
from score_tables import ScoredText, save_scores

__all__ = ["VARIANTS", "Change", "Tables", "build_scores", "build_study", "keep_points", "make_texts", "only_tables"]

Tables = dict[str, list[dict[str, Any]]]
Change = Callable[[Tables, dict[str, Any]], None]

VARIANTS = {"nonbiomedical": "topic", "casual": "style", "rap": "style", "counterfactual": "factual", "paraphrase": "control"}
_C4 = {"biomedical": "topic", "academic": "style", "counterfactual": "factual", "paraphrase": "control"}
_SIZES = (100, 300, 1000, 3000, 10_000, 30_000)
_RANKS = (1, 4, 16, 64, None)
_LAST = {"nonbiomedical": 0.06, "casual": 0.11, "rap": 0.16, "counterfactual": 0.012, "paraphrase": 0.03, "biomedical": -0.05, "academic": -0.12}
_KEPT = {"nonbiomedical": 0.64, "casual": 0.36, "rap": 0.23, "counterfactual": 0.76, "paraphrase": 0.61, "biomedical": 0.55, "academic": 0.42}
_HALF = {"topic": 400, "style": 250, "factual": 6000, "control": 300}
_BINS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
_NET = {"original": 0.0, "control": 1.0}
_WORDS = (  # by frequency
    "patients results study the of in and with treatment group was were significant compared after cells expression protein risk clinical between "
    "analysis data showed levels increase response disease we method effect trial outcome higher lower associated during mice receptor binding"
)
_STEMS = re.findall(r"\w+", _WORDS)


class _World:
    """Rows of a study, drawn with one generator."""

    def __init__(self, num_documents: int, num_seeds: int, seed: int) -> None:
        self.num_documents, self.num_seeds = num_documents, num_seeds
        self.rng = np.random.default_rng(seed)
        self.tables: Tables = {name: [] for name in SCHEMAS}

    def interval(self, center: float, half: float = 0.008) -> dict[str, float]:
        half = half * (80 / max(self.num_documents, 10)) ** 0.5 * 3
        value = center + float(self.rng.normal(0, half / 2))
        return {"estimate": value, "ci_low": value - half, "ci_high": value + half}

    def test(self, row: Mapping[str, float]) -> dict[str, float]:
        width = (row["ci_high"] - row["ci_low"]) / 2 or 1e-9
        p_value = float(np.clip(2 * np.exp(-1.4 * abs(row["estimate"] / width) ** 1.6), 0.0001, 1))
        return {"p_value": p_value, "p_holm": min(1.0, 4 * p_value)}

    @property
    def counts(self) -> dict[str, int]:
        return {"num_seeds": self.num_seeds, "num_documents": self.num_documents}


def _progress(factor: str, size: float) -> float:
    return size / (size + _HALF[factor]) if factor != "factual" else float(np.log10(1 + size / _HALF["factual"]))


def _value_rows(world: _World, place: dict[str, Any], variants: Mapping[str, str], amount: float, scale: float = 1.0) -> Iterator[dict[str, Any]]:
    """Gain of the originals, then raw and net shifts of every variant, per token and per byte."""
    common = {"ci_method": "t", "df": 7.0, "var_documents": 1e-3, "var_seeds": 1e-5, "var_residual": 1e-4, **world.counts}
    for normalization, unit in (("token", 1.0), ("byte", 0.22)):
        gain = world.interval(scale * 0.24 * _progress("style", amount) * unit, 0.01 * unit)
        row = {**place, "statistic": "gain", "variant": "original", "factor": None, "reference": None, "normalization": normalization}
        yield {**row, "is_headline": False, **common, **gain, **world.test(gain)}
        for variant, factor in variants.items():
            for reference, net in _NET.items():
                if net and factor == "control":
                    continue
                center = scale * unit * (_LAST[variant] * _progress(factor, amount) - net * 0.03 * _progress("control", amount))
                estimate = world.interval(center, 0.008 * unit)
                headline = reference == ("control" if _KEPT[variant] < 0.5 else "original")
                row = {**place, "statistic": "shift", "variant": variant, "factor": factor, "reference": reference, "normalization": normalization}
                yield {**row, "is_headline": headline, **common, **estimate, **world.test(estimate)}


def _grow(world: _World) -> None:
    """The experiments `size` and `rank`, on both probe sets."""
    points = [("size", f"size={size}", {"corpus.size": size}, float(size)) for size in _SIZES]
    points += [
        ("rank", f"rank={rank or 'full'}", {"finetune.lora.rank": rank}, 10_000.0 * (1 if rank is None else rank / (rank + 6))) for rank in _RANKS
    ]
    for experiment, point, fields, amount in points:
        for probes, variants, scale in (("pubmed", VARIANTS, 1.0), ("c4", _C4, 0.7)):
            place = {"experiment": experiment, "point": point, "probes": probes}
            _add_point(world, place, fields, amount, variants, scale)


def _add_point(world: _World, place: dict[str, Any], fields: dict[str, Any], amount: float, variants: Mapping[str, str], scale: float) -> None:
    fields_json = json.dumps(fields)
    for seed in range(world.num_seeds):
        world.tables["runs"].append(
            {
                **place,
                "fields": fields_json,
                "seed": seed,
                "base_model": "models/base",
                "tuned_model": f"runs/{place['point']}-{seed}",
                "training_documents": int(amount),
                "num_target_tokens": int(amount) * 250,
                "num_documents": world.num_documents,
                "shift_folder": f"shifts/{place['point']}-{seed}-{place['probes']}",
            }
        )
    rows = list(_value_rows(world, place, variants, amount, scale))
    for row in rows:
        share = {"share": None, "share_ci_low": None, "share_ci_high": None}
        if row["statistic"] == "shift":
            share = {"share": row["estimate"] / 0.24, "share_ci_low": row["ci_low"] / 0.24, "share_ci_high": row["ci_high"] / 0.24}
        world.tables["estimates"].append({**row, "fields": fields_json, **share})
        if row["normalization"] == "token":
            world.tables["seeds"].extend({**row, "seed": seed, **world.interval(row["estimate"], 0.01)} for seed in range(world.num_seeds))
        (axis, value), *_ = fields.items()
        x_label = f"{value:,}" if value is not None else "all weights"
        world.tables["curves"].append({**row, "axis": axis, "group": "", "x": value, "x_label": x_label, "selection": "all"})
        if row["variant"] == "paraphrase" and row["normalization"] == "token" and row["reference"] == "original":
            world.tables["fingerprint"].append(
                {**row, "axis": axis, "group": "", "x": value, "x_label": x_label, "writer": "writer-1", "kept_words_median": _KEPT["paraphrase"]}
            )
    for variant, factor in variants.items():
        _add_positions(world, place, variant, factor, amount, scale)
    if "counterfactual" in variants:
        _add_facts(world, place, amount)
        (axis, value), *_ = fields.items()
        own = {"axis": axis, "group": "", "x": value, "x_label": f"{value:,}" if value is not None else "all weights", "statistic": "shift"}
        kind = {"factor": "factual", "reference": "original", "normalization": "token", "is_headline": True}
        facts = next(row for row in reversed(world.tables["facts"]) if row["selection"] == "changed")
        world.tables["curves"].append({**{name: facts[name] for name in facts if not name.startswith("num_v")}, **own, **kind})


def _add_positions(world: _World, place: dict[str, Any], variant: str, factor: str, amount: float, scale: float) -> None:
    who = {**place, "variant": variant, "factor": factor, "reference": "original", **world.counts}
    last = scale * _LAST[variant] * _progress(factor, amount)
    for index, start in enumerate(_BINS):
        early = 1.0 if factor == "factual" else 3.0 / (1 + index)
        row, gain = world.interval(last * early, 0.012), world.interval(0.3 / (1 + index) + 0.1, 0.02)
        gains = {"gain": gain["estimate"], "gain_ci_low": gain["ci_low"], "gain_ci_high": gain["ci_high"]}
        bin_end = _BINS[index + 1] if index + 1 < len(_BINS) else None
        world.tables["positions"].append({**who, "document_set": "all", "bin_start": start, "bin_end": bin_end, **row, **gains})
    for position in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        share = min(1.0, (position / 256) ** (0.9 if factor == "factual" else 0.35))
        world.tables["cumulative"].append({**who, "position": position, "share": share, "ci_low": share - 0.06, "ci_high": share + 0.06})


def _add_facts(world: _World, place: dict[str, Any], amount: float) -> None:
    for selection, factor in (("changed", 1.0), ("number", 1.4), ("named", 0.8), ("key_term", 1.1)):
        row = world.interval(0.05 * factor * _progress("factual", amount), 0.02)
        tokens = {"num_original_tokens": 2100, "num_variant_tokens": 2230}
        common = {**place, "variant": "counterfactual", "selection": selection, **world.counts, **row, **world.test(row)}
        world.tables["facts"].append({**common, "statistic": "mean", **tokens})
        if selection in ("changed", "key_term"):
            for measure, size in (("contrast", 0.12), ("true_logprob", 0.2), ("other_logprob", 0.09), ("true_rank", -14.0), ("true_first", 0.02)):
                change = world.interval(size * factor * _progress("factual", amount), abs(size) / 6)
                cloze = {"measure": measure, "terms": "all", "normalization": "term", "is_headline": measure == "contrast", "num_terms": 640}
                world.tables["cloze"].append({**common, **cloze, "base_mean": -3.1, "tuned_mean": -3.1 + size, **change, **world.test(change)})


def _add_rest(world: _World) -> None:
    """The analyses that look across points."""
    for probes, variants in (("pubmed", VARIANTS), ("c4", _C4)):
        for variant, factor in variants.items():
            for reference, net in _NET.items():
                if net and factor == "control":
                    continue
                who = {"probes": probes, "variant": variant, "factor": factor, "reference": reference, "selection": "all", **world.counts}
                if factor != "factual":
                    half = _HALF[factor] * (1.4 if net else 1.0)
                    bounds = {"half_x": half, "ci_low": half * 0.7, "ci_high": half * 1.5}
                    last = {"last_x": 30_000.0, "last_estimate": _LAST[variant], **bounds}
                    world.tables["tempo"].append({**who, "experiment": "size", "axis": "corpus.size", "group": "", **last})
                rank = {"topic": 2.0, "style": 3.0, "factual": 48.0, "control": 2.0}[factor]
                bounds = {"full_estimate": _LAST[variant], "largest_rank": 64.0, "rank": rank, "ci_low": max(1.0, rank / 2), "ci_high": rank * 2}
                world.tables["capacity"].append(
                    {**who, "experiment": "rank", "axis": "finetune.lora.rank", "group": "", "share_of_full": 0.9, **bounds}
                )
                for corpus, kept in (("pubmed", 1.0), ("pubmed, casual", 0.15 if factor == "style" else 0.9)):
                    row = world.interval(_LAST[variant] * kept - net * 0.03)
                    point = {"experiment": "corpora", "point": corpus, "training_corpus": corpus}
                    world.tables["independence"].append({**point, **who, **row, **world.test(row)})


def _add_last_point(world: _World) -> None:
    """The analyses of one point."""
    place = {"experiment": "size", "point": "size=30000", "probes": "pubmed"}
    row = world.interval(-0.02)
    names = {"variant": "nonbiomedical_casual", "first_variant": "nonbiomedical", "second_variant": "casual", "normalization": "token"}
    world.tables["interactions"].append({**place, **names, **world.counts, **row, **world.test(row)})
    for kind, variant in (("natural", "plain"), ("synthetic", "casual"), ("synthetic", "rap")):
        row = world.interval(0.05)
        world.tables["natural"].append({**place, "kind": kind, "variant": variant, **world.counts, **row, **world.test(row)})
    for rank in range(1, 11):
        for sign in (1, -1):
            who = {"variant": "casual", "factor": "style", "reference": "original", "document_id": f"doc{7 * rank + (sign > 0):04d}"}
            world.tables["moved_documents"].append({**place, **who, "rank": sign * rank, "shift": sign * (0.6 - 0.03 * rank), "gain": 0.2})
        for direction, size in (("up", 0.9), ("down", -0.4)):
            row = world.interval(size / rank, 0.02)
            token = {"variant": "original", "token": f" {_STEMS[rank]}", "direction": direction, "rank": rank}
            world.tables["moved_tokens"].append({**place, **token, "num_occurrences": 40 * rank, "num_documents": 30, **row})


_SAID = (
    (
        "learned",
        "casual",
        "style",
        "moved",
        "Style (casual) moved towards the originals: net shift +0.080 nats/token [0.072, 0.088], Holm p < 0.001.",
    ),
    ("learned", "rap", "style", "moved", "Style (rap) moved towards the originals: net shift +0.130 nats/token [0.121, 0.139], Holm p < 0.001."),
    ("learned", "nonbiomedical", "topic", "moved", "Topic moved towards the originals: shift +0.059 nats/token [0.052, 0.066], Holm p < 0.001."),
    ("learned", "counterfactual", "factual", "not shown", "A shift of facts is not shown: +0.009 nats/token [\u22120.001, 0.019], Holm p = 0.210."),
    (
        "forgotten",
        "academic",
        "style",
        "moved",
        "On web text, style moved away from the originals: \u22120.083 nats/token [\u22120.091, \u22120.075], Holm p < 0.001.",
    ),
    (
        "forgotten",
        "counterfactual",
        "factual",
        "not shown",
        "Forgetting of facts is not shown: +0.004 nats/token [\u22120.005, 0.013], Holm p = 0.720.",
    ),
    ("curves", None, None, "moved", "From 100 to 30,000 abstracts the style shift grows 3.5-fold; facts stay within noise of 0 up to 3,000."),
    ("position", "casual", "style", "moved", "62 % [56, 68] of the style shift is made in the first 16 tokens."),
    (
        "capacity",
        "counterfactual",
        "factual",
        "not measured",
        "Capacity for facts is not measured: full finetuning\u2019s shift cannot be told from 0.",
    ),
    ("tempo", "casual", "style", "moved", "Style reaches half of its last shift at 250 abstracts [175, 375], topic at 400 [280, 600]."),
    (
        "independence",
        "casual",
        "style",
        "moved",
        "Trained on the casual rewrite, style moves by 15 % of what it moves on the originals; topic by 90 %.",
    ),
    ("interactions", None, None, "moved", "Topic and style do not move independently: \u22120.020 nats/token [\u22120.028, \u22120.012]."),
    (
        "facts",
        "counterfactual",
        "factual",
        "not shown",
        "On the changed words alone a shift of facts is not shown: +0.039 nats/token [\u22120.004, 0.082].",
    ),
    ("cloze", "counterfactual", "factual", "moved", "The true term gained on the counterfactual\u2019s by +0.093 nats [0.041, 0.145]."),
    ("natural", "plain", "style", "moved", "Natural pairs agree with written ones: +0.050 nats/token [0.042, 0.058]."),
    ("fingerprint", "paraphrase", "control", "moved", "The control alone moved by +0.029 nats/token [0.021, 0.037]: read net shifts."),
)


def _add_statements(world: _World) -> None:
    for order, (analysis, variant, factor, verdict, sentence) in enumerate(_SAID):
        experiment = {"capacity": "rank", "independence": "corpora"}.get(analysis, "size")
        point = "size=30000" if analysis not in ("curves", "capacity", "tempo", "independence") else ""
        probes = "c4" if analysis == "forgotten" else "pubmed"
        row = {"analysis": analysis, "order": order, "experiment": experiment, "point": point, "probes": probes, "variant": variant, "factor": factor}
        world.tables["statements"].append({**row, "sentence": sentence, "verdict": verdict, "estimate": None, "ci_low": None, "ci_high": None})


def build_study(folder: Path, change: Change | None = None, *, num_documents: int = 80, num_seeds: int = 3, seed: int = 0) -> Path:
    """Write a finished study artifact of 11 points on two probe sets, ``num_seeds`` runs each.

    Args:
        folder: Where.
        change: Told the tables and the details before they are written.
        num_documents: Documents of each run; intervals shrink with it.
        num_seeds: Training seeds.
        seed: Of the noise.
    """
    world = _World(num_documents, num_seeds, seed)
    _grow(world)
    _add_rest(world)
    _add_last_point(world)
    _add_statements(world)
    world.tables["independence"][0]["p_holm"] = 0.0497  # a fourth decimal tells on which side of 0.05 it lies
    world.tables["capacity"][-1]["ci_high"] = None
    details: dict[str, Any] = {
        "level": 0.95,
        "unavailable": [
            {"table": "tempo", "experiment": "size", "point": "", "probes": "c4", "variant": "counterfactual", "reason": "its last shift covers 0"}
        ],
        "checks": {"the same texts in every run": {"passed": True, "text": "22 points, one probe hash each"}},
        "notes": ["The base model is instruction-tuned; its pretraining may hold probe documents."],
    }
    if change is not None:
        change(world.tables, details)
    with open_artifact(folder, stage=STAGE, config={"level": details["level"]}, inputs={"seed": seed, "documents": num_documents}) as artifact:
        files = [
            name
            for table, schema in SCHEMAS.items()
            for name in write_study_table(artifact, table, pa.Table.from_pylist(world.tables[table], schema=schema))
        ]
        artifact.finish(counts={"runs": len(world.tables["runs"])}, details=details, files=files)
    return folder


def keep_points(*points: str) -> Change:
    """A change that leaves only these points where a table names one: a small study, quick to draw."""

    def change(tables: Tables, _: dict[str, Any]) -> None:
        for rows in tables.values():
            rows[:] = [row for row in rows if "point" not in row or row["point"] in (*points, "")]

    return change


def only_tables(*names: str) -> Change:
    """A change that empties every other table but `runs`."""

    def change(tables: Tables, _: dict[str, Any]) -> None:
        for name, rows in tables.items():
            if name not in ("runs", *names):
                rows.clear()

    return change


def make_texts(num_documents: int, *, num_words: int = 200, num_stems: int = 0, seed: int = 0) -> dict[tuple[str, str], str]:
    """Texts by (document, variant). A variant keeps some of its original's words and takes the rest anew.

    Args:
        num_documents: How many documents.
        num_words: Words of each text.
        num_stems: Size of an invented vocabulary; 0 for a small one of real words.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    stems = np.asarray(_STEMS)
    if num_stems:
        syllables = np.asarray([f"{first}{second}" for first in "bdfglmnprst" for second in "aeiou"])
        stems = np.asarray(["".join(rng.choice(syllables, count)) for count in rng.integers(1, 4, num_stems)])
    weights = 1 / np.arange(1, len(stems) + 1)
    texts = {}
    for number in range(num_documents):
        original = rng.choice(stems, num_words, p=weights / weights.sum())
        texts[f"doc{number:04d}", "original"] = f"{' '.join(original.tolist())}."
        for variant in VARIANTS:
            new = rng.random(num_words) > _KEPT[variant]
            words = np.where(new, rng.choice(stems, num_words), original)
            texts[f"doc{number:04d}", variant] = f"{' '.join(words.tolist())}."
    return texts


def build_scores(
    folder: Path, texts: Mapping[tuple[str, str], str], *, seed: int = 0, factors: Mapping[str, str] | None = None, label: str = "size=30000, seed 0"
) -> ExplorerSource:
    """Scores of ``texts`` under a base and a tuned model; gains fall along the text."""
    rng = np.random.default_rng(seed)
    base, tuned = [], []
    for (document, variant), text in texts.items():
        count = len(text.split())
        low = -np.abs(rng.gamma(1.2, 2.6, count))
        gain = np.minimum(rng.normal(0.1, 0.35, count) + 0.6 / np.arange(1, count + 1), -low)
        base.append(ScoredText(document, variant, text, low.tolist()))
        tuned.append(ScoredText(document, variant, text, (low + gain).tolist()))
    for name, scored in (("base", base), ("tuned", tuned)):
        save_scores(folder / name, scored, model=f"models/{name}", factors=factors)
    return ExplorerSource(folder / "base", folder / "tuned", label)
