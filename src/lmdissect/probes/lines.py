"""Bytes and lines of text files, gzip or not, such that damage late in a file loses nothing that stands before it."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lmdissect.errors import UnreadableInputError

__all__ = ["MAX_RECORD_BYTES", "DamagedStreamError", "read_bytes", "read_lines"]

MAX_RECORD_BYTES = 64 << 20
"""A line longer than this is set aside: no probe is, and a compressed bomb must not fill the memory."""

_MAX_DOCUMENT_BYTES = 2 << 30
_BLOCK_BYTES = 1 << 14
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31


class DamagedStreamError(Exception):
    """The rest of a gzip file cannot be decompressed; everything before was already handed out."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines of ``path`` with their numbers from 1, line ends kept; None stands for a line longer than `MAX_RECORD_BYTES`.

    Raises:
        UnreadableInputError: The file cannot be opened.
        DamagedStreamError: After the last whole line before the damage.
    """
    number, size_bytes = 1, 0
    parts: list[bytes] = []
    for block in _blocks(path):
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


def _split(block: bytes) -> list[bytes]:
    """Pieces of ``block`` that end at line feeds only: a carriage return may stand inside a text."""
    *whole, rest = block.split(b"\n")
    return [*(piece + b"\n" for piece in whole), *([rest] if rest else [])]


def read_bytes(path: Path) -> tuple[bytes, str | None]:
    """Whole content of ``path``, decompressed, and what is damaged (None: nothing).

    Raises:
        UnreadableInputError: The file cannot be opened, or holds more than 2 GiB.
    """
    content = bytearray()
    try:
        for block in _blocks(path):
            content += block
            if len(content) > _MAX_DOCUMENT_BYTES:
                message = f"{path}: one JSON document of more than 2 GiB; write it as JSON lines (.jsonl)"
                raise UnreadableInputError(message)
    except DamagedStreamError as error:
        return bytes(content), str(error)
    return bytes(content), None


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        stream = path.open("rb")
    except OSError as error:
        message = f"{path}: cannot be opened ({error.strerror or error}); check the path"
        raise UnreadableInputError(message) from error
    with stream:
        packed = path.name.endswith(".gz") or stream.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
        yield from _decompressed(stream) if packed else _raw(stream)


def _raw(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK_BYTES):
        yield block


def _decompressed(stream: BinaryIO) -> Iterator[bytes]:
    """Content of all members of a gzip stream."""
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    while block := stream.read(_BLOCK_BYTES):
        while block:
            if decoder.eof:
                block = block.lstrip(b"\0")  # tape and archive tools pad with zeros after the last member
                if not block:
                    break
                decoder = zlib.decompressobj(_GZIP_WINDOW)
            yield from _inflated(decoder, block)
            block = decoder.unused_data
    if not decoder.eof:
        message = "the compressed file ends too early"
        raise DamagedStreamError(message)


def _inflated(decoder: "zlib._Decompress", block: bytes) -> Iterator[bytes]:
    """Content of one compressed block. In a damaged one, byte by byte up to the damage: zlib drops what it had decoded of a block that fails."""
    before = decoder.copy()
    try:
        content = decoder.decompress(block)
    except zlib.error as error:
        reason = str(error)
    else:
        yield content
        return
    try:
        for index in range(len(block)):
            yield before.decompress(block[index : index + 1])
    except zlib.error as error:
        raise DamagedStreamError(reason) from error
