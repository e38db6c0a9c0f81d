"""A hand-made shift artifact: every table with plausible numbers, small enough to read, to be changed by a test before it is written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.formats.shift_tables import STAGE, TABLES, write_shift_table
from lmdissect.report.content import ReportContent, read_content
from lmdissect.store import open_artifact

Tables = dict[str, list[dict[str, Any]]]
Details = dict[str, Any]
Change = Callable[[Tables, Details], None]

NUM_DOCUMENTS = 80
BASE, TUNED = "models/base", "runs/tuned"

# variant: factor, part of the original's words that it keeps, headline reference
VARIANTS = {
    "nonbiomedical": ("topic", 0.64, "original"),
    "casual": ("style", 0.36, "control"),
    "rap": ("style", 0.23, "control"),
    "counterfactual": ("factual", 0.72, "original"),
    "paraphrase": ("control", 0.61, "original"),
    "nonbiomedical_casual": ("topic+style", 0.14, "control"),
}
# (variant, reference): shift per token, interval, p, Holm-adjusted p
SHIFTS = {
    ("nonbiomedical", "original"): (-0.064, -0.079, -0.049, 0.0001, 0.0005),
    ("nonbiomedical", "control"): (-0.083, -0.099, -0.067, 0.0001, 0.0005),
    ("casual", "original"): (0.065, 0.050, 0.080, 0.0001, 0.0005),
    ("casual", "control"): (0.046, 0.034, 0.058, 0.0002, 0.0008),
    ("rap", "original"): (0.034, 0.013, 0.055, 0.004, 0.016),
    ("rap", "control"): (0.015, 0.001, 0.029, 0.041, 0.123),
    ("counterfactual", "original"): (0.003, -0.009, 0.015, 0.61, 1.0),
    ("counterfactual", "control"): (-0.016, -0.031, -0.001, 0.047, 0.141),
    ("paraphrase", "original"): (0.019, 0.004, 0.034, 0.012, 0.036),
    ("nonbiomedical_casual", "original"): (0.025, 0.010, 0.040, 0.002, 0.01),
    ("nonbiomedical_casual", "control"): (0.006, -0.008, 0.020, 0.41, 0.82),
}
GAINS = {
    "original": 0.210,
    "nonbiomedical": 0.274,
    "casual": 0.145,
    "rap": 0.176,
    "counterfactual": 0.207,
    "paraphrase": 0.191,
    "nonbiomedical_casual": 0.185,
}
_UNITS = {"token": 1.0, "byte": 0.22, "document": 170.0}
_BINS = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128))

_F, _I, _S = pa.float64(), pa.int64(), pa.string()
_ESTIMATE = {"estimate": _F, "ci_low": _F, "ci_high": _F}
_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "shifts": {
        **dict.fromkeys(("base_model", "tuned_model", "factor", "variant", "reference", "normalization"), _S),
        **_ESTIMATE,
        "level": _F,
        "ci_method": _S,
        "p_value": _F,
        "p_holm": _F,
        "num_documents": _I,
        **dict.fromkeys(("base_contrast", "tuned_contrast", "gain", "share", "share_ci_low", "share_ci_high"), _F),
    },
    "losses": {
        "variant": _S,
        "factor": _S,
        **dict.fromkeys(("num_documents", "num_tokens", "num_bytes"), _I),
        **dict.fromkeys(
            ("base_loss_nats", "tuned_loss_nats", "base_nats_per_byte", "tuned_nats_per_byte", "base_perplexity", "tuned_perplexity"), _F
        ),
    },
    "gains": {"variant": _S, "factor": _S, "normalization": _S, "num_documents": _I, **_ESTIMATE, "p_value": _F},
    "position": {
        **dict.fromkeys(("variant", "factor", "document_set"), _S),
        **dict.fromkeys(("bin_start", "bin_end", "num_documents"), _I),
        "base_contrast": _F,
        "tuned_contrast": _F,
        **_ESTIMATE,
        **dict.fromkeys(("gain", "gain_ci_low", "gain_ci_high"), _F),
    },
    "cumulative": {"variant": _S, "factor": _S, "position": _I, "share": _F, "ci_low": _F, "ci_high": _F, "num_documents": _I},
    "fact_tokens": {
        **dict.fromkeys(("variant", "selection", "statistic"), _S),
        **dict.fromkeys(("num_documents", "num_original_tokens", "num_variant_tokens"), _I),
        "base_contrast": _F,
        "tuned_contrast": _F,
        **_ESTIMATE,
        "p_value": _F,
    },
    "interactions": {
        **dict.fromkeys(("variant", "first_variant", "second_variant", "normalization"), _S),
        "num_documents": _I,
        **_ESTIMATE,
        "p_value": _F,
    },
    "examples": {
        **dict.fromkeys(("document_id", "variant", "text"), _S),
        "shift": _F,
        **dict.fromkeys(("char_start", "char_end"), pa.list_(pa.int32())),
        **dict.fromkeys(("base_logprob_nats", "tuned_logprob_nats"), pa.list_(pa.float32())),
    },
}

_TEXTS = {
    "original": "Forty adults with asthma took 20 mg of the drug daily. Symptoms fell by a third (p < 0.01).",
    "nonbiomedical": "Forty cars with worn brakes got 20 ml of the oil daily. Noise fell by a third (p < 0.01).",
    "casual": "So they gave forty folks with asthma 20 mg of the stuff a day, and hey, a third fewer symptoms!",
    "rap": "Forty grown-ups wheezing,\ntwenty milligrams a day,\na third of what was squeezing\nwent and blew away.",
    "counterfactual": "Sixty adults with eczema took 35 mg of the drug weekly. Symptoms rose by a half (p < 0.01).",
    "paraphrase": "In forty adult asthma patients, a daily dose of 20 mg lowered symptoms by one third (p < 0.01).",
    "nonbiomedical_casual": "So forty old cars got 20 ml of the oil a day, and hey, a third less noise!",
}


def _factor(variant: str) -> str | None:
    return VARIANTS[variant][0] if variant in VARIANTS else None


def _shift_rows() -> list[dict[str, Any]]:
    return [
        {
            "base_model": BASE,
            "tuned_model": TUNED,
            "factor": _factor(variant),
            "variant": variant,
            "reference": reference,
            "normalization": normalization,
            "estimate": estimate * scale,
            "ci_low": low * scale,
            "ci_high": high * scale,
            "level": 0.95,
            "ci_method": "bca",
            "p_value": p_value,
            "p_holm": p_holm,
            "num_documents": NUM_DOCUMENTS - (2 if normalization == "document" else 0),
            "base_contrast": -0.31 * scale,
            "tuned_contrast": (-0.31 + estimate) * scale,
            "gain": GAINS["original"] * scale,
            "share": estimate / GAINS["original"],
            "share_ci_low": low / GAINS["original"],
            "share_ci_high": high / GAINS["original"],
        }
        for normalization, scale in _UNITS.items()
        for (variant, reference), (estimate, low, high, p_value, p_holm) in SHIFTS.items()
    ]


def _loss_rows() -> list[dict[str, Any]]:
    return [
        {
            "variant": variant,
            "factor": _factor(variant),
            "num_documents": NUM_DOCUMENTS,
            "num_tokens": 13_819,
            "num_bytes": 62_402,
            "base_loss_nats": 3.3,
            "tuned_loss_nats": 3.3 - gain,
            "base_nats_per_byte": 0.73,
            "tuned_nats_per_byte": 0.73 - 0.22 * gain,
            "base_perplexity": 27.11,
            "tuned_perplexity": 21.98,
        }
        for variant, gain in GAINS.items()
    ]


def _gain_rows() -> list[dict[str, Any]]:
    return [
        {
            "variant": variant,
            "factor": _factor(variant),
            "normalization": normalization,
            "num_documents": NUM_DOCUMENTS,
            "estimate": gain * scale,
            "ci_low": (gain - 0.021) * scale,
            "ci_high": (gain + 0.021) * scale,
            "p_value": 0.0001,
        }
        for normalization, scale in _UNITS.items()
        for variant, gain in GAINS.items()
    ]


def _position_rows() -> list[dict[str, Any]]:
    rows = []
    for variant, (estimate, low, high, _, _) in {name: row for (name, reference), row in SHIFTS.items() if reference == "original"}.items():
        for document_set, lift in (("all", 1.0), ("fixed", 1.1)):
            for index, (start, end) in enumerate(_BINS):
                early = lift * (1 + 4 / (1 + start))
                rows.append(
                    {
                        "variant": variant,
                        "factor": _factor(variant),
                        "document_set": document_set,
                        "bin_start": start,
                        "bin_end": end,
                        "num_documents": 44 if document_set == "fixed" else NUM_DOCUMENTS - 5 * index,
                        "base_contrast": -0.3,
                        "tuned_contrast": -0.3 + estimate * early,
                        "estimate": estimate * early,
                        "ci_low": (estimate - 2 * (estimate - low)) * early,
                        "ci_high": (estimate + 2 * (high - estimate)) * early,
                        "gain": 0.18 * early,
                        "gain_ci_low": 0.15 * early,
                        "gain_ci_high": 0.21 * early,
                    }
                )
    return [row for row in rows if row["variant"] != "nonbiomedical_casual"]


def _cumulative_rows() -> list[dict[str, Any]]:
    positions = (1, 2, 4, 8, 16, 32, 64, 128)
    return [
        {
            "variant": variant,
            "factor": _factor(variant),
            "position": position,
            "share": share,
            "ci_low": share - 0.05 * (position < 128),
            "ci_high": share + 0.07 * (position < 128),
            "num_documents": NUM_DOCUMENTS,
        }
        for variant, early in (("nonbiomedical", 0.2), ("casual", 0.3))
        for position in positions
        for share in [(position / 128) ** early]
    ]


def _fact_rows() -> list[dict[str, Any]]:
    return [
        {
            "variant": "counterfactual",
            "selection": selection,
            "statistic": statistic,
            "num_documents": 80 if selection == "changed" else 55,
            "num_original_tokens": 4_658,
            "num_variant_tokens": 4_369,
            "base_contrast": 0.9,
            "tuned_contrast": 0.9 + estimate * scale,
            "estimate": estimate * scale,
            "ci_low": (estimate - 0.02) * scale,
            "ci_high": (estimate + 0.025) * scale,
            "p_value": 0.65,
        }
        for selection, estimate in (("changed", 0.005), ("number", 0.001), ("named", -0.004))
        for statistic, scale in (("mean", 1.0), ("sum", 58.0))
    ]


def _interaction_rows() -> list[dict[str, Any]]:
    return [
        {
            "variant": "nonbiomedical_casual",
            "first_variant": "nonbiomedical",
            "second_variant": "casual",
            "normalization": normalization,
            "num_documents": NUM_DOCUMENTS,
            "estimate": -0.023 * scale,
            "ci_low": -0.038 * scale,
            "ci_high": -0.008 * scale,
            "p_value": 0.004,
        }
        for normalization, scale in _UNITS.items()
    ]


def example_row(document_id: str, variant: str, text: str) -> dict[str, Any]:
    """Tokens are words with the space before them; gains follow from the position; the first token has no context."""
    spans = [match.span() for match in re.finditer(r"\s*\S+", text)]
    base = [None if index == 0 else -1.0 - 0.37 * (index % 7) for index in range(len(spans))]
    tuned = [None if score is None else min(score + 0.4 * (index % 5) - 0.7, -0.01) for index, score in enumerate(base)]
    return {
        "document_id": document_id,
        "variant": variant,
        "text": text,
        "shift": None if variant == "original" else 0.0312,
        "char_start": [start for start, _ in spans],
        "char_end": [end for _, end in spans],
        "base_logprob_nats": base,
        "tuned_logprob_nats": tuned,
    }


def _details() -> Details:
    model = {"weights": "ab" * 32, "config": "cd" * 32, "adapter": None, "tokenizer": "ef" * 32, "backend": "safetensors", "device": "cpu"}
    return {
        "level": 0.95,
        "num_draws": 10_000,
        "seed": 0,
        "probes": "probes/pubmed",
        "base_model": {"reference": BASE, **model},
        "tuned_model": {"reference": TUNED, **model},
        "bos": "auto",
        "max_tokens": 256,
        "tokenizers_equal": True,
        "control": "paraphrase",
        "generators": {"casual": "an instruction-following model"},
        "variants": {
            name: {
                "factor": factor,
                "num_documents": NUM_DOCUMENTS,
                "kept_words_median": kept,
                "num_truncated": 2,
                "headline_reference": headline,
                "writer_against_control": None if factor == "control" else "same writer, prompts not recorded",
            }
            for name, (factor, kept, headline) in VARIANTS.items()
        },
        "rejected": [["probes/pubmed", "line 7", "empty text"]],
        "num_dropped": 1,
        "dropped": [{"variant": "rap", "document_id": "d-17", "reason": "no original"}],
        "unavailable": [
            {"table": "cumulative", "variant": "rap", "reference": "original", "normalization": "document", "reason": "the interval covers 0"}
        ],
        "checks": {"batch invariance": {"passed": True, "text": "4 texts scored again alone: worst token 1.2e-05 nats"}},
        "notes": ["All variants were written by a language model."],
    }


def make_tables() -> Tables:
    """All tables, as rows."""
    return {
        "shifts": _shift_rows(),
        "losses": _loss_rows(),
        "gains": _gain_rows(),
        "position": _position_rows(),
        "cumulative": _cumulative_rows(),
        "fact_tokens": _fact_rows(),
        "interactions": _interaction_rows(),
        "examples": [example_row(document_id, variant, text) for document_id in ("d-1", "d-2") for variant, text in _TEXTS.items()],
    }


def build_shift_artifact(folder: Path, change: Change | None = None) -> Path:
    """Write the artifact into ``folder``, after ``change`` had its way with tables and details."""
    tables, details = make_tables(), _details()
    if change is not None:
        change(tables, details)
    with open_artifact(folder, stage=STAGE, config={"num_draws": 10_000, "level": 0.95, "seed": 0}, inputs={"scores": "12" * 32}) as artifact:
        files = [
            name
            for table in TABLES
            if table in _COLUMNS  # a report reads nothing of the table `documents`
            for name in write_shift_table(artifact, table, pa.Table.from_pylist(tables[table], schema=pa.schema(list(_COLUMNS[table].items()))))
        ]
        artifact.finish(counts={"documents": NUM_DOCUMENTS}, details=details, files=files)
    return folder


def build_content(folder: Path, change: Change | None = None) -> ReportContent:
    """The artifact as the report reads it."""
    return read_content(build_shift_artifact(folder, change))


def keep_variants(*names: str) -> Change:
    """A change that leaves only ``names`` in tables and details."""

    def change(tables: Tables, details: Details) -> None:
        for table, rows in tables.items():
            tables[table] = [row for row in rows if row["variant"] in {*names, "original"}]
        details["variants"] = {name: facts for name, facts in details["variants"].items() if name in names}
        if "paraphrase" not in names:
            tables["shifts"] = [row for row in tables["shifts"] if row["reference"] == "original"]
            details["control"] = None

    return change


def only_shifts(tables: Tables, details: Details) -> None:
    """The smallest report: one variant and its shifts, no other figure."""
    keep_variants("casual")(tables, details)
    for table in ("position", "cumulative", "fact_tokens", "interactions", "examples"):
        tables[table] = []


def set_zero(tables: Tables, details: Details) -> None:
    """What comparing a model with itself gives."""
    for row in [*tables["shifts"], *tables["gains"], *tables["fact_tokens"], *tables["interactions"], *tables["position"]]:
        row.update(estimate=0.0, ci_low=0.0, ci_high=0.0, p_value=1.0)
    for row in tables["shifts"]:
        row.update(p_holm=1.0, gain=0.0, share=None, share_ci_low=None, share_ci_high=None)
    for row in tables["position"]:
        row.update(gain=0.0, gain_ci_low=0.0, gain_ci_high=0.0)
    tables["cumulative"] = []


def split_tokenizers(tables: Tables, details: Details) -> None:
    """What comparing two models of different tokenizers gives: bytes alone, and nothing token by token."""
    details["tokenizers_equal"] = False
    for table in ("shifts", "gains", "interactions"):
        tables[table] = [row for row in tables[table] if row["normalization"] == "byte"]
    for table in ("position", "cumulative", "fact_tokens", "examples"):
        tables[table] = []
    for row in tables["losses"]:
        row.update(dict.fromkeys(("base_loss_nats", "tuned_loss_nats", "base_perplexity", "tuned_perplexity"), None))
