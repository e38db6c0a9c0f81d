"""Shards: which chunks are whose, and that many who score a part each make what one makes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmdissect.errors import StaleArtifactError, UnreadableInputError
from lmdissect.models import ResolvedModel, resolve_model
from lmdissect.records import ProbeSet, ProbeText
from lmdissect.scoring import ScoringConfig, ScoringSummary, Shard, score_probe_set
from score_tables import assert_same_scores
from tiny_models import SENTENCES, save_tiny_llama

CONFIG = ScoringConfig(batch_tokens=16, device="cpu", dtype="float32")  # small batches: many chunks


def _probe_set() -> ProbeSet:
    texts = tuple(
        ProbeText(f"d{number}", variant, f"{sentence} {variant} {number}")
        for number in range(10)
        for variant, sentence in zip(("original", "casual"), SENTENCES[number % 8 :], strict=False)
    )
    return ProbeSet(texts=texts, factors={"casual": "style"}, source="a test")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    return resolve_model(str(save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)))


@pytest.fixture(scope="module")
def alone(model: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "scores"
    score_probe_set(model, _probe_set(), CONFIG, folder)
    return folder


def _delegating(model: ResolvedModel, folder: Path, work: Callable[[], None]) -> ScoringSummary:
    return score_probe_set(model, _probe_set(), CONFIG, folder, delegate=work)


def _chunk_numbers(folder: Path) -> list[int]:
    return sorted(int(path.name[:6]) for path in (folder / "chunks").glob("[0-9]*.parquet"))


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_shards_cover_every_chunk_once_and_end_as_one_process_does(model: ResolvedModel, alone: Path, tmp_path: Path, count: int) -> None:
    summaries: list[ScoringSummary] = []
    numbers: list[list[int]] = []

    def work() -> None:
        for index in range(count):
            before = _chunk_numbers(tmp_path)
            summaries.append(score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(index, count)))
            numbers.append([number for number in _chunk_numbers(tmp_path) if number not in before])

    total = _delegating(model, tmp_path, work)
    assert all(number % count == index for index, found in enumerate(numbers) for number in found)
    assert sorted(number for found in numbers for number in found) == list(range(sum(map(len, numbers))))
    assert len(numbers[0]) > 1 or count > 3
    assert sum(summary.num_texts for summary in summaries) == total.num_texts == 20
    assert sum(summary.num_scored_tokens for summary in summaries) == total.num_scored_tokens
    assert_same_scores(tmp_path, alone)


def test_what_a_lost_worker_left_out_is_scored_by_the_one_who_finishes(model: ResolvedModel, alone: Path, tmp_path: Path) -> None:
    _delegating(model, tmp_path, lambda: score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(1, 3)) and None)
    assert_same_scores(tmp_path, alone)


def test_another_number_of_workers_takes_up_what_is_there(model: ResolvedModel, alone: Path, tmp_path: Path) -> None:
    class NodeLostError(Exception):
        pass

    def lost() -> None:
        score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(0, 4))
        raise NodeLostError

    with pytest.raises(NodeLostError):
        _delegating(model, tmp_path, lost)
    first = _chunk_numbers(tmp_path)
    assert first
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "chunks").iterdir()}
    summaries: list[ScoringSummary] = []

    def two() -> None:
        summaries.extend(score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(index, 2)) for index in range(2))
        assert {name: (tmp_path / "chunks" / name).stat().st_mtime_ns for name in stamps} == stamps

    _delegating(model, tmp_path, two)
    assert [summary.reused for summary in summaries] == [False, False]
    assert_same_scores(tmp_path, alone)


def test_a_shard_without_work_loads_and_says_so(model: ResolvedModel, alone: Path, tmp_path: Path) -> None:
    def twice() -> None:
        first = score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(0, 2))
        again = score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(0, 2))
        assert (first.reused, again.reused) == (False, True)
        assert first.num_scored_tokens == again.num_scored_tokens > 0

    _delegating(model, tmp_path, twice)
    late = score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(0, 2))
    assert (late.reused, late.num_texts) == (True, 20)
    assert_same_scores(tmp_path, alone)


def test_a_shard_needs_a_beginning_of_the_same_settings(model: ResolvedModel, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="no work was begun"):
        score_probe_set(model, _probe_set(), CONFIG, tmp_path, shard=Shard(0, 2))

    def other() -> None:
        with pytest.raises(StaleArtifactError, match="max_tokens: null there, 5 here"):
            score_probe_set(model, _probe_set(), CONFIG.model_copy(update={"max_tokens": 5}), tmp_path, shard=Shard(0, 2))

    _delegating(model, tmp_path, other)


def test_nothing_is_delegated_where_nothing_is_left(model: ResolvedModel, alone: Path) -> None:
    def work() -> None:
        pytest.fail("finished scores were delegated")

    assert _delegating(model, alone, work).reused


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_cannot_be_is_refused(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="runs from 0 to count - 1"):
        Shard(index, count)
