"""The exception tree: what its docstring draws is what the classes are, and every class knows its exit code."""

import re

import pytest

from lmdissect import errors
from lmdissect.errors import LmdissectError, RunFailedError, UserInputError

CLASSES = [getattr(errors, name) for name in errors.__all__]


def drawn_tree() -> dict[str, str]:
    """Class name to the name of the class it is drawn under, read off the module's docstring."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (found := re.match(r"( *)[*x+-] (\w+Error)\b", line)):
            continue
        depth, name = len(found[1]), found[2]
        path = [(level, above) for level, above in path if level < depth]
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_docstring_draws_the_real_tree() -> None:
    assert drawn_tree() == {kind.__name__: kind.__base__.__name__ for kind in CLASSES if kind is not LmdissectError}


def test_all_is_sorted_and_complete() -> None:
    defined = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert errors.__all__ == sorted(defined)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_exit_code_follows_the_branch(kind: type[LmdissectError]) -> None:
    if issubclass(kind, UserInputError):
        assert kind.exit_code == 2
    elif issubclass(kind, RunFailedError):
        assert kind.exit_code == 1
    else:
        assert kind.exit_code in {1, 130}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_message_is_kept_as_given(kind: type[LmdissectError]) -> None:
    with pytest.raises(LmdissectError, match=r"^probes\.jsonl line 3: no text$"):
        raise kind("probes.jsonl line 3: no text")


def test_each_class_says_what_happened() -> None:
    assert all((kind.__doc__ or "").strip().endswith(".") for kind in CLASSES)
