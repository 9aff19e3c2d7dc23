"""`gatelodged`: arguments -> configuration -> run; every failure to start is one line and an exit code.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from common.errors import StartError
from common.version import version
from daemon import config as configuration


def main() -> None:
    """The console script."""
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Do what the arguments say; returns the exit code."""
    options = _parser().parse_args(arguments)

    def read() -> configuration.Config:
        return configuration.load(
            file=Path(options.config) if options.config else None,
            flags={
                "storage.data": options.data,
                "server.host": options.host,
                "server.port": options.port,
                "upstreams": configuration.with_ollama(options.ollama, options.seats),
            },
        )

    try:
        config = read()
        if options.check:
            print("the configuration is valid")
            return 0
        if options.doctor:
            return _examine(config)
        return _serve(config, builtin_model=options.builtin_model, read_again=read)
    except StartError as error:
        print(f"gatelodged: {error}", file=sys.stderr)
        return 1


def _serve(config: configuration.Config, *, builtin_model: bool, read_again: Callable[[], configuration.Config]) -> int:
    from daemon.app import serve
    from daemon.descriptors import raise_limit

    os.umask(0o077)
    raise_limit()
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # a platform without uvloop runs on asyncio's own loop
        runner = asyncio.Runner()
    with runner:
        return runner.run(serve(config, builtin_model=builtin_model, read_again=read_again))


def _open_standard_streams() -> None:
    """Where a standard stream is closed the next file that is opened would get its number: the database, for one, and
    with it whatever somebody prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)


def _examine(config: configuration.Config) -> int:
    from daemon.doctor import examine

    findings = asyncio.run(examine(config))
    sys.stdout.write(msgspec.json.encode(findings).decode() + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gatelodged", description="The gate in front of a team's Ollama.", allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", type=_named, help="configuration file (TOML)")
    parser.add_argument("--data", metavar="DIR", type=_named, help="folder of database, keys and admin socket")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    parser.add_argument("--port", metavar="N", type=int, help="port to listen on; 0 takes a free one")
    parser.add_argument("--ollama", metavar="URL", help="the one upstream: an Ollama at this address")
    parser.add_argument("--seats", metavar="N", type=int, help="how many requests that upstream runs at once")
    parser.add_argument(
        "--no-builtin-model",
        dest="builtin_model",
        action="store_false",
        help="never install the built-in engine where no Ollama answers",
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--doctor", action="store_true", help="examine the installation, print findings as JSON, exit")
    parser.add_argument("--version", action="version", version=f"gatelodged {version()}")
    return parser


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


if __name__ == "__main__":
    main()
