"""Serves files of the host to one virtual machine: a virtiofsd for each directory or file, closed in by `confine`."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from woodlot import process
from woodlot.errors import ConfigError, NotFoundError, VmmError
from woodlot.files import confine
from woodlot.files.idmap import IdMap, find_idmap
from woodlot.files.virtiofsd import Virtiofsd, build_argv, find_virtiofsd
from woodlot.values import dataclass

SINGLE_NAME = confine.SINGLE_NAME
_STOP_GRACE_S = 2.0
_REMOVE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A directory or a single file of the host that a VM gets to see."""

    tag: str
    """How the guest finds it; at most 36 bytes (virtio spec, 5.11.4)."""
    source: Path
    is_file: bool = False
    read_only: bool = False
    watched: bool = False
    """The guest keeps what it knows of the files where it can be told of changes: not in its virtio-fs."""


class Server:
    """A running virtiofsd; made by `serve`."""

    def __init__(
        self, share: Share, child: process.Child, client: socket.socket, log_path: Path
    ) -> None:
        self.share = share
        self._child = child
        self._client = client
        self._log_path = log_path

    @property
    def pid(self) -> int:
        """Process id; virtiofsd has a child of its own that does the work, and ends with it."""
        return self._child.pid

    @property
    def fd(self) -> int:
        """Its vhost-user socket, connected, for the VM's monitor to inherit."""
        return self._client.fileno()

    def handed_over(self) -> None:
        """Close our copy of the socket: virtiofsd ends when the monitor does."""
        self._client.close()

    async def wait(self) -> str:
        """Once it has ended: how, in words."""
        return process.describe_status(await self._child.wait())

    def ended(self) -> VmmError | None:
        """Why it ended, if it has."""
        status = self._child.status
        if status is None:
            return None
        return VmmError(
            f"the file server for {self.share.source} ended with {process.describe_status(status)}",
            details=process.last_words(self._log_path),
            hint=_hint(process.last_words(self._log_path)),
        )

    async def stop(self) -> None:
        """End and reap it."""
        self._client.close()
        await self._child.stop(grace_s=_STOP_GRACE_S)


def check_source(path: Path, *, what: str) -> bool:
    """Whether ``path`` is a single file and not a directory.

    Raises:
        NotFoundError: It is not there, or not for us to see.
        ConfigError: It is something that cannot be shared.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise NotFoundError(
            f"{what}: {path}: {error.strerror}",
            hint="make it first, or correct the path",
        ) from error
    if stat.S_ISDIR(mode):
        return False
    if not stat.S_ISREG(mode):
        raise ConfigError(
            f"{what}: {path} is neither a directory nor a regular file",
            hint="sockets, pipes and devices belong to the host's kernel, which the container does not share",
        )
    return True


@contextlib.asynccontextmanager
async def serve(
    shares: Sequence[Share], *, stage: Path, sockets: Path, logs: Path
) -> AsyncGenerator[list[Server]]:
    """A file server for each share, for the life of the block; none has answered yet when it is entered.

    Args:
        shares: What to serve; with none, no virtiofsd is needed.
        stage: An existing directory; the shares are mounted over it where nobody but their servers sees them.
        sockets: A private directory with a short path; empty again when the block is entered.
        logs: Where ``virtiofsd-TAG.log`` are written.

    Raises:
        NotFoundError: There is no virtiofsd.
    """
    async with contextlib.AsyncExitStack() as stack:
        servers: list[Server] = []
        if shares:
            program, idmap = await asyncio.to_thread(find_virtiofsd), find_idmap()
            for share in shares:
                log_path = logs / f"virtiofsd-{share.tag}.log"
                server = _start(
                    share,
                    program,
                    idmap,
                    stage=stage,
                    socket_path=sockets / "f.sock",
                    log_path=log_path,
                )
                stack.push_async_callback(server.stop)
                servers.append(server)
        yield servers


def _start(
    share: Share,
    program: Virtiofsd,
    idmap: IdMap | None,
    *,
    stage: Path,
    socket_path: Path,
    log_path: Path,
) -> Server:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # Connected before virtiofsd runs, and nameless from then on: nobody else can, and nobody has to wait.
            listener.bind(os.fspath(socket_path))
            try:
                listener.listen(1)
                client.connect(os.fspath(socket_path))
            finally:
                socket_path.unlink()
            argv = build_argv(
                program, socket_fd=listener.fileno(), directory=stage, cache=not share.watched
            )
            child = process.spawn(
                build_confined_argv(argv, stage=stage, idmap=idmap, share=share),
                log_path=log_path,
                pass_fds=(listener.fileno(),),
            )
    except BaseException:
        client.close()
        raise
    return Server(share, child, client, log_path)


def build_confined_argv(
    argv: Sequence[str], *, stage: Path, idmap: IdMap | None, share: Share | None
) -> list[str]:
    """The command line that runs ``argv`` as `confine` describes it, by a child of this process."""
    order = {
        "parent": os.getpid(),
        "uid_map": idmap.uids if idmap else None,
        "gid_map": idmap.gids if idmap else None,
        "source": os.fspath(share.source) if share else None,
        "stage": os.fspath(stage),
        "single": share is not None and share.is_file,
        "read_only": share is not None and share.read_only,
        "argv": list(argv),
    }
    return [sys.executable, "-I", "-S", confine.__file__, json.dumps(order)]


def remove_tree(path: Path) -> None:
    """Remove a directory with all that containers have put into it; blocking.

    Raises:
        WoodlotError: Something of it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        idmap = find_idmap()
        if idmap is None:
            raise
        # Files of the user's subordinate ids: only where those are mapped may the user touch them.
        rm = process.find_binary("rm")
        argv = build_confined_argv(
            [str(rm), "-rf", "--", str(path)], stage=path, idmap=idmap, share=None
        )
        process.run(argv, timeout_s=_REMOVE_TIMEOUT_S)


def _hint(words: str | None) -> str | None:
    if words and "user namespace" in words:
        return (
            "this host does not let ordinary users have user namespaces; "
            "see sysctl kernel.apparmor_restrict_unprivileged_userns and user.max_user_namespaces"
        )
    if words and "newuidmap" in words:
        return "see that /etc/subuid and /etc/subgid give ids that nobody else has: man 5 subuid"
    return None
