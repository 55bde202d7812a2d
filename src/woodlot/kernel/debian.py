"""The default guest kernel: Debian's cloud kernel, fetched with apt and therefore checked by apt.

If the host's own package lists know the package, `apt-get download` takes it from there. Otherwise (another
architecture, lists that are old or were never fetched) a private set of lists is made with the host's sources and
keys. Neither needs root, neither installs anything, and signatures are always checked.
"""

import contextlib
import itertools
import re
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from woodlot import process, settings
from woodlot.errors import IntegrityError, NotFoundError, WoodlotError
from woodlot.kernel import catalog, deb, modules
from woodlot.kernel.catalog import Kernel
from woodlot.paths import Paths
from woodlot.progress import NoProgress, Progress
from woodlot.values import dataclass

_SIGNED = (
    "-o", "APT::Get::AllowUnauthenticated=false",
    "-o", "Acquire::AllowInsecureRepositories=false",
    "-o", "Acquire::Retries=3",
)  # fmt: skip
_SHOW_TIMEOUT_S = 60
_UPDATE_TIMEOUT_S = 300
_DOWNLOAD_TIMEOUT_S = 1800
_POLL_S = 0.2
# A metapackage depends on the image of the day; elsewhere (Ubuntu) the image depends on a package of its modules.
_PARTS = re.compile(r"linux-(image|modules)-[a-z0-9.+-]+")
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_NO_APT_HINT = "give a kernel yourself: container system kernel set --binary PATH"


def ensure_default(paths: Paths, arch: str, progress: Progress | None = None) -> Kernel:
    """The kernel to use for ``arch``; the recommended one is fetched if there is none.

    Raises:
        NotFoundError: There is none, and this host has no apt or its sources have no such package.
        WoodlotError: apt failed; details hold its last words.
    """
    found = catalog.default_kernel(paths, arch)
    return found or fetch(paths, arch, progress)


