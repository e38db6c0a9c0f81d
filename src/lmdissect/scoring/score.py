"""Score a probe set as an artifact: chunk by chunk, resumable, by one process or by many, verified at the end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmdissect.errors import InterruptedRunError
from lmdissect.formats.scores import STAGE, write_scores
from lmdissect.interrupts import StopRequest
from lmdissect.models import LanguageModel, LoadOptions, ModelFingerprint, ResolvedModel, TextTokenizer, fingerprint_model, load_model, load_tokenizer
from lmdissect.models.processes import any_process, ask_main_process, num_processes, process_rank
from lmdissect.progress import Progress, SilentProgress
from lmdissect.records import ProbeSet, ProbeText, TextScores
from lmdissect.scoring.chunks import Logprobs, ScoringWork, Shard, read_chunks, score_chunk, score_chunks
from lmdissect.scoring.config import ScoringConfig, SizedScoringConfig
from lmdissect.scoring.logprobs import score_windows
from lmdissect.scoring.plan import EncodedText, make_plan
from lmdissect.store import ArtifactFolder, artifact_key, fingerprint, hash_text, join_artifact, open_artifact

__all__ = ["ScoringSummary", "score_live_model", "score_probe_set", "score_texts", "scores_key"]

_CHECKED_TEXTS = 4
_TOLERANCE_TOKEN_NATS = 5e-4
_TOLERANCE_DOCUMENT_NATS = 1e-5
_HALF_PRECISION_FACTOR = 1000.0  # bfloat16 keeps 8 bits of a hidden state where float32 keeps 24; sums of other shapes round to other bits


@dataclass(frozen=True, slots=True)
class ScoringSummary:
    """What scoring did.

    Attributes:
        folder: The scores artifact.
        reused: Whether nothing had to be computed: a finished artifact was found there, or every chunk of the shard.
        num_texts: Texts with a row; for a shard, distinct texts of its chunks.
        num_scored_tokens: Tokens with a score, identical texts counted each; for a shard, of its distinct texts.
        num_truncated: Texts cut by the token limit; for a shard, among its distinct texts.
    """

    folder: Path
    reused: bool
    num_texts: int
    num_scored_tokens: int
    num_truncated: int


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be scored: everything the artifact's key is made of, and how to get the model when it is needed."""

    probe_set: ProbeSet
    config: SizedScoringConfig
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    load: Callable[[], LanguageModel]

    def prepare(self) -> tuple[ScoringWork, TextTokenizer]:
        """Load the model and make the plan."""
        model = self.load()
        return _make_work(model, self.probe_set.texts, self.config)


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
    work, tokenizer = _make_work(model, [ProbeText(str(number), "text", text) for number, text in enumerate(texts)], chosen)
    scored: dict[int, Logprobs] = {}
    for chunk in work.plan.chunks:
        for indices, logprobs in score_chunk(work, chunk):
            scored.update(zip(indices, logprobs, strict=True))
    return _all_scores(work, scored, tokenizer)


