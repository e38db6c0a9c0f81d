"""Scores artifacts made from numbers: every test of the statistics builds one here, through the real writer and reader.

A token is a word with the space before it, so that a text of n words has n tokens and a test can say which score belongs to which word.

    base = save_scores(tmp_path / "base", [ScoredText("d1", "original", "two words", (-1.0, -2.0))])
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmdissect.factors import resolve_factors
from lmdissect.formats.scores import STAGE, ScoreTable, read_scores, write_scores
from lmdissect.records import ProbeSet, ProbeText, TextScores
from lmdissect.store import open_artifact, read_manifest

__all__ = ["SCORE_FILES", "ScoredText", "assert_same_scores", "documents_from_gains", "save_scores"]

SCORE_FILES = ("texts.parquet", "document_scores.parquet", "token_scores.parquet")

_TOKEN = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class ScoredText:
    """One text with the score of each of its words; NaN for a word without a score. Fewer scores than words: a token limit cut the text."""

    document_id: str
    variant: str
    text: str
    logprob_nats: Sequence[float]

    def scores(self) -> TextScores:
        """As the scoring stage would give them."""
        words = list(_TOKEN.finditer(self.text))
        num_kept = len(self.logprob_nats)
        assert num_kept <= len(words), self
        kept = words[:num_kept]
        values = np.asarray(self.logprob_nats, dtype=np.float32)
        scored = np.flatnonzero(~np.isnan(values))
        truncated = num_kept < len(words)
        end = kept[-1].end() if truncated and kept else len(self.text)
        num_bytes = len(self.text[kept[scored[0]].start() : end].encode()) if len(scored) else 0
        return TextScores(
            token_id=np.asarray([len(word.group()) for word in kept], np.int32),
            char_start=np.asarray([word.start() for word in kept], np.int32),
            char_end=np.asarray([word.end() for word in kept], np.int32),
            logprob_nats=values,
            num_tokens=len(words),
            num_scored=len(scored),
            num_scored_bytes=num_bytes,
            truncated=truncated,
        )


def save_scores(
    folder: Path,
    texts: Sequence[ScoredText],
    *,
    model: str = "base",
    weights: str | None = None,
    tokenizer: str = "words",
    factors: Mapping[str, str] | None = None,
    key_terms: Mapping[str, Sequence[str]] | None = None,
    config: Mapping[str, object] | None = None,
    prefix_ids: Sequence[int] = (0,),
    generators: Mapping[str, str] | None = None,
    prompt_hashes: Mapping[str, str] | None = None,
    source: str = "a test",
) -> ScoreTable:
    """Write a finished scores artifact and read it back.

    Args:
        folder: Where.
        texts: Texts with their scores, in table order.
        model: Reference of the model; also stands for its weights unless ``weights`` is given.
        weights: Hash of the weights.
        tokenizer: Hash of the tokenizer; one that does not begin with "words" gives every word another id.
        factors: Factors of variants that are not built in.
        key_terms: Key terms of documents.
        config: Settings that differ from the defaults.
        prefix_ids: Tokens before every text.
        generators: Who wrote each variant.
        prompt_hashes: With which prompt.
        source: Where the probe set was read.
    """
    probe_set = ProbeSet(
        texts=tuple(ProbeText(text.document_id, text.variant, text.text) for text in texts),
        factors=resolve_factors({text.variant: None for text in texts}, factors),
        source=source,
        metadata={document_id: {"keywords": list(terms)} for document_id, terms in (key_terms or {}).items()},
    )
    settings = {"bos": "auto", "max_tokens": None, "window_tokens": None, "device": "cpu", "dtype": "float32", **(config or {})}
    identity = {"reference": model, "tokenizer": tokenizer, "weights": weights or model, "config": "c", "adapter": None}
    details = {
        "model": identity,
        "prefix_ids": list(prefix_ids),
        "factors": dict(probe_set.factors),
        "generators": dict(generators or {}),
        "prompt_hashes": dict(prompt_hashes or {}),
        "num_threads": 2,
        "probes": probe_set.source,
        "rejected": [],
        "batch_invariance": {"num_texts": 1, "worst_token_nats": 0.0, "worst_document_mean_nats": 0.0, "passed": True},
    }
    with open_artifact(folder, stage=STAGE, config=settings, inputs={"model": identity}) as artifact:
        scores = [text.scores() for text in texts]
        if not tokenizer.startswith("words"):
            scores = [replace(score, token_id=score.token_id + 1000) for score in scores]
        write_scores(artifact, probe_set, scores)
        artifact.finish(counts={"texts": len(texts)}, details=details)
    return read_scores(folder)


def documents_from_gains(gains: Mapping[str, Sequence[float]], *, num_words: int = 4) -> tuple[list[ScoredText], list[ScoredText]]:
    """Texts of equal length under a base and a tuned model, whose gain per token is given: variant -> one gain per document.

    Every word scores -3.0 under the base and -3.0 + gain under the tuned model.
    """
    base: list[ScoredText] = []
    tuned: list[ScoredText] = []
    for variant, values in gains.items():
        for number, gain in enumerate(values):
            text = " ".join(f"{variant}{number}w{word}" for word in range(num_words))
            base.append(ScoredText(f"d{number}", variant, text, (-3.0,) * num_words))
            tuned.append(ScoredText(f"d{number}", variant, text, (-3.0 + gain,) * num_words))
    return base, tuned


def assert_same_scores(folder: Path, expected: Path) -> None:
    """Two finished scores artifacts agree byte for byte, and nothing is left of the work that made the first."""
    for name in SCORE_FILES:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    here, there = read_manifest(folder), read_manifest(expected)
    for field in ("key", "config", "inputs", "files", "counts", "details"):
        assert getattr(here, field) == getattr(there, field), field
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == sorted([*SCORE_FILES, "manifest.json"])
