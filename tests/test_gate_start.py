"""What keeps a daemon from starting: one sentence, before anything is fetched or written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from common.errors import StartError
from tests.rigs.gatehouse import gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream


async def test_a_taken_port_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """Not after a download: the data folder has no database yet."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with ScriptedUpstream() as upstream:
            with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is taken; .* --port N"):
                async with gatehouse(tmp_path, upstream, server__port=port):
                    pass
    assert not list((tmp_path / "data").glob("*.db"))


async def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    """With what to do."""
    async with ScriptedUpstream() as upstream:
        with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.55 .* --host ADDRESS"):
            async with gatehouse(tmp_path, upstream, server__host="192.0.2.55"):
                pass
