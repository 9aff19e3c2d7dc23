"""Where the gate listens: several addresses, plain and TLS, with the same routes on each."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import httpx

from daemon import config as configuration
from tests.rigs.certificates import make_certificate
from tests.rigs.gatehouse import QUESTION, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_shapes import words_of


def test_the_port_is_7000_unless_told_otherwise() -> None:
    """Row 46; on this machine only, until the administrator opens it."""
    server = configuration.load(environment={}).server
    assert (server.host, server.port) == ("127.0.0.1", 7000)


async def test_every_listener_serves_the_same_routes_over_tls_too(tmp_path: Path) -> None:
    """Rows 9 and 38: one daemon, further listeners by configuration; a stream over TLS arrives whole and in pieces."""
    certificate, key = make_certificate(tmp_path)
    secured = {"host": "127.0.0.1", "port": 0, "certificate": str(certificate), "key": str(key)}
    async with ScriptedUpstream() as upstream:
        upstream.words = words_of(200)
        async with gatehouse(tmp_path, upstream, listen=[{"host": "127.0.0.1", "port": 0}, secured]) as gate:
            assert [tls for _, _, tls in gate.house.addresses] == [False, False, True]
            assert len({port for _, port, _ in gate.house.addresses}) == 3
            trusting = ssl.create_default_context(cafile=str(certificate))
            async with httpx.AsyncClient(verify=trusting, timeout=20) as client:
                for _, port, tls in gate.house.addresses:
                    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
                    assert (await client.get(f"{url}/health")).json() == {"status": "ok"}
                    body = json.dumps(QUESTION)
                    answer = await client.post(f"{url}/api/chat", content=body, headers=gate.bearer())
                    assert answer.content == b"".join(upstream.inference[-1].sent)
        assert len(upstream.inference) == 3
