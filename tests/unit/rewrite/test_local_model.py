"""Where an answer of a local model ends."""

import asyncio
import json
from pathlib import Path

import pytest

from lmdissect.models import resolve_model
from lmdissect.rewrite.local_model import LocalGenerator
from lmdissect.rewrite.prompt import write_prompt
from rewriting import CASUAL
from tiny_models import TINY_VOCAB_SIZE, save_tiny_llama


@pytest.mark.parametrize(("ends", "reason"), [(list(range(TINY_VOCAB_SIZE)), "stop"), ([TINY_VOCAB_SIZE + 7], "length")])
def test_every_declared_end_token_ends_an_answer(tmp_path: Path, ends: list[int], reason: str) -> None:
    folder = save_tiny_llama(tmp_path / "llama", seed=0, max_positions=4096)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    generator = LocalGenerator(resolve_model(str(folder)))
    request = generator.request(write_prompt(CASUAL, "A trial.", structured=False), attempt=0, seed=1, max_output_tokens=3)
    assert asyncio.run(generator.send(request)).finish_reason == reason
