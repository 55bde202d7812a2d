"""The kernels of this installation.

    kernels/
      NAME/vmlinuz             a bzImage (amd64) or an Image (arm64)
      NAME/modules/*.ko        only what a guest needs, decompressed; none for a monolithic kernel
      NAME/manifest.json       what it is, and the order its modules are loaded in
      default-ARCH -> NAME     the one chosen with `system kernel set`; absent until then
      .lock                    held while a kernel is installed or the default changed

A kernel's directory is complete or absent: it is put together under a name of its own and renamed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

from woodlot.errors import ConfigError, IntegrityError, NotFoundError, UnsupportedError
from woodlot.paths import Paths
from woodlot.values import dataclass

OWN_PREFIX = "woodlot-"
DEBIAN_PREFIX = "debian-"
CUSTOM_PREFIX = "custom-"

FETCH_AGAIN_HINT = "fetch it again: container system kernel set --recommended"

_NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,127}")
_VERSION_PARTS = re.compile(r"\d+|\D+")
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_MANIFEST = "manifest.json"
_IMAGE = "vmlinuz"
_MODULES = "modules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that a guest can boot."""

    name: str
    """Its directory in the catalogue; for a kernel given as a file, ``custom-`` and part of its digest."""
    release: str
    """As ``uname -r`` says it in the guest; empty if the file does not tell."""
    arch: str
    """Architecture as in OCI platforms: ``amd64`` or ``arm64``."""
    origin: str
    """For people: the package, the file or the source it was made from."""
    image: Path
    sha256: str
    """Digest of the image, in hexadecimal."""
    modules: tuple[Path, ...] = ()
    """Drivers that are not built in, in the order they must be loaded."""
    cmdline: tuple[str, ...] = ()
    """Arguments this kernel wants beside the monitor's own."""


def host_arch() -> str:
    """The host's architecture, named as in OCI platforms.

    Raises:
        UnsupportedError: It is neither amd64 nor arm64.
    """
    return parse_arch(platform.machine())


def parse_arch(text: str) -> str:
    """``amd64`` or ``arm64`` from any of the usual spellings.

    Raises:
        UnsupportedError: There is no guest kernel for that architecture.
    """
    try:
        return _ARCHITECTURES[text.lower()]
    except KeyError:
        raise UnsupportedError(
            f"there is no guest kernel for the architecture {text!r}", hint="use amd64 or arm64"
        ) from None


def list_kernels(paths: Paths) -> tuple[Kernel, ...]:
    """Every installed kernel, ordered by name; a directory that cannot be read is left out."""
    if not paths.kernels.is_dir():
        return ()
    kernels: list[Kernel] = []
    for directory in sorted(paths.kernels.iterdir()):
        if directory.is_symlink() or not _NAME.fullmatch(directory.name):
            continue
        with contextlib.suppress(NotFoundError, IntegrityError):
            kernels.append(_read(directory))
    return tuple(kernels)


