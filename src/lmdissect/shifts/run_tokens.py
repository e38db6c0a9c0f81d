"""What a study needs of the tokens of one run, reduced to arrays over documents, so that the scores of a run are read once and let go.

Shape letters: D documents of the run, K bins of token position, N documents that have some fact token, T token strings, O (token string, document) pairs.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmdissect.errors import UnreadableInputError
from lmdissect.factors import ORIGINAL
from lmdissect.formats.scores import ScoreTable, read_scores
from lmdissect.records import StudyRun
from lmdissect.shifts.fact_tokens import FactValues, fact_token_values, factual_variants
from lmdissect.shifts.pairs import PairedScores, pair_scores
from lmdissect.shifts.position import BinnedShift, bin_shifts, summed_shifts
from lmdissect.shifts.resampling import Floats

__all__ = ["RunTokens", "TokenReader", "TokenSums", "sum_token_gains"]

_KEPT_RUNS = 1


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Gains of one variant's tokens, summed by token string and document; a pair (string, document) stands where the document has the token.

    Attributes:
        strings: The strings, shape (T,), as a list.
        string: Number of the string of each pair, shape (O,).
        document: Number of its document, shape (O,).
        count: Scored occurrences, shape (O,).
        gain: Sum of tuned minus base over them, nats, shape (O,).
    """

    strings: Sequence[str]
    string: npt.NDArray[np.int64]
    document: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    gain: Floats


@dataclass(frozen=True, slots=True)
class RunTokens:
    """One run, token by token.

    Attributes:
        documents: Ids of its documents, shape (D,), as a list.
        binned: Contrasts by bin of token position, by variant.
        summed: Summed token gains by bin, original minus variant, by variant, shape (D, K).
        facts: By variant that changes facts, and selection.
        tokens: By variant, originals among them.
    """

    documents: Sequence[str]
    binned: Mapping[str, BinnedShift]
    summed: Mapping[str, Floats]
    facts: Mapping[str, Mapping[str, FactValues]]
    tokens: Mapping[str, TokenSums]


class TokenReader:
    """Reads runs; the scores of a base model, which many runs share, stay in memory until another one is asked for.

    A run that two experiments share is reduced once, if its uses follow each other.
    """

    def __init__(self) -> None:
        self._base: tuple[Path, ScoreTable] | None = None
        self._recent: OrderedDict[tuple[Path | None, Path | None, bool], RunTokens] = OrderedDict()

    def read(self, run: StudyRun, *, strings_only: bool = False) -> RunTokens:
        """Reduce the scores of ``run``.

        Args:
            run: The run.
            strings_only: Leave positions empty: those of a point with one seed are in its run's own tables.

        Raises:
            UnreadableInputError: Its scores are not kept, or the two models cut text into different tokens.
            LmdissectError: As reading and pairing raise it.
        """
        key = (run.base_scores, run.tuned_scores, strings_only)
        if key not in self._recent:
            self._recent[key] = _reduce(self.pair(run), strings_only=strings_only)
            while len(self._recent) > _KEPT_RUNS:
                self._recent.popitem(last=False)
        return self._recent[key]

    def pair(self, run: StudyRun) -> PairedScores:
        """The scores of ``run`` under both models.

        Raises:
            UnreadableInputError: They are not kept.
            LmdissectError: As reading and pairing raise it.
        """
        if run.base_scores is None or run.tuned_scores is None:
            message = f"the scores of {run.shift_folder} are not at hand: what is measured token by token needs them"
            raise UnreadableInputError(message)
        return pair_scores(self._read_base(run.base_scores), read_scores(run.tuned_scores))

    def _read_base(self, folder: Path) -> ScoreTable:
        if self._base is None or self._base[0] != folder:
            self._base = (folder, read_scores(folder))
        return self._base[1]


def _reduce(paired: PairedScores, *, strings_only: bool) -> RunTokens:
    if not paired.tokenizers_equal:
        message = "the models' tokenizers differ: token by token nothing can be compared"
        raise UnreadableInputError(message)
    return RunTokens(
        documents=tuple(paired.documents),
        binned={} if strings_only else bin_shifts(paired),
        summed={} if strings_only else summed_shifts(paired),
        facts={variant: fact_token_values(paired, variant) for variant in factual_variants(paired)},
        tokens={variant: sum_token_gains(paired, variant) for variant in (ORIGINAL, *paired.factors)},
    )


def sum_token_gains(paired: PairedScores, variant: str) -> TokenSums:
    """Gains of all scored tokens of ``variant``, by token string and document. Needs equal tokenizers."""
    ids: list[npt.NDArray[np.int32]] = []
    gains: list[Floats] = []
    documents: list[npt.NDArray[np.int64]] = []
    strings: dict[int, str] = {}
    for number, document_id in enumerate(paired.documents):
        rows = [table.rows.get((document_id, variant)) for table in (paired.base, paired.tuned)]
        if rows[0] is None or rows[1] is None:
            continue
        here, there = paired.base.tokens(rows[0]), paired.tuned.tokens(rows[1])
        gain = paired.tuned.token_logprob_nats[there].astype(np.float64) - paired.base.token_logprob_nats[here].astype(np.float64)
        scored = np.flatnonzero(~np.isnan(gain))
        token_id = paired.base.token_id[here][scored]
        _note_strings(strings, paired.base, rows[0], token_id, scored)
        ids.append(token_id)
        gains.append(gain[scored])
        documents.append(np.full(len(scored), number, dtype=np.int64))
    return _sum_pairs(strings, ids, gains, documents, len(paired.documents))


def _note_strings(strings: dict[int, str], table: ScoreTable, row: int, token_id: npt.NDArray[np.int32], scored: npt.NDArray[np.int64]) -> None:
    """What each token id that is new looks like in this text."""
    tokens, text = table.tokens(row), table.texts[row]
    found, first = np.unique(token_id, return_index=True)
    for identity, place in zip(found.tolist(), first.tolist(), strict=True):
        if identity not in strings:
            at = tokens.start + int(scored[place])
            strings[identity] = text[int(table.token_char_start[at]) : int(table.token_char_end[at])]


def _sum_pairs(
    strings: Mapping[int, str],
    ids: Sequence[npt.NDArray[np.int32]],
    gains: Sequence[Floats],
    documents: Sequence[npt.NDArray[np.int64]],
    num_documents: int,
) -> TokenSums:
    names = list(dict.fromkeys(strings.values()))
    place = {name: number for number, name in enumerate(names)}
    if not ids:
        empty = np.empty(0, dtype=np.int64)
        return TokenSums(names, empty, empty, empty, np.empty(0))
    known, inverse = np.unique(np.concatenate(ids), return_inverse=True)
    string = np.asarray([place[strings[identity]] for identity in known.tolist()], dtype=np.int64)[inverse]
    pair, where = np.unique(string * num_documents + np.concatenate(documents), return_inverse=True)
    return TokenSums(
        strings=names,
        string=pair // num_documents,
        document=pair % num_documents,
        count=np.bincount(where, minlength=len(pair)).astype(np.int64),
        gain=np.bincount(where, weights=np.concatenate(gains), minlength=len(pair)).astype(np.float64),
    )
