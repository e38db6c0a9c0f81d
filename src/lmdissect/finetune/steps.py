"""One optimiser step: forward and backward over its documents, as many at a time as fit in memory."""

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lmdissect.errors import OutOfMemoryError
from lmdissect.finetune.batches import TokenizedCorpus, TokenSequence
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.micro_batches import build_micro_batch, num_forward_tokens, split_step
from lmdissect.finetune.packed_attention import attends_packed
from lmdissect.models.processes import num_processes, process_rank, sum_over_processes
from lmdissect.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

__all__ = ["Memory", "StepRunner", "is_out_of_memory", "recompute_activations"]


_HELD_OUT = "the held-out documents"


@dataclass(slots=True)
class Memory:
    """What fits: found out while training, stored with every checkpoint.

    Attributes:
        micro_batch_tokens: Tokens of one forward pass.
        recompute: Whether activations are computed again in the backward pass.
    """

    micro_batch_tokens: int
    recompute: bool


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Computes the gradient of one optimiser step.

        gradient of  sum of -log p over the target tokens of all documents of the step / their number

    whatever the micro batch and the number of processes.

    Attributes:
        model: The model inside what is trained: its attention and its recomputation are switched here.
        corpus: Token sequences.
        config: Settings.
        device: Where to train.
        packed: Documents end to end in one row, or padded.
        memory: What fits; changed when memory runs out.
        progress: Told of such changes.
    """

    model: "PreTrainedModel"
    corpus: TokenizedCorpus
    config: FinetuneConfig
    device: torch.device
    packed: bool
    memory: Memory
    progress: Progress

    def run(self, wrapped: torch.nn.Module, documents: Sequence[int], step: int, accelerator: "Accelerator") -> torch.Tensor:
        """Leave the step's gradient in the parameters.

        When memory runs out, what the step has added so far is dropped, the micro batch is halved, and the step begins again with the same random numbers.
        Several processes cannot do that, because the others would wait within a pass.

        Args:
            wrapped: What is trained, in whatever wraps it for several processes; called with ``micro_batch`` it returns summed nats.
            documents: Indices of the step's documents.
            step: Number of the step, for messages.
            accelerator: Knows how to go backward.

        Returns:
            Mean nats over the target tokens of the step, a scalar.

        Raises:
            OutOfMemoryError: Not even one document fits.
        """
        sequences = [self.corpus.sequences[index] for index in documents]
        random_state = _random_state(self.device)
        while True:
            try:
                return self._accumulate(wrapped, sequences, accelerator)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if num_processes() > 1:
                    raise self._alone_needed(sequences, f"step {step}", backward=True) from error
            wrapped.zero_grad()  # not inside the block above, whose error holds the pass's tensors
            _set_random_state(self.device, random_state)
            self._make_room(sequences, f"step {step}", backward=True)

    def pooled_loss_nats(self, wrapped: torch.nn.Module, corpus: TokenizedCorpus) -> float:
        """Mean nats over all target tokens of a corpus, without gradients; every process takes part and gets it.

        When memory runs out, the micro batch is halved and the corpus begun again, as in `run`.

        Raises:
            OutOfMemoryError: Not even one document fits.
        """
        while True:
            try:
                return sum_over_processes(self._summed_nats(wrapped, corpus)) / corpus.num_target_tokens
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if num_processes() > 1:
                    raise self._alone_needed(corpus.sequences, _HELD_OUT, backward=False) from error
            self._make_room(corpus.sequences, _HELD_OUT, backward=False)

    def _summed_nats(self, wrapped: torch.nn.Module, corpus: TokenizedCorpus) -> float:
        total_nats = 0.0
        training = wrapped.training
        wrapped.eval()
        try:
            with torch.no_grad(), attends_packed(self.model, packed=self.packed):
                for places in self._split(corpus.sequences):
                    batch = build_micro_batch([corpus.sequences[place] for place in places], packed=self.packed).to(self.device)
                    total_nats += float(wrapped(micro_batch=batch))
        finally:
            wrapped.train(training)
        return total_nats

    def _accumulate(self, wrapped: torch.nn.Module, sequences: Sequence[TokenSequence], accelerator: "Accelerator") -> torch.Tensor:
        passes = self._split(sequences)
        num_targets = sum(sequence.num_targets for sequence in sequences)
        total_nats = torch.zeros((), dtype=torch.float64 if self.device.type != "mps" else torch.float32, device=self.device)
        scale = num_processes() / num_targets  # gradients are averaged over processes
        for number, places in enumerate(passes, start=1):
            batch = build_micro_batch([sequences[place] for place in places], packed=self.packed).to(self.device)
            last = number == len(passes)
            accelerator.gradient_state._set_sync_gradients(last)  # noqa: SLF001 - as the Trainer does; DeepSpeed steps where it is set
            with contextlib.nullcontext() if last else accelerator.no_sync(wrapped), attends_packed(self.model, packed=self.packed):
                nats = wrapped(micro_batch=batch)
                arguments: dict[str, Any] = {"scale_wrt_gas": False} if accelerator.distributed_type == "DEEPSPEED" else {}
                accelerator.backward(nats * scale, **arguments)
            total_nats += nats.detach()
        return torch.tensor(sum_over_processes(float(total_nats)) / num_targets, dtype=torch.float32, device=accelerator.device)

    def _split(self, sequences: Sequence[TokenSequence]) -> list[list[int]]:
        lengths = [len(sequence) for sequence in sequences]
        return split_step(lengths, self.memory.micro_batch_tokens, packed=self.packed, rank=process_rank(), num_processes=num_processes())

    def _make_room(self, sequences: Sequence[TokenSequence], where: str, *, backward: bool) -> None:
        """After memory ran out: fewer tokens in a pass, or activations that are not kept for the backward pass."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        most_documents, largest = self._largest_pass(sequences)
        if most_documents > 1:
            self.memory.micro_batch_tokens = max(1, min(self.memory.micro_batch_tokens, largest) // 2)
            self.progress.say(
                f"memory ran out in {where}: {self.memory.micro_batch_tokens} tokens at a time from here on; but for rounding and the draws of dropout "
                "the outcome is the same"
            )
        elif backward and self.config.gradient_checkpointing == "auto" and not self.memory.recompute:
            self.memory.recompute = True
            recompute_activations(self.model)
            self.progress.say(
                f"memory ran out in {where} with one document at a time: activations are computed twice from here on, with the same outcome"
            )
        else:
            raise OutOfMemoryError(
                f"one document of {largest} tokens does not fit in memory ({where}): {', or '.join(self._cures(backward=backward))}"
            )

    def _largest_pass(self, sequences: Sequence[TokenSequence]) -> tuple[int, int]:
        """The most documents, and the most tokens, of a pass of this process."""
        passes = self._split(sequences)
        lengths = [[len(sequences[place]) for place in places] for places in passes]
        return max(map(len, lengths)), max(num_forward_tokens(held, packed=self.packed) for held in lengths)

    def _cures(self, *, backward: bool) -> list[str]:
        """What helps where a single document does not fit."""
        cures = [f"lower max_tokens (now {self.config.max_tokens})"]
        cures += ["set gradient_checkpointing to on"] if backward and not self.memory.recompute else []
        return cures + ([] if self.config.lora else ["train adapters (lora) instead of all weights"])

    def _alone_needed(self, sequences: Sequence[TokenSequence], where: str, *, backward: bool) -> OutOfMemoryError:
        most_documents, _ = self._largest_pass(sequences)
        cures = [f"lower micro_batch_tokens (now {self.memory.micro_batch_tokens})"] if most_documents > 1 else self._cures(backward=backward)
        return OutOfMemoryError(
            f"memory ran out in {where} on process {process_rank()} of {num_processes()}: {', or '.join(cures)}, "
            "and run the same command in another folder; one process alone would find what fits by itself"
        )


def recompute_activations(model: Any) -> None:  # noqa: ANN401 - the method's name depends on the version of transformers
    """Keep no activations inside the layers for the backward pass; compute them again there."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU torch has a class for it, on the CPU a RuntimeError of its allocator."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


def _random_state(device: torch.device) -> list[torch.Tensor]:
    return [torch.random.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(device: torch.device, state: list[torch.Tensor]) -> None:
    torch.random.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
