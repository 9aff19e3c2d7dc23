"""One target under atheris, NAME CORPUS SECONDS PREFIX-OF-FINDS; started by `python -m tests.fuzz`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["daemon.dialects", "daemon.providers", "daemon.web.heads", "tornado.httputil"]
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    name, corpus, seconds, finds = sys.argv[1:]
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (Path(corpus) / f"seed-{number:04}").write_bytes(seed[: target.longest])
    options = [
        sys.argv[0],
        corpus,
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-artifact_prefix={finds}",
        "-timeout=10",
        "-rss_limit_mb=1024",
    ]
    atheris.Setup(options, target.try_it)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
