"""Tiny models shared by the tests of this folder: made once, never changed (a test that spoils one copies it first)."""

from pathlib import Path

import pytest

from tiny_models import save_tiny_gpt2, save_tiny_llama, save_tiny_lora


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with untied embeddings whose tokenizer adds BOS."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama", seed=0)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 whose tokenizer adds no BOS."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "gpt2", seed=0)


@pytest.fixture(scope="session")
def llama_adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA on ``llama``; its adapter_config.json names that folder."""
    return save_tiny_lora(llama, tmp_path_factory.mktemp("adapters") / "llama", seed=1)


@pytest.fixture(scope="session")
def gpt2_adapter(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA on ``gpt2``, whose layers store their weights transposed (Conv1D)."""
    return save_tiny_lora(gpt2, tmp_path_factory.mktemp("adapters") / "gpt2", seed=1)