def fetch(paths: Paths, arch: str, progress: Progress | None = None) -> Kernel:
    """Fetch the recommended kernel and install it in the catalogue; if its newest version is there, only that is told.

    Raises:
        NotFoundError: This host has no apt, or its sources have no such package.
        WoodlotError: apt failed; details hold its last words.
    """
    package = settings.get_str("kernel.package").format(arch=arch)
    if not _PACKAGE_NAME.fullmatch(package):
        raise NotFoundError(f"kernel.package cannot be {package!r}")
    for program in ("apt-get", "apt-cache"):
        process.find_binary(program, hint=_NO_APT_HINT)
    with tempfile.TemporaryDirectory(prefix="woodlot-kernel-") as scratch:
        directory = Path(scratch)
        # apt drops root's rights to a user of its own, which must get here.
        directory.chmod(0o755)
        parts = _download(package, arch, directory, progress or NoProgress())
        return _install(paths, arch, parts, directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A package as apt's lists describe it."""

    name: str
    version: str
    size: int
    depends: tuple[str, ...]


def _download(
    package: str, arch: str, directory: Path, progress: Progress
) -> tuple[tuple[_Part, Path], ...]:
    try:
        return _download_with(_SIGNED, package, arch, directory, progress)
    except WoodlotError as first:
        # Old lists name packages that the mirrors no longer have: fresh ones of our own then.
        options = (*_SIGNED, *_private_state(arch, directory))
        progress.start("kernel-lists", "Reading Debian's package lists")
        try:
            process.run(
                ["apt-get", *options, "update", "-q"],
                timeout_s=_UPDATE_TIMEOUT_S,
                error=WoodlotError,
            )
            progress.finish("kernel-lists")
            return _download_with(options, package, arch, directory, progress)
        except WoodlotError as second:
            progress.finish("kernel-lists", "failed")
            second.details = "\n".join(
                filter(None, (second.details, "before that:", first.details))
            )
            second.hint = second.hint or _NO_APT_HINT
            raise


def _private_state(arch: str, directory: Path) -> tuple[str, ...]:
    """Options that give apt lists of its own, for one architecture, with the host's sources and keys."""
    state, cache = directory / "state", directory / "cache"
    (state / "lists/partial").mkdir(parents=True)
    (cache / "archives/partial").mkdir(parents=True)
    (directory / "status").touch()
    return (
        "-o", f"Dir::State={state}",
        "-o", f"Dir::State::status={directory / 'status'}",
        "-o", f"Dir::Cache={cache}",
        "-o", f"APT::Architecture={arch}",
        "-o", f"APT::Architectures={arch}",
        "-o", "Acquire::Languages=none",
    )  # fmt: skip


def _download_with(
    options: Sequence[str], package: str, arch: str, directory: Path, progress: Progress
) -> tuple[tuple[_Part, Path], ...]:
    parts = _resolve(options, package, arch)
    into = directory / "download"
    into.mkdir(exist_ok=True)
    total = sum(part.size for part in parts)
    with _told(progress, into, f"Fetching kernel {package}", total):
        process.run(
            ["apt-get", *options, "download", "-q", *(f"{part.name}:{arch}={part.version}" for part in parts)],
            timeout_s=_DOWNLOAD_TIMEOUT_S,
            cwd=into,
        )  # fmt: skip
    found: list[tuple[_Part, Path]] = []
    for part in parts:
        files = sorted(into.glob(f"{part.name}_*.deb"))
        if not files:
            raise NotFoundError(f"apt-get did not fetch {part.name}")
        found.append((part, files[-1]))
    return tuple(found)


def _resolve(options: Sequence[str], package: str, arch: str) -> tuple[_Part, ...]:
    """The packages that hold the kernel which ``package`` is or stands for; itself first."""
    parts: dict[str, _Part] = {}
    queue = [package]
    while queue:
        name = queue.pop(0)
        if name not in parts:
            parts[name] = _show(options, name, arch)
            queue += [other for other in parts[name].depends if _PARTS.fullmatch(other)]
    # A metapackage holds no files worth fetching.
    return tuple(part for part in parts.values() if len(parts) == 1 or part.name != package)


def _show(options: Sequence[str], name: str, arch: str) -> _Part:
    try:
        shown = process.run(
            ["apt-cache", *options, "show", "--no-all-versions", f"{name}:{arch}"],
            timeout_s=_SHOW_TIMEOUT_S,
        ).stdout
    except WoodlotError as error:
        raise NotFoundError(
            f"no package {name} for {arch} in this host's package sources",
            details=error.details,
            hint=f"{_NO_APT_HINT}, or name another package in the setting kernel.package",
        ) from error
    fields = parse_control(shown)
    depends = itertools.chain.from_iterable(
        re.findall(r"[a-z0-9][a-z0-9.+-]+", entry)[:1]
        for entry in fields.get("Depends", "").split(",")
    )
    size = fields.get("Size", "0")
    if not fields.get("Version"):
        raise NotFoundError(f"no package {name} for {arch} in this host's package sources")
    return _Part(
        name=name,
        version=fields["Version"],
        size=int(size) if size.isdigit() else 0,
        depends=tuple(depends),
    )


def parse_control(text: str) -> dict[str, str]:
    """Fields of the first paragraph of a Debian control file; continuation lines are left out."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if fields:
                break
            continue
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(key, value.strip())
    return fields


@contextlib.contextmanager
def _told(progress: Progress, directory: Path, label: str, total: int) -> Generator[None]:
    """Tell how much lies in ``directory`` while the block runs: apt says nothing that a program can read."""
    done = threading.Event()

    def watch() -> None:
        seen = 0
        while not done.wait(_POLL_S):
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
                progress.advance("kernel", max(0, size - seen))
                seen = max(seen, size)

    progress.start("kernel", label, total=total or None)
    thread = threading.Thread(target=watch, name="kernel-progress", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        progress.finish("kernel", "failed")
        raise
    done.set()
    thread.join()
    progress.finish("kernel")


def _install(
    paths: Paths, arch: str, parts: Sequence[tuple[_Part, Path]], directory: Path
) -> Kernel:
    packed = directory / "packed"
    packed.mkdir()
    found = deb.Unpacked()
    for _, package in parts:
        deb.unpack(package, packed, found)
    if found.image is None:
        names = ", ".join(part.name for part, _ in parts)
        raise IntegrityError(f"there is no kernel in {names}", hint=_NO_APT_HINT)
    unpacked = directory / "modules"
    unpacked.mkdir()
    order = _unpack_modules(found, unpacked)
    part = parts[0][0]
    return catalog.install(
        paths,
        name=f"{catalog.DEBIAN_PREFIX}{found.release.removesuffix(f'-{arch}')}-{arch}".lower(),
        release=found.release,
        arch=arch,
        origin=f"{part.name} {part.version}",
        image=found.image,
        modules=[unpacked / f"{name}.ko" for name in order],
    )


def _unpack_modules(found: deb.Unpacked, into: Path) -> tuple[str, ...]:
    """Decompress into ``into`` what a guest needs, as NAME.ko; the names in load order."""
    contents: dict[str, bytes] = {}
    available: dict[str, modules.ModuleInfo] = {}

    def read(name: str) -> None:
        path = found.modules.get(name)
        if path is None or name in available:
            return
        contents[name] = modules.decompress(path.name, path.read_bytes())
        available[name] = modules.parse_modinfo(contents[name])
        for other in (*available[name].soft_before, *available[name].depends):
            read(other)

    for name in modules.DRIVERS:
        read(name)
    order = modules.load_order(available, found.builtin)
    for name in order:
        (into / f"{name}.ko").write_bytes(contents[name])
    return order
