"""Which texts are scored together.

Identical texts are scored once. Distinct ones are sorted by length and cut into chunks (the unit of resume) and batches (the unit of a forward pass).
The plan depends on texts and settings alone, so a resumed run makes the same batches as an uninterrupted one, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmdissect.errors import UnreadableInputError
from lmdissect.models import TextTokenizer, TokenizedText
from lmdissect.records import ProbeText
from lmdissect.scoring.config import SizedScoringConfig
from lmdissect.scoring.windows import Window, cut_windows

__all__ = ["EncodedText", "ScoringPlan", "batch_windows", "make_plan"]

_BATCHES_PER_CHUNK = 8


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A distinct text, tokenized and cut.

    Attributes:
        text: The text.
        tokens: Its kept tokens.
        num_tokens: Tokens before a limit.
        windows: Model inputs that score it.
    """

    text: str
    tokens: TokenizedText
    num_tokens: int
    windows: tuple[Window, ...]

    @property
    def num_inputs(self) -> int:
        """Tokens the model reads for this text."""
        return sum(len(window.input_ids) for window in self.windows)


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What to score.

    Attributes:
        texts: Distinct texts, in order of first appearance.
        index_of: For every text asked for, the index of its distinct text.
        chunks: Indices of distinct texts, longest first, in chunks.
        first_asked: For every distinct text, the index of the first text asked for that has it (to name a document in an error).
    """

    texts: tuple[EncodedText, ...]
    index_of: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    first_asked: tuple[int, ...]


def make_plan(texts: Sequence[ProbeText], tokenizer: TextTokenizer, max_input: int | None, config: SizedScoringConfig) -> ScoringPlan:
    """Tokenize, cut and group ``texts``.

    Raises:
        UnreadableInputError: A text cannot be encoded as UTF-8, so no tokenizer takes it.
    """
    distinct: dict[str, int] = {}
    first_asked: list[int] = []
    for asked, text in enumerate(texts):
        if text.text not in distinct:
            _refuse_unencodable(text)
            distinct[text.text] = len(distinct)
            first_asked.append(asked)
    encoded = tuple(_encode(text, tokenizer, max_input, config.max_tokens) for text in distinct)
    return ScoringPlan(encoded, tuple(distinct[text.text] for text in texts), _chunks(encoded, config), tuple(first_asked))


def _refuse_unencodable(text: ProbeText) -> None:
    try:
        text.text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"document {text.document_id} ({text.variant}): character {error.start} is a lone surrogate, not a text: leave it out"
        raise UnreadableInputError(message) from error


def _encode(text: str, tokenizer: TextTokenizer, max_input: int | None, max_tokens: int | None) -> EncodedText:
    whole = tokenizer.tokenize(text)
    kept = TokenizedText(whole.token_id[:max_tokens], whole.char_start[:max_tokens], whole.char_end[:max_tokens])
    return EncodedText(text, kept, len(whole.token_id), tuple(cut_windows(kept.token_id, tokenizer.prefix_ids, max_input)))


def _chunks(encoded: Sequence[EncodedText], config: SizedScoringConfig) -> tuple[tuple[int, ...], ...]:
    order = sorted((index for index, text in enumerate(encoded) if text.windows), key=lambda index: (-encoded[index].num_inputs, index))
    chunks: list[list[int]] = []
    filled = _BATCHES_PER_CHUNK * config.batch_tokens
    for index in order:
        if filled >= _BATCHES_PER_CHUNK * config.batch_tokens:
            chunks.append([])
            filled = 0
        chunks[-1].append(index)
        filled += encoded[index].num_inputs
    return tuple(tuple(chunk) for chunk in chunks)


def batch_windows(windows: Sequence[Window], batch_tokens: int) -> list[list[int]]:
    """Group windows of similar length: indices into ``windows``, longest first, each group at most ``batch_tokens`` tokens with its padding."""
    order = sorted(range(len(windows)), key=lambda index: (-len(windows[index].input_ids), index))
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        if not batches or (len(batches[-1]) + 1) * longest > batch_tokens:
            batches.append([])
            longest = len(windows[index].input_ids)
        batches[-1].append(index)
    return batches
