"""Unix sockets of the host, for containers to use and to be reached by: what people write, and what is at a path."""

import errno
import os
import posixpath
import socket
import stat
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from woodlot.container.spec import Mount, SocketSpec
from woodlot.errors import AlreadyExistsError, ConfigError, NotFoundError, WoodlotError
from woodlot.paths import MAX_SOCKET_PATH_BYTES, Paths
from woodlot.store.locks import hold_sync

# Each may have as many connections as `relays.MAX_CONNECTIONS`, and the agent serves 1024 streams in all.
MAX_SOCKETS = 8
SSH_SOCKET = "/run/host-services/ssh-auth.sock"
"""Where a container finds the SSH agent: the path is Docker Desktop's and Apple's."""
SSH_VARIABLE = "SSH_AUTH_SOCK"
_BACKLOG = 128
_HINT = "write /path/on/the/host.sock:/path/in/the/container.sock"


class Used(NamedTuple):
    """A socket of the host that a container gets to use."""

    mount: Mount
    mode: int
    """Its permissions on the host."""


def parse_published(texts: Iterable[str], *, directory: Path) -> tuple[SocketSpec, ...]:
    """The sockets of all ``--publish-socket HOST_PATH:CONTAINER_PATH``.

    Args:
        texts: The flag's values.
        directory: What relative paths of the host are relative to.

    Raises:
        ConfigError: One is no such thing, or two have one path of the host.
    """
    found: dict[str, SocketSpec] = {}
    for text in texts:
        parts = text.split(":")
        if len(parts) != 2 or "" in parts or "\0" in text:
            raise ConfigError(f"--publish-socket cannot be {text!r}", hint=_HINT)
        if not parts[1].startswith("/") or posixpath.normpath(parts[1]) == "/":
            raise ConfigError(
                f"--publish-socket {text}: {parts[1]!r} is no absolute path of a socket", hint=_HINT
            )
        path = posixpath.normpath(posixpath.join(str(directory), parts[0]))
        if path in found:
            raise ConfigError(
                f"--publish-socket: {path} is given twice", hint="give each a path of its own"
            )
        found[path] = SocketSpec(host_path=path, container_path=parts[1])
    return tuple(found.values())


def check(
    published: Sequence[SocketSpec],
    mounts: Sequence[Mount],
    *,
    ssh: bool,
    environ: Mapping[str, str],
) -> None:
    """See that all of a container's sockets can be carried, before anything is fetched or made.

    Raises:
        WoodlotError: Why one cannot.
    """
    used = find_used(mounts, ssh=ssh, environ=environ)
    if len(published) + len(used) > MAX_SOCKETS:
        raise ConfigError(
            f"a container can have at most {MAX_SOCKETS} sockets, got {len(published) + len(used)}",
            hint="give fewer of --publish-socket, --ssh and sockets in -v and --mount",
        )
    for one in published:
        check_publishable(Path(one.host_path))


def find_used(
    mounts: Sequence[Mount], *, ssh: bool, environ: Mapping[str, str]
) -> tuple[Used, ...]:
    """The sockets of the host that a container gets to use.

    Args:
        mounts: Of the container; those that are sockets count.
        ssh: Whether it gets the SSH agent, too.
        environ: Says where the agent is.

    Raises:
        ConfigError: There is no agent, or one is no socket that can be carried.
        NotFoundError: One is not there.
    """
    used = [mount for mount in mounts if mount.type == "socket"]
    if ssh:
        source = environ.get(SSH_VARIABLE, "")
        if not source.startswith("/"):
            raise ConfigError(
                f"--ssh: {SSH_VARIABLE} is {source!r}, not the path of an SSH agent's socket"
                if source
                else f"--ssh: {SSH_VARIABLE} is not set: there is no SSH agent",
                hint="start one in this shell: eval $(ssh-agent) && ssh-add",
            )
        used.append(Mount(type="socket", source=source, destination=SSH_SOCKET))
    return tuple(
        Used(mount, _check_used(Path(mount.source), what=f"the socket for {mount.destination}"))
        for mount in used
    )


