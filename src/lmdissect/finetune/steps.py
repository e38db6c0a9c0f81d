"""One optimiser step: forward and backward over its documents, as many at a time as fit in memory."""

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lmdissect.errors import RunFailedError
from lmdissect.finetune.batches import TokenizedCorpus, TokenSequence
from lmdissect.finetune.config import FinetuneConfig
from lmdissect.finetune.micro_batches import build_micro_batch, num_forward_tokens, split_step
from lmdissect.finetune.packed_attention import attends_packed
from lmdissect.models.processes import num_processes, process_rank, sum_over_processes
from lmdissect.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

__all__ = ["Memory", "StepRunner", "is_out_of_memory", "pooled_loss_nats", "recompute_activations"]


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
            RunFailedError: Not even one document fits.
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
                    raise self._alone_needed(step) from error
            self._begin_again(wrapped, sequences, step, random_state)  # not inside the block above, whose error holds the pass's tensors

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

    def _begin_again(self, wrapped: torch.nn.Module, sequences: Sequence[TokenSequence], step: int, random_state: list[torch.Tensor]) -> None:
        wrapped.zero_grad()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _set_random_state(self.device, random_state)
        passes = self._split(sequences)
        largest = max(num_forward_tokens([len(sequences[place]) for place in places], packed=self.packed) for places in passes)
        if max(len(places) for places in passes) > 1:
            self.memory.micro_batch_tokens = max(1, min(self.memory.micro_batch_tokens, largest) // 2)
            self.progress.say(f"memory ran out in step {step}: {self.memory.micro_batch_tokens} tokens at a time from here on, with the same outcome")
        elif self.config.gradient_checkpointing == "auto" and not self.memory.recompute:
            self.memory.recompute = True
            recompute_activations(self.model)
            self.progress.say(
                f"memory ran out in step {step} with one document at a time: activations are computed twice from here on, with the same outcome"
            )
        else:
            raise self._too_large(step, largest)

    def _too_large(self, step: int, num_tokens: int) -> RunFailedError:
        cures = [f"lower max_tokens (now {self.config.max_tokens})"]
        cures += [] if self.memory.recompute else ["set gradient_checkpointing to on"]
        cures += [] if self.config.lora else ["train adapters (lora) instead of all weights"]
        return RunFailedError(f"one document of {num_tokens} tokens does not fit in memory (step {step}): {', or '.join(cures)}")

    def _alone_needed(self, step: int) -> RunFailedError:
        return RunFailedError(
            f"memory ran out in step {step} on process {process_rank()} of {num_processes()}: lower micro_batch_tokens (now {self.memory.micro_batch_tokens}) "
            "and run the same command in another folder; one process alone would do so by itself"
        )


def pooled_loss_nats(wrapped: torch.nn.Module, runner: StepRunner, corpus: TokenizedCorpus) -> float:
    """Mean nats over all target tokens of a corpus, without gradients; every process takes part and gets it."""
    lengths = [len(sequence) for sequence in corpus.sequences]
    passes = split_step(lengths, runner.memory.micro_batch_tokens, packed=runner.packed, rank=process_rank(), num_processes=num_processes())
    total_nats = 0.0
    training = wrapped.training
    wrapped.eval()
    with torch.no_grad(), attends_packed(runner.model, packed=runner.packed):
        for places in passes:
            batch = build_micro_batch([corpus.sequences[place] for place in places], packed=runner.packed).to(runner.device)
            total_nats += float(wrapped(micro_batch=batch))
    wrapped.train(training)
    return sum_over_processes(total_nats) / corpus.num_target_tokens


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
