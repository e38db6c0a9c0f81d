"""Score a probe set as an artifact: chunk by chunk, resumable, verified at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from lmdissect.errors import InterruptedRunError, ModelReferenceError, NonFiniteScoreError
from lmdissect.formats.scores import STAGE, write_scores
from lmdissect.interrupts import StopRequest
from lmdissect.models import LanguageModel, LoadOptions, ResolvedModel, TextTokenizer, fingerprint_model, load_model, load_tokenizer
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ProbeSet, ProbeText, TextScores
from lmdissect.scoring.config import ScoringConfig, SizedScoringConfig
from lmdissect.scoring.logprobs import score_windows
from lmdissect.scoring.plan import EncodedText, ScoringPlan, batch_windows, make_plan
from lmdissect.store import ArtifactFolder, artifact_key, fingerprint, hash_text, open_artifact, read_table

__all__ = ["ScoringSummary", "score_probe_set", "score_texts", "scores_key"]

_CHECKED_TEXTS = 4
_TOLERANCE_TOKEN_NATS = 5e-4
_TOLERANCE_DOCUMENT_NATS = 1e-5
_HALF_PRECISION_FACTOR = 1000.0  # bfloat16 keeps 8 bits of a hidden state where float32 keeps 24; sums of other shapes round to other bits


@dataclass(frozen=True, slots=True)
class ScoringSummary:
    """What scoring did.

    Attributes:
        folder: The scores artifact.
        reused: Whether a finished artifact was found there.
        num_texts: Texts with a row.
        num_scored_tokens: Tokens with a score, identical texts counted each.
        num_truncated: Texts cut by the token limit.
    """

    folder: Path
    reused: bool
    num_texts: int
    num_scored_tokens: int
    num_truncated: int


def score_texts(model: LanguageModel, texts: Sequence[str], config: ScoringConfig | None = None) -> list[TextScores]:
    """Score texts in memory, in the order given.

    Args:
        model: A loaded model.
        texts: Any texts; empty ones get no token.
        config: Settings; ``dtype`` and ``device`` are those the model was loaded with.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite.
        ModelReferenceError: The tokenizer gives tokens that the model does not have.
    """
    chosen = (config or ScoringConfig()).sized_for(model.device.type)
    probes = [ProbeText(str(number), "text", text) for number, text in enumerate(texts)]
    tokenizer = TextTokenizer(model.tokenizer, chosen.bos)
    plan = make_plan(probes, tokenizer, _max_input(model, chosen), chosen)
    _refuse_unknown_tokens(model, plan, probes)
    scored: dict[int, npt.NDArray[np.float32]] = {}
    for chunk in plan.chunks:
        for indices, logprobs in _score_chunk(model, plan, chunk, probes, chosen):
            scored.update(zip(indices, logprobs, strict=True))
    return [_text_scores(plan.texts[index], scored.get(index), bool(tokenizer.prefix_ids)) for index in plan.index_of]


def score_probe_set(
    resolved: ResolvedModel,
    probe_set: ProbeSet,
    config: ScoringConfig,
    folder: Path,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> ScoringSummary:
    """Score every text of ``probe_set`` under one model and write the scores artifact (see `lmdissect.formats.scores`).

    Chunks of texts are stored as they finish. After a kill the same call goes on with the first missing chunk; the outcome is the one of an
    uninterrupted run.

    Args:
        resolved: The model's files.
        probe_set: Originals and variants.
        config: Settings.
        folder: Output folder.
        progress: Where to report.
        stop: Looked at after every chunk.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite; the document is named and nothing is written for its chunk.
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds scores of other settings or inputs.
    """
    shown = progress or SilentProgress()
    options = LoadOptions(config.dtype, config.device)
    sized = config.sized_for(options.torch_device().type)
    settings, inputs = _settings(sized, options), _inputs(resolved, probe_set, sized)
    with open_artifact(folder, stage=STAGE, config=settings, inputs=inputs) as artifact:
        if artifact.finished is not None:
            shown.say(f"{folder}: scored before with the same model, texts and settings; reused")
            return _summary(folder, artifact.finished.counts, reused=True)
        return _score(artifact, load_model(resolved, options), probe_set, sized, shown, StopRequest() if stop is None else stop)


def scores_key(resolved: ResolvedModel, probe_set: ProbeSet, config: ScoringConfig) -> str:
    """Key that the scores artifact of this model, probe set and settings has on this machine (hex)."""
    options = LoadOptions(config.dtype, config.device)
    sized = config.sized_for(options.torch_device().type)
    return artifact_key(STAGE, _settings(sized, options), _inputs(resolved, probe_set, sized))


def _settings(config: SizedScoringConfig, options: LoadOptions) -> dict[str, Any]:
    """Settings with device and dtype resolved. Names of model and probe set only label the outcome: their content is hashed in the inputs."""
    device = options.torch_device()
    where = {"device": str(device), "dtype": str(options.torch_dtype(device)).removeprefix("torch.")}
    return {**config.model_dump(mode="json"), **where}


def _inputs(resolved: ResolvedModel, probe_set: ProbeSet, config: SizedScoringConfig) -> dict[str, Any]:
    tokenizer = TextTokenizer(load_tokenizer(resolved), config.bos).fingerprint()
    return {
        "model": {**fingerprint_model(resolved).to_json(), "tokenizer": tokenizer},
        "texts": fingerprint([[text.document_id, text.variant, hash_text(text.text)] for text in probe_set.texts]),
        "labels": fingerprint(_labels(probe_set)),
    }


def _labels(probe_set: ProbeSet) -> dict[str, Any]:
    """What the artifact carries on beside texts: factors, writers, prompts, audits and key terms."""
    key_terms = {document_id: fields["keywords"] for document_id, fields in probe_set.metadata.items() if fields.get("keywords")}
    return {"key_terms": key_terms, **{name: dict(getattr(probe_set, name)) for name in ("factors", "generators", "prompt_hashes", "audits")}}


def _max_input(model: LanguageModel, config: SizedScoringConfig) -> int | None:
    limits = [limit for limit in (model.max_context, config.window_tokens) if limit is not None]
    return min(limits, default=None)


def _refuse_unknown_tokens(model: LanguageModel, plan: ScoringPlan, asked: Sequence[ProbeText]) -> None:
    """A tokenizer with more tokens than the model has rows (one was added, and the model not resized) would score tokens that the model cannot know."""
    embeddings: Any = model.model.get_input_embeddings()
    vocabulary = int(embeddings.num_embeddings)
    for text, first_asked in zip(plan.texts, plan.first_asked, strict=True):
        if len(text.tokens.token_id) and int(text.tokens.token_id.max()) >= vocabulary:
            where = asked[first_asked]
            message = (
                f"document {where.document_id} ({where.variant}): the tokenizer of {model.resolved.reference} gives token {int(text.tokens.token_id.max())}, "
                f"and the model knows {vocabulary}: use the tokenizer that belongs to the weights, or resize the model's embeddings"
            )
            raise ModelReferenceError(message)


def _score(
    artifact: ArtifactFolder,
    model: LanguageModel,
    probe_set: ProbeSet,
    config: SizedScoringConfig,
    progress: Progress,
    stop: StopRequest,
) -> ScoringSummary:
    tokenizer = TextTokenizer(model.tokenizer, config.bos)
    plan = make_plan(probe_set.texts, tokenizer, _max_input(model, config), config)
    _refuse_unknown_tokens(model, plan, probe_set.texts)
    scored = _score_chunks(artifact, model, plan, probe_set.texts, config, progress, stop)
    scores = [_text_scores(plan.texts[index], scored.get(index), bool(tokenizer.prefix_ids)) for index in plan.index_of]
    write_scores(artifact, probe_set, scores)
    counts = {
        "texts": len(scores),
        "distinct_texts": len(plan.texts),
        "scored_tokens": sum(score.num_scored for score in scores),
        "truncated_texts": sum(score.truncated for score in scores),
        "unscored_texts": sum(score.num_scored == 0 for score in scores),
        "windowed_texts": sum(len(plan.texts[index].windows) > 1 for index in plan.index_of),
        "rejected_records": len(probe_set.rejected),
    }
    details = {
        "model": {
            **artifact.inputs["model"],
            "reference": model.resolved.reference,
            "backend": model.resolved.backend,
            "revision": model.resolved.revision,
        },
        "num_parameters": model.num_parameters,
        "head": "chunked logits" if model.head else "model.forward",
        "prefix_ids": list(tokenizer.prefix_ids),
        "max_input": _max_input(model, config),
        "factors": dict(probe_set.factors),
        "generators": dict(probe_set.generators),
        "prompt_hashes": dict(probe_set.prompt_hashes),
        "audits": {name: dict(audit) for name, audit in probe_set.audits.items()},
        "num_threads": torch.get_num_threads(),
        "probes": probe_set.source,
        "rejected": [[record.source, record.record, record.reason] for record in probe_set.rejected],
        "batch_invariance": check_invariance(model, plan, scored, config),
    }
    artifact.finish(counts=counts, details=details, files=["texts.parquet", "document_scores.parquet", "token_scores.parquet"])
    return _summary(artifact.folder, counts, reused=False)


def _summary(folder: Path, counts: dict[str, int], *, reused: bool) -> ScoringSummary:
    return ScoringSummary(folder, reused, counts["texts"], counts["scored_tokens"], counts["truncated_texts"])


def _score_chunks(
    artifact: ArtifactFolder,
    model: LanguageModel,
    plan: ScoringPlan,
    asked: Sequence[ProbeText],
    config: SizedScoringConfig,
    progress: Progress,
    stop: StopRequest,
) -> dict[int, npt.NDArray[np.float32]]:
    """Scores of every distinct text by index: read from finished chunks, computed for the others."""
    stored = artifact.chunks()
    for line in artifact.describe_damage():
        progress.say(line)
    scored: dict[int, npt.NDArray[np.float32]] = {}
    for path in stored.values():
        table = read_table(path)
        scored.update(zip(table["text"].to_pylist(), (np.asarray(row, np.float32) for row in table["logprob_nats"].to_pylist()), strict=True))
    total = sum(text.num_inputs for text in plan.texts)
    done = sum(plan.texts[index].num_inputs for number, chunk in enumerate(plan.chunks) if number in stored for index in chunk)
    if stored:
        progress.say(f"{artifact.folder}: going on, {len(stored)} of {len(plan.chunks)} chunks were finished before")
    with progress.task(f"score {model.resolved.reference}", total, "tokens", done=done) as task:
        for number, chunk in enumerate(plan.chunks):
            if number in stored:
                continue
            fresh: dict[int, npt.NDArray[np.float32]] = {}
            for indices, logprobs in _score_chunk(model, plan, chunk, asked, config):
                fresh.update(zip(indices, logprobs, strict=True))
                task.advance(sum(plan.texts[index].num_inputs for index in indices))
            artifact.write_chunk(number, pa.table({"text": list(fresh), "logprob_nats": list(fresh.values())}))
            scored.update(fresh)
            if stop and number + 1 < len(plan.chunks):
                message = f"stopped after chunk {number + 1} of {len(plan.chunks)}; run the same command again to go on from there"
                raise InterruptedRunError(message)
    return scored


def _score_chunk(
    model: LanguageModel, plan: ScoringPlan, chunk: Sequence[int], asked: Sequence[ProbeText], config: SizedScoringConfig
) -> Iterator[tuple[list[int], list[npt.NDArray[np.float32]]]]:
    """Score the texts of a chunk, batch by batch: indices of the texts that became complete, and their scores."""
    owners = [index for index in chunk for _ in plan.texts[index].windows]
    windows = [window for index in chunk for window in plan.texts[index].windows]
    pieces: dict[int, list[tuple[int, npt.NDArray[np.float32]]]] = {}
    for batch in batch_windows(windows, config.batch_tokens):
        complete: list[int] = []
        for number, logprobs in zip(batch, score_windows(model, [windows[number] for number in batch], config.logits_megabytes), strict=True):
            owner, window = owners[number], windows[number]
            if not np.isfinite(logprobs).all():
                text = asked[plan.first_asked[owner]]
                position = window.first_position + int(np.flatnonzero(~np.isfinite(logprobs))[0])
                message = (
                    f"document {text.document_id} ({text.variant}): the model {model.resolved.reference} gave a NaN or infinite log-probability at "
                    f"token {position}; nothing was written for it. Check the model's weights, or try --dtype float32"
                )
                raise NonFiniteScoreError(message)
            pieces.setdefault(owner, []).append((window.first_position, logprobs))
            if len(pieces[owner]) == len(plan.texts[owner].windows):
                complete.append(owner)
        ordered = [np.concatenate([logprobs for _, logprobs in sorted(pieces.pop(owner), key=lambda piece: piece[0])]) for owner in complete]
        yield complete, ordered


def _text_scores(encoded: EncodedText, logprobs: npt.NDArray[np.float32] | None, has_prefix: bool) -> TextScores:  # noqa: FBT001
    tokens = encoded.tokens
    num_kept = len(tokens.token_id)
    values = np.full(num_kept, np.nan, dtype=np.float32)
    if logprobs is not None:
        values[num_kept - len(logprobs) :] = logprobs
    num_scored = 0 if logprobs is None else len(logprobs)
    truncated = num_kept < encoded.num_tokens
    return TextScores(
        token_id=tokens.token_id,
        char_start=tokens.char_start,
        char_end=tokens.char_end,
        logprob_nats=values,
        num_tokens=encoded.num_tokens,
        num_scored=num_scored,
        num_scored_bytes=_scored_bytes(encoded, num_scored, truncated, has_prefix),
        truncated=truncated,
    )


def _scored_bytes(encoded: EncodedText, num_scored: int, truncated: bool, has_prefix: bool) -> int:  # noqa: FBT001
    """UTF-8 bytes from the end of the unscored first token (if any) to the end of the last kept token (or of the text).

    A character that is cut into several tokens counts as soon as one of them is scored.
    """
    if num_scored == 0:
        return 0
    start = 0 if has_prefix else min(int(encoded.tokens.char_end[0]), int(encoded.tokens.char_start[1]))
    end = int(encoded.tokens.char_end[-1]) if truncated else len(encoded.text)
    return len(encoded.text[start:end].encode("utf-8"))


def check_invariance(
    model: LanguageModel, plan: ScoringPlan, scored: dict[int, npt.NDArray[np.float32]], config: SizedScoringConfig
) -> dict[str, float | int | bool]:
    """Score a few texts again, each alone, and compare: scores must not depend on what else was in the batch."""
    candidates = sorted(scored, key=lambda index: (len(scored[index]), index))
    chosen = sorted({candidates[round(step * (len(candidates) - 1) / (_CHECKED_TEXTS - 1))] for step in range(_CHECKED_TEXTS)}) if candidates else []
    worst_token = worst_document = 0.0
    for index in chosen:
        alone = np.concatenate([score_windows(model, [window], config.logits_megabytes)[0] for window in plan.texts[index].windows])
        worst_token = max(worst_token, float(np.abs(alone - scored[index]).max()))
        worst_document = max(worst_document, abs(float(alone.mean(dtype=np.float64) - scored[index].mean(dtype=np.float64))))
    rounding = _HALF_PRECISION_FACTOR if str(model.dtype) != "torch.float32" else 1.0
    return {
        "num_texts": len(chosen),
        "worst_token_nats": worst_token,
        "worst_document_mean_nats": worst_document,
        "passed": worst_token < rounding * _TOLERANCE_TOKEN_NATS and worst_document < rounding * _TOLERANCE_DOCUMENT_NATS,
    }
