"""The initial RAM filesystem: the agent, and the drivers of one kernel.

    /init              the agent, PID 1
    /launch            starts a container's process
    /watchfs           serves a shared directory whose changes are told
    /modules/load      file names, one a line, in the order they are loaded
    /modules/NAME.ko
    /dev /dev/console /proc /sys /run /tmp

It is an uncompressed cpio archive in the format "newc" (Linux, Documentation/driver-api/early-userspace/
buffer-format.rst). The same inputs give the same bytes. Uncompressed, because the kernel then only copies.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from woodlot.errors import NotFoundError
from woodlot.kernel.catalog import FETCH_AGAIN_HINT, Kernel
from woodlot.paths import Paths
from woodlot.values import dataclass

# Raised when the archive's layout changes.
_FORMAT = 2
_DIRECTORIES = ("dev", "modules", "proc", "run", "sys", "tmp")
_KEEP_UNUSED_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBinaries:
    """The programs of the guest, static, for one architecture."""

    agent: Path
    launch: Path
    watchfs: Path

    def __iter__(self) -> Iterator[Path]:
        yield from (self.agent, self.launch, self.watchfs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of an archive."""

    name: str
    """Path without a leading slash."""
    mode: int
    """Type and permissions, as in ``st_mode``."""
    source: Path | None = None
    data: bytes = b""
    """Content, when there is no ``source``."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""


def find_agent_binaries(arch: str) -> AgentBinaries:
    """The agent's programs for ``arch``, from the installed package.

    Raises:
        NotFoundError: The package was put together without them.
    """
    directory = Path(__file__).parents[1] / "guest/bin"
    binaries = AgentBinaries(
        agent=directory / f"agent-{arch}",
        launch=directory / f"launch-{arch}",
        watchfs=directory / f"watchfs-{arch}",
    )
    for path in binaries:
        if not path.is_file():
            raise NotFoundError(
                f"the guest agent for {arch} has not been built: {path} is missing",
                hint="run `make setup` in a checkout, or install the package again",
            )
    return binaries


def ensure_initramfs(paths: Paths, kernel: Kernel, binaries: AgentBinaries) -> Path:
    """The initial RAM filesystem of ``kernel`` with these programs, made if it is not there.

    Asked for at every start, so files count as unchanged while size, time and inode are. The result may be
    deleted at any time: a VM has read it whole once it runs.
    """
    target = paths.initramfs / f"{_key(kernel, binaries)}.cpio"
    if target.exists():
        with contextlib.suppress(OSError):
            os.utime(target)
        return target
    paths.initramfs.mkdir(parents=True, exist_ok=True)
    with (paths.initramfs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _remove_unused(paths.initramfs)
            import tempfile

            fd, name = tempfile.mkstemp(dir=paths.initramfs, prefix=".new-")
            try:
                with os.fdopen(fd, "wb") as stream:
                    write_cpio(stream, build_entries(kernel, binaries))
                os.replace(name, target)  # noqa: PTH105 - a name, not a Path
            finally:
                Path(name).unlink(missing_ok=True)
    return target


def build_entries(kernel: Kernel, binaries: AgentBinaries) -> list[Entry]:
    """What the archive of ``kernel`` holds, parents before children."""
    load = "".join(f"{module.name}\n" for module in kernel.modules)
    return [
        *(Entry(name=name, mode=stat.S_IFDIR | 0o755) for name in _DIRECTORIES),
        # The kernel opens it as stdin, stdout and stderr of PID 1 before anything is mounted.
        Entry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry(name="init", mode=stat.S_IFREG | 0o755, source=binaries.agent),
        Entry(name="launch", mode=stat.S_IFREG | 0o755, source=binaries.launch),
        Entry(name="watchfs", mode=stat.S_IFREG | 0o755, source=binaries.watchfs),
        Entry(name="modules/load", mode=stat.S_IFREG | 0o644, data=load.encode()),
        *(
            Entry(name=f"modules/{module.name}", mode=stat.S_IFREG | 0o644, source=module)
            for module in kernel.modules
        ),
    ]


def write_cpio(stream: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write a newc archive: owners are root, times are 0, inode numbers count up."""
    written = 0

    def put(data: bytes) -> None:
        nonlocal written
        stream.write(data)
        padding = -len(data) % 4
        stream.write(bytes(padding))
        written += len(data) + padding

    for inode, entry in enumerate((*entries, Entry(name="TRAILER!!!", mode=0)), start=1):
        data = entry.source.read_bytes() if entry.source else entry.data
        name = entry.name.encode() + b"\0"
        major, minor = entry.device
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
        # The name follows the header at once; the two together are padded.
        put(b"070701" + b"".join(b"%08X" % value for value in fields) + name)
        put(data)
    stream.write(bytes(-written % 512))


def _key(kernel: Kernel, binaries: AgentBinaries) -> str:
    inputs = {
        "format": _FORMAT,
        "kernel": kernel.sha256,
        "files": [_identity(path) for path in (*binaries, *kernel.modules)],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _identity(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        hint = FETCH_AGAIN_HINT if path.suffix == ".ko" else None
        raise NotFoundError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    return path.name, status.st_size, status.st_mtime_ns, status.st_ino


def _remove_unused(directory: Path) -> None:
    oldest = time.time() - _KEEP_UNUSED_S
    for path in directory.glob("*.cpio"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
    for path in directory.glob(".new-*"):
        path.unlink(missing_ok=True)
