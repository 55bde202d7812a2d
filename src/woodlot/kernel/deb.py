"""Reading the kernel out of Debian packages: no dpkg, no maintainer scripts, no path of the archive's choosing.

A package is an ``ar`` archive that holds ``debian-binary``, ``control.tar.*`` and ``data.tar.*`` (deb(5)). Only the
files that are wanted are read, each is written under a name of ours, and everything has a limit.
"""

import contextlib
import lzma
import re
import tarfile
from collections.abc import Generator
from dataclasses import field
from pathlib import Path
from typing import IO, cast

from woodlot.errors import IntegrityError, LimitError
from woodlot.kernel import modules
from woodlot.values import dataclass

MAX_IMAGE_BYTES = 512 << 20
MAX_FILES = 200_000
MAX_TOTAL_BYTES = 8 << 30

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_AR_END = b"`\n"
_IMAGE = re.compile(r"boot/(vmlinuz|vmlinux|Image)-(?P<release>[A-Za-z0-9.+_~-]{1,100})")
_MODULE = re.compile(r"(usr/)?lib/modules/[^/]+/kernel/.*")
_BUILTIN = re.compile(r"(usr/)?lib/modules/[^/]+/modules\.builtin")


@dataclass(slots=True, kw_only=True)
class Unpacked:
    """What was found in one or more packages."""

    release: str = ""
    image: Path | None = None
    builtin: frozenset[str] = frozenset()
    modules: dict[str, Path] = field(default_factory=dict[str, Path])
    """Files as packed, by normalized name."""


def unpack(package: Path, into: Path, found: Unpacked) -> None:
    """Add the kernel image and the modules in ``package`` to ``found``, as files in the directory ``into``.

    Raises:
        IntegrityError: The file is no Debian package, or a broken one.
        LimitError: It holds more than any kernel package does.
    """
    try:
        with package.open("rb") as stream, _open_data(stream) as data:
            with tarfile.open(fileobj=data, mode="r|") as archive:
                _take(archive, into, found)
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise IntegrityError(f"{package.name} is a broken package: {error}") from error


def _take(archive: tarfile.TarFile, into: Path, found: Unpacked) -> None:
    total = 0
    for number, member in enumerate(archive):
        total += member.size
        if number >= MAX_FILES or total > MAX_TOTAL_BYTES:
            raise LimitError("a kernel package holds too much")
        name = member.name.removeprefix("./")
        if not member.isreg():
            continue
        if match := _IMAGE.fullmatch(name):
            found.release = match["release"]
            found.image = into / "vmlinuz"
            found.image.write_bytes(_read(archive, member, MAX_IMAGE_BYTES))
        elif _BUILTIN.fullmatch(name):
            text = _read(archive, member, modules.MAX_MODULE_BYTES).decode("utf-8", "replace")
            found.builtin = modules.parse_builtin(text)
        elif _MODULE.fullmatch(name) and modules.is_module(name):
            path = into / name.rsplit("/", 1)[-1]
            path.write_bytes(_read(archive, member, modules.MAX_MODULE_BYTES))
            found.modules[modules.normalize(name)] = path


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise LimitError(f"{member.name} in a kernel package is larger than {limit} bytes")
    stream = archive.extractfile(member)
    data = stream.read(limit) if stream else b""
    if len(data) != member.size:
        raise IntegrityError(f"{member.name} in a kernel package is cut short")
    return data


@contextlib.contextmanager
def _open_data(stream: IO[bytes]) -> Generator[IO[bytes]]:
    """The package's ``data.tar``, decompressed as it is read."""
    name = _seek_member(stream, "data.tar")
    match name.removeprefix("data.tar"):
        case ".xz":
            with lzma.open(stream) as data:
                yield cast("IO[bytes]", data)
        case ".zst":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(stream, closefd=False) as reader:
                try:
                    yield cast("IO[bytes]", reader)
                except zstandard.ZstdError as error:
                    raise ValueError(str(error)) from error
        case ".gz":
            import gzip

            with gzip.open(stream) as data:
                yield cast("IO[bytes]", data)
        case "":
            yield stream
        case other:
            raise IntegrityError(
                f"a package is compressed in a way we do not know: data.tar{other}"
            )


def _seek_member(stream: IO[bytes], prefix: str) -> str:
    """Move to the first byte of the member whose name starts with ``prefix``; its name."""
    if stream.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise IntegrityError("a file is no Debian package")
    while len(header := stream.read(_AR_HEADER_BYTES)) == _AR_HEADER_BYTES:
        if header[58:60] != _AR_END or not header[48:58].strip().isdigit():
            break
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        size = int(header[48:58])
        if name.startswith(prefix):
            return name
        stream.seek(size + size % 2, 1)
    raise IntegrityError(f"a package has no {prefix}")
