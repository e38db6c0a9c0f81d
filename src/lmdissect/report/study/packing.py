"""The explorer's texts, small enough for one file: token values of one run in a byte or less each, in deflated blocks, with the size of the rounding.

A block holds the texts of a few documents. Its texts are a JSON list (one entry per document and text, null where a document lacks it); its tokens are six
planes, one after the other, each preceded by its length in bytes (4 bytes, little-endian):

    pieces per text (varint) | gap before each piece | its length | its tokens (varints, in characters and tokens) | base (a byte) | gain (a byte)

Base values b <= 0 are stored as q = round(sqrt(-b) * k), gains g as q = 128 + sign(g) round(sqrt(|g|) * k): the step is fine near 0, where most tokens are,
and coarse far out. 255 in the base plane is a token without a score.
"""

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.factors import ORIGINAL
from lmdissect.report.study.texts import DocumentSummary, RunTexts, TextPieces

__all__ = ["PackedTexts", "Rounding", "pack_texts", "unpack_block"]

BLOCK_DOCUMENTS = 20
"""Documents in one block: opening a document unpacks one."""

_UNSCORED = 255
_BASE_STEPS = 180  # fewer than a byte holds: what they leave out would cost a tenth of the page
_GAIN_STEPS = 63
_GAIN_ZERO = 128
_LOW_BITS = 0x7F
_LEVEL = 9


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding costs, in nats, over all tokens of the run: the median and the largest difference between a value and the value shown."""

    base_median: float
    base_max: float
    gain_median: float
    gain_max: float


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """One run, packed.

    Attributes:
        index: What the page must know at once: label, variants, factors, scales, every document's line. JSON types.
        text_blocks: Texts of each block, base64 of a zlib stream.
        token_blocks: Tokens of each block, likewise.
        rounding: What rounding costs.
    """

    index: dict[str, Any]
    text_blocks: list[str]
    token_blocks: list[str]
    rounding: Rounding

    @property
    def num_bytes(self) -> int:
        """Bytes on the page."""
        return sum(len(block) for block in [*self.text_blocks, *self.token_blocks])


def pack_texts(run: RunTexts) -> PackedTexts:
    """All texts of ``run``, packed for one page."""
    names = [ORIGINAL, *run.variants]
    base_scale, gain_scale = _scales(run)
    documents = run.document_ids
    text_blocks, token_blocks = [], []
    errors: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    for first in range(0, len(documents), BLOCK_DOCUMENTS):
        pieces = [run.pieces(document, name) for document in documents[first : first + BLOCK_DOCUMENTS] for name in names]
        text_blocks.append(
            _encode(json.dumps([None if piece is None else piece.text for piece in pieces], ensure_ascii=False).encode("utf-8", "replace"))
        )
        packed, error = _pack_tokens([piece for piece in pieces if piece is not None], base_scale, gain_scale)
        token_blocks.append(_encode(packed))
        errors.append(error)
    index = {
        "label": run.label,
        "base_model": run.base.model,
        "tuned_model": run.tuned.model,
        "variants": run.variants,
        "factors": [run.factors.get(name, "") for name in run.variants],
        "base_scale": base_scale,
        "gain_scale": gain_scale,
        "block_documents": BLOCK_DOCUMENTS,
        "documents": [summary_row(summary) for summary in run.summaries()],
    }
    return PackedTexts(index, text_blocks, token_blocks, _rounding(errors))


def summary_row(summary: DocumentSummary) -> list[Any]:
    """One document's line as JSON: id, snippet, gain, shifts, net shifts, tokens; nats with six decimals."""
    return [
        summary.document_id,
        summary.snippet,
        _short(summary.gain),
        [_short(value) for value in summary.shifts],
        [_short(value) for value in summary.net_shifts],
        summary.num_tokens,
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _scales(run: RunTexts) -> tuple[float, float]:
    """Scales k of base and gain: the farthest token takes the last step.

    A piece of several tokens may lie beyond and is shown at the end of the scale; the rounding that is printed counts that.
    """
    base, tuned = run.base.token_logprob_nats, run.tuned.token_logprob_nats
    lowest = max((float(-np.nanmin(values)) for values in (base, tuned) if np.isfinite(values).any()), default=1.0)
    if len(base) == len(tuned):
        gains = np.abs(tuned.astype(np.float64) - base)
        largest = float(np.nanmax(gains)) if np.isfinite(gains).any() else 0.0
    else:
        largest = lowest
    return _BASE_STEPS / max(lowest, 1e-6) ** 0.5, _GAIN_STEPS / max(largest, 1e-6) ** 0.5


def _pack_tokens(
    pieces: Sequence[TextPieces], base_scale: float, gain_scale: float
) -> tuple[bytes, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    base = _joined(piece.base_nats for piece in pieces)
    gain = _joined(piece.tuned_nats for piece in pieces) - base
    scored = np.isfinite(base) & np.isfinite(gain)
    base_steps = np.full(len(base), _UNSCORED, np.uint8)
    base_steps[scored] = np.minimum(np.round(np.sqrt(np.maximum(-base[scored], 0.0)) * base_scale), _BASE_STEPS)
    gain_steps = np.full(len(base), _GAIN_ZERO, np.uint8)
    signed = np.sign(gain[scored]) * np.minimum(np.round(np.sqrt(np.abs(gain[scored])) * gain_scale), _GAIN_STEPS)
    gain_steps[scored] = _GAIN_ZERO + signed
    gaps = _joined(
        np.diff(np.stack([np.concatenate([[0], piece.end[:-1]]), piece.start]), axis=0)[0] if len(piece.start) else piece.start for piece in pieces
    )
    planes = [
        _varints(np.asarray([len(piece.start) for piece in pieces])),
        _varints(gaps),
        _varints(_joined(piece.end - piece.start for piece in pieces)),
        _varints(_joined(piece.num_tokens for piece in pieces)),
        base_steps.tobytes(),
        gain_steps.tobytes(),
    ]
    shown_base, shown_gain = _shown(base_steps[scored], gain_steps[scored], base_scale, gain_scale)
    errors = (np.abs(shown_base - base[scored]), np.abs(shown_gain - gain[scored]))
    return b"".join(struct.pack("<I", len(plane)) + plane for plane in planes), errors


def _shown(
    base_steps: npt.NDArray[np.uint8], gain_steps: npt.NDArray[np.uint8], base_scale: float, gain_scale: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    signed = gain_steps.astype(np.float64) - _GAIN_ZERO
    return -((base_steps / base_scale) ** 2), np.sign(signed) * (signed / gain_scale) ** 2


def _joined(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    found = list(arrays)
    return np.concatenate(found) if found else np.empty(0)


def _varints(values: npt.NDArray[Any]) -> bytes:
    """Non-negative numbers in 7 bits a byte, lowest first; the high bit says that more follows."""
    if not len(values) or int(values.max()) <= _LOW_BITS:
        return values.astype(np.uint8).tobytes()
    out = bytearray()
    for value in values.tolist():
        rest = int(value)
        while rest > _LOW_BITS:
            out.append(rest & _LOW_BITS | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _encode(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, _LEVEL)).decode()


def _rounding(errors: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> Rounding:
    base, gain = _joined(pair[0] for pair in errors), _joined(pair[1] for pair in errors)
    if not len(base):
        return Rounding(0.0, 0.0, 0.0, 0.0)
    return Rounding(float(np.median(base)), float(base.max()), float(np.median(gain)), float(gain.max()))


def unpack_block(token_block: str, text_block: str, base_scale: float, gain_scale: float) -> list[TextPieces | None]:
    """What the page's script does, for tests and for other programs: the pieces of every text of a block, with the values as they are shown."""
    content = zlib.decompress(base64.b64decode(token_block))
    planes, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at)
        planes.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    counts, gaps, lengths, tokens = (_read_varints(plane) for plane in planes[:4])
    base_steps, gain_steps = (np.frombuffer(plane, np.uint8) for plane in planes[4:])
    base, gain = _shown(base_steps, gain_steps, base_scale, gain_scale)
    base[base_steps == _UNSCORED] = np.nan
    found: list[TextPieces | None] = []
    first, number = 0, 0
    for text in json.loads(zlib.decompress(base64.b64decode(text_block))):
        if text is None:
            found.append(None)
            continue
        part = slice(first, first + int(counts[number]))
        end = np.cumsum(gaps[part] + lengths[part])
        found.append(TextPieces(text, end - lengths[part], end, tokens[part], base[part], base[part] + gain[part]))
        first, number = part.stop, number + 1
    return found


def _read_varints(plane: bytes) -> npt.NDArray[np.int64]:
    values, value, shift = [], 0, 0
    for byte in plane:
        value |= (byte & _LOW_BITS) << shift
        shift += 7
        if byte <= _LOW_BITS:
            values.append(value)
            value, shift = 0, 0
    return np.asarray(values, np.int64)
