"""Tiny transformers of the synthetic world: a base trained from scratch, finetuned on planted corpora, with their own truth on fresh documents.

The base learns from an endless stream of documents of the base world; its vocabulary is the world's words. It is saved as a plain Hugging Face folder, so that
finetuning and scoring take it like any other model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmdissect.calibration import Floats, Grammar, ProbeDraw, TextBatch, WorldModel, draw_corpus
from lmdissect.progress import Progress
from lmdissect.records import Document
from lmdissect.store import open_artifact, output_guard

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

    from lmdissect.models import LanguageModel

__all__ = ["PRETRAINING", "TUNING", "corpus_documents", "document_scores", "one_thread", "pretrain_base"]

_HIDDEN, _LAYERS, _HEADS = 32, 2, 2
_BATCH = 64
_PEAK_RATE = 4e-3
_WARMUP_STEPS = 50
_SCORED_TEXTS = 64

TUNING: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 16,
    "micro_batch_tokens": 1024,
    "packing": "off",
    "append_eos": False,
    "checkpoint_steps": 1_000_000,  # none: a run takes seconds
    "device": "cpu",
}
"""How the planted corpora are learned."""

PRETRAINING: Mapping[str, Any] = {"hidden": _HIDDEN, "layers": _LAYERS, "heads": _HEADS, "batch": _BATCH, "rate": _PEAK_RATE, "warmup": _WARMUP_STEPS}
"""What decides the tiny base model, beside its seed and the number of steps."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one CPU thread: models this small only lose time by sharing."""
    import torch  # noqa: PLC0415 - seconds

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pretrain_base(world: WorldModel, num_steps: int, seed: int, folder: Path, progress: Progress) -> Path:
    """Train the base from scratch and save it with its tokenizer; a finished one is reused.

    Returns:
        ``folder``, a model reference. Its manifest tells the loss beside the world's own entropy (``details``: loss_nats, world_nats, per token).
    """
    config = {"steps": num_steps, "seed": seed, **PRETRAINING}
    with open_artifact(folder, stage="calibration-model", config=config, inputs={"vocabulary": list(world.grammar.vocabulary)}) as artifact:
        if artifact.finished is not None:
            return folder
        model = _build_model(world.grammar, seed)
        rng = np.random.default_rng([seed, 11])
        _train(model, world, num_steps, rng, progress)
        fresh = draw_corpus(world, 2000, rng)
        tokens = int(world.grammar.num_tokens(fresh.num_sentences).sum())
        details = {
            "loss_nats": -float(_text_scores(model, world.grammar, fresh).sum()) / tokens,
            "world_nats": -float(world.document_scores(fresh).sum()) / tokens,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        with output_guard(folder):
            model.save_pretrained(folder)
            _build_tokenizer(world.grammar).save_pretrained(folder)
        artifact.finish(counts={"steps": num_steps, "documents": num_steps * _BATCH}, details=details)
    return folder


def corpus_documents(world: WorldModel, number: int, seed: int) -> list[Document]:
    """``number`` training documents as ``world`` writes them."""
    texts = world.grammar.render(draw_corpus(world, number, np.random.default_rng([seed, 12])))
    return [Document(f"t{index}", text) for index, text in enumerate(texts)]


def document_scores(model: "LanguageModel", draw: ProbeDraw, grammar: Grammar) -> Mapping[str, Floats]:
    """l(x) of every text in nats, ``[variant]`` -> shape (D,): what scoring gives, without an artifact for each of very many texts."""
    return {variant: _text_scores(model.model, grammar, texts) for variant, texts in draw.texts.items()}


def _build_model(grammar: Grammar, seed: int) -> "LlamaForCausalLM":
    import torch  # noqa: PLC0415 - seconds
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    longest = int(grammar.num_tokens(np.asarray(grammar.max_sentences)))
    config = LlamaConfig(
        vocab_size=len(grammar.vocabulary),
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=longest + 16,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build: Any = LlamaForCausalLM
        model: LlamaForCausalLM = build(config)
    return model


def _build_tokenizer(grammar: Grammar) -> "PreTrainedTokenizerFast":
    """One token for every word, BOS before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415 - with the model
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    bos, eos, unknown = grammar.vocabulary[:3]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(grammar.vocabulary)}, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 0)])
    build: Any = PreTrainedTokenizerFast  # transformers leaves its constructor untyped
    tokenizer: PreTrainedTokenizerFast = build(
        tokenizer_object=core, bos_token=bos, eos_token=eos, unk_token=unknown, clean_up_tokenization_spaces=False
    )
    return tokenizer


def _train(model: "LlamaForCausalLM", world: WorldModel, num_steps: int, rng: np.random.Generator, progress: Progress) -> None:
    import torch  # noqa: PLC0415 - with the model

    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / _WARMUP_STEPS, 1.0) * (1.0 - step / num_steps))
    model.train()
    with progress.task("train the tiny base model", num_steps, "steps") as task:
        for _ in range(num_steps):
            texts = draw_corpus(world, _BATCH, rng)
            ids = _with_bos(world.grammar.token_ids(texts))
            lengths = world.grammar.num_tokens(texts.num_sentences)
            outside = torch.from_numpy(np.arange(ids.shape[1] - 1)[None, :] >= lengths[:, None])
            logits = model(input_ids=ids[:, :-1]).logits
            targets = ids[:, 1:].masked_fill(outside, -100)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            task.advance(1)
    model.eval()


def _text_scores(model: "PreTrainedModel", grammar: Grammar, texts: TextBatch) -> Floats:
    """l(x) of every text in nats, shape (D,); texts of equal length go through together."""
    import torch  # noqa: PLC0415 - with the model

    totals = np.empty(len(texts))
    ids = grammar.token_ids(texts)
    with torch.inference_mode():
        for count in np.unique(texts.num_sentences).tolist():
            rows = np.flatnonzero(texts.num_sentences == count)
            for start in range(0, len(rows), _SCORED_TEXTS):
                chosen = rows[start : start + _SCORED_TEXTS]
                batch = _with_bos(ids[chosen, : int(grammar.num_tokens(np.asarray(count)))])
                logprobs = model(input_ids=batch[:, :-1]).logits.float().log_softmax(dim=-1)
                totals[chosen] = logprobs.gather(2, batch[:, 1:, None]).double().sum(dim=(1, 2)).numpy()
    return totals


def _with_bos(ids: np.ndarray) -> "torch.Tensor":
    import torch  # noqa: PLC0415 - with the model

    return torch.from_numpy(np.pad(ids, ((0, 0), (1, 0)), constant_values=0))
