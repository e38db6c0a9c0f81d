"""Hub id, folder, GGUF file, wheel or LoRA adapter -> model and tokenizer behind our own small interface.

Read in this order: `reference` (what the user typed), `resolve` (files on disk), `load` (a model in memory), `live` (one that is being trained), `head`
(logits without holding them all), `tokenization` (text to ids, one prefix policy).
"""

from lmdissect.models.live import LiveWeights, borrow_live_model
from lmdissect.models.load import LanguageModel, LoadOptions, load_model, load_tokenizer
from lmdissect.models.reference import ModelReference, parse_reference
from lmdissect.models.resolve import ModelFingerprint, ResolvedModel, TrustOptions, fingerprint_model, resolve_model, resolve_together
from lmdissect.models.tokenization import BosPolicy, TextTokenizer, TokenizedText, fingerprint_tokenizer

__all__ = [
    "BosPolicy",
    "LanguageModel",
    "LiveWeights",
    "LoadOptions",
    "ModelFingerprint",
    "ModelReference",
    "ResolvedModel",
    "TextTokenizer",
    "TokenizedText",
    "TrustOptions",
    "borrow_live_model",
    "fingerprint_model",
    "fingerprint_tokenizer",
    "load_model",
    "load_tokenizer",
    "parse_reference",
    "resolve_model",
    "resolve_together",
]
