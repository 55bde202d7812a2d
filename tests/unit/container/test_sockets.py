"""Sockets of the host: what people write, what is at a path, and who may make one there."""

import multiprocessing
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from woodlot.container.sockets import (
    MAX_SOCKETS,
    SSH_SOCKET,
    check,
    check_publishable,
    find_server,
    find_used,
    listening,
    parse_published,
    remove_left,
)
from woodlot.container.spec import Mount, SocketSpec
from woodlot.errors import AlreadyExistsError, ConfigError, NotFoundError
from woodlot.paths import Paths

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

HERE = Path("/here")


@pytest.fixture
def directory(paths: Paths) -> Path:
    """One with a short path."""
    return paths.runtime


@contextmanager
def served(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(path))
        if kind is not socket.SOCK_DGRAM:
            server.listen()
        yield server


def left(path: Path) -> Path:
    """As a killed process leaves it."""
    with served(path):
        pass
    return path


def publishes(*paths: Path) -> tuple[SocketSpec, ...]:
    return tuple(SocketSpec(host_path=str(path), container_path="/x") for path in paths)


@pytest.mark.parametrize(
    ("text", "host", "container"),
    [
        ("/run/a.sock:/run/b.sock", "/run/a.sock", "/run/b.sock"),
        ("a.sock:/b", "/here/a.sock", "/b"),
        ("./x/../a.sock:/b/../c", "/here/a.sock", "/b/../c"),
        ("//run//a:/b", "//run/a", "/b"),
    ],
)
def test_published(text: str, host: str, container: str) -> None:
    assert parse_published([text], directory=HERE) == (
        SocketSpec(host_path=host, container_path=container),
    )


@pytest.mark.parametrize(
    "text", ["", "/a", "/a:", ":/b", "/a:/b:/c", "/a:b", "/a:/", "/a:/b/..", "/a\0:/b", "a:./b"]
)
def test_wrongly_published(text: str) -> None:
    with pytest.raises(ConfigError, match="--publish-socket"):
        parse_published([text], directory=HERE)


def test_a_path_of_the_host_is_published_once() -> None:
    with pytest.raises(ConfigError, match="/here/a is given twice"):
        parse_published(["a:/x", "/here/./a:/y"], directory=HERE)


def test_who_serves_a_path_does_not_notice(directory: Path) -> None:
    assert find_server(left(directory / "left")) is None
    with served(directory / "stream") as server:
        server.setblocking(False)
        assert find_server(directory / "stream") == "stream"
        with pytest.raises(BlockingIOError):
            server.accept()
    with served(directory / "datagram", socket.SOCK_DGRAM):
        assert find_server(directory / "datagram") == "datagram"
    with pytest.raises(FileNotFoundError):
        find_server(directory / "none")


def test_where_a_socket_can_be_made(directory: Path) -> None:
    check_publishable(directory / "new")
    check_publishable(left(directory / "left"))
    (directory / "file").touch()
    (directory / "link").symlink_to("left")
    with served(directory / "served"):
        for name, kind, says in (
            ("file", AlreadyExistsError, "file exists and is not a socket"),
            ("link", AlreadyExistsError, "link exists and is not a socket"),
            ("", AlreadyExistsError, "exists and is not a socket"),
            ("served", AlreadyExistsError, "another process listens on"),
            ("none/new", NotFoundError, "there is no directory"),
            ("file/new", NotFoundError, "there is no directory"),
            ("x" * 100, ConfigError, "a socket's path at most 100"),
            ("é" * 45, ConfigError, "a socket's path at most 100"),
        ):
            with pytest.raises(kind, match=says) as caught:
                check_publishable(directory / name)
            assert caught.value.hint
    # The kernel takes what we let through.
    longest = directory / ("x" * (100 - len(os.fsencode(directory)) - 1))
    check_publishable(longest)
    left(longest)


