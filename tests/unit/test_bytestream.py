"""Lines of plain, compressed and damaged files."""

import gzip
from pathlib import Path

import pytest

from lmdissect.bytestream import MAX_RATIO, MAX_RECORD_BYTES, DamagedStreamError, read_blocks, read_bytes, read_lines
from lmdissect.errors import UnreadableInputError

CONTENT = b"".join(b'{"number": %d, "noise": "%s"}\n' % (number, str(number**7 * 7919).encode()) for number in range(20_000))


def _until_damage(path: Path) -> tuple[bytes, str]:
    lines: list[bytes] = []
    with pytest.raises(DamagedStreamError) as caught:
        lines.extend(line or b"" for _, line in read_lines(path))
    return b"".join(lines), str(caught.value)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(CONTENT, mtime=0))
    return path


def test_lines_of_plain_and_packed_files_are_the_same(tmp_path: Path, packed: Path) -> None:
    plain = tmp_path / "rows.jsonl"
    plain.write_bytes(CONTENT)
    assert list(read_lines(plain)) == list(read_lines(packed)) == list(enumerate(CONTENT.splitlines(keepends=True), start=1))


def test_packed_file_is_known_by_its_first_bytes_too(tmp_path: Path, packed: Path) -> None:
    renamed = tmp_path / "rows.jsonl"
    packed.rename(renamed)
    assert b"".join(line or b"" for _, line in read_lines(renamed)) == CONTENT


def test_several_members_and_padding_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\n") + b"\0" * 5000)
    assert list(read_lines(path)) == [(1, b"a\n"), (2, b"bc\n")]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"a\rb\r\nc\x0bd")
    assert list(read_lines(path)) == [(1, b"a\rb\r\n"), (2, b"c\x0bd")]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_file_gives_every_whole_line_before_the_cut(packed: Path, share: float) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * share)])
    kept, reason = _until_damage(packed)
    assert CONTENT.startswith(kept)
    assert kept.endswith(b"\n")
    assert len(kept) > (share - 0.02) * len(CONTENT)  # zlib holds back next to nothing
    assert "too early" in reason


def test_overwritten_block_loses_nothing_before_it(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    packed.write_bytes(bytes(content))
    kept, _ = _until_damage(packed)
    common = next(index for index, (here, there) in enumerate(zip(kept + b"\0", CONTENT, strict=False)) if here != there)
    assert common > 0.48 * len(CONTENT)


def test_wrong_checksum_is_damage_after_the_last_line(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[-6] ^= 1
    packed.write_bytes(bytes(content))
    kept, _ = _until_damage(packed)
    assert kept == CONTENT


def test_garbage_after_a_member_is_damage(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + b"garbage")
    kept, _ = _until_damage(packed)
    assert kept == CONTENT


def test_bomb_line_is_dropped_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x" * (MAX_RECORD_BYTES + 1) + b"\nb\n"))
    assert list(read_lines(path)) == [(1, b"a\n"), (2, None), (3, b"b\n")]


def test_whole_content_tells_its_damage(packed: Path) -> None:
    assert read_bytes(packed) == (CONTENT, None)
    packed.write_bytes(packed.read_bytes()[:-20])
    content, damage = read_bytes(packed)
    assert CONTENT.startswith(content)
    assert damage is not None


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"none\.jsonl: cannot be opened"):
        list(read_lines(tmp_path / "none.jsonl"))


def test_bomb_is_damage_where_a_ratio_is_given(tmp_path: Path) -> None:
    path = tmp_path / "c.gz"
    path.write_bytes(gzip.compress(b" " * (80 << 20), 9))
    assert sum(map(len, read_blocks(path))) == 80 << 20
    sizes: list[int] = []
    with pytest.raises(DamagedStreamError, match="it unpacks to more than 200 times its size"):
        sizes.extend(map(len, read_blocks(path, max_ratio=MAX_RATIO)))
    assert max(sizes) <= 1 << 20
    assert 63 << 20 <= sum(sizes) <= 64 << 20


def test_bytes_of_the_file_itself_are_told(tmp_path: Path, packed: Path) -> None:
    counts: list[int] = []
    assert b"".join(read_blocks(packed, on_read=counts.append)) == CONTENT
    assert sum(counts) == packed.stat().st_size
