"""What an experiment reads: corpus files, models and probe sets, each with the hash that stands for it in a key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lmdissect.corpus import read_corpus
from lmdissect.errors import LmdissectError, ModelReferenceError, UnreadableInputError, UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.models import ResolvedModel, TrustOptions, fingerprint_model, parse_reference, resolve_model
from lmdissect.pipeline.experiment import CorpusSettings, ModelSettings, ProbeSettings
from lmdissect.probes import limit_documents, read_probe_set
from lmdissect.records import Document, ProbeSet, RejectedRecord
from lmdissect.store import fingerprint, hash_file, hash_text

__all__ = ["Inputs", "hash_probe_set", "read_probes", "read_training_documents", "resolve_base"]


class Inputs:
    """Hashes of everything an experiment reads, each made once.

    Attributes:
        problems: What could not be had, in words, by what it is; only where ``lenient``.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        """Read nothing yet.

        Args:
            lenient: Note what cannot be had in `problems` and go on with a placeholder, instead of raising; nothing is fetched from the hub either.
        """
        self._lenient = lenient
        self._known: dict[str, Any] = {}
        self._probe_sets: dict[str, ProbeSet | None] = {}
        self.problems: dict[str, str] = {}

    def files(self, files: Sequence[str]) -> list[str]:
        """Hash of each corpus file; of a corpus folder, of its manifest and the split that is meant."""
        return [self._once(f"corpus {name}", partial(_hash_corpus_file, name)) for name in files]

    def corpus_source(self, corpus: CorpusSettings) -> dict[str, Any]:
        """What the first corpus is made of."""
        if corpus.probe_set is None:
            return {"files": self.files(corpus.files)}
        settings = ProbeSettings(path=corpus.probe_set, control=corpus.control)
        return {"probe_set": self.probes(settings), "variant": corpus.variant}

    def model(self, settings: ModelSettings) -> dict[str, Any]:
        """Fingerprint of the base, and its name."""
        found = self._once(f"model {settings.base}", lambda: _hash_model(settings, offline=self._lenient))
        return {"reference": settings.base, "fingerprint": found}

    def probes(self, settings: ProbeSettings) -> str:
        """Hash of the probe set as it is read with these settings."""
        name = f"probe set {settings.path}"
        key = fingerprint(_reading(settings))

        def read() -> str:
            probe_set = read_probes(settings, offline=self._lenient)
            self._probe_sets[key] = probe_set
            return hash_probe_set(probe_set)

        return str(self._once(name, read, key=f"{name} {key}"))

    def probe_set(self, settings: ProbeSettings) -> ProbeSet | None:
        """The probe set itself; None where it could not be had."""
        self.probes(settings)
        return self._probe_sets.get(fingerprint(_reading(settings)))

    def _once(self, name: str, make: Callable[[], Any], *, key: str | None = None) -> Any:  # noqa: ANN401 - a hash, or several
        key = key or name
        if key not in self._known:
            try:
                self._known[key] = make()
            except LmdissectError as error:
                if not self._lenient:
                    raise
                self.problems.setdefault(name, str(error))
                self._known[key] = f"not at hand: {name}"
        return self._known[key]


def _reading(settings: ProbeSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"num_texts", "tokens_per_text"})


def _hash_corpus_file(name: str) -> str:
    path = Path(name)
    folder, split = path, ""
    if not path.exists() and "#" in path.name:
        bare, _, split = path.name.rpartition("#")
        folder = path.with_name(bare)
    if folder.is_dir():
        if not (folder / "manifest.json").is_file():
            message = f"{folder} is no finished corpus: make it with lmdissect corpus"
            raise UnreadableInputError(message)
        return f"{hash_file(folder / 'manifest.json')}#{split}"
    if not path.is_file():
        message = f"{name}: no such corpus file (paths are relative to the folder the command is run in)"
        raise UnreadableInputError(message)
    return hash_file(path)


def _hash_model(settings: ModelSettings, *, offline: bool) -> dict[str, str | None]:
    return fingerprint_model(resolve_base(settings, offline=offline)).to_json()


def resolve_base(settings: ModelSettings, *, offline: bool = False) -> ResolvedModel:
    """Files of the base model.

    Args:
        settings: Which model.
        offline: Take a hub model from the local cache alone.

    Raises:
        ModelReferenceError: It is not there, or not to be loaded.
    """
    reference = parse_reference(settings.base)
    if offline and reference.kind == "hub":
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - heavy; only hub ids need it

        if not isinstance(try_to_load_from_cache(reference.location, "config.json", revision=reference.revision), str):
            message = f"{settings.base} is not in the local cache of the hub, and planning fetches nothing"
            raise ModelReferenceError(message)
    return resolve_model(settings.base, TrustOptions(settings.allow_pickle, settings.trust_remote_code))


def read_probes(settings: ProbeSettings, *, offline: bool = False) -> ProbeSet:
    """Read a probe set as an experiment describes it.

    Raises:
        UnreadableInputError: The set cannot be read, or is on the hub and ``offline`` is set.
        UserInputError: A variant that is named is not in it.
    """
    if offline and not Path(settings.path).exists():
        message = f"{settings.path} is not on this machine, and planning fetches nothing"
        raise UnreadableInputError(message)
    read = read_probe_set(settings.path, factors=settings.factors, control=settings.control)
    for name, given in (("factors", settings.factors), ("writers", settings.writers)):
        if unknown := sorted(set(given) - set(read.factors)):
            message = f"{settings.path} has no variant '{unknown[0]}', which {name} names (it has {', '.join(read.factors)})"
            raise UserInputError(message)
    everyone = dict.fromkeys((name for name in read.factors if name != ORIGINAL), settings.default_writer) if settings.default_writer else {}
    generators = {**everyone, **read.generators, **settings.writers}
    return limit_documents(replace(read, generators=generators), settings.limit, settings.seed)


def hash_probe_set(probe_set: ProbeSet) -> str:
    """Hash of everything of a probe set that reaches scores and shifts: texts, and what is known of them."""
    key_terms = {document_id: fields["keywords"] for document_id, fields in probe_set.metadata.items() if fields.get("keywords")}
    labels: Mapping[str, Any] = {
        name: dict(getattr(probe_set, name)) for name in ("factors", "generators", "prompt_hashes", "instruction_hashes", "audits")
    }
    return fingerprint([[[text.document_id, text.variant, hash_text(text.text)] for text in probe_set.texts], key_terms, labels])


def read_training_documents(corpus: CorpusSettings) -> tuple[list[Document], list[RejectedRecord]]:
    """Documents of the first corpus: of its files, or one variant of a probe set, and the records that were set aside.

    Raises:
        UserInputError: The probe set has no such variant.
        UnreadableInputError: A file cannot be read.
        NothingToDoError: No document is left.
    """
    if corpus.probe_set is None:
        return read_corpus([Path(name) for name in corpus.files])
    probe_set = read_probes(ProbeSettings(path=corpus.probe_set, control=corpus.control))
    texts = probe_set.by_variant()
    if corpus.variant not in texts:
        message = f"{corpus.probe_set} has no variant '{corpus.variant}' to train on (it has {', '.join(texts)})"
        raise UserInputError(message)
    return [Document(document_id, text) for document_id, text in texts[corpus.variant].items()], list(probe_set.rejected)
