"""The admin socket's place in the file system (T5): private before it exists, its own, reachable at any depth."""

import os
import socket
import stat
from pathlib import Path

import pytest

from common import paths
from common.errors import StartError
from daemon.admin.binding import bind
from daemon.admin.peer import account_name, actor_of


def mode(path: Path) -> int:
    """The permission bits of `path`."""
    return stat.S_IMODE(path.stat().st_mode)


def test_socket_and_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    """0600 in a 0700 folder, also where the folder was wider and the umask is 0."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        with bind(folder / "gatelodge.sock"):
            assert mode(folder / "gatelodge.sock") == 0o600
            assert mode(folder) == 0o700
        assert os.umask(0) == 0, "the process's umask is as it was"
    finally:
        os.umask(before)


def test_the_socket_is_never_wider_than_it_ends_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between bind and chmod nobody else can connect: folder and socket are private at the moment of binding."""
    seen: list[tuple[int, int]] = []
    real = socket.socket.bind
    path = tmp_path / "data" / "gatelodge.sock"
    path.parent.mkdir(mode=0o777)

    class Watched(socket.socket):
        def bind(self, address: object) -> None:  # type: ignore[override]
            folder = mode(path.parent)
            real(self, address)  # type: ignore[arg-type]
            seen.append((folder, mode(path)))

    monkeypatch.setattr("daemon.admin.binding.socket.socket", Watched)
    with bind(path):
        pass
    assert seen == [(0o700, 0o600)]


def test_with_a_group_the_group_may_use_it_and_nobody_else(tmp_path: Path) -> None:
    """0660 in a 0750 folder, both of that group."""
    gid = os.getgid()
    path = tmp_path / "data" / "gatelodge.sock"
    with bind(path, gid):
        assert (mode(path), path.stat().st_gid) == (0o660, gid)
        assert (mode(path.parent), path.parent.stat().st_gid) == (0o750, gid)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A daemon that was killed leaves its socket; the next one takes the place."""
    path = tmp_path / "data" / "gatelodge.sock"
    bind(path).close()
    assert path.exists()
    with bind(path) as listening, paths.connect(path, timeout=5):
        listening.setblocking(True)
        listening.accept()[0].close()


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    """A file of that name is somebody's; the start is refused in words."""
    path = tmp_path / "gatelodge.sock"
    path.write_text("precious")
    with pytest.raises(StartError, match="is no socket"):
        bind(path)
    assert path.read_text() == "precious"


def test_a_folder_deeper_than_a_socket_path_may_be_long_is_served(tmp_path: Path) -> None:
    """A data path of 150 bytes works, although AF_UNIX paths end at 107."""
    data = tmp_path / ("d" * (150 - len(str(tmp_path)) - 1))
    assert len(str(data)) == 150
    path = paths.admin_socket(data, {})
    with bind(path) as listening, paths.connect(path, timeout=5) as client:
        listening.setblocking(True)
        with listening.accept()[0] as served:
            assert actor_of(served).uid == os.getuid()
            client.sendall(b"x")
            assert served.recv(1) == b"x"


def test_the_peer_is_who_the_system_says(tmp_path: Path) -> None:
    """SO_PEERCRED: uid and name of the process that connected, as the audit will have them."""
    with bind(tmp_path / "data" / "gatelodge.sock") as listening:
        with paths.connect(tmp_path / "data" / "gatelodge.sock", timeout=5):
            listening.setblocking(True)
            with listening.accept()[0] as served:
                actor = actor_of(served)
    assert (actor.uid, actor.name, actor.via) == (os.getuid(), account_name(os.getuid()), "socket")
    assert account_name(4_000_000_000) == "uid:4000000000"


def test_a_place_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    """One line that says which path and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file"):
        bind(tmp_path / "file" / "gatelodge.sock")
