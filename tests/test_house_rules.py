"""The rules of the house that no reader should have to remember: who imports whom, and where SQL may stand.

Each rule is shown to bite: the same check finds a breach in a made-up file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.rigs.engine import ROOT

PACKAGES = ("common", "console", "daemon")

# What a file may not import: (files it is about, modules, files that are exempt, why).
FORBIDDEN = [
    ("common/", ("daemon", "console"), (), "common is what both sides agree on; it knows neither"),
    ("console/", ("daemon",), (), "the console talks to the daemon through the admin socket only"),
    ("daemon/", ("console",), (), "the daemon knows no console"),
    ("", ("textual",), ("console/",), "only the console draws"),
    ("", ("click",), ("console/",), "only the console has commands"),
    (
        "",
        ("tornado.web",),
        ("daemon/web/", "daemon/admin/server.py", "daemon/app.py"),
        "only the faces know the web server",
    ),
    ("daemon/dialects/", ("asyncio", "socket", "tornado", "httptools", "aiosqlite"), (), "dialects are pure: no I/O"),
    ("", ("aiosqlite",), ("daemon/store/",), "only the store opens the database"),
    ("console/", ("sqlite3",), (), "the console never opens the database"),
    ("", ("requests", "httpx", "aiohttp", "urllib.request"), (), "upstreams are reached by our own pooled client"),
]

SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM|SELECT\s+\w+\(|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|"
    r"(CREATE|DROP|ALTER)\s+(TABLE|INDEX)|PRAGMA\s|BEGIN\s+IMMEDIATE|SAVEPOINT\s|WITH\s+\w+\s+AS\s*\()",
    re.IGNORECASE | re.DOTALL,
)


def sources() -> Iterator[tuple[str, str]]:
    """Every Python file of the three packages: its path from the root, and its text."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def imported(text: str) -> Iterator[tuple[int, str]]:
    """The modules that a file imports at run time, wherever it does so, with their lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def forbidden_imports(path: str, text: str) -> list[str]:
    """The imports of this file that break a rule, each in a line for people."""
    breaches = []
    for about, modules, exempt, why in FORBIDDEN:
        if path.startswith(about) and not path.startswith(tuple(exempt) or ("-",)):
            for line, name in imported(text):
                if any(name == module or name.startswith(f"{module}.") for module in modules):
                    breaches.append(f"{path}:{line} imports {name}: {why}")
    return breaches


def sql_texts(path: str, text: str) -> list[str]:
    """The string constants of this file that are SQL, if it may hold none."""
    if path.startswith("daemon/store/"):
        return []
    return [
        f"{path}:{node.lineno} holds SQL: all of it belongs into daemon/store"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_sql(node.value)
    ]


def is_sql(text: str) -> bool:
    """Whether a text is a statement; a sentence, which begins with one capital, is none."""
    return bool(SQL.match(text)) and not text.split(maxsplit=1)[0].istitle()


def test_imports_point_the_right_way() -> None:
    """common knows neither side, console and daemon never meet, each library is used in its own rooms only."""
    assert [breach for path, text in sources() for breach in forbidden_imports(path, text)] == []


def test_sql_lives_only_in_the_store() -> None:
    """No statement stands outside daemon/store."""
    assert [breach for path, text in sources() for breach in sql_texts(path, text)] == []


def test_every_module_opens_with_its_job() -> None:
    """Each module has a docstring, for the reader who opens it first."""
    assert [path for path, text in sources() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def test_no_module_reaches_out_of_the_machine_at_run_time() -> None:
    """Nothing is fetched at run time: no code names the address of another machine."""
    urls = re.compile(r"https?://(?!127\.0\.0\.1|localhost|\[|\{|%|HOST|gateway|h\b)[\w.-]+\.[a-z]{2,}")
    found = [f"{path}: {match}" for path, text in sources() for match in urls.findall(_without_comments(text))]
    assert found == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("common/x.py", "import daemon.clock"),
        ("console/x.py", "from daemon import clock"),
        ("console/x.py", "def f():\n    from daemon.clock import SystemClock"),
        ("daemon/x.py", "from console.client import Client"),
        ("daemon/x.py", "import textual.app"),
        ("common/x.py", "from textual import on"),
        ("daemon/relay.py", "from tornado.web import RequestHandler"),
        ("daemon/dialects/x.py", "import asyncio"),
        ("daemon/dialects/x.py", "from tornado import ioloop"),
        ("daemon/access/x.py", "import aiosqlite"),
        ("console/x.py", "import sqlite3"),
        ("daemon/providers/x.py", "from urllib import request"),
    ],
)
def test_a_forbidden_import_is_found(path: str, text: str) -> None:
    """The check sees every form of import, at the top of a file or inside a function."""
    assert len(forbidden_imports(path, text)) >= 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("console/app.py", "from textual.app import App"),
        ("daemon/web/base.py", "import tornado.web"),
        ("daemon/store/database.py", "import aiosqlite"),
        ("daemon/x.py", "from common import errors"),
        ("daemon/x.py", "from urllib.parse import urlsplit"),
        ("daemon/access/identity.py", "from tornado.httputil import HTTPHeaders"),
    ],
)
def test_an_allowed_import_is_let_through(path: str, text: str) -> None:
    """The rules forbid what they say and no more."""
    assert forbidden_imports(path, text) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id, email FROM users WHERE id = ?",
        "insert or ignore into users values (?)",
        "  UPDATE users SET role = ?",
        "DELETE FROM keys",
        "PRAGMA wal_checkpoint",
        "CREATE TABLE x (a)",
        "WITH recent AS (SELECT 1) SELECT 2",
    ],
)
def test_a_statement_outside_the_store_is_found(statement: str) -> None:
    """The check knows a statement when it sees one, and lets prose be."""
    assert sql_texts("daemon/access/directory.py", f"query = {statement!r}")
    assert not sql_texts("daemon/store/users.py", f"query = {statement!r}")
    assert not sql_texts("daemon/x.py", "text = 'Select a model from the list', 'update the users set', 'with care'")


def _without_comments(text: str) -> str:
    """The text without comments and docstrings, which may cite."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.unparse(tree)
