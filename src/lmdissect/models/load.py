"""A model in memory, ready to score or to train."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from lmdissect.errors import LmdissectError, ModelReferenceError, UserInputError
from lmdissect.models.head import Head, is_causal, position_limit, separate_head
from lmdissect.models.resolve import ResolvedModel, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["DeviceName", "DtypeName", "LanguageModel", "LoadOptions", "load_model", "load_tokenizer"]

DtypeName: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
DeviceName: TypeAlias = str

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load.

    Attributes:
        dtype: Type of the weights; ``auto`` is float32 on CPU and MPS, bfloat16 on CUDA. Log-probabilities are float32 in every case.
        device: ``auto`` (CUDA, then MPS, then CPU), or a torch device name.
    """

    dtype: DtypeName = "auto"
    device: DeviceName = "auto"

    def torch_device(self) -> torch.device:
        """The device to use.

        Raises:
            UserInputError: Unknown, or not on this machine.
        """
        if self.device == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda")
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            message = f"--device {self.device}: not usable here ({' '.join(str(error).split())[:80]}); try --device cpu"
            raise UserInputError(message) from error
        return device

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        """The weights' dtype on ``device``.

        Raises:
            UserInputError: Unknown name.
        """
        if self.dtype == "auto":
            return torch.bfloat16 if device.type == "cuda" else torch.float32
        if self.dtype not in _DTYPES:
            message = f"--dtype {self.dtype}: choose auto, {', '.join(_DTYPES)}"
            raise UserInputError(message)
        return _DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        reference: The model as the user named it.
        backend: Where the weights came from (see `lmdissect.models.ResolvedModel`), or ``live``: a model that is being trained.
        revision: Commit of the hub snapshot, or None.
        model: The transformers model, in eval mode; an adapter is merged into it, or active inside it where it is being trained.
        tokenizer: Its fast tokenizer.
        head: Hidden states and logits apart, or None where the family does not allow it.
        max_context: Longest input in tokens (the config's position limit), or None where it has none.
        autocast: Type that float32 weights are to be computed in (``torch.autocast``), or None for the weights' own.
    """

    reference: str
    backend: str
    revision: str | None
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    head: Head | None
    max_context: int | None
    autocast: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of the arithmetic before the logits; log-probabilities are float32 in every case."""
        return self.autocast or self.dtype

    @property
    def num_parameters(self) -> int:
        """Number of distinct parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_model(resolved: ResolvedModel, options: LoadOptions | None = None) -> LanguageModel:
    """Load a model for scoring.

    An adapter is merged in float32 before the cast to the wanted dtype, so that scoring costs what the base costs and the sum is rounded once.

    Raises:
        ModelReferenceError: The files are no causal language model, or the adapter does not fit.
        UserInputError: Device or dtype cannot be used.
    """
    chosen = options or LoadOptions()
    device = chosen.torch_device()
    dtype = chosen.torch_dtype(device)
    model: Any = load_weights(resolved, dtype if resolved.adapter_folder is None else torch.float32)
    if resolved.adapter_folder is not None:
        model = _merge_adapter(model, resolved)
        for parameter in model.parameters():  # parameters alone: rotary frequencies and other buffers stay float32, as transformers keeps them
            parameter.data = parameter.data.to(dtype)
    model = model.to(device).eval()
    head, limit = separate_head(model), position_limit(model)
    return LanguageModel(resolved.reference, resolved.backend, resolved.revision, model, load_tokenizer(resolved), head, limit)


def load_tokenizer(resolved: ResolvedModel) -> "PreTrainedTokenizerFast":
    """Load the tokenizer alone: the adapter's own where it has one, else the base's.

    Raises:
        ModelReferenceError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    folder = resolved.folder
    if resolved.adapter_folder is not None and (resolved.adapter_folder / "tokenizer_config.json").is_file():
        folder = resolved.adapter_folder
    loader: Any = AutoTokenizer
    with quiet_transformers(), _one_line_error(f"{resolved.reference}: its tokenizer cannot be loaded"):
        tokenizer: PreTrainedTokenizerFast = loader.from_pretrained(str(folder), trust_remote_code=resolved.trust.trust_remote_code)
    return tokenizer


def load_weights(resolved: ResolvedModel, dtype: torch.dtype) -> "PreTrainedModel":
    """Load the base's weights on the CPU, without an adapter.

    Raises:
        ModelReferenceError: The files are damaged, incomplete, or no causal language model.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    arguments: dict[str, object] = {
        "dtype": dtype,
        "trust_remote_code": resolved.trust.trust_remote_code,
        "use_safetensors": None if resolved.trust.allow_pickle else True,
        "attn_implementation": _attention(resolved),
    }
    loader: Any = AutoModelForCausalLM  # its types do not know that it can return a pair
    loaded: PreTrainedModel
    with quiet_transformers(), _one_line_error(f"{resolved.reference}: cannot be loaded as a causal language model"):
        loaded, info = loader.from_pretrained(str(resolved.folder), output_loading_info=True, **arguments)
        causal = is_causal(loaded)
    missing = sorted(info.get("missing_keys", []))
    if missing:  # transformers would fill them with random numbers and go on
        message = f"{resolved.reference}: {len(missing)} weights are missing from its files (first: {missing[0]}): the model is incomplete"
        raise ModelReferenceError(message)
    if not causal:
        message = f"{resolved.reference}: {type(loaded).__name__} looks at the tokens it is to predict: give a causal (left-to-right) language model"
        raise ModelReferenceError(message)
    return loaded


@contextlib.contextmanager
def _one_line_error(what: str) -> Iterator[None]:
    """Turn whatever a loader raises on bad files into our error; loaders and the readers below them raise exceptions of no common kind."""
    try:
        yield
    except (LmdissectError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        message = f"{what} ({' '.join(str(error).split())[:200] or type(error).__name__})"
        raise ModelReferenceError(message) from error


def _attention(resolved: ResolvedModel) -> str | None:
    """``eager`` where sdpa would silently drop a soft cap on attention scores; None, the library's choice (sdpa where it can), elsewhere."""
    config = read_config(resolved.folder / "config.json")
    nested = config.get("text_config")
    capped = config.get("attn_logit_softcapping") or (isinstance(nested, dict) and nested.get("attn_logit_softcapping"))
    return "eager" if capped else None


def _merge_adapter(model: "PreTrainedModel", resolved: ResolvedModel) -> "PreTrainedModel":
    from peft import PeftModel  # noqa: PLC0415 - heavy

    with quiet_transformers(), _one_line_error(f"{resolved.reference}: the adapter does not fit its base"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # said below, and as an error
            wrapped = PeftModel.from_pretrained(model, str(resolved.adapter_folder))
        report = wrapped.load_adapter(str(resolved.adapter_folder), "default")  # again, for what from_pretrained does not tell
        if strange := [*report.missing_keys, *report.unexpected_keys]:  # peft would leave random numbers, and drop what it cannot place
            message = f"{resolved.reference}: the adapter does not fit its base ({len(strange)} weights missing or unplaced, first: {strange[0]})"
            raise ModelReferenceError(message)
        merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    return merged


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars, load reports and one deprecation that peft trips over off the terminal; our errors say what matters."""
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - heavy

    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
