"""Bytes and lines of files, gzip or not, such that damage late in a file loses nothing before it and a small file cannot fill the memory."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lmdissect.errors import UnreadableInputError

__all__ = ["MAX_RATIO", "MAX_RECORD_BYTES", "DamagedStreamError", "read_blocks", "read_bytes", "read_lines"]

MAX_RECORD_BYTES = 64 << 20
"""A line longer than this is set aside: no document is, and a compressed bomb must not fill the memory."""

MAX_RATIO = 200
"""A gzip corpus file that unpacks to more than this many times its size is a bomb: citations unpack to 6 to 15 times, the most gzip can is 1032."""

_MAX_DOCUMENT_BYTES = 2 << 30
_RATIO_FLOOR_BYTES = 64 << 20  # below this no ratio is a danger, and short repetitive files are common
_BLOCK_BYTES = 1 << 16
_MAX_PIECE_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31


class DamagedStreamError(Exception):
    """The rest of a gzip file cannot be decompressed; everything before was already handed out."""


def read_blocks(path: Path, *, max_ratio: int | None = None, on_read: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Content of ``path`` in blocks of at most 1 MiB, decompressed where it is gzip, whatever its name says.

    Args:
        path: The file.
        max_ratio: A gzip file that unpacks to more than this many times its size, and more than 64 MiB, counts as damaged from there on.
        on_read: Told after each block how many bytes of the file itself it took.

    Raises:
        UnreadableInputError: The file cannot be opened.
        DamagedStreamError: After everything that stands before the damage.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        message = f"{path}: cannot be opened ({error.strerror or error}); check the path"
        raise UnreadableInputError(message) from error
    with stream:
        try:
            packed = path.name.endswith(".gz") or stream.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
            raw = _raw(stream, on_read or (lambda _count: None))
            yield from _decompressed(raw, max_ratio) if packed else raw
        except OSError as error:  # a folder, or a disk that fails
            message = f"{path}: cannot be read ({error.strerror or error}); check the path"
            raise UnreadableInputError(message) from error


def read_lines(path: Path, *, max_ratio: int | None = None, on_read: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Lines of ``path`` with their numbers from 1, line ends kept; None stands for a line longer than `MAX_RECORD_BYTES`.

    The arguments are those of `read_blocks`.

    Raises:
        UnreadableInputError: The file cannot be opened.
        DamagedStreamError: After the last whole line before the damage.
    """
    number, size_bytes = 1, 0
    parts: list[bytes] = []
    for block in read_blocks(path, max_ratio=max_ratio, on_read=on_read):
        for piece in _split(block):
            size_bytes += len(piece)
            if size_bytes <= MAX_RECORD_BYTES:
                parts.append(piece)
            if piece.endswith(b"\n"):
                yield number, b"".join(parts) if size_bytes <= MAX_RECORD_BYTES else None
                number, size_bytes = number + 1, 0
                parts.clear()
    if size_bytes:
        yield number, b"".join(parts) if size_bytes <= MAX_RECORD_BYTES else None


def read_bytes(path: Path, *, max_ratio: int | None = None) -> tuple[bytes, str | None]:
    """Whole content of ``path``, decompressed, and what is damaged (None: nothing). ``max_ratio`` is that of `read_blocks`.

    Raises:
        UnreadableInputError: The file cannot be opened, or holds more than 2 GiB.
    """
    content = bytearray()
    try:
        for block in read_blocks(path, max_ratio=max_ratio):
            content += block
            if len(content) > _MAX_DOCUMENT_BYTES:
                message = f"{path}: one JSON document of more than 2 GiB; write it as JSON lines (.jsonl)"
                raise UnreadableInputError(message)
    except DamagedStreamError as error:
        return bytes(content), str(error)
    return bytes(content), None


def _split(block: bytes) -> list[bytes]:
    """Pieces of ``block`` that end at line feeds only: a carriage return may stand inside a text."""
    *whole, rest = block.split(b"\n")
    return [*(piece + b"\n" for piece in whole), *([rest] if rest else [])]


def _raw(stream: BinaryIO, on_read: Callable[[int], None]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK_BYTES):
        yield block
        on_read(len(block))


def _decompressed(packed: Iterator[bytes], max_ratio: int | None) -> Iterator[bytes]:
    """Content of all members of a gzip stream."""
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    num_packed = num_unpacked = 0
    for block in packed:
        num_packed += len(block)
        rest = block
        while rest:
            if decoder.eof:
                rest = rest.lstrip(b"\0")  # tape and archive tools pad with zeros after the last member
                if not rest:
                    break
                decoder = zlib.decompressobj(_GZIP_WINDOW)
            for piece in _inflated(decoder, rest):
                num_unpacked += len(piece)
                if max_ratio is not None and num_unpacked > max(_RATIO_FLOOR_BYTES, max_ratio * num_packed):
                    message = f"it unpacks to more than {max_ratio} times its size"
                    raise DamagedStreamError(message)
                yield piece
            rest = decoder.unused_data
    if not decoder.eof:
        yield decoder.flush()
        message = "the compressed file ends too early"
        raise DamagedStreamError(message)


def _inflated(decoder: "zlib._Decompress", block: bytes) -> Iterator[bytes]:
    """Content of one compressed block. In a damaged one, byte by byte up to the damage: zlib drops what it had decoded of a block that fails."""
    rest = block
    while rest:
        before = decoder.copy()
        try:
            content = decoder.decompress(rest, _MAX_PIECE_BYTES)
        except zlib.error as error:
            yield from _salvaged(before, rest)
            raise DamagedStreamError(str(error)) from error
        yield content
        rest = decoder.unconsumed_tail


def _salvaged(decoder: "zlib._Decompress", block: bytes) -> Iterator[bytes]:
    for index in range(len(block)):
        try:
            yield decoder.decompress(block[index : index + 1])
        except zlib.error:
            return
