"""The interface describes itself: `/openapi.json`, made of what serves it, and `/docs`, a page that shows it.

What random clients find with the description in hand: test_web_schemathesis.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tornado.web import RequestHandler

from daemon.web import openapi
from daemon.web.described import Text
from daemon.web.routes import RELAYED, ROUTES
from tests.rigs.engine import ROOT
from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream

PAGE = ROOT / "daemon" / "web" / "page"


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gatehouse]:
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as running:
        yield running


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return openapi.document(ROUTES, RELAYED)


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_route_is_described_and_nothing_else(described: dict[str, Any]) -> None:
    """A method that is served and tells nothing of itself is red here; so is one that is told of and not served."""
    served = {
        (method, re.sub(r"\((?:[^()]|\([^()]*\))*\)", "{}", pattern).replace("\\", ""))
        for pattern, handler in ROUTES
        for method in openapi.METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    } | {("POST", re.sub(r"\{\w+\}", "{}", route.path)) for route in RELAYED}
    told = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path, _ in operations(described)}
    assert sorted(served - told) == [], "tells nothing of itself"
    assert sorted(told - served) == []


def test_the_description_is_whole(described: dict[str, Any]) -> None:
    """OpenAPI 3.1: every reference is there, every name is used once, every path parameter is told of."""
    assert described["openapi"].startswith("3.1.")
    for reference in references(described):
        found: Any = described
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    identifiers = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(set(identifiers)) == len(identifiers)
    for _, path, operation in operations(described):
        named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), path
        assert operation["tags"][0] in {tag["name"] for tag in described["tags"]}


def test_every_example_is_of_its_type() -> None:
    """What people copy from the page is what the route reads."""
    shown = 0
    for route in openapi.routes(ROUTES, RELAYED):
        operation = route.operation
        assert operation is not None
        if operation.takes is None or isinstance(operation.takes, Text):
            continue
        shown += 1
        msgspec.convert(operation.example, operation.takes)
        unknown = set(operation.example) - set(operation.takes.__struct_fields__) - {"from", "system"}
        assert not unknown, route
    assert shown > 20


async def test_what_people_copy_from_the_page_is_answered(gate: Gatehouse, described: dict[str, Any]) -> None:
    """Each example of an inference route, with a model that is there: 200 in the described type."""
    shown = 0
    for method, path, operation in operations(described):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "model" not in str(body.get("example")) or operation["tags"] == ["Ollama's models"]:
            continue
        shown += 1
        named = json.loads(json.dumps(body["example"]).replace("llama3.2", MODEL))
        answer = await gate.http.request(method, gate.url + path, content=json.dumps(named), headers=gate.bearer())
        assert answer.status_code == 200, (path, answer.text)
        media = answer.headers["content-type"].partition(";")[0]
        assert media in operation["responses"]["200"]["content"], path
    assert shown > 10


async def test_it_is_served_to_everybody(gate: Gatehouse, described: dict[str, Any]) -> None:
    """Row 37: /openapi.json without a credential, the same that the routes make; a second time it is a 304."""
    answer = await gate.http.get(gate.url + "/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == json.loads(msgspec.json.encode(described))
    again = await gate.http.get(gate.url + "/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_without_a_credential_only_what_is_described_as_open_answers(
    gate: Gatehouse, described: dict[str, Any]
) -> None:
    """Whatever is not described as open is a 401 (a 403 at `/request`, as its clients know it)."""
    asked = 0
    for method, path, operation in operations(described):
        varying = re.sub(r"\{\w+\}", "sha256:" + "0" * 64 if "blobs" in path else "icon.svg", path)
        answer = await gate.http.request(method, gate.url + varying, content=b"{}" if method == "POST" else b"")
        optional = {} in operation["security"]
        if operation["security"] and not optional:
            asked += 1
            assert answer.status_code == (403 if path == "/request" else 401), (method, path)
        elif not optional and method in ("GET", "HEAD"):
            assert answer.status_code == 200, (method, path)
    assert asked > 25


async def test_a_405_says_which_methods_there_are(gate: Gatehouse, described: dict[str, Any]) -> None:
    """RFC 9110, 15.5.6: `Allow`, the very methods that are described."""
    for path, methods in described["paths"].items():
        varying = re.sub(
            r"\{\w+\}", "sha256:" + "0" * 64 if "blobs" in path else "docs.js" if "docs" in path else "x", path
        )
        answer = await gate.http.request("PATCH", gate.url + varying, headers=gate.bearer())
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) == {method.upper() for method in methods}, path


async def test_the_page_speaks_to_nobody_else(gate: Gatehouse) -> None:
    """Rows 10 and 37: all of it comes from here, and the policy lets a browser run and fetch nothing else."""
    page = await gate.http.get(gate.url + "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert sorted(parts) == ["docs/docs.css", "docs/docs.js", "docs/icon.svg"]
    policies = set()
    for part in ["docs", *parts]:
        answer = await gate.http.get(f"{gate.url}/{part}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        policies.add(answer.headers["content-security-policy"])
        foreign = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", answer.text.replace("http://www.w3.org/2000/svg", ""))
        assert foreign == [], part
    (policy,) = policies
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "<style" not in page.text
    assert " style=" not in page.text
    assert re.findall(r"<script(?! src=)", page.text) == []
    assert "innerHTML" not in (PAGE / "docs.js").read_text(encoding="utf-8")
    assert (await gate.http.get(gate.url + "/docs/other.js")).status_code == 401


async def test_the_page_shows_every_route_in_a_browser(gate: Gatehouse, described: dict[str, Any]) -> None:
    """Drawn by a real browser under its own policy: each route with its curl line."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium is installed")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={gate.data}/browser"]
    command += ["--virtual-time-budget=5000", "--dump-dom", gate.url + "/docs"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    drawn, _ = await asyncio.wait_for(process.communicate(), 60)
    page = drawn.decode()
    for method, path, operation in operations(described):
        if method != "HEAD" or "get" not in described["paths"][path]:
            assert f'<article id="{operation["operationId"]}">' in page, (method, path)
    assert page.count("<pre") > 40
    assert f"curl {gate.url}/health" in page