def _check_used(path: Path, *, what: str) -> int:
    _check_length(path, what=what)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISSOCK(mode):
            raise ConfigError(
                f"{what}: {path} is not a socket", hint="see what has taken its place"
            )
        server = find_server(path)
    except OSError as error:
        raise NotFoundError(
            f"{what}: {path}: {error.strerror}", hint="start what serves it, or correct the path"
        ) from error
    if server == "datagram":
        raise ConfigError(
            f"{what}: {path} is a datagram socket, and only streams are carried",
            hint="leave it out",
        )
    return stat.S_IMODE(mode)


def check_publishable(path: Path) -> None:
    """See that a socket can be made at ``path``; one that nobody serves any more does not count.

    Raises:
        ConfigError: The path is too long, or its directory cannot be written.
        NotFoundError: There is no such directory.
        AlreadyExistsError: Something is there.
    """
    what = "--publish-socket"
    _check_length(path, what=what)
    if not path.parent.is_dir():
        raise NotFoundError(f"{what}: there is no directory {path.parent}", hint="make it first")
    if os.path.lexists(path):
        _check_left(path, what=what)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{what}: {path.parent} is not yours to make a socket in",
            hint="choose a directory of your own",
        )


def _check_left(path: Path, *, what: str) -> None:
    """See that what is at ``path`` is a socket that nobody serves."""
    hint = "remove it, or choose another path"
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AlreadyExistsError(f"{what}: {path} exists and is not a socket", hint=hint)
        server = find_server(path)
    except FileNotFoundError:
        return  # gone meanwhile
    except OSError as error:
        raise AlreadyExistsError(f"{what}: {path} exists: {error.strerror}", hint=hint) from error
    if server is not None:
        raise AlreadyExistsError(f"{what}: another process listens on {path}", hint=hint)


def _check_length(path: Path, *, what: str) -> None:
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"{what}: {path} has {length} bytes, and a socket's path at most {MAX_SOCKET_PATH_BYTES}",
            hint="use a shorter path; a symbolic link to its directory can be one",
        )


def find_server(path: Path) -> Literal["stream", "datagram"] | None:
    """What kind of socket a process serves at ``path``; None if nobody does. The process does not notice.

    Raises:
        OSError: Nothing is there, or it may not be used.

    Source: linux/net/unix/af_unix.c, unix_find_bsd: the right to write is asked first, then whether a process has the
        socket (ECONNREFUSED), then whether it is of the caller's kind (EPROTOTYPE).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return None
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                return "stream"
            raise
    return "datagram"


@contextmanager
def listening(paths: Paths, path: Path) -> Generator[socket.socket]:
    """A socket of ours at ``path`` for the life of the block, which nobody but the user can connect to.

    It listens from the beginning: who connects waits until somebody accepts.

    Raises:
        WoodlotError: Why it cannot be made there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _changing(paths):
            check_publishable(path)
            try:
                # What a killed supervisor left.
                path.unlink(missing_ok=True)
                listener.bind(os.fspath(path))
                path.chmod(0o600)
                listener.listen(_BACKLOG)
                made = path.lstat()
            except OSError as error:
                raise WoodlotError(f"cannot listen on {path}: {error.strerror}") from error
        listener.setblocking(False)  # noqa: FBT003
        try:
            yield listener
        finally:
            with _changing(paths), suppress(OSError):
                if os.path.samestat(path.lstat(), made):
                    path.unlink()


def remove_left(paths: Paths, published: Sequence[SocketSpec]) -> None:
    """Remove the sockets of a container whose supervisor was killed, unless somebody serves them by now."""
    if not published:
        return
    with _changing(paths):
        for one in published:
            path = Path(one.host_path)
            with suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode) and find_server(path) is None:
                    path.unlink()


@contextmanager
def _changing(paths: Paths) -> Generator[None]:
    """Between looking who serves a path and changing what is there, no other container may do the same."""
    with hold_sync(paths.data / "sockets.lock"):
        yield
