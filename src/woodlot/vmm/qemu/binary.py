"""Which QEMU this host has."""

import functools
import re
import sys
from pathlib import Path

from woodlot import process
from woodlot.errors import UnsupportedError, VmmError
from woodlot.values import dataclass
from woodlot.vmm.base import Arch

MINIMUM = (7, 2)

_VERSION = re.compile(
    r"QEMU emulator version (?P<number>(\d+)\.(\d+)(\.\d+)*)(?: \((?P<build>[^)]*)\))?"
)
_TIMEOUT_S = 10
_SYSTEM = {Arch.AMD64: "x86_64", Arch.ARM64: "aarch64"}
# Distribution (ID or ID_LIKE of os-release) → how its QEMU for amd64 and arm64 guests is installed.
_PACKAGES = {
    "debian": ("apt install qemu-system-x86", "apt install qemu-system-arm"),
    "fedora": ("dnf install qemu-system-x86-core", "dnf install qemu-system-aarch64-core"),
    "arch": ("pacman -S qemu-system-x86", "pacman -S qemu-system-aarch64"),
    "suse": ("zypper install qemu-x86", "zypper install qemu-arm"),
    "alpine": ("apk add qemu-system-x86_64", "apk add qemu-system-aarch64"),
    "darwin": ("brew install qemu", "brew install qemu"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A QEMU's version."""

    number: tuple[int, ...]
    text: str
    """For people: ``7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)``."""


def find_qemu(arch: Arch) -> Path:
    """The QEMU for guests of ``arch``.

    Raises:
        NotFoundError: There is none on PATH; the hint tells the command that installs it, if that is known.
    """
    name = f"qemu-system-{_SYSTEM[arch]}"
    # Red Hat's only QEMU, for guests of the host's architecture, is not on PATH.
    return process.find_binary(name, also=("/usr/libexec/qemu-kvm",), hint=install_hint(arch))


def install_hint(arch: Arch, os_release: Path = Path("/etc/os-release")) -> str:
    """How to install QEMU on this system."""
    for name in _distributions(os_release):
        if name in _PACKAGES:
            command = _PACKAGES[name][list(Arch).index(arch)]
            return command if name == "darwin" else f"sudo {command}"
    return f"install the package that has qemu-system-{_SYSTEM[arch]}"


def _distributions(os_release: Path) -> list[str]:
    if sys.platform == "darwin":
        return ["darwin"]
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return [
        name
        for key in ("ID", "ID_LIKE")
        for name in fields.get(key, "").strip("\"'").lower().split()
    ]


@functools.lru_cache(maxsize=8)
def read_version(binary: Path) -> Version:
    """Ask the program; that takes 30 ms and more, so a start does not.

    Raises:
        VmmError: It does not answer as QEMU does.
        UnsupportedError: It is too old.
    """
    output = process.run([binary, "--version"], timeout_s=_TIMEOUT_S, error=VmmError).stdout
    match = _VERSION.match(output)
    if match is None:
        raise VmmError(f"{binary} does not answer as QEMU does", details=output[:500])
    number = tuple(int(part) for part in match["number"].split("."))
    if number[:2] < MINIMUM:
        raise UnsupportedError(
            f"{binary} is QEMU {match['number']}; {MINIMUM[0]}.{MINIMUM[1]} or newer is needed",
            hint="upgrade QEMU",
        )
    build = f" ({match['build']})" if match["build"] else ""
    return Version(number=number, text=match["number"] + build)
