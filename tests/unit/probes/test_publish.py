"""Pushing to the hub and pulling from it, against a stand-in on a real socket."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

from hub_server import READ_TOKEN, TOKEN, HubServer, serve_hub
from lmdissect.cli.probes import app
from lmdissect.errors import LmdissectError, RunFailedError, StaleArtifactError, UnreadableInputError, UnusableOutputError, UserInputError
from lmdissect.probes import pull_probe_set, push_probe_set, read_audit, read_probe_set, stage_probe_set, write_audit, write_probe_set
from lmdissect.probes.publish import PushedSet
from lmdissect.records import AuditResult, ProbeSet, ProbeText, RejectedRecord, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # the hub's client, of its own upload

PROBES = ProbeSet(
    texts=tuple(
        ProbeText(str(number), variant, f"{variant} {number} ünï\r\n") for number in range(20) for variant in ("original", "casual", "paraphrase")
    ),
    factors={"casual": "style", "paraphrase": "control"},
    source="/home/ann/secret/probes.jsonl",
    rejected=(RejectedRecord("/home/ann/secret/probes.jsonl", "line 3", "text missing"),),
    generators={"casual": "a model", "paraphrase": "local (/home/John Secret/model.gguf)"},
)
REPOSITORY = "someone/probes"
WRONG_TOKEN = "hf_wrongTOKEN0000000000000000000000000"  # noqa: S105


def _audit() -> AuditResult:
    verdicts = tuple(
        Verdict(
            text.document_id, text.variant, accepted=text.document_id != "7", reasons=() if text.document_id != "7" else ("why",), measures={"m": 1.0}
        )
        for text in PROBES.texts
        if text.variant != "original"
    )
    return AuditResult(
        verdicts,
        {
            "casual": {
                "num_texts": 20,
                "num_accepted": 19,
                "acceptance_rate": 0.95,
                "rejected_by_rule": {"m": 1},
                "not_measured": [],
                "medians": {"m": 1.0},
            }
        },
        {"rules": {}, "rules_hash": "x", "similarity_model": "../../home/ann/secret/minilm", "judge": {"name": "file:///home/ann/secret/judge"}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_probe_set(PROBES, tmp_path / "probes")
    write_audit(tmp_path / "probes", _audit())
    return tmp_path / "probes"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, and the client's settings such that it caches here and uploads over plain HTTP."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve_hub() as server:
        yield server


def _api(hub: HubServer, token: str | bool = TOKEN) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def _push(folder: Path, hub: HubServer, *, licence: str | None = None, token: str | bool = TOKEN, **options: object) -> PushedSet:
    with stage_probe_set(folder, REPOSITORY, licence=licence) as staged:
        return push_probe_set(staged, REPOSITORY, api=_api(hub, token), **options)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_pulled(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(b"paid requests")
    (folder / "data" / "notes.txt").write_bytes(b"private")
    (folder / "data" / "stray.parquet").write_bytes(b"of another set")
    pushed = _push(folder, hub)
    assert pushed.changed
    remote = hub.repositories[REPOSITORY].commits[pushed.commit]
    splits = [f"{place}/{split}.parquet" for place in ("data", "accepted") for split in ("original", "casual", "paraphrase")]
    assert set(remote) == {".gitattributes", "README.md", "probes.yaml", "import_report.json", "audit.parquet", *splits}
    assert hub.repositories[REPOSITORY].messages == ["initial commit", "Publish a probe set"]
    pulled = pull_probe_set(REPOSITORY, tmp_path / "pulled", api=_api(hub, token=False))
    assert (pulled.commit, pulled.outcome) == (pushed.commit, "written")
    assert json.loads((tmp_path / "pulled" / "pulled.json").read_text()) == {"repository": REPOSITORY, "revision": None, "commit": pushed.commit}
    here, there = (read_probe_set(str(path), include_rejected=True) for path in (folder, tmp_path / "pulled"))
    generators = {"casual": "a model", "paraphrase": "local (model.gguf)"}
    assert dataclasses.replace(there, source="") == dataclasses.replace(here, source="", generators=generators)
    settings = {"rules": {}, "rules_hash": "x", "similarity_model": "minilm", "judge": {"name": "judge"}}
    assert read_audit(tmp_path / "pulled") == dataclasses.replace(_audit(), settings=settings)
    for name in (*splits, "audit.parquet"):
        assert (tmp_path / "pulled" / name).read_bytes() == (folder / name).read_bytes()


def test_no_folder_name_of_the_maker_is_published(folder: Path, hub: HubServer) -> None:
    commit = _push(folder, hub).commit
    remote = hub.repositories[REPOSITORY].commits[commit]
    described = (folder / "probes.yaml").read_text(encoding="utf-8")
    for place in ("/home/ann/secret/probes", "/home/John Secret/model", "../../home/ann/secret/minilm", "file:///home/ann/secret/judge"):
        assert place in described
    assert not [(name, word) for name, content in remote.items() for word in (b"secret", b"Secret", b"home/", b"../") if word in content]
    assert yaml.safe_load(remote["probes.yaml"])["source"] == "probes.jsonl"
    assert b'load_dataset("someone/probes")' in remote["README.md"]


def test_a_card_that_was_tampered_with_is_not_kept(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    """Its header tells `datasets` which files to open, and no hash in `probes.yaml` covers it."""
    first = _push(folder, hub)
    repository = hub.repositories[REPOSITORY]
    files = dict(repository.commits[first.commit])
    evil = b"---\nconfigs:\n- config_name: default\n  data_files: [{split: x, path: 'https://host/evil.parquet'}]\n---\n"
    repository.commit("main", files | {"README.md": evil}, "tampered with")
    pull_probe_set(REPOSITORY, tmp_path / "pulled", api=_api(hub))
    assert (tmp_path / "pulled" / "README.md").read_bytes() == files["README.md"]


def test_pushing_again_changes_nothing_and_sends_no_data(folder: Path, hub: HubServer) -> None:
    first = _push(folder, hub)
    hub.requests.clear()
    again = _push(folder, hub)
    assert again == PushedSet(first.url, first.commit, changed=False)
    assert not [line for line in hub.requests if line.startswith("PUT") or "/commit/" in line]


def test_licence_is_stated_everywhere_and_the_set_stays_the_same_one(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    _push(folder, hub, licence="cc-by-4.0")
    pull_probe_set(REPOSITORY, tmp_path / "pulled", api=_api(hub))
    card = (tmp_path / "pulled" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in card
    assert read_probe_set(str(tmp_path / "pulled")).licence == "cc-by-4.0"
    assert read_probe_set(str(folder)).licence is None
    stated = dataclasses.replace(PROBES, licence="cc-by-4.0", generators={"casual": "a model", "paraphrase": "local (model.gguf)"})
    assert write_probe_set(stated, tmp_path / "pulled") == "reused"  # its content hash is that of the set with the licence


def test_files_of_an_earlier_set_are_taken_away_by_the_same_commit(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    first = _push(folder, hub)
    write_probe_set(dataclasses.replace(PROBES, texts=PROBES.texts[:20], factors={"casual": "style", "paraphrase": "control"}), tmp_path / "fewer")
    second = _push(tmp_path / "fewer", hub)
    commits = hub.repositories[REPOSITORY].commits
    assert "audit.parquet" in commits[first.commit]
    assert not [name for name in commits[second.commit] if name.startswith(("accepted/", "audit"))]
    pull_probe_set(REPOSITORY, tmp_path / "new", api=_api(hub))
    pull_probe_set(f"{REPOSITORY}@{first.commit}", tmp_path / "old", api=_api(hub))
    assert len(read_probe_set(str(tmp_path / "new")).texts) == 20
    assert len(read_probe_set(str(tmp_path / "old"), include_rejected=True).texts) == 60


def test_branches_and_private_repositories(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    pushed = _push(folder, hub, revision="draft/1", private=True, message="try")
    repository = hub.repositories[REPOSITORY]
    assert repository.private
    assert repository.branches["draft/1"] == pushed.commit != repository.branches["main"]
    assert repository.messages[-1] == "try"
    assert pull_probe_set(f"{REPOSITORY}@draft/1", tmp_path / "pulled", api=_api(hub, READ_TOKEN)).commit == pushed.commit
    with pytest.raises(
        UserInputError, match=r"cannot pull someone/probes \(the hub says 401\): no such repository, or the token is missing or wrong"
    ):
        pull_probe_set(REPOSITORY, tmp_path / "other", api=_api(hub, token=False))
    with pytest.raises(UnreadableInputError, match=r"no such branch, tag or commit"):
        pull_probe_set(f"{REPOSITORY}@none", tmp_path / "other", api=_api(hub))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("token", "status"), [(WRONG_TOKEN, 401), (READ_TOKEN, 403)])
def test_a_token_that_may_not_write_is_told_so_and_not_shown(folder: Path, hub: HubServer, token: str, status: int) -> None:
    with pytest.raises(UserInputError, match=rf"cannot push to someone/probes \(the hub says {status}\)") as caught:
        _push(folder, hub, token=token)
    assert token not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserInputError, match="no Hugging Face token, and pushing needs one that may write: set HF_TOKEN"):
        _push(folder, hub, token=False)


def test_another_dataset_is_never_overwritten(folder: Path, hub: HubServer) -> None:
    _api(hub).create_repo(REPOSITORY, repo_type="dataset")
    repository = hub.repositories[REPOSITORY]
    commit = repository.commit("main", {"README.md": b"a thesis", "train.csv": b"1,2"}, "mine")
    with pytest.raises(UnusableOutputError, match=r"someone/probes holds files and no probe set of ours \(train\.csv and others"):
        _push(folder, hub)
    assert repository.branches["main"] == commit
    with pytest.raises(UnusableOutputError, match=r"choose another repository$"):
        _push(folder, hub, revision="draft")
    assert set(repository.branches) == {"main"}  # not even a branch is left behind
    repository.commit("main", {"README.md": b"an empty page"}, "mine")
    assert _push(folder, hub).changed


@pytest.mark.parametrize(
    ("fail_on", "status", "told"),
    [
        ("POST /api/datasets/someone/probes/commit", 412, r"\(the hub says 412\): somebody else pushed to the repository meanwhile"),
        ("POST /api/datasets/someone/probes/commit", 400, r"\(the hub says 400\): .*as told, hf_…"),
        ("PUT /lfs/", 403, r"\(the hub says 403\): the token may not do that"),
    ],
)
def test_a_push_that_fails_leaves_no_half_set(folder: Path, hub: HubServer, fail_on: str, status: int, told: str) -> None:
    hub.fail_on, hub.fail_status = fail_on, status
    with pytest.raises(LmdissectError, match=told) as caught:
        _push(folder, hub)
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(hub.repositories[REPOSITORY].commits) == 1
    hub.fail_on = None
    assert _push(folder, hub).changed


@pytest.mark.parametrize("reference", ["probes", "a/b/c", "someone/../x", "someone/x@", "someone/x@-d", "https://host/x", "some one/x"])
def test_what_is_no_repository_is_refused_before_any_request(folder: Path, hub: HubServer, tmp_path: Path, reference: str) -> None:
    with pytest.raises(UserInputError, match="is no repository"):
        pull_probe_set(reference, tmp_path / "out", api=_api(hub))
    with pytest.raises(UserInputError, match="is no repository"), stage_probe_set(folder, reference):
        pass
    assert hub.requests == []


def test_a_damaged_folder_is_not_pushed(folder: Path, tmp_path: Path) -> None:
    path = folder / "data" / "casual.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UnreadableInputError, match=r"data/casual\.parquet missing or changed"), stage_probe_set(folder, REPOSITORY):
        pass
    with pytest.raises(UnreadableInputError, match=r"no probe folder of ours"), stage_probe_set(tmp_path, REPOSITORY):
        pass


def _change_yaml(content: bytes, change: Callable[[dict], None]) -> bytes:
    described = yaml.safe_load(content)
    change(described)
    return yaml.safe_dump(described).encode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data/casual.parquet": b"PAR1"}, r"data/casual\.parquet not as probes\.yaml says"),
        ({"data/casual.parquet": None}, r"probes\.yaml names the file 'data/casual\.parquet', which is not there"),
        ({"probes.yaml": None}, r"no probe set of ours \(no probes\.yaml\)"),
        (
            {"probes.yaml": lambda described: described.update(fingerprint="0" * 64)},
            r"its texts are not those that probes\.yaml names by its fingerprint",
        ),
        (
            {"probes.yaml": lambda described: described["audit"]["files"].update({"../../escaped": "0" * 64})},
            r"probes\.yaml names the file '\.\./\.\./escaped'",
        ),
        ({"probes.yaml": lambda described: described["variants"][0].update(split="../x")}, r"String should match pattern"),
    ],
)
def test_what_is_not_as_published_is_not_kept(folder: Path, hub: HubServer, tmp_path: Path, changes: dict, told: str) -> None:
    _push(folder, hub)
    repository = hub.repositories[REPOSITORY]
    files = dict(repository.commits[repository.branches["main"]])
    for name, change in changes.items():
        if change is None:
            del files[name]
        else:
            files[name] = _change_yaml(files[name], change) if callable(change) else change
    repository.commit("main", files, "tampered with")
    with pytest.raises(UnreadableInputError, match=told):
        pull_probe_set(REPOSITORY, tmp_path / "there" / "pulled", api=_api(hub))
    assert not (tmp_path / "there").exists() or list((tmp_path / "there").iterdir()) == []


def test_only_our_files_are_fetched_and_none_outside(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    _push(folder, hub)
    repository = hub.repositories[REPOSITORY]
    strange = {
        "../escaped.parquet": b"x",
        "data/../../escaped.parquet": b"x",
        "/etc/escaped": b"x",
        "setup.py": b"x",
        "data/extra.parquet": b"x",
        "data/x.py": b"x",
    }
    repository.commit("main", {**repository.commits[repository.branches["main"]], **strange}, "more")
    hub.requests.clear()
    pull_probe_set(REPOSITORY, tmp_path / "there" / "pulled", api=_api(hub))
    assert not [line for line in hub.requests if "escaped" in line or line.endswith(".py")]
    assert not [name for name in _contents(tmp_path / "there") if "extra" in name or name.endswith(".py")]
    assert not list(tmp_path.rglob("escaped*"))


def test_the_same_set_is_reused_and_another_one_kept(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    _push(folder, hub)
    out = tmp_path / "pulled"
    pull_probe_set(REPOSITORY, out, api=_api(hub))
    before = _contents(out)
    assert pull_probe_set(REPOSITORY, out, api=_api(hub)).outcome == "reused"
    assert _contents(out) == before
    (out / "data" / "casual.parquet").write_bytes(b"damaged")
    assert pull_probe_set(REPOSITORY, out, api=_api(hub)).outcome == "written"
    assert _contents(out) == before
    write_probe_set(dataclasses.replace(PROBES, texts=PROBES.texts[:20]), tmp_path / "fewer")
    with pytest.raises(StaleArtifactError, match="holds another probe set, or another version of this one"):
        pull_probe_set(REPOSITORY, tmp_path / "fewer", api=_api(hub))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match="holds no probe set of ours"):
        pull_probe_set(REPOSITORY, tmp_path / "thesis", api=_api(hub))
    assert list(_contents(tmp_path / "thesis")) == ["a.txt"]


def test_unreachable_and_offline_are_told_apart(folder: Path, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(UnreadableInputError, match=r"cannot pull someone/probes: the hub cannot be reached"):
        pull_probe_set(REPOSITORY, tmp_path / "pulled", api=nowhere)
    with (
        stage_probe_set(folder, REPOSITORY) as staged,
        pytest.raises(RunFailedError, match=r"cannot push to someone/probes: the hub cannot be reached"),
    ):
        push_probe_set(staged, REPOSITORY, api=nowhere)
    with pytest.raises(UnreadableInputError, match=r"cannot pull none/such \(the hub says 404\): no such repository"):
        pull_probe_set("none/such", tmp_path / "pulled", api=_api(hub))


# --- the command line, in processes of its own: environment, output, kills ---


def _environment(hub: HubServer, home: Path, **settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    return clean | {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **settings}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lmdissect", "probes", *arguments]


def _run(hub: HubServer, home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), env=_environment(hub, home, **settings), capture_output=True, text=True, check=False, timeout=120)


def _kill_when_it_hangs(hub: HubServer, home: Path, hang_on: str, *arguments: str) -> None:
    hub.hang_on = hang_on
    process = subprocess.Popen(_command(*arguments), env=_environment(hub, home, HF_TOKEN=TOKEN), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert hub.hanging.wait(60), process.communicate(timeout=5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    hub.release.set()
    hub.hang_on = None


def test_licence_is_kept_from_the_import_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "licensed"
    told = CliRunner().invoke(app, ["import", str(folder), "--licence", "Ask us first", "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert read_probe_set(str(out)).licence == "Ask us first"
    with stage_probe_set(out, REPOSITORY) as staged:
        assert "license: other\nlicense_name: see-card" in staged.files["README.md"].read_text(encoding="utf-8")


def test_dry_run_sends_nothing(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    told = _run(hub, tmp_path / "home", "push", str(folder), REPOSITORY, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "11 files" not in told.stdout  # ten: card, description, report, audit, and three splits twice
    assert "10 files" in told.stdout
    assert "licence: not stated (--licence states it); audited: yes" in told.stdout
    assert hub.requests == []


def test_secrets_stay_secret_and_exit_codes_are_right(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    home, out = tmp_path / "home", str(tmp_path / "pulled")
    pushed = _run(hub, home, "push", str(folder), REPOSITORY, "--private", HF_TOKEN=TOKEN)
    pulled = _run(hub, home, "pull", REPOSITORY, "--out", out, HF_TOKEN=TOKEN)
    wrong = _run(hub, home, "push", str(folder), REPOSITORY, HF_TOKEN=WRONG_TOKEN)
    none = _run(hub, home, "push", str(folder), REPOSITORY)
    offline = _run(hub, home, "pull", f"{REPOSITORY}@main", "--out", f"{out}2", HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    assert [run.returncode for run in (pushed, pulled, wrong, none, offline)] == [0, 0, 2, 2, 2], [pushed.stderr, pulled.stderr]
    commit = hub.repositories[REPOSITORY].branches["main"]
    assert f"commit {commit}" in pushed.stdout
    assert f"written: {out}, from {REPOSITORY}@{commit}" in pulled.stdout
    assert "HF_HUB_OFFLINE is set; unset it" in offline.stderr
    for run in (pushed, pulled, wrong, none, offline):
        assert "hf_canary" not in run.stdout + run.stderr
        assert "hf_wrong" not in run.stdout + run.stderr
        assert "Traceback" not in run.stderr
    assert len(wrong.stderr.splitlines()) == len(none.stderr.splitlines()) == 1
    files = [path for root in (folder, Path(out)) for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hf_canary" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("hang_on", ["PUT /lfs/", "POST /api/datasets/someone/probes/commit"])
def test_a_push_killed_in_the_middle_is_repeated(folder: Path, hub: HubServer, tmp_path: Path, hang_on: str) -> None:
    _kill_when_it_hangs(hub, tmp_path / "home", hang_on, "push", str(folder), REPOSITORY)
    assert len(hub.repositories[REPOSITORY].commits) == 1  # nothing to be seen of it
    sent = set(hub.blobs)
    hub.requests.clear()
    again = _run(hub, tmp_path / "home", "push", str(folder), REPOSITORY, HF_TOKEN=TOKEN)
    assert again.returncode == 0, again.stderr
    assert not [line for line in hub.requests if line.startswith("PUT") and line.rpartition("/")[2] in sent]
    pull_probe_set(REPOSITORY, tmp_path / "pulled", api=_api(hub))
    assert read_probe_set(str(tmp_path / "pulled")).by_variant() == read_probe_set(str(folder)).by_variant()


@pytest.mark.slow
def test_a_pull_killed_in_the_middle_is_repeated(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    commit = _push(folder, hub).commit
    out = tmp_path / "there" / "pulled"
    _kill_when_it_hangs(hub, tmp_path / "home", f"GET /datasets/{REPOSITORY}/resolve/{commit}/data/paraphrase", "pull", REPOSITORY, "--out", str(out))
    assert not out.exists()
    again = _run(hub, tmp_path / "home", "pull", REPOSITORY, "--out", str(out))
    assert again.returncode == 0, again.stderr
    assert read_probe_set(str(out)).by_variant() == read_probe_set(str(folder)).by_variant()
