"""What rewriting adds to a bare loop over the same client, and whether anything is lost or paid twice in a storm and under kill -9.

    python benchmarks/rewriting.py                       all parts in full, writes docs/benchmarks-rewriting.md; fewer parts or numbers only print
    python benchmarks/rewriting.py overhead --requests 640 --rounds 1

(a) overhead: so many requests, 64 in flight, to a server that answers after 500 ms: wall time of `rewrite_documents` over that of 64 workers which call
    the same client, do nothing else, and keep the answers in a list. Both in processes of their own, one after the other, several rounds.
(b) storm: 30 % of the responses are 429, 5 % are 500, 2 % are resets, 2 % are cut in the middle of the body.
(c) kills: the storm, each run killed with SIGKILL at a random moment and started again, many times.
The server runs in a process of its own and counts paid answers by the body that was sent.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from lmdissect.recipes import Recipe  # noqa: E402 - the path first
from lmdissect.records import Document  # noqa: E402
from lmdissect.rewrite import ChatEndpoint, RewriteConfig, rewrite_documents  # noqa: E402

IN_FLIGHT = 64
LATENCY_S = 0.5
STORM = ("429=0.3", "500=0.05", "reset=0.02", "truncated=0.02")
RECIPE = Recipe(variant="casual", factor="style", instruction="Tell it to a friend.", keeps=("every number",))
SENTENCE = (
    "The trial had {} patients who were given the new drug for six weeks, and the authors report that most of them were better at the end of it. "
)


def documents(number: int) -> list[Document]:
    """Documents of about the length of an abstract."""
    return [Document(f"d{index}", (SENTENCE * 9).format(*range(index, index + 9)).strip()) for index in range(number)]


class Server:
    """The misbehaving server in a process of its own."""

    def __init__(self, latency_s: float, storm: tuple[str, ...] = (), seed: int = 0) -> None:
        command = [sys.executable, str(ROOT / "tests" / "llm_servers.py"), "--latency-s", str(latency_s), "--seed", str(seed)]
        self.process = subprocess.Popen([*command, *(part for share in storm for part in ("--storm", share))], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip() if self.process.stdout is not None else ""

    def stats(self) -> dict[str, Any]:
        """What it saw."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=60) as response:  # noqa: S310 - our own server
            content: dict[str, Any] = json.load(response)
        return content

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def run_ours(url: str, number: int, folder: Path) -> None:
    """`rewrite_documents`, 64 in flight from the start."""
    config = RewriteConfig(concurrency=IN_FLIGHT, max_concurrency=IN_FLIGHT, timeout_s=60.0)
    endpoint = ChatEndpoint("m", base_url=url, timeout_s=config.timeout_s)
    given = documents(number)
    import openai  # noqa: F401 - its import is not what is measured
    import py3langid  # noqa: F401

    started_s = time.monotonic()
    summary = rewrite_documents(given, [RECIPE], endpoint, config, folder)
    outcomes = Counter(outcome.outcome.value for outcome in summary.outcomes)
    print(json.dumps({"wall_s": time.monotonic() - started_s, "outcomes": outcomes, "sent": summary.num_sent}), flush=True)


