"""Two scores artifacts -> one shift artifact with every table of `lmdissect.formats.shift_tables`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.formats.shift_tables import FORMAT_VERSION, SCHEMAS, STAGE, write_shift_table
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import FactorShift, UnavailableRow, WriterMatch
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.documents import document_table, kept_word_shares
from lmdissect.shifts.estimate import estimate_gains, estimate_shifts, seeded_rng
from lmdissect.shifts.fact_tokens import fact_token_rows
from lmdissect.shifts.interactions import interaction_rows
from lmdissect.shifts.pairs import PairedScores, pair_scores
from lmdissect.shifts.position import cumulative_rows, position_rows
from lmdissect.shifts.resampling import Floats
from lmdissect.store import fingerprint, open_artifact

__all__ = ["ShiftSummary", "measure_shifts"]

_NET_BELOW_KEPT_WORDS = 0.5
_LISTED_DROPPED = 1000


@dataclass(frozen=True, slots=True)
class ShiftSummary:
    """What was measured.

    Attributes:
        folder: The shift artifact.
        reused: Whether a finished artifact was found there.
        shifts: The shift table, empty when reused.
        num_documents: Documents with an original.
        num_dropped: Texts that took no part.
    """

    folder: Path
    reused: bool
    shifts: tuple[FactorShift, ...]
    num_documents: int
    num_dropped: int


def measure_shifts(
    base_folder: Path,
    tuned_folder: Path,
    config: ShiftConfig,
    folder: Path,
    *,
    notes: Sequence[str] = (),
    extra_checks: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> ShiftSummary:
    """Compare the scores of a base and a tuned model and write all tables.

    Args:
        base_folder: Scores artifact of the base model.
        tuned_folder: Scores artifact of the tuned model, for the same texts and settings.
        config: Statistics settings.
        folder: Output folder.
        notes: Sentences that every report of these numbers must show (who wrote the probes, what is special about them).
        extra_checks: Checks made elsewhere that belong beside these numbers: name -> {passed, text}.
        progress: Where to report.

    Raises:
        UnreadableInputError: One of the folders holds no finished scores.
        MismatchedScoresError: Other texts or settings.
        NothingToDoError: No document has both an original and a variant.
        StaleArtifactError: The output folder holds shifts of other scores or settings.
    """
    shown = progress or SilentProgress()
    base, tuned = read_scores(base_folder), read_scores(tuned_folder)
    checks = {name: dict(check) for name, check in (extra_checks or {}).items()}
    scores = {"base_scores": _identify(base), "tuned_scores": _identify(tuned)}
    inputs = {"format_version": FORMAT_VERSION, **scores, "notes": list(notes), "extra_checks": checks}
    paired = pair_scores(base, tuned)
    cure = f"choose another --out; lmdissect shift --base {base_folder} --tuned {tuned_folder} --out DIR takes the scores that are finished"
    with open_artifact(folder, stage=STAGE, config=config.model_dump(mode="json"), inputs=inputs, cure=cure) as artifact:
        if artifact.finished is not None:
            shown.say(f"{folder}: shifts measured before from the same scores; reused")
            counts = artifact.finished.counts
            return ShiftSummary(folder, reused=True, shifts=(), num_documents=counts["documents"], num_dropped=counts["dropped_texts"])
        for line in artifact.describe_damage():
            shown.say(line)
        tables, details = _measure(paired, config, shown)
        details = {**details, "notes": list(notes), "checks": {**details["checks"], **checks}}
        files = [name for table, content in tables.items() for name in write_shift_table(artifact, table, content)]
        counts = {"documents": len(paired.documents), "variants": len(paired.factors), "dropped_texts": len(paired.dropped)}
        artifact.finish(counts=counts, details=details, files=files)
        shifts = tuple(FactorShift(**row) for row in tables["shifts"].to_pylist())
        return ShiftSummary(folder, reused=False, shifts=shifts, num_documents=len(paired.documents), num_dropped=len(paired.dropped))


def _identify(table: ScoreTable) -> str:
    """Hash of what was scored and of the scores themselves: the same request on another machine or version may give other last bits."""
    return fingerprint([table.manifest.key, {name: record.sha256 for name, record in table.manifest.files.items()}])


def _measure(paired: PairedScores, config: ShiftConfig, progress: Progress) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    with progress.task("measure shifts", 6, "tables") as task:
        shifts, unavailable = estimate_shifts(paired, config)
        task.advance(1)
        gains, no_gains = estimate_gains(paired, config)
        task.advance(1)
        position, no_bins = position_rows(paired, config)
        task.advance(1)
        cumulative, no_cumulative = cumulative_rows(paired, config)
        task.advance(1)
        fact_tokens, no_facts = fact_token_rows(paired, config)
        task.advance(1)
        interactions, no_interactions = interaction_rows(paired, config)
        task.advance(1)
    losses = _loss_rows(paired)
    kept_words = kept_word_shares(paired)
    rows = {
        "shifts": [asdict(row) for row in shifts],
        "losses": losses,
        "gains": gains,
        "position": position,
        "cumulative": cumulative,
        "fact_tokens": fact_tokens,
        "interactions": interactions,
        "examples": _example_rows(paired, config),
    }
    tables = {name: pa.Table.from_pylist(content, schema=SCHEMAS[name]) for name, content in rows.items()}
    tables["documents"] = document_table(paired, kept_words)
    absent = {ORIGINAL, *paired.factors} - {row["variant"] for row in losses}
    no_losses = [
        UnavailableRow("losses", variant, variant, "token", "no document has this text whole under both models") for variant in sorted(absent)
    ]
    missing = [*unavailable, *no_gains, *no_losses, *no_bins, *_token_tables(paired), *no_cumulative, *no_facts, *no_interactions]
    return tables, _details(paired, shifts, missing, kept_words, config)


def _token_tables(paired: PairedScores) -> list[UnavailableRow]:
    """Tables that stay empty where tokens cannot be compared."""
    reason = "the models' tokenizers differ: token by token nothing can be compared"
    tables = () if paired.tokenizers_equal else ("position", "cumulative", "examples")
    return [UnavailableRow(table, "all", "original", "token", reason) for table in tables]


def _loss_rows(paired: PairedScores) -> list[dict[str, Any]]:
    """Pooled losses: sum of nats / sum of scored tokens (or bytes), over the documents that both models scored."""
    rows: list[dict[str, Any]] = []
    for variant in (ORIGINAL, *paired.factors):
        keys = [(document_id, variant) for document_id in paired.documents]
        keys = [key for key in keys if all(key in table.rows and table.num_scored[table.rows[key]] for table in (paired.base, paired.tuned))]
        if not paired.tokenizers_equal:  # the same number of other tokens covers another stretch of the text
            cut = dict(zip(paired.documents, paired.truncated[variant].tolist(), strict=True))
            keys = [key for key in keys if not cut[key[0]]]
        if not keys:
            continue
        pooled = {name: _pooled(table, [table.rows[key] for key in keys]) for name, table in (("base", paired.base), ("tuned", paired.tuned))}
        by_token = paired.tokenizers_equal
        rows.append(
            {
                "variant": variant,
                "factor": paired.factors.get(variant),
                "num_documents": len(keys),
                "num_tokens": pooled["base"][1],
                "num_bytes": pooled["base"][2],
                **{f"{name}_loss_nats": total / tokens if by_token else None for name, (total, tokens, _) in pooled.items()},
                **{f"{name}_nats_per_byte": total / size for name, (total, _, size) in pooled.items()},
                **{f"{name}_perplexity": float(np.exp(total / tokens)) if by_token else None for name, (total, tokens, _) in pooled.items()},
            }
        )
    return rows


def _pooled(table: ScoreTable, rows: Sequence[int]) -> tuple[float, int, int]:
    return -float(table.logprob_nats[rows].sum()), int(table.num_scored[rows].sum()), int(table.num_scored_bytes[rows].sum())


def _details(
    paired: PairedScores,
    shifts: Sequence[FactorShift],
    unavailable: Sequence[UnavailableRow],
    kept_words: Mapping[str, Floats],
    config: ShiftConfig,
) -> dict[str, Any]:
    base, tuned = paired.base.manifest, paired.tuned.manifest
    return {
        "level": config.level,
        "num_draws": config.num_draws,
        "seed": config.seed,
        "probes": base.details["probes"],
        "scores_keys": [base.key, tuned.key],
        "base_model": {**base.details["model"], "device": base.config["device"], "dtype": base.config["dtype"]},
        "tuned_model": {**tuned.details["model"], "device": tuned.config["device"], "dtype": tuned.config["dtype"]},
        "bos": base.config["bos"],
        "max_tokens": base.config["max_tokens"],
        "tokenizers_equal": paired.tokenizers_equal,
        "control": paired.control,
        "generators": base.details["generators"],
        "audits": base.details.get("audits", {}),
        "variants": {variant: _variant_details(paired, variant, kept_words[variant]) for variant in paired.factors},
        "rejected": base.details["rejected"],
        "num_dropped": len(paired.dropped),
        "dropped": [asdict(text) for text in paired.dropped[:_LISTED_DROPPED]],
        "unavailable": [asdict(row) for row in unavailable],
        "checks": _checks(paired, shifts),
    }


def _variant_details(paired: PairedScores, variant: str, kept_words_D: Floats) -> dict[str, Any]:
    """Facts about a variant that decide how to read its rows."""
    table = paired.base
    kept = kept_words_D[~np.isnan(kept_words_D)]
    median = float(np.median(kept)) if len(kept) else None
    cut = paired.truncated[variant] | paired.truncated[ORIGINAL]
    is_control = paired.factors[variant] == CONTROL
    net = paired.control is not None and not is_control and median is not None and median < _NET_BELOW_KEPT_WORDS
    return {
        "factor": paired.factors[variant],
        "num_documents": len(kept),
        "kept_words_median": median,
        "num_truncated": int(sum(cut[number] for number, d in enumerate(paired.documents) if (d, variant) in table.rows)),
        "headline_reference": "control" if net else "original",
        "writer_against_control": None if is_control or paired.control is None else _compare_writers(table.manifest.details, variant, paired.control),
    }


def _compare_writers(details: Mapping[str, Any], variant: str, control: str) -> WriterMatch:
    """Whether a variant was written as the control was; only then does the net shift hold the writer's fingerprint constant."""
    writers = [details["generators"].get(name) for name in (variant, control)]
    prompts = [details["prompt_hashes"].get(name) for name in (variant, control)]
    if None in writers:
        return "not recorded"
    if writers[0] != writers[1]:
        return "another writer"
    if None in prompts:
        return "same writer, prompts not recorded"
    return "same writer and prompt frame" if prompts[0] == prompts[1] else "same writer, another prompt frame"


