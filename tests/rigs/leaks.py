"""Every secret of a run, collected by the rig itself, and a search for them in everything that the run leaves (P8).

    with secrets_of_a_run(tmp_path) as run:
        ...                                    # a daemon, people, keys, tokens
        assert run.leaks(tmp_path) == []

What is collected: whatever the daemon draws from the random generator, save the draws that `PUBLIC_DRAWS` names; every
text that is hashed as a password, right or wrong; what is signed or presented as a token; every text in requests to and
answers of /auth and /oauth, save the fields that `PUBLIC_FIELDS` names; the files of DATA/secrets. A secret that
somebody adds later is looked for without a change here; a public value that is added must be named here.

Where it looks: names and contents of all files save DATA/secrets (and the file that hands over the first key), every
cell of every database, unpacked; arguments and environment of every child process.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
import pytest

from daemon import logs
from daemon.access import passwords
from daemon.access.tokens import Tokens

SHORTEST = 8  # bytes; what is shorter would be found by chance
PUBLIC_DRAWS = {
    "daemon.access.keys:new_key_id": "the id of an API key",
    "daemon.access.directory:new_code": "the code of a registration, only good for an administrator",
    "daemon.access.sessions:Sessions.start": "the id of a session (the refresh token is drawn elsewhere)",
    "daemon.access.tokens:Tokens.issue": "jti",
    "daemon.access.passwords:PasswordPool.hash": "the salt of a password's hash",
    "daemon.exchange:new_request_id": "a request id",
    "daemon.audit.chain:new_salt": "the salt of a body, which lies beside it",
    "daemon.audit.export:Outgoing.__init__": "the id of an export",
    "daemon.hub:Hub.__init__": "the boot id that watchers compare",
    "daemon.providers.sealing:Seal.sealed": "a nonce, which lies beside what was sealed with it",
    "daemon.store.users:add": "the key of a user's body lookups, kept in the database and erased with the user",
}
PUBLIC_FIELDS = frozenset(
    """email label status code error error_description detail id prefix state purpose models addresses created expires
    revoked previous_until last_used last_address role token_type grant_type client_id token_type_hint""".split()  # noqa: SIM905
)
_PUBLIC_MEMBERS = {"kty", "crv", "x", "kid", "use", "alg"}  # of a key pair's file
_children: list[tuple[str, bytes]] = []


class Run:
    """What was collected so far, by what it is."""

    def __init__(self) -> None:
        self.found: dict[bytes, str] = {}
        self._frame: FrameType | None = None
        self._letters = ""
        self._drawer = ""

    def add(self, what: str, secret: str | bytes) -> None:
        """Look for this one, too."""
        value = secret.encode() if isinstance(secret, str) else secret
        if value:
            self.found.setdefault(value, what)

    def kinds(self) -> set[str]:
        """What kinds of secrets there are by now."""
        self._letters_end()
        return set(self.found.values())

    def leaks(self, folder: Path) -> list[str]:
        """Where a secret lies though it must not: `kind as form in place`, without the secret."""
        self._letters_end()
        for file in folder.rglob("secrets/**/*"):
            if file.is_file():
                for what, value in _of_secret_file(file):
                    self.add(what, value)
        short = [what for value, what in self.found.items() if len(value) < SHORTEST]
        assert not short, f"too short to be looked for, use longer ones in this run: {short}"
        wanted = [(what, form, text) for value, what in self.found.items() for form, text in forms(value).items()]
        return sorted(
            f"{what} as {form} in {where}"
            for where, content in left_behind(folder)
            for what, form, text in wanted
            if text in content
        )

    # -- collecting ---------------------------------------------------------------------------------------------------

    def drawn(self, value: str | bytes | int) -> None:
        """A draw from the random generator; by the daemon's own code, it is a secret unless named public."""
        drawer = _drawer(sys._getframe(2))
        if drawer and drawer not in PUBLIC_DRAWS:
            self.add(drawer, f"{value}" if isinstance(value, int) else value)

    def letter(self, value: Any) -> None:
        """One character of a text that is drawn character by character."""
        frame = sys._getframe(2)
        if frame is not self._frame:
            self._letters_end()
            self._frame, self._drawer = frame, _drawer(frame)
        self._letters += str(value)

    def _letters_end(self) -> None:
        if self._letters and self._drawer and self._drawer not in PUBLIC_DRAWS:
            self.add(self._drawer, self._letters)
        self._frame, self._letters = None, ""

    def watch(self, http: httpx.AsyncClient) -> None:
        """Collect from what this client asks of /auth and /oauth, and from the answers."""

        async def asked(request: httpx.Request) -> None:
            for name in ("Authorization", "X-API-KEY"):
                scheme, _, text = request.headers.get(name, "").rpartition(" ")
                if text:
                    self.add(f"a request's {name}", base64.b64decode(text) if scheme == "Basic" else text)
            if request.url.path.startswith(("/auth", "/oauth")):
                self._add_fields(request.content)

        async def answered(answer: httpx.Response) -> None:
            if answer.url.path.startswith(("/auth", "/oauth")):
                self._add_fields(await answer.aread())

        http.event_hooks = {"request": [asked], "response": [answered]}

    def _add_fields(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except ValueError:
            document = dict(parse_qsl(body.decode("utf-8", "replace")))
        for name, value in _leaves(document):
            if name not in PUBLIC_FIELDS:
                self.add(f"the field {name}", value)


@contextmanager
def secrets_of_a_run(folder: Path) -> Iterator[Run]:
    """Collect from everything that runs in this process; its log, of every level, goes to `folder`/log."""
    run = Run()
    root = logging.getLogger()
    handlers = root.handlers
    told = (
        root,
        *map(logging.getLogger, ("aiosqlite", "httpx", "httpcore", "asyncio", "tornado.access", "tornado.general")),
    )
    levels = [logger.level for logger in told]
    optional = {name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses")}
    optional["logMultiprocessing"] = logging.logMultiprocessing
    _children.clear()
    _watch_children()
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("w", encoding="utf-8") as file:
        for name in ("token_bytes", "token_hex", "token_urlsafe", "randbits", "randbelow"):
            patch.setattr(secrets, name, _noting(getattr(secrets, name), run.drawn))
        patch.setattr(secrets, "choice", _noting(secrets.choice, run.letter))
        normal, verify, issue = passwords._normal, Tokens.verify, Tokens.issue

        def typed(password: str) -> bytes:
            run.add("a password, right or wrong", password)
            return normal(password)

        def presented(self: Tokens, token: str) -> Any:
            run.add("a token that was presented", token)
            return verify(self, token)

        def issued(self: Tokens, **named: Any) -> Any:
            token, claims = issue(self, **named)
            run.add("an access token", token)
            run.add("an access token's signature", token.rpartition(".")[2])
            return token, claims

        patch.setattr(passwords, "_normal", typed)
        patch.setattr(Tokens, "verify", presented)
        patch.setattr(Tokens, "issue", issued)
        writer = logs.start("debug", "json", file)
        for name, least in (("aiosqlite", logging.DEBUG), ("httpx", logging.ERROR), ("httpcore", logging.ERROR)):
            logging.getLogger(name).setLevel(least)  # the daemon's to the last word, nothing of the test's own client
        try:
            yield run
        finally:
            writer.stop()
            root.handlers = handlers
            for logger, level in zip(told, levels, strict=True):
                logger.setLevel(level)  # tests that come after would pay for every line of aiosqlite's
            for name, value in optional.items():
                setattr(logging, name, value)


def forms(secret: bytes) -> dict[str, bytes]:
    """How a secret may be written: itself, base64 wherever it begins in a longer text, hex, JSON, percent-encoded."""
    made = {"itself": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
    for shift in range(3):
        # What stands around a secret changes the first and the last character of its base64: those are left out.
        whole = len(secret) - (len(secret) + shift) % 3
        core = base64.b64encode(bytes(shift) + secret[:whole])[4 if shift else 0 :]
        made[f"base64, {shift}"] = core
        made[f"base64url, {shift}"] = core.translate(bytes.maketrans(b"+/", b"-_"))
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return made
    made["JSON"] = json.dumps(text)[1:-1].encode()
    made["JSON, all escaped"] = "".join(f"\\u{ord(letter):04x}" for letter in text).encode()
    made["JSON, / escaped"] = json.dumps(text)[1:-1].replace("/", "\\/").encode()
    made["percent"] = quote(text, safe="").encode()
    made["a representation"] = repr(text)[1:-1].encode()
    return made


def left_behind(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(where, content) of everything below `folder` that may be read later, and of what children were given."""
    yield "the names of files", "\n".join(str(path) for path in folder.rglob("*")).encode()
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or "secrets" in inside.parts[:-1] or file.name == "first-key":
            continue
        content = file.read_bytes()
        yield str(inside), content
        if content.startswith(b"SQLite format 3\0"):
            yield from _cells(file, str(inside))
    yield from _children


def _cells(file: Path, name: str) -> Iterator[tuple[str, bytes]]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            content = bytearray()
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    value = cell if isinstance(cell, bytes) else str(cell).encode()
                    content += value + b"\n"
                    try:
                        content += zlib.decompress(value) + b"\n"
                    except zlib.error:
                        pass
            yield f"{name}, table {table}, unpacked", bytes(content)
    finally:
        connection.close()


def _of_secret_file(file: Path) -> Iterator[tuple[str, bytes]]:
    """The secrets in a file of DATA/secrets: what is not known to be public."""
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except ValueError:
        yield f"the file {file.name}", content.strip()
        return
    for name, value in _leaves(document):
        if name not in _PUBLIC_MEMBERS:
            yield f"the member {name} of a file in secrets", value.encode()
            try:
                yield f"the bytes of {name}", base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
            except ValueError:
                pass


def _leaves(document: Any, name: str = "") -> Iterator[tuple[str, str]]:
    match document:
        case dict():
            for key, value in document.items():
                yield from _leaves(value, key)
        case list():
            for value in document:
                yield from _leaves(value, name)
        case str():
            yield name, document


def _drawer(frame: FrameType | None) -> str:
    """The daemon's function that draws, as module:name; empty where it is somebody else's."""
    for _ in range(8):
        if frame is None:
            break
        module, name = str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname
        if module.startswith("daemon.") and not name.startswith("_text"):
            return f"{module}:{name.partition('.<locals>')[0]}"
        frame = frame.f_back
    return ""


def _noting(draw: Any, note: Any) -> Any:
    def noting(*arguments: Any) -> Any:
        value = draw(*arguments)
        note(value)
        return value

    return noting


def _watch_children() -> None:
    """Once: an audit hook cannot be taken back."""
    if not getattr(_watch_children, "done", False):
        sys.addaudithook(_child_started)
        _watch_children.done = True  # type: ignore[attr-defined]


def _child_started(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        program, words, _, environment = arguments
        told = repr((program, words, dict(environment or {}))).encode()
        _children.append((f"arguments or environment of child {len(_children)}", told))
