"""What estimates stand on: sizes of models, lengths of texts, and the speed of this machine, measured once and kept in STORE/calibration.

A speed is measured with the very functions that do the work: two optimiser steps of a few hundred tokens, and one batch of scoring. It is kept under a
key of model (its weights, not its name), method, machine, threads and versions, with a mark where the machine had other work at the time.
"""

import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmdissect.corpus import sample_documents
from lmdissect.errors import DamagedArtifactError, LmdissectError
from lmdissect.finetune import FinetuneConfig
from lmdissect.models import ResolvedModel, TextTokenizer, load_tokenizer
from lmdissect.pipeline.experiment import CorpusSettings, ModelSettings, ProbeSettings
from lmdissect.pipeline.inputs import Inputs, read_training_documents, resolve_base
from lmdissect.records import Document
from lmdissect.scoring import ScoringConfig
from lmdissect.store import fingerprint, output_folder, read_json, versions, write_json

__all__ = [
    "ModelFacts",
    "Speed",
    "SpeedGauge",
    "TextFacts",
    "cpus_are_busy",
    "document_facts",
    "measure_scoring",
    "measure_training",
    "model_facts",
    "probe_facts",
]

_FOLDER = "calibration"
_SAMPLED_DOCUMENTS = 200
_STEP_TOKENS = 512
_SCORED_TOKENS = 1024
_NEVER = 1_000_000
_LOAD_OF_A_QUIET_MACHINE = 0.7
"""Starting this program, and a desktop, take some."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Size of a model.

    Attributes:
        num_parameters: Distinct parameters.
        adapted_rows: Sum over linear layers but the head of (inputs + outputs): LoRA has as many parameters for each rank. None where not known.
    """

    num_parameters: int
    adapted_rows: int | None = None

    def adapter_parameters(self, rank: int) -> int | None:
        """Parameters of adapters on every linear layer."""
        return None if self.adapted_rows is None else rank * self.adapted_rows


@dataclass(frozen=True, slots=True)
class TextFacts:
    """How many texts, and how long.

    Attributes:
        number: Texts; of a corpus, all its documents.
        mean_tokens: Tokens of one, cut at the limit; of a corpus from a sample.
        assumed: Whether the length is an assumption of the experiment file.
    """

    number: int
    mean_tokens: float
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one kind of work goes on this machine.

    Attributes:
        tokens_per_s: Tokens a second, once it runs.
        start_s: Time to load, prepare and save.
        was_busy: Whether other work used the CPUs at the time, so that this is too slow.
    """

    tokens_per_s: float
    start_s: float
    was_busy: bool = False


@dataclass(frozen=True, slots=True)
class SpeedGauge:
    """How speeds are to be had.

    Attributes:
        store: Folder of all artifacts, where what was measured is kept.
        threads: CPU threads.
        announce: Called before anything is measured; None measures nothing, and knows only what was measured before.
        anew: Measure again what was measured before.
        is_busy: Whether other work uses the CPUs, see `cpus_are_busy`.
    """

    store: Path
    threads: int
    announce: Callable[[], None] | None
    anew: bool = False
    is_busy: bool = False


def cpus_are_busy(threads: int) -> bool:
    """Whether the last minute's work leaves fewer idle CPUs than ``threads``; to be asked before this process itself has worked for long."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load > max(0, (os.cpu_count() or 1) - threads) + _LOAD_OF_A_QUIET_MACHINE


_KNOWN_MODELS = {
    "gpt2-xl": ModelFacts(1_557_611_200, 1_228_800),
    "openai-community/gpt2-xl": ModelFacts(1_557_611_200, 1_228_800),
    "meta-llama/Llama-2-7b-hf": ModelFacts(6_738_415_616, 2_498_560),
    "meta-llama/Llama-2-13b-hf": ModelFacts(13_015_864_320, 3_911_680),
}
"""The paper's models, to plan with where they are not at hand."""


def model_facts(settings: ModelSettings, problems: dict[str, str]) -> ModelFacts | None:
    """Size of the base: of its files, or as the experiment or our list says where they are not at hand; None where nobody says.

    Args:
        settings: Which model.
        problems: Where to say that it is not known.
    """
    try:
        return _measured_facts(resolve_base(settings, offline=True))
    except LmdissectError:
        known = _KNOWN_MODELS.get(settings.base.partition("@")[0])
        if known is None and settings.num_parameters is None:
            problems.setdefault(f"size of {settings.base}", "not known: give models.num_parameters")
            return None
        return known or ModelFacts(settings.num_parameters or 0)


