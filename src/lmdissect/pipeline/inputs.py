"""What an experiment reads: corpus files, models and probe sets, each with the hash that stands for it in a key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmdissect.corpus import read_corpus, row_format
from lmdissect.corpus.folder import DATA
from lmdissect.errors import LmdissectError, UnreadableInputError, UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.models import ResolvedModel, TrustOptions, fingerprint_model, fingerprint_tokenizer, load_tokenizer, resolve_model
from lmdissect.pipeline.experiment import CorpusSettings, ModelSettings, ProbeSettings
from lmdissect.probes import limit_documents, read_probe_set
from lmdissect.records import Document, ProbeSet, RejectedRecord
from lmdissect.store import fingerprint, hash_file, hash_text, read_manifest

__all__ = ["Inputs", "ProbeHash", "hash_probe_set", "read_probes", "read_training_documents", "resolve_base"]


@dataclass(frozen=True, slots=True)
class ProbeHash:
    """What stands for a probe set in keys.

    Attributes:
        texts: Hash of ids and texts: what decides which documents hold a probe.
        labels: Hash of what else is known of them and reaches scores and shifts: factors, writers, prompts, audits, key terms.
    """

    texts: str
    labels: str

    def to_json(self) -> dict[str, str]:
        """The hashes as a plain mapping."""
        return asdict(self)


class Inputs:
    """Hashes of everything an experiment reads, each made once.

    Attributes:
        lenient: Whether what cannot be had is noted instead of raised, and nothing is fetched.
        problems: What could not be had, in words, by what it is; only where ``lenient``.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        """Read nothing yet.

        Args:
            lenient: Note what cannot be had in `problems` and go on with a placeholder, instead of raising; nothing is fetched from the hub either.
        """
        self.lenient = lenient
        self._known: dict[str, Any] = {}
        self._probe_sets: dict[str, ProbeSet | None] = {}
        self.problems: dict[str, str] = {}

    def files(self, files: Sequence[str]) -> list[str]:
        """Hash of each corpus file with the format it is read in; of a corpus folder, of its shards and the split that is meant."""
        return [self._once(f"corpus {name}", partial(_hash_corpus_file, name)) for name in files]

    def corpus_source(self, corpus: CorpusSettings) -> dict[str, Any]:
        """What the first corpus is made of; of a probe set, the texts of the variant that is trained on and no others."""
        if corpus.probe_set is None:
            return {"files": self.files(corpus.files)}
        name = f"variant '{corpus.variant}' of {corpus.probe_set}"
        settings = ProbeSettings(path=corpus.probe_set, control=corpus.control)

        def read() -> str:
            self.probes(settings)
            probe_set = self.probe_set(settings)
            if probe_set is None:
                message = f"{corpus.probe_set} is not at hand"
                raise UnreadableInputError(message)
            return fingerprint([[document.document_id, hash_text(document.text)] for document in _documents_of(probe_set, corpus)])

        return {"variant": self._once(name, read, key=f"{name} {corpus.control}")}

    def num_documents(self, corpus: CorpusSettings) -> tuple[int | None, int | None]:
        """Documents of the first corpus, validation included, and of the second one; None for one that cannot be read, or is not there."""
        first = self._number(f"first {self.corpus_source(corpus)}", lambda: read_training_documents(corpus, offline=self.lenient)[0])
        if corpus.mix is None:
            return first, None
        files = [Path(name) for name in corpus.mix.files]
        return first, self._number(f"second {self.files(corpus.mix.files)}", lambda: read_corpus(files)[0])

    def _number(self, key: str, read: Callable[[], Sequence[Document]]) -> int | None:
        """How many documents there are; what is wrong with them is for the node that draws them to say."""
        if key not in self._known:
            try:
                self._known[key] = len(read())
            except LmdissectError:
                self._known[key] = None
        found: int | None = self._known[key]
        return found

    def model(self, settings: ModelSettings) -> dict[str, Any]:
        """Fingerprint of the base with its tokenizer, and its name."""
        name = f"model {settings.base}"
        key = f"{name} {settings.allow_pickle} {settings.trust_remote_code}"
        found = self._once(name, lambda: _hash_model(settings, offline=self.lenient), key=key)
        return {"reference": settings.base, "fingerprint": found}

    def probes(self, settings: ProbeSettings) -> ProbeHash:
        """Hashes of the probe set as it is read with these settings."""
        name = f"probe set {settings.path}"
        key = fingerprint(_reading(settings))

        def read() -> ProbeHash:
            probe_set = read_probes(settings, offline=self.lenient)
            self._probe_sets[key] = probe_set
            return hash_probe_set(probe_set)

        found = self._once(name, read, key=f"{name} {key}")
        return found if isinstance(found, ProbeHash) else ProbeHash(str(found), str(found))

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
                if not self.lenient:
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
        files = read_manifest(folder).files  # of the manifest itself the hash would change with the day on which the same corpus is made
        shards = {name: record.sha256 for name, record in files.items() if name.startswith(f"{DATA}/")}
        return f"{fingerprint(shards)}#{split}"
    if not path.is_file():
        message = f"{name}: no such corpus file (paths are relative to the folder the command is run in)"
        raise UnreadableInputError(message)
    return f"{row_format(path)} {hash_file(path)}"  # the name's ending decides what the bytes are read as