def _checks(paired: PairedScores, shifts: Sequence[FactorShift]) -> dict[str, dict[str, Any]]:
    base, tuned = paired.base.manifest, paired.tuned.manifest
    checks: dict[str, dict[str, Any]] = {}
    for name, manifest in (("base", base), ("tuned", tuned)):
        found = manifest.details["batch_invariance"]
        checks[f"batch invariance, {name}"] = {
            "passed": bool(found["passed"]),
            "text": f"{found['num_texts']} texts scored again alone: worst token {found['worst_token_nats']:.1e} nats, "
            f"worst document mean {found['worst_document_mean_nats']:.1e} nats",
        }
    identical = all(base.details["model"][name] == tuned.details["model"][name] for name in ("weights", "config", "adapter"))
    zero = all(row.estimate == 0.0 for row in shifts)
    if identical:
        text = "the two models are identical; every shift is exactly 0" if zero else "identical models, but a shift is not 0"
        checks["identical models give shifts of exactly 0"] = {"passed": zero, "text": text}
    same = all(base.config[name] == tuned.config[name] for name in ("device", "dtype")) and base.versions.get("torch") == tuned.versions.get("torch")
    same = same and base.details["num_threads"] == tuned.details["num_threads"]
    where = [
        f"{manifest.config['device']} in {manifest.config['dtype']} with {manifest.details['num_threads']} CPU threads" for manifest in (base, tuned)
    ]
    checks["scored under equal conditions"] = {"passed": same, "text": f"base on {where[0]}, tuned on {where[1]}"}
    return checks


