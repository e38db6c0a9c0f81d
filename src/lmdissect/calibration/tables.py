"""The world's exact scores in the form in which scoring hands scores on: a scores artifact on disk, or the table that is read from one."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lmdissect.calibration.grammar import TextBatch
from lmdissect.calibration.rewriting import VARIANTS, ProbeDraw
from lmdissect.calibration.world import WorldModel
from lmdissect.formats.scores import STAGE, ScoreTable, write_scores
from lmdissect.records import ProbeSet, ProbeText, TextScores
from lmdissect.store import Manifest, open_artifact
from lmdissect.store.artifact import SCHEMA_VERSION

__all__ = ["make_score_table", "probe_set_of", "write_score_artifact"]

_WRITER = "the rewriter of the synthetic world"


def probe_set_of(world: WorldModel, draw: ProbeDraw, prefix: str = "d") -> ProbeSet:
    """The texts as a probe set."""
    texts = [
        ProbeText(f"{prefix}{number}", variant, text)
        for variant, batch in draw.texts.items()
        for number, text in enumerate(world.grammar.render(batch))
    ]
    return ProbeSet(
        texts=tuple(texts),
        factors=dict(VARIANTS),
        source="synthetic world",
        generators=dict.fromkeys(VARIANTS, _WRITER),
        prompt_hashes=dict.fromkeys(VARIANTS, "grammar"),
    )


def make_score_table(world: WorldModel, draw: ProbeDraw, model: str) -> ScoreTable:
    """Exact scores of all texts under ``world``, in memory.

    What pairing and estimating do not look at is left out: the texts are empty strings and there are no token rows. The totals are those that
    `write_score_artifact` writes, before its tokens are rounded to float32.
    """
    variants = [variant for variant in draw.texts for _ in range(draw.num_documents)]
    ids = [f"d{number}" for number in range(draw.num_documents)] * len(draw.texts)
    num_sentences = np.concatenate([texts.num_sentences for texts in draw.texts.values()])
    num_tokens = world.grammar.num_tokens(num_sentences)
    nothing = np.empty(0, np.int32)
    return ScoreTable(
        manifest=_manifest(model),
        factors=dict(VARIANTS),
        rows={key: row for row, key in enumerate(zip(ids, variants, strict=True))},
        document_ids=ids,
        variants=variants,
        texts=[""] * len(ids),
        key_terms={},
        num_tokens=num_tokens,
        num_scored=num_tokens,
        num_scored_bytes=world.grammar.num_bytes(num_sentences),
        truncated=np.zeros(len(ids), bool),
        logprob_nats=np.concatenate([world.document_scores(texts) for texts in draw.texts.values()]),
        token_offsets=np.zeros(len(ids) + 1, np.int64),
        token_char_start=nothing,
        token_char_end=nothing,
        token_id=nothing,
        token_logprob_nats=np.empty(0, np.float32),
    )


def write_score_artifact(world: WorldModel, draw: ProbeDraw, model: str, folder: Path) -> Path:
    """Exact token scores of all texts under ``world`` as a finished scores artifact.

    Returns:
        ``folder``.
    """
    probe_set = probe_set_of(world, draw)
    scores = [score for texts in draw.texts.values() for score in _text_scores(world, texts)]
    with open_artifact(folder, stage=STAGE, config=_SETTINGS, inputs={"model": model}) as artifact:
        if artifact.finished is None:
            write_scores(artifact, probe_set, scores)
            artifact.finish(counts={"texts": len(scores)}, details=_details(model))
    return folder


def _text_scores(world: WorldModel, texts: TextBatch) -> Sequence[TextScores]:
    grammar = world.grammar
    ids, logprobs = grammar.token_ids(texts), world.token_scores(texts)
    counts = grammar.num_tokens(texts.num_sentences).tolist()
    scores = []
    for row, (text, count) in enumerate(zip(grammar.render(texts), counts, strict=True)):
        ends = np.cumsum([len(word) + 1 for word in text.split(" ")]) - 1
        scores.append(
            TextScores(
                token_id=ids[row, :count].astype(np.int32),
                char_start=np.concatenate([[0], ends[:-1] + 1]).astype(np.int32),
                char_end=ends.astype(np.int32),
                logprob_nats=logprobs[row, :count].astype(np.float32),
                num_tokens=count,
                num_scored=count,
                num_scored_bytes=len(text.encode()),
                truncated=False,
            )
        )
    return scores


_SETTINGS: Mapping[str, Any] = {"bos": "auto", "max_tokens": None, "window_tokens": None, "device": "cpu", "dtype": "float64"}


def _details(model: str) -> dict[str, Any]:
    return {
        "model": {"reference": model, "tokenizer": "synthetic world", "weights": model, "config": "synthetic world", "adapter": None},
        "prefix_ids": [0],
        "factors": dict(VARIANTS),
        "generators": dict.fromkeys(VARIANTS, _WRITER),
        "prompt_hashes": dict.fromkeys(VARIANTS, "grammar"),
        "num_threads": 1,
        "probes": "synthetic world",
        "rejected": [],
        "batch_invariance": {"num_texts": 0, "worst_token_nats": 0.0, "worst_document_mean_nats": 0.0, "passed": True},
    }


def _manifest(model: str) -> Manifest:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        stage=STAGE,
        key="in memory",
        config=dict(_SETTINGS),
        inputs={"model": model},
        files={},
        counts={},
        details=_details(model),
        versions={},
        machine={},
        started_at=now,
        finished_at=now,
        wall_s=0.0,
    )