def run_bare(url: str, number: int) -> None:
    """The same requests by 64 workers over the same client, and nothing else."""
    from openai import AsyncOpenAI

    from lmdissect.rewrite.prompt import write_prompt

    given = documents(number)

    async def everything() -> int:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60.0)
        remaining, answers = iter(given), []

        async def work() -> None:
            for document in remaining:
                turns: Any = [{"role": role, "content": text} for role, text in write_prompt(RECIPE, document.text, structured=True).messages]
                answer = await client.chat.completions.create(model="m", messages=turns, max_tokens=960, temperature=0.7, seed=1)
                answers.append(answer.choices[0].message.content)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        await client.close()
        return len(answers)

    started_s = time.monotonic()
    number_answered = asyncio.run(everything())
    print(json.dumps({"wall_s": time.monotonic() - started_s, "answers": number_answered}), flush=True)


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a process of its own and read what it says."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": "none"}
    )
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def measure_overhead(number: int, rounds: int) -> dict[str, Any]:
    """Wall times of both, interleaved; the order changes from round to round."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for round_number in range(rounds):
        for name in ("ours", "bare") if round_number % 2 == 0 else ("bare", "ours"):
            server = Server(LATENCY_S)
            try:
                with tempfile.TemporaryDirectory() as folder:
                    more = [str(Path(folder) / "out")] if name == "ours" else []
                    found = child(f"_{name}", server.url, str(number), *more)
            finally:
                server.close()
            times[name].append(found["wall_s"])
            print(f"round {round_number + 1}: {name} {found['wall_s']:.2f} s", file=sys.stderr, flush=True)
    ratios = [ours / bare for ours, bare in zip(times["ours"], times["bare"], strict=True)]
    return {"requests": number, "floor_s": number / IN_FLIGHT * LATENCY_S, **times, "ratios": ratios, "ratio": statistics.median(ratios)}


def _check(server_stats: dict[str, Any], outcomes: dict[str, int], number: int) -> dict[str, Any]:
    wasted = server_stats["requests"] - server_stats["seen"].get("429", 0)
    return {
        "documents": number,
        "outcomes": outcomes,
        "without_an_outcome": number - sum(outcomes.values()),
        "paid_more_than_once": server_stats["paid_more_than_once"],
        "requests": server_stats["requests"],
        "requests_without_429": wasted,
        "requests_per_document": wasted / number,
        "seen": server_stats["seen"],
    }


def measure_storm(number: int) -> dict[str, Any]:
    """One run through the storm."""
    server = Server(0.01, STORM)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = child("_ours", server.url, str(number), str(Path(folder) / "out"))
        return {**_check(server.stats(), found["outcomes"], number), "wall_s": found["wall_s"]}
    finally:
        server.close()


def measure_kills(number: int, kills: int, seed: int) -> dict[str, Any]:
    """One run through the storm that is killed again and again, at moments drawn with ``seed``."""
    server, rng = Server(0.01, STORM, seed), np.random.default_rng(seed)
    killed = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "_ours", server.url, str(number), str(Path(folder) / "out")]
            while killed < kills:
                before = server.stats()["requests"]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                while server.stats()["requests"] == before and process.poll() is None:
                    time.sleep(0.05)  # starting Python is no moment of the run
                time.sleep(rng.uniform(0.0, 2.0))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    killed += 1
                process.wait()
                if process.returncode == 0:
                    break
            found = child(*command[2:])
        return {**_check(server.stats(), found["outcomes"], number), "kills": killed, "allowed_twice": killed * IN_FLIGHT}
    finally:
        server.close()


def _verdict(overhead: dict[str, Any]) -> str:
    ratios = overhead["ratios"]
    spread = f"Median ratio {overhead['ratio']:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    return f"{spread}; no client can take less than {overhead['floor_s']:.1f} s."


def write_page(parts: dict[str, Any]) -> None:
    """docs/benchmarks-rewriting.md."""
    lines = ["# Benchmarks of rewriting", "", "Made by `python benchmarks/rewriting.py`; what each part does stands at its top.", ""]
    if overhead := parts.get("overhead"):
        lines += [
            f"## What it adds: {overhead['requests']:,} requests, {IN_FLIGHT} in flight, answers after {LATENCY_S * 1000:.0f} ms",
            "",
            "| round | bare loop, s | `rewrite_documents`, s | ratio |",
            "|---|---|---|---|",
            *(
                f"| {index + 1} | {bare:.2f} | {ours:.2f} | {ratio:.3f} |"
                for index, (bare, ours, ratio) in enumerate(zip(overhead["bare"], overhead["ours"], overhead["ratios"], strict=True))
            ),
            "",
            _verdict(overhead),
            "",
        ]
    for name, title in (("storm", "Storm: 30 % 429, 5 % 500, 2 % resets, 2 % cut bodies"), ("kills", "The same storm, killed and started again")):
        if found := parts.get(name):
            outcomes = ", ".join(f"{key} {value:,}" for key, value in found["outcomes"].items())
            lines += [
                f"## {title}",
                "",
                f"- documents: {found['documents']:,}; outcomes: {outcomes}; without an outcome: {found['without_an_outcome']}",
                f"- requests: {found['requests']:,}, 429 aside {found['requests_without_429']:,} = {found['requests_per_document']:.3f} a document (allowed: 1.5)",
                f"- paid answers to a request that had been answered before: {found['paid_more_than_once']}"
                + (
                    f" ({found['kills']} kills, with up to {IN_FLIGHT} in flight each: {found['allowed_twice']} could be)" if "kills" in found else ""
                ),
                *([f"- wall time: {found['wall_s']:.0f} s"] if "wall_s" in found else []),
                "",
            ]
    (ROOT / "docs" / "benchmarks-rewriting.md").write_text("\n".join(lines))


def is_whole(options: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Whether a run has all parts, and at least the numbers the page is made with."""
    sizes = ("requests", "rounds", "documents", "kill_documents", "kills")
    return set(options.parts) == set(parser.get_default("parts")) and all(getattr(options, name) >= parser.get_default(name) for name in sizes)


def main() -> None:
    """Run the parts that are named, or all."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("_"):
        name, url, number, *folder = sys.argv[1:]
        run_ours(url, int(number), Path(folder[0])) if name == "_ours" else run_bare(url, int(number))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["overhead", "storm", "kills"])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--kill-documents", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if "overhead" in options.parts:
        found["overhead"] = measure_overhead(options.requests, options.rounds)
    if "storm" in options.parts:
        found["storm"] = measure_storm(options.documents)
    if "kills" in options.parts:
        found["kills"] = measure_kills(options.kill_documents, options.kills, 1)
    print(json.dumps(found, indent=2))
    if is_whole(options, parser):
        write_page(found)
    else:
        print("not all parts in full: docs/benchmarks-rewriting.md is left as it is", file=sys.stderr)


if __name__ == "__main__":
    main()