def load(paths: Paths, name: str) -> Kernel:
    """The installed kernel ``name``.

    Raises:
        NotFoundError: There is none of that name.
        IntegrityError: Its manifest cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise NotFoundError(f"there is no kernel {name!r}")
    return _read(paths.kernels / name)


def default_kernel(paths: Paths, arch: str) -> Kernel | None:
    """The kernel to use for ``arch``: the one set, else our own newest build, else the newest of Debian's.

    None if no kernel for ``arch`` is installed. One that was set, and removed since, counts as not set.
    """
    with contextlib.suppress(OSError, NotFoundError, IntegrityError):
        return load(paths, _default_link(paths, arch).readlink().name)
    usable = [kernel for kernel in list_kernels(paths) if kernel.arch == arch]
    for prefix in (OWN_PREFIX, DEBIAN_PREFIX):
        found = [kernel for kernel in usable if kernel.name.startswith(prefix)]
        if found:
            return max(found, key=lambda kernel: _version_key(kernel.release))
    return None


def chosen_name(paths: Paths, arch: str) -> str | None:
    """Name of the kernel that was set as the default for ``arch``, whether or not it is still there."""
    try:
        return _default_link(paths, arch).readlink().name
    except OSError:
        return None


def set_default(paths: Paths, kernel: Kernel) -> None:
    """Make an installed kernel the default of its architecture, in one step."""
    with locked(paths):
        link = _default_link(paths, kernel.arch)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(kernel.name)
        fresh.rename(link)


def unset_default(paths: Paths, arch: str) -> None:
    """Go back to the recommended kernel for ``arch``."""
    with locked(paths):
        _default_link(paths, arch).unlink(missing_ok=True)


def install(
    paths: Paths,
    *,
    name: str,
    release: str,
    arch: str,
    origin: str,
    image: Path,
    modules: Sequence[Path] = (),
    cmdline: Sequence[str] = (),
) -> Kernel:
    """Copy a kernel into the catalogue; one of the same name is replaced.

    The caller holds no lock. Guests that run the replaced kernel keep it: it is in their memory.

    Args:
        paths: The installation.
        name: Lower-case letters, digits and ``.+_-``.
        release: See `Kernel`, as all that follow.
        arch: Architecture.
        origin: For people.
        image: Copied.
        modules: Copied; in the order they must be loaded; their names end with ``.ko``.
        cmdline: Arguments this kernel wants.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a kernel cannot be named {name!r}")
    with locked(paths):
        import tempfile

        staging = Path(tempfile.mkdtemp(prefix=".install-", dir=paths.kernels))
        try:
            staging.chmod(0o755)
            shutil.copyfile(image, staging / _IMAGE)
            (staging / _MODULES).mkdir()
            for module in modules:
                shutil.copyfile(module, staging / _MODULES / module.name)
            manifest = {
                "name": name,
                "release": release,
                "arch": arch,
                "origin": origin,
                "sha256": file_digest(image),
                "modules": [module.name for module in modules],
                "cmdline": list(cmdline),
            }
            (staging / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            _replace(staging, paths.kernels / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return load(paths, name)


@contextlib.contextmanager
def locked(paths: Paths) -> Generator[None]:
    """Hold the catalogue's lock; it is released with the process, however that ends."""
    paths.kernels.mkdir(parents=True, exist_ok=True)
    with (paths.kernels / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_image(paths: Paths, image: Path) -> None:
    """See that the image of an installed kernel is what was installed; of other files nothing is known.

    Reads all of it, so it is for finding out why a guest did not boot.

    Raises:
        IntegrityError: It is not.
    """
    if image.parent.parent != paths.kernels:
        return
    with contextlib.suppress(NotFoundError, OSError):
        if file_digest(image) == load(paths, image.parent.name).sha256:
            return
    raise IntegrityError(
        f"the kernel {image.parent.name} is damaged: {image} is not what was installed",
        hint=FETCH_AGAIN_HINT,
    )


def _default_link(paths: Paths, arch: str) -> Path:
    return paths.kernels / f"default-{arch}"


def _replace(staging: Path, target: Path) -> None:
    # A directory cannot be renamed over one that is not empty. For an instant there is no such kernel;
    # a reader then sees none rather than half of one.
    if target.exists():
        old = staging.with_name(staging.name + ".old")
        target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(target)


def _read(directory: Path) -> Kernel:
    try:
        text = (directory / _MANIFEST).read_text()
    except OSError as error:
        raise NotFoundError(f"there is no kernel {directory.name}") from error
    try:
        manifest = json.loads(text)
        return Kernel(
            name=directory.name,
            release=str(manifest["release"]),
            arch=str(manifest["arch"]),
            origin=str(manifest["origin"]),
            image=directory / _IMAGE,
            sha256=str(manifest["sha256"]),
            # Only the last part of a name is used: nothing outside the directory can be meant.
            modules=tuple(directory / _MODULES / Path(name).name for name in manifest["modules"]),
            cmdline=tuple(str(argument) for argument in manifest.get("cmdline", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"the manifest of kernel {directory.name} cannot be read: {error!r}",
            hint=f"remove {directory} and install the kernel again",
        ) from error


def _version_key(release: str) -> tuple[tuple[int, int | str], ...]:
    """Orders releases as people do: 6.1.0-9 before 6.1.0-56."""
    return tuple(
        (1, int(part)) if part.isdigit() else (0, part) for part in _VERSION_PARTS.findall(release)
    )