def test_a_directory_of_others(directory: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    directory.chmod(0o500)
    with pytest.raises(ConfigError, match="not yours"):
        check_publishable(directory / "new")


def test_listening_takes_the_place_of_what_was_left(paths: Paths, directory: Path) -> None:
    path = left(directory / "s")
    with listening(paths, path) as listener:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.send(b"x")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(1) == b"x"
        with pytest.raises(AlreadyExistsError, match="another process listens"):
            with listening(paths, path):
                pass
        assert find_server(path) == "stream"
    assert not path.exists()


def test_at_the_end_only_what_is_ours_is_removed(paths: Paths, directory: Path) -> None:
    path = directory / "s"
    with listening(paths, path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"
    with listening(paths, directory / "t"):
        (directory / "t").unlink()


def _contend(paths: Paths, path: Path, start: Barrier, told: "SimpleQueue[bool]") -> None:
    start.wait()
    try:
        with listening(paths, path):
            told.put(True)
            start.wait()
    except AlreadyExistsError:
        told.put(False)
        start.wait()


def test_of_several_at_once_one_wins(paths: Paths, directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = left(directory / "s")
    start, told = context.Barrier(3), context.SimpleQueue()
    children = [context.Process(target=_contend, args=(paths, path, start, told)) for _ in range(3)]
    for child in children:
        child.start()
    assert sorted(told.get() for _ in children) == [False, False, True]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert not path.exists()


def test_what_a_killed_supervisor_left_is_removed(paths: Paths, directory: Path) -> None:
    stale, file = left(directory / "stale"), directory / "file"
    file.touch()
    with served(directory / "served"):
        remove_left(paths, publishes(stale, file, directory / "served", directory / "none"))
        assert {path.name for path in directory.iterdir()} == {"served", "file"}


def test_used_sockets(directory: Path) -> None:
    left(directory / "left")
    (directory / "link").symlink_to("s")
    (directory / "file").touch()
    mounts = (
        Mount(type="bind", source="/etc", destination="/e"),
        Mount(type="socket", source=str(directory / "s"), destination="/s", read_only=True),
        Mount(type="socket", source=str(directory / "link"), destination="/l"),
        # Its server may come later.
        Mount(type="socket", source=str(directory / "left"), destination="/f"),
    )
    environ = {"SSH_AUTH_SOCK": str(directory / "s")}
    with (
        served(directory / "s"),
        served(directory / "d", socket.SOCK_DGRAM),
    ):
        (directory / "left").chmod(0o620)
        used = find_used(mounts, ssh=False, environ={})
        assert tuple(one.mount for one in used) == mounts[1:]
        assert used[2].mode == 0o620
        agent = Mount(type="socket", source=str(directory / "s"), destination=SSH_SOCKET)
        assert find_used(mounts, ssh=True, environ=environ)[3].mount == agent
        for source, kind, says in (
            ("none", NotFoundError, "the socket for /x: .*none: No such file"),
            ("file", ConfigError, "file is not a socket"),
            ("d", ConfigError, "d is a datagram socket"),
            ("x" * 100, ConfigError, "a socket's path at most 100"),
        ):
            mount = Mount(type="socket", source=str(directory / source), destination="/x")
            with pytest.raises(kind, match=says):
                find_used([mount], ssh=False, environ={})


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "--ssh: SSH_AUTH_SOCK is not set"),
        ({"SSH_AUTH_SOCK": ""}, "--ssh: SSH_AUTH_SOCK is not set"),
        ({"SSH_AUTH_SOCK": "agent"}, "'agent', not the path"),
        ({"SSH_AUTH_SOCK": "/nowhere/agent"}, f"{SSH_SOCKET}: /nowhere/agent: No such file"),
        ({"SSH_AUTH_SOCK": "/etc/passwd"}, "/etc/passwd is not a socket"),
    ],
)
def test_no_ssh_agent(environ: dict[str, str], says: str) -> None:
    with pytest.raises((ConfigError, NotFoundError), match=says) as caught:
        find_used([], ssh=True, environ=environ)
    assert caught.value.hint


def test_too_many(directory: Path) -> None:
    with served(directory / "s"):
        environ = {"SSH_AUTH_SOCK": str(directory / "s")}
        mount = Mount(type="socket", source=str(directory / "s"), destination="/s")
        published = publishes(*(directory / f"p{n}" for n in range(MAX_SOCKETS - 2)))
        check(published, [mount], ssh=True, environ=environ)
        more = publishes(*(directory / f"p{n}" for n in range(MAX_SOCKETS - 1)))
        with pytest.raises(ConfigError, match=f"at most {MAX_SOCKETS} sockets, got 9"):
            check(more, [mount], ssh=True, environ=environ)
