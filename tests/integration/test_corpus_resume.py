"""A corpus that is killed, interrupted, made by several processes, or asked for on the command line: the outcome is that of an undisturbed run."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from citation_xml import article_set, citation_xml, deletion_xml, write_xml
from lmdissect.corpus import CorpusConfig, build_corpus, read_corpus
from lmdissect.errors import InterruptedRunError, NothingToDoError, OutputLockedError, UnreadableInputError
from lmdissect.interrupts import StopRequest
from lmdissect.progress import LineProgress
from lmdissect.store import lock_folder
from lmdissect_cli import CliOutcome

NUM_FILES = 6
NUM_KILLED_RUNS = int(os.environ.get("LMDISSECT_KILLED_RUNS", "4"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    found = []
    for number in range(NUM_FILES):
        pmids = range(number * 900 + 1, number * 900 + 1001)  # a hundred are revised by the next file
        records = [
            citation_xml(pmid, f"Text of {pmid} in file {number}: " + " ".join(f"w{pmid * 31 % 977 + step}" for step in range(80))) for pmid in pmids
        ]
        found.append(write_xml(folder / f"pubmed25n{number:04d}.xml.gz", article_set([*records, deletion_xml(number * 900 + 500)])))
    return found


@pytest.fixture(scope="module")
def undisturbed(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "corpus"
    build_corpus([str(path) for path in files], CorpusConfig(split={"train": 0.9, "probe": 0.1}), out, num_workers=1)
    return _content(out)


def _content(out: Path) -> dict[str, str]:
    found = {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.parquet")}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["files"].keys() == found.keys()
    return {**found, "counts": json.dumps(manifest["counts"]), "key": manifest["key"]}


def _command(files: list[Path], out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lmdissect", "corpus", *map(str, files), "--out", str(out), "--split", "train=0.9", "--split", "probe=0.1", *more]


def _chunks(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "chunks").glob("0*.parquet"))


def test_processes_and_order_of_files_make_no_difference(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(_command(files[::-1], tmp_path / "out", "--workers", "2"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _content(tmp_path / "out") == undisturbed
    assert "6000 records -> 5494 documents" in done.stdout
    assert "left out: 500 citations that a later version or file revises" in done.stdout
    assert "left out: 6 citations that a file takes back" in done.stdout


@pytest.mark.slow
def test_killed_runs_go_on_and_parse_nothing_twice(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    for run in range(NUM_KILLED_RUNS):
        process = subprocess.Popen(_command(files, out, "--workers", str(1 + run % 2)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        begun_s = time.monotonic()
        delay_s = rng.uniform(0.05, 0.6)
        while process.poll() is None and not (out / "started.json").exists() and time.monotonic() - begun_s < 60:
            time.sleep(0.01)
        time.sleep(delay_s)
        before = set(_chunks(out))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert before <= set(_chunks(out)) or (out / "manifest.json").exists()
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "chunks").glob("0*.parquet")}
    said = StringIO()
    stop = StopRequest()
    stop.asked = len(stamps) < 2 * NUM_FILES  # look at what a run takes up before it reads on
    if stop:
        with pytest.raises(InterruptedRunError, match="sources still to read; run the same command again"):
            _build(files, out, said, stop)
        whole_pairs = {name for name in stamps if any(other != name and int(other[:6]) // 2 == int(name[:6]) // 2 for other in stamps)}
        assert {path.name: path.stat().st_mtime_ns for path in (out / "chunks").glob("0*.parquet")}.items() >= {
            name: stamps[name] for name in whole_pairs
        }.items()
    _build(files, out, said, StopRequest())
    assert _content(out) == undisturbed
    assert not (out / "chunks").exists()
    assert not list(out.rglob(".tmp-*"))


def _build(files: list[Path], out: Path, said: StringIO, stop: StopRequest) -> None:
    config = CorpusConfig(split={"train": 0.9, "probe": 0.1})
    build_corpus([str(path) for path in files], config, out, num_workers=1, progress=LineProgress(said), stop=stop)


class StopAfterTwoSources(StopRequest):
    """Asked to stop as soon as two sources are read."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def __bool__(self) -> bool:
        return len(_chunks(self._out)) >= 4


