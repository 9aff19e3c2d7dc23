"""The built-in engine's own process: llama.cpp, through xllamacpp, on a loopback port.

Rules: it dies with the daemon that started it, however that ends, and it imports nothing of ours, so that it can be
started as a plain file in isolated mode (`python -I child.py`), whatever the working directory holds. Its order,
with the key that every request must show, comes as JSON on standard input: what stands in arguments any local account
can read. It prints one line of JSON, `{"url": "http://127.0.0.1:PORT"}`, when it is ready to answer. Everything that
llama.cpp has to say goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1
CONTEXT_OF_A_SEAT = 2048  # tokens of context that one request has
BATCH = 128  # tokens; prefill can only be aborted between batches
ERRORS_AND_WARNINGS = 2  # llama.cpp's log level; the next one writes several lines for every request


def main(asked: str) -> None:
    """Serve what `asked` describes: JSON with `parent` (pid), `site`, `model`, `name`, `seats`, `port` (0: any) and
    `key`, without which no model answers."""
    order = json.loads(asked)
    die_with(order["parent"])
    # Taking the server apart while it streams hangs; nothing here needs to be put away.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ready = _claim_standard_output()
    server = serve(order)
    ready.write(json.dumps({"url": server.listening_address}) + "\n")
    ready.close()
    while os.getppid() == order["parent"]:  # where the kernel offers no death signal, this notices within a second
        time.sleep(1)
    os._exit(1)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the process `parent` ends, kill -9 included."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the kernel was asked; then nobody would ever tell.
    if os.getppid() != parent:
        os._exit(1)


def serve(order: dict[str, Any]) -> Any:
    """Load the model and listen on loopback; returns the running xllamacpp.Server."""
    sys.path.insert(0, order["site"])
    xllamacpp = importlib.import_module("xllamacpp")  # by name: it is installed beside the model, not beside us
    params = xllamacpp.CommonParams()
    params.model.path = order["model"]
    params.model_alias = {order["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = order["port"]
    params.api_keys = [order["key"]]
    params.n_parallel = order["seats"]
    params.n_ctx = CONTEXT_OF_A_SEAT * order["seats"]
    params.n_batch = params.n_ubatch = BATCH
    params.cache_ram_mib = 0  # the default prompt cache grows to 8 GiB
    params.ui = False
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.verbosity = ERRORS_AND_WARNINGS
    return xllamacpp.Server(params)


def _claim_standard_output() -> TextIO:
    """Standard output for ourselves alone; what C++ prints there from now on goes to standard error."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


if __name__ == "__main__":
    main(sys.stdin.read())
