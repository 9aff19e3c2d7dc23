"""The first start of an empty data folder: a user and a key for the person at the terminal, and what to type next.

Rule: the key is printed only where a terminal reads it; otherwise it goes to a private file that one line names.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import TextIO

from common import paths
from daemon.house import House

KEY_FILE = "first-key"


async def greet(house: House, *, out: TextIO | None = None) -> None:
    """Create the first user (USER@localhost, an administrator) with a key, and say how to use it.

    Nothing to do where there are users already.
    """
    out = out or sys.stdout
    if house.directory.users:
        return
    user, secret = await house.directory.first_user(f"{_account()}@localhost")
    host, port, tls = house.addresses[0]
    model = await house.registry.default_model() or "llama3.2"
    url = f"{'https' if tls else 'http'}://{_reachable(host)}:{port}"
    told = secret
    lines = [f"Created {user.email}, an administrator, with an API key."]
    if out.isatty():
        lines.append(f"Your key, shown only now:  {secret}")
    else:
        file = _keep(house.config.data, secret)
        told = f"$(cat {file})"
        lines.append(f"Your key is in {file}; read it, then delete the file.")
    data = '{"model":"' + model + '","messages":[{"role":"user","content":"Why is the sky blue?"}]}'
    socket = paths.admin_socket(house.config.data)
    lines += [
        "",
        "Ask the model something; the answer streams:",
        f"  curl -N {url}/api/chat -H \"Authorization: Bearer {told}\" -d '{data}'",
        "",
        "Watch and administer from a second terminal:",
        f"  {_command(socket)}          the console",
        f"  {_command(socket)} --help   its commands",
        "",
    ]
    if any(upstream.name == "builtin" for upstream in house.registry.upstreams):
        lines += [
            f"{model} is a tiny model that answers like one; it is there to try the gate with. For real work:",
            "  ollama pull llama3.2, then start the gate with --ollama http://127.0.0.1:11434",
            "",
        ]
    try:
        print("\n" + "\n".join(lines), file=out, flush=True)
    except OSError:
        pass  # nobody reads it: the key lies in its file


def _keep(data: Path, secret: str) -> Path:
    file = data / KEY_FILE
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as handle:
        handle.write(secret + "\n")
    return file


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _reachable(host: str) -> str:
    """An address that works from this machine: a wildcard is no address to connect to."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _command(socket: Path) -> str:
    root = paths.checkout()
    if root is not None and socket == root / "var" / paths.SOCKET_NAME:
        return "./run cli"
    program = Path(sys.executable).with_name("gatelodge")
    return f"{program if program.exists() else 'gatelodge'} --socket {socket}"