def test_interrupted_run_goes_on_with_what_is_left(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = StringIO()
    with pytest.raises(InterruptedRunError, match=f"stopped with {NUM_FILES - 2} of {NUM_FILES} sources still to read"):
        _build(files, out, said, StopAfterTwoSources(out))
    read_before = {path.name: path.stat().st_mtime_ns for path in (out / "chunks").glob("0*.parquet")}
    with pytest.raises(InterruptedRunError, match=f"stopped with {NUM_FILES - 2} of {NUM_FILES} sources still to read"):
        _build(files, out, said, StopAfterTwoSources(out))
    assert f"2 of {NUM_FILES} sources were read before" in said.getvalue()
    assert {path.name: path.stat().st_mtime_ns for path in (out / "chunks").glob("0*.parquet")} == read_before
    _build(files, out, said, StopRequest())
    assert _content(out) == undisturbed


def test_interrupt_while_processes_start_is_no_want_of_memory(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = _command(files, out, "--workers", "2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    while process.poll() is None and not _workers(process.pid):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "sources still to read; run the same command again to go on" in told.splitlines()[-1]
    assert "Traceback" not in told
    build_corpus([str(path) for path in files], CorpusConfig(split={"train": 0.9, "probe": 0.1}), out, num_workers=1)
    assert _content(out) == undisturbed


def _workers(pid: int) -> list[int]:
    """Processes that read for the process ``pid``, from their first moment on."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def test_damaged_part_is_read_again(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = CorpusConfig(split={"train": 0.9, "probe": 0.1}, min_chars=10**6)
    with pytest.raises(NothingToDoError):
        build_corpus([str(path) for path in files], config, out, num_workers=1)
    first = out / "chunks" / _chunks(out)[0]
    first.write_bytes(first.read_bytes()[:-10])
    said = StringIO()
    with pytest.raises(NothingToDoError, match="5494 too short"):
        build_corpus([str(path) for path in files], config, out, num_workers=1, progress=LineProgress(said))
    assert f"{NUM_FILES - 1} of {NUM_FILES} sources were read before" in said.getvalue()


def test_workers_end_with_the_process_that_started_them(files: list[Path], tmp_path: Path) -> None:
    process = subprocess.Popen(_command(files, tmp_path / "out", "--workers", "2"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children: list[int] = []
    while process.poll() is None and len(children) < 3:  # two workers, and the tracker of their resources
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(word) for word in listed.read_text().split()] if listed.exists() else [0, 0, 0]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline_s = time.monotonic() + 20
    while any(_is_alive(pid) for pid in children) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not [pid for pid in children if _is_alive(pid)]


def test_worker_that_dies_ends_the_run_with_one_line(tmp_path: Path) -> None:
    records = [citation_xml(number, f"Text {number}. " + "word " * 200) for number in range(1, 8000)]
    files = [write_xml(tmp_path / f"pubmed25n000{number}.xml", article_set(records)) for number in range(2)]
    command = [sys.executable, "-m", "lmdissect", "corpus", *map(str, files), "--out", str(tmp_path / "out"), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    worker = None
    while worker is None and process.poll() is None:
        written = {path: path.stat().st_size for path in (tmp_path / "out" / "chunks").glob(".tmp-*")}
        worker = next(iter(_workers(process.pid)), None) if any(written.values()) else None
        time.sleep(0.005)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a process that read a corpus file died" in told.splitlines()[-1]
    assert "pubmed25n000" in told.splitlines()[-1]


def _is_alive(pid: int) -> bool:
    try:
        return pid > 0 and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_runs_into_one_folder_are_refused(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with lock_folder(tmp_path / "out"), pytest.raises(OutputLockedError):
        build_corpus([str(files[0])], CorpusConfig(), tmp_path / "out", num_workers=1)


def test_full_disk_is_told_and_the_run_goes_on_later(files: list[Path], undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    limit = "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += f"resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, {resource.RLIM_INFINITY}));"
    limit += "sys.argv = sys.argv[1:]; runpy.run_module('lmdissect', run_name='__main__')"
    command = _command(files, out, "--workers", "1")
    done = subprocess.run([sys.executable, "-c", limit, "lmdissect", *command[3:]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "disk full while writing" in done.stderr.splitlines()[-1]
    assert not list((out / "chunks").glob("0*[02468]-*.parquet"))
    build_corpus([str(path) for path in files], CorpusConfig(split={"train": 0.9, "probe": 0.1}), out, num_workers=1)
    assert _content(out) == undisturbed


def test_command_line(run_cli: Callable[..., CliOutcome], tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\nno json\n', encoding="utf-8")
    out = str(tmp_path / "out")
    outcome = run_cli("corpus", str(tmp_path / "c.jsonl"), "--out", out, "--workers", "1")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == ["3 records -> 1 documents", "  left out: 2 set aside: damaged, or their id was seen before", f"corpus: {out}"]
    assert "set aside: 1 x id seen before" in outcome.err
    assert run_cli("corpus", str(tmp_path / "c.jsonl"), "--out", out).out.splitlines()[-1] == f"unchanged, reused: {out}"
    strict = run_cli("corpus", str(tmp_path / "c.jsonl"), "--out", out, "--strict")
    assert (strict.code, "--strict is on" in strict.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--split", "train"], "--split 'train' is not NAME=VALUE"),
        (["--split", "train=x"], "--split train=x: the share is not a number above 0 and up to 1"),
        (["--split", "train=0.9", "--split", "probe=0.2"], "--split: the shares sum to 1.1"),
        (["--match", "("], "--match: not a regular expression"),
        (["--drop-near-duplicates", "2"], "--drop-near-duplicates: Input should be less than or equal to 1"),
        (["--min-chars", "9", "--max-chars", "8"], "--min-chars 9 is more than --max-chars 8"),
        (["--num-documents", "0"], "--num-documents: Input should be greater than or equal to 1"),
    ],
)
def test_command_line_refuses_settings_that_make_no_sense(
    run_cli: Callable[..., CliOutcome], tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "c.txt").write_text("text\n", encoding="utf-8")
    outcome = run_cli("corpus", str(tmp_path / "c.txt"), "--out", str(tmp_path / "out"), *arguments)
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert told in outcome.err


def test_hub_dataset_in_a_folder_is_streamed(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [{"text": f"{split} {number}", "url": f"https://example.org/{split}/{number}", "timestamp": "2019"} for number in range(3)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    summary = build_corpus([f"hub:{folder}:validation"], CorpusConfig(), tmp_path / "out", num_workers=1)
    documents = read_corpus([summary.folder])[0]
    assert [document.text for document in documents] == ["validation 0", "validation 1", "validation 2"]
    assert all(len(document.document_id) == 32 for document in documents)
    assert pq.read_table(next((summary.folder / "data").iterdir())).column("source").to_pylist() == [f"hub:{folder}:validation"] * 3
    assert build_corpus([f"hub:{folder}"], CorpusConfig(), tmp_path / "train", num_workers=1).counts["documents"] == 3
    spellings = [f"hub:{folder}", f"hub:{folder}:train", f"hub:{folder.parent}/../{tmp_path.name}/dataset:default/train"]
    assert build_corpus(spellings, CorpusConfig(), tmp_path / "often", num_workers=1).counts == {"documents": 3, "records": 3, "set aside": 0}
    with pytest.raises(UnreadableInputError, match=r"cannot be read as a Hugging Face dataset.*test"):
        build_corpus([f"hub:{folder}:test"], CorpusConfig(), tmp_path / "none", num_workers=1)


@pytest.mark.parametrize("argument", ["hub:", "hub:a:b:c", "hub:owner/name@"])
def test_hub_argument_of_another_form_is_refused(tmp_path: Path, argument: str) -> None:
    with pytest.raises(UnreadableInputError, match="not of the form hub:OWNER/NAME"):
        build_corpus([argument], CorpusConfig(), tmp_path / "out")
