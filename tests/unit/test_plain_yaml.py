"""YAML without aliases and doubles: a small file stays small, and what we write we read."""

from pathlib import Path

import pytest

from lmdissect.plain_yaml import MAX_YAML_BYTES, dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1, 2]\nb: [*a, *a]", r"line 2: aliases \(\*name\) are not read; write the value out"),
        ("a: &a {x: 1}\nb:\n  <<: *a", "line 3: aliases"),
        ("a: 1\nb: {x: 1, y: 2, x: 3}", "line 2: 'x' stands twice in one mapping; leave one of them out"),
        ("a: 1\n'a': 2", "line 2: 'a' stands twice"),
        ("a: [", "while parsing a flow node"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_not_plain_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_value_that_stands_twice_is_written_twice() -> None:
    shared = ["x", {"y": None}]
    value = {"b": shared, "a": [shared, "*no alias", 1.5, "ünï"]}
    text = dump_yaml(value)
    assert "&id" not in text
    assert parse_yaml(text) == value
    assert list(parse_yaml(text)) == ["b", "a"]


def test_a_file_has_a_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\n#" + b" " * (MAX_YAML_BYTES - 6))
    assert read_yaml(path) == {"a": 1}
    with path.open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ValueError, match="more than 8 MiB"):
        read_yaml(path)
