"""The scores artifact: what one model thinks of every text of a probe set.

    texts.parquet             document_id, variant, factor (null for originals), text, key_terms (list, null where none are known)
    document_scores.parquet   document_id, variant, num_tokens, num_scored, num_scored_bytes, truncated, logprob_nats (float64, null if none is scored)
    token_scores.parquet      document_id, variant, position, token_id, char_start, char_end, logprob_nats (float32, null for a token without context)
    manifest.json             `details.model`: reference, fingerprint, tokenizer hash ...

All three tables hold the texts in probe-set order; tokens of a text stand together, by position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lmdissect.records import ProbeSet, TextScores
from lmdissect.store import ArtifactFolder, Manifest, read_artifact, read_table

__all__ = ["STAGE", "ScoreTable", "read_scores", "write_scores"]

STAGE = "score"

_TEXT_SCHEMA = pa.schema(
    [("document_id", pa.string()), ("variant", pa.string()), ("factor", pa.string()), ("text", pa.string()), ("key_terms", pa.list_(pa.string()))]
)
_DOCUMENT_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("variant", pa.string()),
        ("num_tokens", pa.int32()),
        ("num_scored", pa.int32()),
        ("num_scored_bytes", pa.int32()),
        ("truncated", pa.bool_()),
        ("logprob_nats", pa.float64()),
    ]
)
_TOKEN_SCHEMA = pa.schema(
    [
        ("document_id", pa.dictionary(pa.int32(), pa.string())),
        ("variant", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int32()),
        ("token_id", pa.int32()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("logprob_nats", pa.float32()),
    ]
)


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A scores artifact in memory. Row r is one text; its tokens are ``token_offsets[r]:token_offsets[r + 1]`` of the token arrays.

    Attributes:
        manifest: The artifact's manifest.
        factors: Factor of each variant name, in report order.
        rows: Row number of each (document_id, variant).
        document_ids: Shape (R,), as a list.
        variants: Shape (R,), as a list.
        texts: Shape (R,), as a list.
        key_terms: Known key terms of each document that has any.
        num_tokens: Shape (R,): tokens of the whole text.
        num_scored: Shape (R,): n(x).
        num_scored_bytes: Shape (R,): b(x).
        truncated: Shape (R,).
        logprob_nats: Shape (R,): l(x), float64; NaN where no token is scored.
        token_offsets: Shape (R + 1,).
        token_char_start: Shape (T,) over all tokens of all texts.
        token_char_end: Shape (T,).
        token_id: Shape (T,).
        token_logprob_nats: Shape (T,), float32; NaN where null on disk.
    """

    manifest: Manifest
    factors: Mapping[str, str]
    rows: Mapping[tuple[str, str], int]
    document_ids: Sequence[str]
    variants: Sequence[str]
    texts: Sequence[str]
    key_terms: Mapping[str, Sequence[str]]
    num_tokens: npt.NDArray[np.int64]
    num_scored: npt.NDArray[np.int64]
    num_scored_bytes: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]
    logprob_nats: npt.NDArray[np.float64]
    token_offsets: npt.NDArray[np.int64]
    token_char_start: npt.NDArray[np.int32]
    token_char_end: npt.NDArray[np.int32]
    token_id: npt.NDArray[np.int32]
    token_logprob_nats: npt.NDArray[np.float32]

    @property
    def model(self) -> str:
        """The model as the user named it."""
        return str(self.manifest.details["model"]["reference"])

    @property
    def tokenizer(self) -> str:
        """Hash of the tokenizer."""
        return str(self.manifest.details["model"]["tokenizer"])

    def tokens(self, row: int) -> slice:
        """Where the tokens of text ``row`` are."""
        return slice(int(self.token_offsets[row]), int(self.token_offsets[row + 1]))


