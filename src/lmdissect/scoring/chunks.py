"""The chunks of a scores artifact: computed, stored as they finish, read again.

A chunk is some texts of similar length; its number, its texts and its batches follow from the plan alone, so whichever process computes it gets the same
bits (with the same number of CPU threads), and a chunk that is there is never computed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lmdissect.errors import InterruptedRunError, ModelReferenceError, NonFiniteScoreError
from lmdissect.interrupts import StopRequest
from lmdissect.models import LanguageModel
from lmdissect.progress import Progress
from lmdissect.records import ProbeText
from lmdissect.scoring.config import SizedScoringConfig
from lmdissect.scoring.logprobs import score_windows
from lmdissect.scoring.plan import ScoringPlan, batch_windows
from lmdissect.store import ArtifactFolder, JoinedArtifact, read_table

__all__ = ["Logprobs", "ScoringWork", "Shard", "read_chunks", "score_chunk", "score_chunks"]

Logprobs = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shard:
    """One process's part of the work: the chunks whose number leaves the remainder ``index`` when divided by ``count``.

    Chunks stand longest texts first, so every shard gets texts of all lengths.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            message = f"shard {self.index} of {self.count}: the index runs from 0 to count - 1"
            raise ValueError(message)

    def chunks_of(self, plan: ScoringPlan) -> range:
        """Numbers of its chunks."""
        return range(self.index, len(plan.chunks), self.count)


@dataclass(frozen=True, slots=True)
class ScoringWork:
    """A model, what it is to score, and how.

    Attributes:
        model: The model.
        plan: Distinct texts in chunks.
        asked: All texts asked for, to name a document in an error.
        config: Settings.
    """

    model: LanguageModel
    plan: ScoringPlan
    asked: Sequence[ProbeText]
    config: SizedScoringConfig

    def __post_init__(self) -> None:
        """A tokenizer with more tokens than the model has rows (one was added, and the model not resized) would score tokens that the model cannot know.

        Raises:
            ModelReferenceError: It is such a one.
        """
        embeddings: Any = self.model.model.get_input_embeddings()
        vocabulary = len(embeddings.weight)
        for text, first_asked in zip(self.plan.texts, self.plan.first_asked, strict=True):
            if len(text.tokens.token_id) and int(text.tokens.token_id.max()) >= vocabulary:
                where = self.asked[first_asked]
                message = (
                    f"document {where.document_id} ({where.variant}): the tokenizer of {self.model.reference} gives token "
                    f"{int(text.tokens.token_id.max())}, and the model knows {vocabulary}: use the tokenizer that belongs to the weights, or resize "
                    "the model's embeddings"
                )
                raise ModelReferenceError(message)

    def num_inputs(self, numbers: Iterable[int]) -> int:
        """Tokens that the model reads for these chunks."""
        return sum(self.plan.texts[index].num_inputs for number in numbers for index in self.plan.chunks[number])


def score_chunks(
    artifact: ArtifactFolder | JoinedArtifact,
    work: ScoringWork,
    numbers: Iterable[int],
    stored: Mapping[int, Path],
    progress: Progress,
    stop: StopRequest,
) -> dict[int, Logprobs]:
    """Compute and store those chunks of ``numbers`` that are not in ``stored``.

    Returns:
        Scores of their texts, by the index of the distinct text.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite; the document is named and nothing is written for its chunk.
        InterruptedRunError: ``stop`` was set.
    """
    wanted = list(numbers)
    missing = [number for number in wanted if number not in stored]
    scored: dict[int, Logprobs] = {}
    done = work.num_inputs(number for number in wanted if number in stored)
    with progress.task(f"score {work.model.reference}", work.num_inputs(wanted), "tokens", done=done) as task:
        for number in missing:
            fresh: dict[int, Logprobs] = {}
            for indices, logprobs in score_chunk(work, work.plan.chunks[number]):
                fresh.update(zip(indices, logprobs, strict=True))
                task.advance(sum(work.plan.texts[index].num_inputs for index in indices))
            artifact.write_chunk(number, pa.table({"text": list(fresh), "logprob_nats": list(fresh.values())}))
            scored.update(fresh)
            if stop and number != missing[-1]:
                message = f"stopped after chunk {number + 1} of {len(work.plan.chunks)}; run the same command again to go on from there"
                raise InterruptedRunError(message)
    return scored


def read_chunks(paths: Iterable[Path]) -> dict[int, Logprobs]:
    """Scores in finished chunks, by the index of the distinct text."""
    scored: dict[int, Logprobs] = {}
    for path in paths:
        table = read_table(path)
        scored.update(zip(table["text"].to_pylist(), (np.asarray(row, np.float32) for row in table["logprob_nats"].to_pylist()), strict=True))
    return scored


def score_chunk(work: ScoringWork, chunk: Sequence[int]) -> Iterator[tuple[list[int], list[Logprobs]]]:
    """Score the texts of a chunk, batch by batch: indices of the texts that became complete, and their scores.

    Raises:
        NonFiniteScoreError: A log-probability is NaN or infinite.
    """
    plan = work.plan
    owners = [index for index in chunk for _ in plan.texts[index].windows]
    windows = [window for index in chunk for window in plan.texts[index].windows]
    pieces: dict[int, list[tuple[int, Logprobs]]] = {}
    for batch in batch_windows(windows, work.config.batch_tokens):
        complete: list[int] = []
        scores = score_windows(work.model, [windows[number] for number in batch], work.config.logits_megabytes)
        for number, logprobs in zip(batch, scores, strict=True):
            owner, first_position = owners[number], windows[number].first_position
            _refuse_non_finite(work, owner, first_position, logprobs)
            pieces.setdefault(owner, []).append((first_position, logprobs))
            if len(pieces[owner]) == len(plan.texts[owner].windows):
                complete.append(owner)
        ordered = [np.concatenate([logprobs for _, logprobs in sorted(pieces.pop(owner), key=lambda piece: piece[0])]) for owner in complete]
        yield complete, ordered


def _refuse_non_finite(work: ScoringWork, index: int, first_position: int, logprobs: Logprobs) -> None:
    if np.isfinite(logprobs).all():
        return
    text = work.asked[work.plan.first_asked[index]]
    position = first_position + int(np.flatnonzero(~np.isfinite(logprobs))[0])
    message = (
        f"document {text.document_id} ({text.variant}): the model {work.model.reference} gave a NaN or infinite log-probability at "
        f"token {position}; nothing was written for it. Check the model's weights, or try --dtype float32"
    )
    raise NonFiniteScoreError(message)
