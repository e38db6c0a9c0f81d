"""YAML as we read and write it: plain values only, no aliases, no name twice, files of a bounded size.

An alias repeats a value by its name. Nine of nine of nine turn a kilobyte into gigabytes once the value is copied, so a file with one is refused, and
none is ever written.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MAX_YAML_BYTES", "dump_yaml", "parse_yaml", "read_yaml"]

MAX_YAML_BYTES = 8 << 20
"""Largest file that is read: what people write and what we write is a few kilobytes."""

_WIDTH_CHARS = 150


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases before their values are built, and a mapping that names a value twice: one of the two would be dropped without a word."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            message = f"line {line}: aliases (*name) are not read; write the value out"
            raise ValueError(message)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        names: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in names:
                message = f"line {key.start_mark.line + 1}: {key.value!r} stands twice in one mapping; leave one of them out"
                raise ValueError(message)
            names.add(name)
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML is whatever it is; callers validate
    """Value of a YAML file.

    Raises:
        ValueError: Not UTF-8, not YAML, with an alias or a name twice, nested too deeply, or larger than `MAX_YAML_BYTES`; the message names the place.
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_YAML_BYTES + 1)
    if len(content) > MAX_YAML_BYTES:
        message = f"more than {MAX_YAML_BYTES >> 20} MiB"
        raise ValueError(message)
    return parse_yaml(content.decode("utf-8"))


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - YAML is whatever it is; callers validate
    """Value of a YAML text.

    Raises:
        ValueError: Not YAML, with an alias or a name twice, or nested too deeply; the message is one line and names the place.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise ValueError(message) from error


def dump_yaml(value: object) -> str:
    """``value`` (JSON types) as YAML that `parse_yaml` reads, keys in their order."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=_WIDTH_CHARS)