def _hash_model(settings: ModelSettings, *, offline: bool) -> dict[str, str | None]:
    base = resolve_base(settings, offline=offline)
    return {**fingerprint_model(base).to_json(), "tokenizer": fingerprint_tokenizer(load_tokenizer(base))}


def resolve_base(settings: ModelSettings, *, offline: bool = False) -> ResolvedModel:
    """Files of the base model.

    Args:
        settings: Which model.
        offline: Take a hub model from the local cache alone.

    Raises:
        ModelReferenceError: It is not there, or not to be loaded.
    """
    return resolve_model(settings.base, TrustOptions(settings.allow_pickle, settings.trust_remote_code), offline=offline)


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


def hash_probe_set(probe_set: ProbeSet) -> ProbeHash:
    """Hashes of everything of a probe set that reaches documents, scores and shifts: texts, and what is known of them."""
    key_terms = {document_id: fields["keywords"] for document_id, fields in probe_set.metadata.items() if fields.get("keywords")}
    labels: Mapping[str, Any] = {name: dict(getattr(probe_set, name)) for name in ("factors", "generators", "prompt_hashes", "audits")}
    texts = fingerprint([[text.document_id, text.variant, hash_text(text.text)] for text in probe_set.texts])
    return ProbeHash(texts, fingerprint([key_terms, labels]))


def read_training_documents(corpus: CorpusSettings, *, offline: bool = False) -> tuple[list[Document], list[RejectedRecord]]:
    """Documents of the first corpus: of its files, or one variant of a probe set, and the records that were set aside.

    Args:
        corpus: The corpus.
        offline: Take no probe set that is not on this machine.

    Raises:
        UserInputError: The probe set has no such variant.
        UnreadableInputError: A file cannot be read.
        NothingToDoError: No document is left.
    """
    if corpus.probe_set is None:
        return read_corpus([Path(name) for name in corpus.files])
    probe_set = read_probes(ProbeSettings(path=corpus.probe_set, control=corpus.control), offline=offline)
    return _documents_of(probe_set, corpus), list(probe_set.rejected)


def _documents_of(probe_set: ProbeSet, corpus: CorpusSettings) -> list[Document]:
    texts = probe_set.by_variant()
    if corpus.variant not in texts:
        message = f"{corpus.probe_set} has no variant '{corpus.variant}' to train on (it has {', '.join(texts)})"
        raise UserInputError(message)
    return [Document(document_id, text) for document_id, text in texts[corpus.variant].items()]
