"""A model that is being trained, borrowed for a moment: read as it is now, and given back exactly as it was."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lmdissect.errors import ModelReferenceError, UserInputError
from lmdissect.models.head import position_limit, separate_head
from lmdissect.models.load import DtypeName, LanguageModel, LoadOptions
from lmdissect.models.random_state import random_states_kept
from lmdissect.models.resolve import ModelFingerprint, stable_config
from lmdissect.store import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["LiveWeights", "borrow_live_model", "inner_model"]

_HASHING_THREADS = 8


def inner_model(model: torch.nn.Module) -> "PreTrainedModel":
    """The transformers model inside what a trainer holds: out of DDP, DeepSpeed, torch.compile and PEFT; a LoRA-like adapter stays active inside it.

    Raises:
        UserInputError: Its weights are spread over processes (FSDP, ZeRO-3, tensor parallelism), so that no process can compute with them alone.
        ModelReferenceError: Its adapter puts virtual tokens before every text (prompt tuning), or it is no transformers model.
    """
    inner = _unwrapped(model)
    spread = any(hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") for parameter in inner.parameters())
    if spread or any(type(module).__name__ == "FullyShardedDataParallel" for module in inner.modules()):
        message = "the model's weights are spread over processes (FSDP, ZeRO-3 or tensor parallelism): compare saved checkpoints instead"
        raise UserInputError(message)
    if hasattr(inner, "get_base_model"):
        if inner.active_peft_config.is_prompt_learning:
            message = "the adapter puts virtual tokens before every text, where scores have no place for them: train another kind of adapter"
            raise ModelReferenceError(message)
        inner = inner.get_base_model()
    if not hasattr(inner, "get_input_embeddings") or not hasattr(inner, "config"):
        message = f"{type(inner).__name__} is not a transformers model"
        raise ModelReferenceError(message)
    found: PreTrainedModel = inner
    return found


def _unwrapped(model: torch.nn.Module) -> Any:  # noqa: ANN401 - a transformers model, or peft's wrapper around one
    from accelerate.utils import extract_model_from_parallel  # noqa: PLC0415 - heavy

    return extract_model_from_parallel(model, keep_torch_compile=False)


@contextmanager
def borrow_live_model(
    model: torch.nn.Module, tokenizer: "PreTrainedTokenizerFast", reference: str, dtype: DtypeName = "auto"
) -> Iterator[LanguageModel]:
    """Lend out a model that is being trained, ready to be scored: no copy, no merge, in eval mode.

    Afterwards the training mode of every module, its forward, and the state of all random generators are what they were; weights and gradients are
    never touched.

    Args:
        model: What the trainer holds.
        tokenizer: Its tokenizer.
        reference: What to call the model.
        dtype: Type of the arithmetic; ``auto`` is bfloat16 for float32 weights on CUDA, else the weights' own. Weights of another type than float32
            are computed with as they are.

    Raises:
        UserInputError: The weights are spread over processes.
        ModelReferenceError: It is not a model that can be scored.
    """
    inner = inner_model(model)
    wanted = LoadOptions(dtype).torch_dtype(torch.device(inner.device))
    weights = next(inner.parameters()).dtype
    autocast = wanted if weights == torch.float32 and wanted != torch.float32 else None
    with random_states_kept(), _modes_kept(model), _plain_forward(inner):
        inner.eval()
        yield LanguageModel(reference, "live", None, inner, tokenizer, separate_head(inner), position_limit(inner), autocast)


@contextmanager
def _modes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Of every module: somebody may train with a part of the model in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _plain_forward(model: "PreTrainedModel") -> Iterator[None]:
    """Take off the mixed-precision wrapper that accelerate puts around forward: the type of the arithmetic is decided here."""
    state = vars(model)
    if "_original_forward" not in state:
        yield
        return
    wrapped = state["forward"]
    state["forward"] = state["_original_forward"]
    try:
        yield
    finally:
        state["forward"] = wrapped


class LiveWeights:
    """Hashes of a model's weights while it is being trained. Frozen ones are hashed once."""

    def __init__(self) -> None:
        self._frozen: dict[str, str] = {}

    def fingerprint(self, model: torch.nn.Module) -> ModelFingerprint:
        """Hashes of the weights as they are now, of the config, and of the adapter's settings where there is one.

        Equal for equal weights, whichever process or machine holds them; not the fingerprint that saved files have.

        Args:
            model: What the trainer holds.

        Raises:
            UserInputError: The weights are spread over processes.
            ModelReferenceError: It is not a model that can be scored.
        """
        inner = inner_model(model)
        wanted = {name: value for name, value in inner.named_parameters() if value.requires_grad or name not in self._frozen}
        with ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
            found = dict(zip(wanted, pool.map(_digest, wanted.values()), strict=True))
        digests = {**self._frozen, **found}
        self._frozen = {name: digests[name] for name, value in inner.named_parameters() if not value.requires_grad}
        settings = {name: adapter.to_dict() for name, adapter in getattr(_unwrapped(model), "peft_config", {}).items()}
        return ModelFingerprint(
            weights=fingerprint([[name, digests[name]] for name, _ in inner.named_parameters()]),
            config=fingerprint(json.dumps(stable_config(json.loads(inner.config.to_json_string(use_diff=False))), sort_keys=True)),
            adapter=fingerprint(json.dumps(settings, sort_keys=True, default=_plain)) if settings else None,
        )


def _digest(parameter: torch.nn.Parameter) -> str:
    """SHA-256 of type, shape and bytes. The hash releases the interpreter's lock, so several can run at once."""
    found = hashlib.sha256(f"{parameter.dtype} {tuple(parameter.shape)}".encode())
    content: Any = parameter.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
    found.update(content)  # an array is a buffer, which its types do not say
    return found.hexdigest()


def _plain(value: object) -> object:
    """What peft's settings hold beside JSON: sets of names, and enumerations."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)
