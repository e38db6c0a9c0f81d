"""A transformers model on this machine as a generator."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from lmdissect.errors import UserInputError
from lmdissect.models import LoadOptions, ModelFingerprint, ResolvedModel, fingerprint_model, load_model, load_tokenizer
from lmdissect.rewrite.generator import RewriteRequest
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import Prompt

if TYPE_CHECKING:
    from lmdissect.models import LanguageModel

__all__ = ["LocalGenerator"]


class LocalGenerator:
    """A `Generator` that runs a chat model in this process, one prompt at a time.

    The request holds the hashes of the weights, so that another model under the same name is another writer. The same request gives the same text on the
    same machine: the seed belongs to the request.

    Args:
        resolved: The model's files.
        temperature: Sampling temperature; 0 takes the likeliest token.
        options: How to load it.

    Raises:
        UserInputError: The tokenizer has no chat template: the model does not follow instructions.
    """

    location = "local"
    structured = False
    is_free = True
    max_concurrency: int | None = 1

    def __init__(self, resolved: ResolvedModel, *, temperature: float = 0.7, options: LoadOptions | None = None) -> None:
        self.name = resolved.reference
        self._resolved = resolved
        self._temperature = temperature
        self._options = options or LoadOptions()
        self._fingerprint: ModelFingerprint = fingerprint_model(resolved)
        self._loaded: LanguageModel | None = None
        self._tokenizer = load_tokenizer(resolved)
        if not self._tokenizer.chat_template:
            message = f"--model {resolved.reference}: its tokenizer has no chat template, so it was not made to follow instructions: choose an instruct model"
            raise UserInputError(message)

    def recall(self, dialect: str | None) -> None:
        """Nothing to recall."""

    def dialect(self) -> str | None:
        """Nothing is learned."""
        return None

    def request(self, prompt: Prompt, *, attempt: int, seed: int, max_output_tokens: int) -> RewriteRequest:
        """The request."""
        fields = {
            "model": self.name,
            "weights": self._fingerprint.to_json(),
            "dtype": self._options.dtype,
            "messages": [{"role": role, "content": text} for role, text in prompt.messages],
            "max_tokens": max_output_tokens,
            "temperature": self._temperature,
            "seed": seed,
        }
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        return RewriteRequest(body, self.location, attempt, seed, max_output_tokens, self.structured, prompt)

    async def send(self, request: RewriteRequest) -> RawAnswer:
        """Write, in a thread of its own."""
        return await asyncio.to_thread(self._write, request)

    async def close(self) -> None:
        """Let go of the weights."""
        self._loaded = None

    def _write(self, request: RewriteRequest) -> RawAnswer:
        import torch  # noqa: PLC0415 - heavy

        if self._loaded is None:
            self._loaded = load_model(self._resolved, self._options)
        model, tokenizer = self._loaded, self._tokenizer
        turns = [{"role": role, "content": text} for role, text in request.prompt.messages]
        encoded: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        encoded = encoded.to(model.device)
        num_input = int(encoded["input_ids"].shape[1])
        limit = request.max_output_tokens
        if model.max_context is not None:
            limit = min(limit, model.max_context - num_input)
        if limit <= 0:
            return _too_long(num_input, model.max_context)
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": self._temperature, "top_p": 1.0, "top_k": 0} if self._temperature else {"do_sample": False}
        )
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(request.seed)
            generate: Any = model.model.generate
            written = generate(**encoded, max_new_tokens=limit, pad_token_id=tokenizer.eos_token_id, **sampling)[0, num_input:].tolist()
        declared = getattr(model.model.generation_config, "eos_token_id", None)
        ended = bool(written) and written[-1] in _end_tokens(declared, tokenizer.eos_token_id)
        text = tokenizer.decode(written, skip_special_tokens=True)
        return RawAnswer(
            text=str(text), finish_reason="stop" if ended else "length", answered_by=self.name, input_tokens=num_input, output_tokens=len(written)
        )


def _end_tokens(declared: int | list[int] | None, tokenizer_end: int | None) -> frozenset[int]:
    """Tokens that end an answer: all that the model's generation settings declare, one or several; the tokenizer's where they declare none."""
    if declared is None:
        return frozenset() if tokenizer_end is None else frozenset({tokenizer_end})
    return frozenset({declared} if isinstance(declared, int) else declared)


def _too_long(num_input: int, max_context: int | None) -> RawAnswer:
    return RawAnswer(problem=Outcome.BAD_REQUEST, detail=f"the prompt has {num_input} tokens, and the model takes {max_context}")
