"""Where things live, moments and durations in words, and sockets in deep folders."""

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import paths, times


def test_the_socket_is_found_in_the_order_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named beats environment beats checkout beats the system's."""
    environment = {"GATELODGE_SOCKET": "/somewhere/else.sock"}
    assert paths.find_socket("/named/one.sock", environment) == Path("/named/one.sock")
    assert paths.find_socket(None, environment) == Path("/somewhere/else.sock")
    monkeypatch.setattr(paths, "checkout", lambda: tmp_path)
    assert paths.find_socket(None, {}) == tmp_path / "var" / "gatelodge.sock"
    monkeypatch.setattr(paths, "checkout", lambda: None)
    assert paths.find_socket(None, {}) == Path("/run/gatelodge/gatelodge.sock")


def test_the_current_folder_alone_never_offers_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may put a var/gatelodge.sock into a shared folder; a command started there does not talk to it."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "gatelodge.sock").touch()
    monkeypatch.chdir(tmp_path)
    assert not paths.find_socket(None, {}).is_relative_to(tmp_path)


def test_the_daemon_opens_its_socket_where_commands_look(tmp_path: Path) -> None:
    """In the unit's RuntimeDirectory where there is one, else in the data folder; the name ends in .sock."""
    assert paths.admin_socket(tmp_path, {}) == tmp_path / "gatelodge.sock"
    assert paths.admin_socket(tmp_path, {"RUNTIME_DIRECTORY": "/run/gatelodge"}) == paths.SYSTEM_SOCKET


@pytest.mark.parametrize("length", [20, 106, 107, 108, 150, 250])
def test_a_socket_is_bound_and_reached_in_a_folder_of_any_depth(tmp_path: Path, length: int) -> None:
    """sun_path ends at 107 bytes; folders do not."""
    folder = tmp_path / ("d" * max(1, length - len(str(tmp_path)) - len("/x.sock") - 1))
    folder.mkdir()
    path = folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        with paths.SocketAddress(path) as address:
            listening.bind(address)
        listening.listen()
        with paths.connect(path, timeout=5) as client, listening.accept()[0] as server:
            client.sendall(b"here")
            assert server.recv(4) == b"here"


@given(st.integers(min_value=0, max_value=4_102_444_800_000_000))
def test_a_moment_survives_its_spelling(microseconds: int) -> None:
    """ISO 8601 with microseconds is exact, ends in Z, and sorts as time does."""
    text = times.iso(microseconds)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-31T09:05:07.000123Z")
    assert times.from_iso(text) == microseconds


def test_durations_are_read_as_people_write_them() -> None:
    """A whole number and a unit; without one, seconds."""
    assert times.seconds_of("90d") == 90 * 86400
    assert times.seconds_of("1h") == 3600
    assert times.seconds_of(" 10M ") == 600
    assert times.seconds_of("45") == 45
    assert times.seconds_of("2w") == 14 * 86400
    for wrong in ("", "d", "1.5h", "-1h", "1y", "10 d", "999999999w"):
        with pytest.raises(ValueError, match=r"duration|century"):
            times.seconds_of(wrong)


def test_a_moment_may_be_given_as_so_long_ago() -> None:
    """`1h` is an hour before now; a date without a zone is UTC; an offset is honoured."""
    now = times.from_iso("2026-03-01T12:00:00Z")
    assert times.iso(times.moment_of("1h", now=now)) == "2026-03-01T11:00:00.000000Z"
    assert times.iso(times.moment_of("2026-02-28", now=now)) == "2026-02-28T00:00:00.000000Z"
    assert times.iso(times.moment_of("2026-02-28T10:00:00+02:00", now=now)) == "2026-02-28T08:00:00.000000Z"
    with pytest.raises(ValueError, match="yesterday"):
        times.moment_of("yesterday", now=now)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (72, "1m12s"), (11_100, "3h05m"), (12 * 86400, "12d")]
)
def test_spans_are_short_in_tables(seconds: float, text: str) -> None:
    """Two units at most."""
    assert times.short(seconds) == text