def _measured_facts(resolved: ResolvedModel) -> ModelFacts:
    """Count on the model's structure alone, without its weights."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    trust = resolved.trust.trust_remote_code
    loader: Any = AutoModelForCausalLM
    config: Any = AutoConfig.from_pretrained(str(resolved.folder), trust_remote_code=trust)
    with torch.device("meta"):
        model = loader.from_config(config, trust_remote_code=trust)
    if getattr(config, "tie_word_embeddings", False):
        model.tie_weights()
    head = model.get_output_embeddings()
    rows = sum(sum(module.weight.shape) for module in model.modules() if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head)
    return ModelFacts(sum(parameter.numel() for parameter in model.parameters()), rows)


def document_facts(
    corpus: CorpusSettings,
    source: Mapping[str, Any],
    models: ModelSettings,
    identity: object,
    config: FinetuneConfig,
    store: Path,
    problems: dict[str, str],
) -> TextFacts | None:
    """Tokens of a training document: of a sample of the files, or as the experiment assumes where they are not at hand; None where nobody says.

    Args:
        corpus: The corpus.
        source: Hashes of its files, for the cache.
        models: Whose tokenizer.
        identity: The model's fingerprint, in JSON types, for the cache.
        config: Token limit, prefix and EOS.
        store: Folder of all artifacts.
        problems: Where to say what could not be had.
    """
    name = f"tokens of a document of {corpus.probe_set or ', '.join(corpus.files)}"
    tokens = {key: getattr(config, key) for key in ("max_tokens", "bos", "append_eos")}

    def measure() -> TextFacts:
        tokenizer = TextTokenizer(load_tokenizer(resolve_base(models, offline=True)), config.bos)
        documents, _ = read_training_documents(corpus, offline=True)
        sample = sample_documents(documents, _SAMPLED_DOCUMENTS, 0)
        around = len(tokenizer.prefix_ids) + (tokenizer.eos_id is not None and config.append_eos)
        lengths = [min(config.max_tokens, len(tokenizer.tokenize(document.text).token_id)) + around for document in sample]
        return TextFacts(len(documents), sum(lengths) / len(lengths))

    try:
        return TextFacts(**_kept(store, "lengths", {"source": source, "model": identity, **tokens}, lambda: asdict(measure())))
    except LmdissectError as error:
        if corpus.tokens_per_document is None:
            problems.setdefault(name, f"{error}; give corpus.tokens_per_document to plan without")
            return None
        problems.setdefault(name, f"{error}; assumed {corpus.tokens_per_document:g}, as corpus.tokens_per_document says")
        return TextFacts(0, min(corpus.tokens_per_document, config.max_tokens), assumed=True)


def probe_facts(
    probes: ProbeSettings,
    inputs: Inputs,
    models: ModelSettings,
    identity: object,
    scoring: ScoringConfig,
    store: Path,
    problems: dict[str, str],
) -> TextFacts | None:
    """Distinct texts of a probe set and their tokens; as the experiment assumes where the set is not at hand; None where nobody says."""
    name = f"texts of {probes.path}"
    probe_set = inputs.probe_set(probes)

    def measure() -> TextFacts:
        if probe_set is None:
            message = f"{probes.path} is not at hand"
            raise DamagedArtifactError(message)
        tokenizer = TextTokenizer(load_tokenizer(resolve_base(models, offline=True)), scoring.bos)
        texts = {text.text for text in probe_set.texts}
        limit = scoring.max_tokens or _NEVER
        lengths = [min(limit, len(tokenizer.tokenize(text).token_id)) + len(tokenizer.prefix_ids) for text in sorted(texts)]
        return TextFacts(len(texts), sum(lengths) / max(1, len(lengths)))

    what = {"probes": inputs.probes(probes).texts, "model": identity, "max_tokens": scoring.max_tokens, "bos": scoring.bos}
    try:
        return TextFacts(**_kept(store, "texts", what, lambda: asdict(measure())))
    except LmdissectError as error:
        if probes.num_texts is None or probes.tokens_per_text is None:
            problems.setdefault(name, f"{error}; give num_texts and tokens_per_text to plan without")
            return None
        problems.setdefault(name, f"{error}; assumed {probes.num_texts} texts of {probes.tokens_per_text:g} tokens, as the file says")
        number = probes.num_texts  # the file's number is of what is scored, limit and all
        return TextFacts(number, min(probes.tokens_per_text, scoring.max_tokens or _NEVER), assumed=True)


def measure_training(
    models: ModelSettings,
    identity: object,
    config: FinetuneConfig,
    documents: Sequence[Document],
    gauge: SpeedGauge,
) -> Speed | None:
    """Two optimiser steps of this model and method on this machine; the second one counts.

    Args:
        models: The model.
        identity: Its fingerprint, in JSON types: what is kept is of these weights, whatever their name.
        config: Settings; batch, seed, rate and what is left out of the loss are ours: a pass takes as long whichever tokens count.
        documents: Training documents; a few are used.
        gauge: Whether to measure, and where what was measured is kept.

    Returns:
        The speed; None where it was not measured before and is not to be now.

    Raises:
        LmdissectError: The model cannot be loaded or trained.
    """
    base = resolve_base(models, offline=True)
    ours = {"learning_rate", "epochs", "seed", "batch_size", "skip_first_tokens", "skip_token_classes"}
    what = {"model": identity, "finetune": config.model_dump(mode="json", exclude=ours)}

    def measure() -> Speed:
        from transformers import TrainerCallback  # noqa: PLC0415 - heavy

        from lmdissect.finetune import finetune  # noqa: PLC0415

        ends: list[float] = []

        class Clock(TrainerCallback):
            def on_train_begin(self, *_args: object, **_kwargs: object) -> None:
                ends.append(time.monotonic())

            def on_step_end(self, *_args: object, **_kwargs: object) -> None:
                ends.append(time.monotonic())

        tokenizer = TextTokenizer(load_tokenizer(base), config.bos)
        chosen = _filled(documents, tokenizer, config.max_tokens, _STEP_TOKENS)
        twice = [*chosen, *(Document(f"{document.document_id} again", document.text) for document in chosen)]
        small = {
            "batch_size": len(chosen),
            "epochs": 1.0,
            "learning_rate": 1e-4,
            "warmup_fraction": 0.0,
            "checkpoint_steps": _NEVER,
            "seed": 0,
            "skip_first_tokens": 0,
            "skip_token_classes": (),
        }
        with _threads(gauge.threads), tempfile.TemporaryDirectory(prefix=".tmp-", dir=output_folder(gauge.store)) as folder:
            started_s = time.monotonic()
            summary = finetune(base, twice, config.model_copy(update=small), Path(folder) / "run", callbacks=[Clock()])
            total_s = time.monotonic() - started_s
        return Speed(summary.num_target_tokens / 2 / (ends[2] - ends[1]), total_s - (ends[2] - ends[0]))

    return _speed("training", _here(what, gauge.threads), measure, gauge)


def measure_scoring(
    models: ModelSettings,
    identity: object,
    config: ScoringConfig,
    documents: Sequence[Document],
    gauge: SpeedGauge,
) -> Speed | None:
    """One batch of scoring on this machine, after one to warm up; arguments and outcome as of `measure_training`.

    Raises:
        LmdissectError: The model cannot be loaded.
    """
    resolved = resolve_base(models, offline=True)

    def measure() -> Speed:
        from lmdissect.models import LoadOptions, load_model  # noqa: PLC0415 - what else needs a model loaded here
        from lmdissect.scoring import score_texts  # noqa: PLC0415

        with _threads(gauge.threads):
            started_s = time.monotonic()
            model = load_model(resolved, LoadOptions(config.dtype, config.device))
            start_s = time.monotonic() - started_s
            texts = [document.text for document in _filled(documents, TextTokenizer(model.tokenizer, config.bos), config.max_tokens, _SCORED_TOKENS)]
            score_texts(model, texts[:1], config)
            started_s = time.monotonic()
            scored = score_texts(model, texts, config)
            return Speed(sum(score.num_scored for score in scored) / (time.monotonic() - started_s), start_s)

    what = _here({"model": identity, "scoring": config.model_dump(mode="json")}, gauge.threads)
    return _speed("scoring", what, measure, gauge)


def _speed(kind: str, what: Mapping[str, Any], measure: Callable[[], Speed], gauge: SpeedGauge) -> Speed | None:
    announce = gauge.announce

    def measure_now() -> dict[str, Any]:
        if announce is not None:
            announce()
        return asdict(replace(measure(), was_busy=gauge.is_busy))

    if announce is None and not _kept_file(gauge.store, kind, what).is_file():
        return None
    found = Speed(**_kept(gauge.store, kind, what, measure_now, anew=gauge.anew and announce is not None))
    _give_back_memory()
    return found


def _give_back_memory() -> None:
    """Workers will want the device whole."""
    import torch  # noqa: PLC0415 - heavy

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _filled(documents: Sequence[Document], tokenizer: TextTokenizer, limit: int | None, num_tokens: int) -> list[Document]:
    """The first documents with so many tokens in all, one at least."""
    chosen: list[Document] = []
    total = 0
    for document in documents:
        chosen.append(document)
        total += min(limit or _NEVER, len(tokenizer.tokenize(document.text).token_id))
        if total >= num_tokens:
            break
    return chosen


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch  # noqa: PLC0415 - heavy

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _here(what: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """What a speed depends on beside the work: machine, device, threads, versions."""
    import torch  # noqa: PLC0415 - heavy

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    machine = {"node": platform.node(), "processor": platform.machine(), "num_cpus": os.cpu_count(), "devices": devices}
    return {**what, "machine": machine, "threads": threads, "versions": versions()}


def _kept_file(store: Path, kind: str, what: Mapping[str, Any]) -> Path:
    return store / _FOLDER / f"{kind}-{fingerprint(dict(what))[:16]}.json"


def _kept(store: Path, kind: str, what: Mapping[str, Any], make: Callable[[], dict[str, Any]], *, anew: bool = False) -> dict[str, Any]:
    """What was measured before for the same thing, or is now."""
    path = _kept_file(store, kind, what)
    if path.is_file() and not anew:
        try:
            found: dict[str, Any] = read_json(path)["measured"]
        except (DamagedArtifactError, KeyError, TypeError):
            pass
        else:
            return found
    measured = make()
    write_json(path, {"of": dict(what), "measured": measured})
    return measured
