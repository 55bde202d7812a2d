"""A kernel that somebody hands us as a file."""

import re
from pathlib import Path

from woodlot.errors import ConfigError, NotFoundError
from woodlot.kernel import catalog
from woodlot.kernel.catalog import Kernel
from woodlot.paths import Paths

# x86/boot protocol: Documentation/arch/x86/boot.rst.
_X86_BOOT_FLAG = (0x1FE, b"\x55\xaa")
_X86_HEADER = (0x202, b"HdrS")
_X86_VERSION_POINTER = 0x20E
_X86_VERSION_BASE = 0x200
# Documentation/arch/arm64/booting.rst: "ARM\x64" at byte 56 of the uncompressed Image.
_ARM64_MAGIC = (56, b"ARM\x64")
_HEADER_BYTES = 64 << 10
_RELEASE = re.compile(rb"[0-9]+\.[0-9]+[A-Za-z0-9.+_~-]{0,100}")
_LINUX_VERSION = b"Linux version "


def from_file(path: Path) -> Kernel:
    """The kernel in the file ``path``, used where it lies; it must have its drivers built in.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        ConfigError: It is neither a bzImage (amd64) nor an uncompressed Image (arm64).
    """
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
        digest = catalog.file_digest(path)
    except OSError as error:
        raise NotFoundError(f"cannot read the kernel {path}: {error.strerror}") from error
    arch = _arch(path, header)
    return Kernel(
        name=f"{catalog.CUSTOM_PREFIX}{digest[:12]}",
        release=_x86_release(header) if arch == "amd64" else _arm64_release(path),
        arch=arch,
        origin=str(path),
        image=path.absolute(),
        sha256=digest,
    )


def install_file(paths: Paths, path: Path, *, arch: str | None = None) -> Kernel:
    """Copy the kernel in ``path`` into the catalogue and make it the default of its architecture.

    Raises:
        ConfigError: The file is no kernel, or one for another architecture than ``arch``.
        NotFoundError: The file cannot be read.
    """
    kernel = from_file(path)
    if arch is not None and kernel.arch != arch:
        raise ConfigError(f"{path} is a kernel for {kernel.arch}, not for {arch}")
    installed = catalog.install(
        paths,
        name=kernel.name,
        release=kernel.release,
        arch=kernel.arch,
        origin=kernel.origin,
        image=kernel.image,
    )
    catalog.set_default(paths, installed)
    return installed


def _arch(path: Path, header: bytes) -> str:
    if _has(header, _X86_BOOT_FLAG) and _has(header, _X86_HEADER):
        return "amd64"
    if _has(header, _ARM64_MAGIC):
        return "arm64"
    hint = "give a bzImage (arch/x86/boot/bzImage) or an Image (arch/arm64/boot/Image)"
    if header.startswith(b"\x7fELF"):
        raise ConfigError(f"{path} is an ELF file, not a bootable kernel image", hint=hint)
    if header.startswith(b"\x1f\x8b"):
        raise ConfigError(f"{path} is compressed", hint="decompress it with gunzip first")
    raise ConfigError(f"{path} is no Linux kernel image", hint=hint)


def _has(header: bytes, magic: tuple[int, bytes]) -> bool:
    offset, value = magic
    return header[offset : offset + len(value)] == value


def _x86_release(header: bytes) -> str:
    pointer = int.from_bytes(header[_X86_VERSION_POINTER : _X86_VERSION_POINTER + 2], "little")
    match = _RELEASE.match(header, pointer + _X86_VERSION_BASE) if pointer else None
    return match[0].decode("ascii") if match else ""


def _arm64_release(path: Path) -> str:
    image = path.read_bytes()
    at = image.find(_LINUX_VERSION)
    match = _RELEASE.match(image, at + len(_LINUX_VERSION)) if at >= 0 else None
    return match[0].decode("ascii") if match else ""