def score_probe_set(
    resolved: ResolvedModel,
    probe_set: ProbeSet,
    config: ScoringConfig,
    folder: Path,
    *,
    shard: Shard | None = None,
    delegate: Callable[[], None] | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> ScoringSummary:
    """Score every text of ``probe_set`` under one model and write the scores artifact (see `lmdissect.formats.scores`).

    Chunks of texts are stored as they finish. After a kill the same call goes on with the first missing chunk; the outcome is the one of an
    uninterrupted run, whatever number of processes took part in either.

    Started by torchrun, every process makes this same call: the first one holds the folder's lock, each scores its shard, all wait for each other, and the
    first one scores what is missing and finishes. Elsewhere, whoever starts other processes passes ``delegate``, and the others pass ``shard``.

    Args:
        resolved: The model's files.
        probe_set: Originals and variants.
        config: Settings.
        folder: Output folder.
        shard: Score this part only, in a folder that another process has begun and will finish; its lock is not needed.
        delegate: Called once other processes can join the folder, before anything is scored (and the model loaded) here; it returns when they are
            done or have failed. What is missing then is scored here.
        progress: Where to report.
        stop: Looked at after every chunk.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite; the document is named and nothing is written for its chunk.
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds scores of other settings or inputs.
        UnreadableInputError: A shard was asked for, and nothing was begun in the folder.
    """
    shown, stopped = progress or SilentProgress(), StopRequest() if stop is None else stop
    options = LoadOptions(config.dtype, config.device)
    sized = config.sized_for(options.torch_device().type)
    settings, inputs = _settings(sized, options), _inputs(resolved, probe_set, sized)
    request = _Request(probe_set, sized, settings, inputs, lambda: load_model(resolved, options))
    if shard is not None:
        return _score_shard(request, folder, shard, shown, stopped)
    if delegate is None and num_processes() > 1:
        return _score_together(request, folder, shown, stopped)
    return _score_alone(request, folder, delegate, shown, stopped)


def score_live_model(
    model: LanguageModel,
    weights: ModelFingerprint,
    probe_set: ProbeSet,
    config: ScoringConfig,
    folder: Path,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> ScoringSummary:
    """Score a probe set under a model in memory, as it is now, and write the same artifact as `score_probe_set`.

    Args:
        model: The model, in eval mode (see `lmdissect.models.borrow_live_model`).
        weights: Hashes of its weights as they are now.
        probe_set: Originals and variants.
        config: Settings; where the model is and what it computes in are recorded instead of ``device`` and ``dtype``.
        folder: Output folder.
        progress: Where to report.
        stop: Looked at after every chunk.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite; the document is named.
        InterruptedRunError: ``stop`` was set.
        StaleArtifactError: The folder holds scores of other weights, settings or texts.
    """
    sized = config.sized_for(model.device.type)
    where = {"device": str(model.device), "dtype": str(model.compute_dtype).removeprefix("torch.")}
    settings = {**sized.model_dump(mode="json"), **where}
    inputs = _hashes(weights, TextTokenizer(model.tokenizer, sized.bos), probe_set)
    request = _Request(probe_set, sized, settings, inputs, lambda: model)
    return _score_alone(request, folder, None, progress or SilentProgress(), StopRequest() if stop is None else stop)


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
    return _hashes(fingerprint_model(resolved), TextTokenizer(load_tokenizer(resolved), config.bos), probe_set)


def _hashes(weights: ModelFingerprint, tokenizer: TextTokenizer, probe_set: ProbeSet) -> dict[str, Any]:
    return {
        "model": {**weights.to_json(), "tokenizer": tokenizer.fingerprint()},
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


def _make_work(model: LanguageModel, texts: Sequence[ProbeText], config: SizedScoringConfig) -> tuple[ScoringWork, TextTokenizer]:
    tokenizer = TextTokenizer(model.tokenizer, config.bos)
    return ScoringWork(model, make_plan(texts, tokenizer, _max_input(model, config), config), texts, config), tokenizer


def _score_shard(request: _Request, folder: Path, shard: Shard, progress: Progress, stop: StopRequest) -> ScoringSummary:
    artifact = join_artifact(folder, stage=STAGE, config=request.settings, inputs=request.inputs)
    if artifact.finished is not None:
        return _summary(folder, artifact.finished.counts, reused=True)
    work, _ = request.prepare()
    numbers, stored = shard.chunks_of(work.plan), artifact.chunks()
    score_chunks(artifact, work, numbers, stored, progress, stop)
    texts = [work.plan.texts[index] for number in numbers for index in work.plan.chunks[number]]
    counts = {
        "texts": len(texts),
        "scored_tokens": sum(len(window.targets) for text in texts for window in text.windows),
        "truncated_texts": sum(len(text.tokens.token_id) < text.num_tokens for text in texts),
    }
    return _summary(folder, counts, reused=all(number in stored for number in numbers))


def _score_alone(request: _Request, folder: Path, delegate: Callable[[], None] | None, progress: Progress, stop: StopRequest) -> ScoringSummary:
    with open_artifact(folder, stage=STAGE, config=request.settings, inputs=request.inputs) as artifact:
        if artifact.finished is not None:
            return _reuse(artifact, artifact.finished.counts, progress)
        if delegate is not None:
            delegate()
        work, tokenizer = request.prepare()
        return _score_rest(artifact, work, tokenizer, request.probe_set, progress, stop)


def _score_together(request: _Request, folder: Path, progress: Progress, stop: StopRequest) -> ScoringSummary:
    """What each of several processes does: the first one begins, each scores its shard, all meet, the first one scores what is missing and finishes."""
    shard = Shard(process_rank(), num_processes())
    with ExitStack() as stack:
        held: list[ArtifactFolder] = []  # by the first process alone
        prepared: list[tuple[ScoringWork, TextTokenizer]] = []

        def begin() -> bool:
            held.append(stack.enter_context(open_artifact(folder, stage=STAGE, config=request.settings, inputs=request.inputs)))
            return held[0].finished is not None

        def score_here() -> None:
            if not held:
                _score_shard(request, folder, shard, SilentProgress(), stop)
                return
            prepared.append(request.prepare())
            work, _ = prepared[0]
            score_chunks(held[0], work, shard.chunks_of(work.plan), _stored_chunks(held[0], work, progress), progress, stop)

        def finish() -> list[Any]:
            if held[0].finished is not None:
                return _told(_reuse(held[0], held[0].finished.counts, progress))
            return _told(_score_rest(held[0], *prepared[0], request.probe_set, SilentProgress(), stop))

        if not ask_main_process(begin):
            _meet(score_here)
        return ScoringSummary(folder, *ask_main_process(finish))


def _meet(work: Callable[[], None]) -> None:
    """Do ``work``, and go on when every process has done its own; where the user stopped one of them, all stop."""
    interrupted: InterruptedRunError | None = None
    try:
        work()
    except InterruptedRunError as error:
        interrupted = error
    if any_process(interrupted is not None):
        message = "stopped; run the same command again to go on from there"
        raise interrupted or InterruptedRunError(message)


def _told(summary: ScoringSummary) -> list[Any]:
    """What one process tells the others of its summary."""
    return [summary.reused, summary.num_texts, summary.num_scored_tokens, summary.num_truncated]


def _score_rest(
    artifact: ArtifactFolder, work: ScoringWork, tokenizer: TextTokenizer, probe_set: ProbeSet, progress: Progress, stop: StopRequest
) -> ScoringSummary:
    """Score every chunk that is not there, and finish."""
    stored = _stored_chunks(artifact, work, progress)
    fresh = score_chunks(artifact, work, range(len(work.plan.chunks)), stored, progress, stop)
    return _finish(artifact, work, tokenizer, probe_set, {**read_chunks(stored.values()), **fresh})


def _reuse(artifact: ArtifactFolder, counts: Mapping[str, int], progress: Progress) -> ScoringSummary:
    progress.say(f"{artifact.folder}: scored before with the same model, texts and settings; reused")
    return _summary(artifact.folder, counts, reused=True)


def _stored_chunks(artifact: ArtifactFolder, work: ScoringWork, progress: Progress) -> dict[int, Path]:
    stored = artifact.chunks()
    for line in artifact.describe_damage():
        progress.say(line)
    if stored:
        progress.say(f"{artifact.folder}: going on, {len(stored)} of {len(work.plan.chunks)} chunks were finished before")
    return stored


def _finish(
    artifact: ArtifactFolder, work: ScoringWork, tokenizer: TextTokenizer, probe_set: ProbeSet, scored: Mapping[int, Logprobs]
) -> ScoringSummary:
    """Write the tables of all scores and the manifest."""
    model, plan = work.model, work.plan
    scores = _all_scores(work, scored, tokenizer)
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
        "model": {**artifact.inputs["model"], "reference": model.reference, "backend": model.backend, "revision": model.revision},
        "num_parameters": model.num_parameters,
        "head": "chunked logits" if model.head else "model.forward",
        "prefix_ids": list(tokenizer.prefix_ids),
        "max_input": _max_input(model, work.config),
        "factors": dict(probe_set.factors),
        "generators": dict(probe_set.generators),
        "prompt_hashes": dict(probe_set.prompt_hashes),
        "audits": {name: dict(audit) for name, audit in probe_set.audits.items()},
        "num_threads": torch.get_num_threads(),
        "probes": probe_set.source,
        "rejected": [[record.source, record.record, record.reason] for record in probe_set.rejected],
        "batch_invariance": check_invariance(work, scored),
    }
    artifact.finish(counts=counts, details=details, files=["texts.parquet", "document_scores.parquet", "token_scores.parquet"])
    return _summary(artifact.folder, counts, reused=False)


def _summary(folder: Path, counts: Mapping[str, int], *, reused: bool) -> ScoringSummary:
    return ScoringSummary(folder, reused, counts["texts"], counts["scored_tokens"], counts["truncated_texts"])


def _all_scores(work: ScoringWork, scored: Mapping[int, Logprobs], tokenizer: TextTokenizer) -> list[TextScores]:
    """Scores of every text asked for, in that order."""
    return [_text_scores(work.plan.texts[index], scored.get(index), bool(tokenizer.prefix_ids)) for index in work.plan.index_of]


def _text_scores(encoded: EncodedText, logprobs: Logprobs | None, has_prefix: bool) -> TextScores:  # noqa: FBT001
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


def check_invariance(work: ScoringWork, scored: Mapping[int, Logprobs]) -> dict[str, float | int | bool]:
    """Score a few texts again, each alone, and compare: scores must not depend on what else was in the batch."""
    candidates = sorted(scored, key=lambda index: (len(scored[index]), index))
    chosen = sorted({candidates[round(step * (len(candidates) - 1) / (_CHECKED_TEXTS - 1))] for step in range(_CHECKED_TEXTS)}) if candidates else []
    worst_token = worst_document = 0.0
    for index in chosen:
        windows = work.plan.texts[index].windows
        alone = np.concatenate([score_windows(work.model, [window], work.config.logits_megabytes)[0] for window in windows])
        worst_token = max(worst_token, float(np.abs(alone - scored[index]).max()))
        worst_document = max(worst_document, abs(float(alone.mean(dtype=np.float64) - scored[index].mean(dtype=np.float64))))
    rounding = _HALF_PRECISION_FACTOR if work.model.compute_dtype != torch.float32 else 1.0
    return {
        "num_texts": len(chosen),
        "worst_token_nats": worst_token,
        "worst_document_mean_nats": worst_document,
        "passed": worst_token < rounding * _TOLERANCE_TOKEN_NATS and worst_document < rounding * _TOLERANCE_DOCUMENT_NATS,
    }