def write_scores(artifact: ArtifactFolder, probe_set: ProbeSet, scores: Sequence[TextScores]) -> None:
    """Write the three tables of ``scores``, one per text of ``probe_set``, in that order."""
    texts, factors = probe_set.texts, probe_set.factors
    ids = [text.document_id for text in texts]
    variants = [text.variant for text in texts]
    artifact.write_table(
        "texts.parquet",
        pa.table(
            [
                ids,
                variants,
                [factors.get(variant) for variant in variants],
                [text.text for text in texts],
                [probe_set.metadata.get(text.document_id, {}).get("keywords") for text in texts],
            ],
            schema=_TEXT_SCHEMA,
        ),
    )
    totals = [score.total_logprob_nats if score.num_scored else None for score in scores]
    columns = [[getattr(score, name) for score in scores] for name in ("num_tokens", "num_scored", "num_scored_bytes", "truncated")]
    artifact.write_table("document_scores.parquet", pa.table([ids, variants, *columns, totals], schema=_DOCUMENT_SCHEMA))
    artifact.write_table("token_scores.parquet", _token_table(ids, variants, scores))


def _token_table(ids: Sequence[str], variants: Sequence[str], scores: Sequence[TextScores]) -> pa.Table:
    lengths = np.asarray([len(score.token_id) for score in scores], dtype=np.int64)
    row = np.repeat(np.arange(len(scores)), lengths)
    logprobs = _joined([score.logprob_nats for score in scores], np.float32)
    return pa.table(
        [
            _repeated(ids, row),
            _repeated(variants, row),
            pa.array(_joined([np.arange(length, dtype=np.int32) for length in lengths], np.int32)),
            pa.array(_joined([score.token_id for score in scores], np.int32)),
            pa.array(_joined([score.char_start for score in scores], np.int32)),
            pa.array(_joined([score.char_end for score in scores], np.int32)),
            pa.array(logprobs, mask=np.isnan(logprobs)),
        ],
        schema=_TOKEN_SCHEMA,
    )


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)


def _repeated(values: Sequence[str], row: npt.NDArray[np.int64]) -> pa.DictionaryArray:
    encoded = pa.array(values, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(pa.array(np.asarray(encoded.indices)[row], pa.int32()), encoded.dictionary)


def read_scores(folder: Path) -> ScoreTable:
    """Read a scores artifact, verified against its manifest.

    Raises:
        UnreadableInputError: No finished scores there.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    texts = read_table(folder / "texts.parquet")
    documents = read_table(folder / "document_scores.parquet")
    tokens = read_table(folder / "token_scores.parquet")
    ids, variants = documents["document_id"].to_pylist(), documents["variant"].to_pylist()
    return ScoreTable(
        manifest=manifest,
        factors=dict(manifest.details["factors"]),
        rows={(document_id, variant): row for row, (document_id, variant) in enumerate(zip(ids, variants, strict=True))},
        document_ids=ids,
        variants=variants,
        texts=texts["text"].to_pylist(),
        key_terms={
            document_id: terms for document_id, terms in zip(texts["document_id"].to_pylist(), texts["key_terms"].to_pylist(), strict=True) if terms
        },
        num_tokens=documents["num_tokens"].to_numpy().astype(np.int64),
        num_scored=documents["num_scored"].to_numpy().astype(np.int64),
        num_scored_bytes=documents["num_scored_bytes"].to_numpy().astype(np.int64),
        truncated=documents["truncated"].to_numpy().astype(np.bool_),
        logprob_nats=documents["logprob_nats"].to_numpy().astype(np.float64),
        token_offsets=_offsets(tokens["position"].to_numpy(), ids, variants, tokens),
        token_char_start=tokens["char_start"].to_numpy(),
        token_char_end=tokens["char_end"].to_numpy(),
        token_id=tokens["token_id"].to_numpy(),
        token_logprob_nats=tokens["logprob_nats"].to_numpy(),
    )


def _offsets(position: npt.NDArray[np.int32], ids: Sequence[str], variants: Sequence[str], tokens: pa.Table) -> npt.NDArray[np.int64]:
    """First token of each text: token rows stand in text order, and a new text begins where the position is 0. Texts may have no token."""
    starts = np.flatnonzero(position == 0)
    id_of = tokens["document_id"].combine_chunks().take(pa.array(starts)).to_pylist()
    variant_of = tokens["variant"].combine_chunks().take(pa.array(starts)).to_pylist()
    begins = dict(zip(zip(id_of, variant_of, strict=True), starts.tolist(), strict=True))
    offsets = np.empty(len(ids) + 1, dtype=np.int64)
    offsets[-1] = len(position)
    for row in range(len(ids) - 1, -1, -1):
        offsets[row] = begins.get((ids[row], variants[row]), offsets[row + 1])
    return offsets