def _example_rows(paired: PairedScores, config: ShiftConfig) -> list[dict[str, Any]]:
    """Token scores of a few documents: drawn by the seed, half of them from the tenth of the documents that moved most, in either direction."""
    if not paired.tokenizers_equal or not config.num_examples:
        return []
    gains = {variant: paired.gains(paired.normalizations[0], variant) for variant in (ORIGINAL, *paired.factors)}
    complete = np.flatnonzero(~np.isnan(np.stack(list(gains.values()))).any(axis=0))
    pool = complete if len(complete) >= config.num_examples else np.flatnonzero(~np.isnan(gains[ORIGINAL]))
    movement = np.nansum([np.abs(gains[ORIGINAL] - gains[variant]) for variant in paired.factors], axis=0)[pool]
    most = pool[np.argsort(-movement, kind="stable")[: max(config.num_examples // 2, len(pool) // 10)]]
    rng = seeded_rng(config, "examples")
    half = min(config.num_examples // 2, len(most))
    chosen = rng.permutation(most)[:half].tolist()
    rest = [int(number) for number in rng.permutation(pool) if number not in set(chosen)]
    chosen += rest[: config.num_examples - len(chosen)]
    return [
        _example(paired, variant, document, gains)
        for document in chosen
        for variant in (ORIGINAL, *paired.factors)
        if not np.isnan(gains[variant][document])
    ]


def _example(paired: PairedScores, variant: str, document: int, gains: dict[str, np.ndarray]) -> dict[str, Any]:
    base, tuned = paired.base, paired.tuned
    row, other = paired.row_of(base, variant, document), paired.row_of(tuned, variant, document)
    shift = None if variant == ORIGINAL else float(gains[ORIGINAL][document] - gains[variant][document])
    return {
        "document_id": paired.documents[document],
        "variant": variant,
        "text": base.texts[row],
        "shift": shift,
        "char_start": base.token_char_start[base.tokens(row)].tolist(),
        "char_end": base.token_char_end[base.tokens(row)].tolist(),
        "base_logprob_nats": _nullable(base.token_logprob_nats[base.tokens(row)]),
        "tuned_logprob_nats": _nullable(tuned.token_logprob_nats[tuned.tokens(other)]),
    }


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
