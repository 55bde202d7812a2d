"""Which virtiofsd this host has, and its arguments: there are two programs of that name.

The older one is written in C and came with QEMU up to 7.2 (Debian 12); the newer one is written in Rust and is a
package of its own (Debian 13). docs/design/files.md tells why each option is what it is.
"""

import functools
import os
import re
from enum import StrEnum, auto
from pathlib import Path

from woodlot import process
from woodlot.errors import VmmError
from woodlot.values import dataclass

# Where packages put it: rarely on PATH, for it is no program for people.
PLACES = (
    "/usr/libexec/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/libexec/qemu/virtiofsd",
)
_TIMEOUT_S = 10
_VERSION = re.compile(r"virtiofsd (?P<kind>version )?(?P<number>[0-9][^ \n]*)")
_HINT = (
    "install it: Debian 12: apt install qemu-system-common; Debian 13 and Ubuntu: apt install virtiofsd; "
    "Fedora: dnf install virtiofsd"
)


class Kind(StrEnum):
    """Which of the two programs it is."""

    C = auto()
    RUST = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtiofsd:
    """A virtiofsd of this host."""

    binary: Path
    kind: Kind
    version: str


def find_virtiofsd() -> Virtiofsd:
    """The virtiofsd to use.

    Raises:
        NotFoundError: There is none; the hint says which package has it.
        VmmError: It does not answer as virtiofsd does.
    """
    return read_version(process.find_binary("virtiofsd", also=PLACES, hint=_HINT))


@functools.lru_cache(maxsize=4)
def read_version(binary: Path) -> Virtiofsd:
    """Ask the program which one it is: its path does not tell, for Debian 13 links the old one's to the new one.

    Raises:
        VmmError: It does not answer as virtiofsd does.
    """
    try:
        output = process.run([binary, "--version"], timeout_s=_TIMEOUT_S, error=VmmError).stdout
    except VmmError as error:
        # The older one wants to drop its groups even to say this, which an ordinary user may not.
        if "setgroups() failed" in (error.details or ""):
            return Virtiofsd(binary=binary, kind=Kind.C, version="unknown")
        raise
    return parse_version(binary, output)


def parse_version(binary: Path, output: str) -> Virtiofsd:
    """What ``--version`` printed: ``virtiofsd version 7.2.22 (…)`` is C, ``virtiofsd 1.13.2`` is Rust.

    Raises:
        VmmError: It is neither.
    """
    match = _VERSION.match(output)
    if match is None:
        raise VmmError(f"{binary} does not answer as virtiofsd does", details=output[:500])
    kind = Kind.C if match["kind"] else Kind.RUST
    return Virtiofsd(binary=binary, kind=kind, version=match["number"])


def build_argv(program: Virtiofsd, *, socket_fd: int, directory: Path, cache: bool) -> list[str]:
    """Serve ``directory`` to the one who connects to the listening socket ``socket_fd``.

    It shuts itself in again: its own mount, process and network namespaces with nothing but the directory in them,
    its own system call filter, and of root's capabilities those for files only, without the making of devices.
    Without ``cache``, the guest asks for everything each time.
    """
    match program.kind:
        case Kind.C:
            return [
                os.fspath(program.binary), "-f",
                f"--fd={socket_fd}",
                "--rlimit-nofile=0",
                "-o", f"source={_escape(directory)}",
                "-o", "sandbox=namespace",
                "-o", "modcaps=-mknod",
                "-o", "cache=auto" if cache else "cache=none",
                "-o", "xattr",
                "-o", "announce_submounts",
                "-o", "log_level=err",
            ]  # fmt: skip
        case Kind.RUST:
            return [
                os.fspath(program.binary),
                f"--fd={socket_fd}",
                "--rlimit-nofile=0",
                f"--shared-dir={directory}",
                "--sandbox=namespace",
                "--modcaps=-mknod",
                "--cache=auto" if cache else "--cache=never",
                "--xattr",
                "--announce-submounts",
                "--log-level=error",
            ]


def _escape(path: Path) -> str:
    """A value for ``-o``, where a comma begins the next option (libfuse, fuse_opt.c)."""
    return os.fspath(path).replace("\\", "\\\\").replace(",", "\\,")
