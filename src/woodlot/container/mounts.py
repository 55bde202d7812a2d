"""``-v``, ``--mount`` and ``--tmpfs``: what people write, as mounts of a container's spec. The rules are Docker's."""

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from woodlot.container.options import parse_tmpfs
from woodlot.container.spec import Mount, Tmpfs
from woodlot.errors import ConfigError
from woodlot.store.volumes import NAME as VOLUME_NAME
from woodlot.units import parse_size

# A guest's one PCI bus has 32 slots, and some are taken.
MAX_SHARES = 16
_SYSTEM = ("/proc", "/sys")
_VOLUME_HINT = (
    "write SOURCE:DESTINATION[:ro], with a source that begins with / or ./, or a volume's name"
)
# What Docker knows and what changes nothing here: a container's mounts are its own, and there is no SELinux label.
_NO_EFFECT = frozenset(
    {"z", "Z", "rw", "private", "rprivate", "cached", "delegated", "consistent", "default"}
)
_KEYS = {
    "src": "source",
    "dst": "destination",
    "target": "destination",
    "ro": "readonly",
}


class Mounts(NamedTuple):
    """What a container is given beside its root filesystem; no destination comes twice."""

    shared: tuple[Mount, ...]
    tmpfs: tuple[Tmpfs, ...]


def build_mounts(
    volumes: Iterable[str],
    mounts: Iterable[str],
    tmpfs: Iterable[str],
    *,
    directory: Path,
    image_volumes: Iterable[str] = (),
) -> Mounts:
    """All mounts that the flags ask for; those that the image declares give way to them.

    Args:
        volumes: Values of ``-v``.
        mounts: Values of ``--mount``.
        tmpfs: Values of ``--tmpfs``.
        directory: What relative sources are relative to.
        image_volumes: Destinations.

    Raises:
        ConfigError: A value is not valid, or two mounts have one destination.
    """
    shared = [parse_volume(text, directory=directory) for text in volumes]
    memory = [parse_tmpfs(text) for text in tmpfs]
    for text in mounts:
        parsed = parse_mount(text, directory=directory)
        if isinstance(parsed, Tmpfs):
            memory.append(parsed)
        else:
            shared.append(parsed)
    shared = [_recognise(mount) for mount in shared]
    taken: set[str] = set()
    for destination in [
        *(mount.destination for mount in shared),
        *(mount.destination for mount in memory),
    ]:
        if destination in taken:
            raise ConfigError(
                f"two mounts have the destination {destination}",
                hint="give each -v, --mount and --tmpfs a destination of its own",
            )
        taken.add(destination)
    for text in image_volumes:
        # An image's mistake is not the user's: what cannot be mounted is left out.
        destination = _normal(text)
        if (
            text.startswith("/")
            and destination not in {"/", *taken}
            and not _is_system(destination)
        ):
            taken.add(destination)
            shared.append(Mount(type="volume", source="", destination=destination, anonymous=True))
    devices = {m.source or m.destination for m in shared if m.type != "socket"}
    if len(devices) > MAX_SHARES:
        raise ConfigError(
            f"a container can have at most {MAX_SHARES} volumes and shared files",
            hint="share a directory that holds several of them",
        )
    return Mounts(tuple(shared), tuple(memory))


def _recognise(mount: Mount) -> Mount:
    """The mount, as what it is if its source is a socket: nobody but the host's kernel could share it as a file."""
    if mount.type == "bind" and Path(mount.source).is_socket():
        return replace(mount, type="socket", make_source=False)
    return mount


def check_sources(mounts: Sequence[Mount]) -> None:
    """See that what is shared can be, before anything is fetched or made.

    Raises:
        NotFoundError: A source is missing and is not to be made.
        ConfigError: A source is of a kind that cannot be shared.
    """
    for mount in mounts:
        if mount.type == "bind":
            path = Path(mount.source)
            if not (mount.make_source and not path.is_symlink() and not path.exists()):
                from woodlot.files.share import check_source

                is_file = check_source(path, what=f"the mount at {mount.destination}")
                if is_file and mount.watch:
                    raise ConfigError(
                        f"the mount at {mount.destination}: {path} is a single file, which cannot be watched",
                        hint="share the directory that holds it, or leave out watch",
                    )


def parse_volume(text: str, *, directory: Path) -> Mount:
    """A mount from ``[SOURCE:]DESTINATION[:OPTIONS]``.

    Raises:
        ConfigError: It is no such thing.
    """
    parts = text.split(":")
    if "" in parts or len(parts) > 3 or "\0" in text:
        raise ConfigError(f"-v cannot be {text!r}", hint=_VOLUME_HINT)
    if len(parts) == 1:
        destination = parse_destination(parts[0], what="-v")
        return Mount(type="volume", source="", destination=destination, anonymous=True)
    destination = parse_destination(parts[1], what="-v")
    mount = _from_source(parts[0], destination, directory)
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option == "ro":
            mount = replace(mount, read_only=True)
        elif option == "nocopy" and mount.type == "volume":
            mount = replace(mount, copy=False)
        elif option == "watch" and mount.type == "bind":
            mount = replace(mount, watch=True)
        elif option not in _NO_EFFECT:
            raise ConfigError(
                f"-v {text}: there is no option {option!r}",
                hint="ro, rw, nocopy for a volume, and watch for a directory",
            )
    return mount


def _from_source(source: str, destination: str, directory: Path) -> Mount:
    if source.startswith(("/", "./", "../")) or source in {".", ".."}:
        return Mount(
            type="bind",
            source=posixpath.normpath(posixpath.join(str(directory), source)),
            destination=destination,
            make_source=True,
        )
    return Mount(type="volume", source=check_volume_name(source, "-v"), destination=destination)


def check_volume_name(name: str, what: str) -> str:
    """A volume's name: letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit, 2 to 128 of them.

    Raises:
        ConfigError: It is no such name.
    """
    if VOLUME_NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{what}: a volume cannot be named {name!r}",
            hint="use 2 to 128 letters, digits, '_', '.' and '-'; for a directory of the host write its whole path"
            + (f", or ./{name}" if not name.startswith("~") else ""),
        )
    return name


def parse_destination(text: str, *, what: str) -> str:
    """A path in the container, in its shortest form.

    Raises:
        ConfigError: It is not absolute, or nothing can be mounted there.
    """
    if not text.startswith("/"):
        raise ConfigError(
            f"{what}: the destination must be absolute, got {text!r}", hint=_VOLUME_HINT
        )
    path = _normal(text)
    if path == "/":
        raise ConfigError(f"{what}: the destination cannot be /", hint="choose a path below it")
    if _is_system(path):
        raise ConfigError(
            f"{what}: the destination cannot be {path}", hint="/proc and /sys are the kernel's"
        )
    return path


def _normal(path: str) -> str:
    # POSIX gives two leading slashes a meaning, which Linux does not.
    return "/" + posixpath.normpath(path).lstrip("/")


def _is_system(path: str) -> bool:
    return any(path == name or path.startswith(name + "/") for name in _SYSTEM)


def parse_mount(text: str, *, directory: Path) -> Mount | Tmpfs:
    """A mount from ``type=bind|volume|tmpfs,source=…,target=…[,readonly]…``, with quotes as in CSV.

    Raises:
        ConfigError: It is no such thing.
    """
    fields = _fields(text)
    kind = fields.pop("type", "volume")
    destination = parse_destination(fields.pop("destination", ""), what=f"--mount {text}")
    read_only = _flag(fields, "readonly", text)
    match kind:
        case "bind":
            mount: Mount | Tmpfs = _bind(fields, text, destination, directory, read_only=read_only)
        case "volume":
            name = fields.pop("source", "")
            mount = Mount(
                type="volume",
                source=check_volume_name(name, "--mount") if name else "",
                destination=destination,
                read_only=read_only,
                copy=not _flag(fields, "volume-nocopy", text),
                anonymous=not name,
            )
        case "tmpfs":
            mount = _tmpfs(fields, text, destination, read_only=read_only)
        case _:
            raise ConfigError(
                f"--mount {text}: there is no type {kind!r}", hint="bind, volume or tmpfs"
            )
    fields.pop("consistency", None)
    if fields:
        raise ConfigError(f"--mount {text}: a {kind} mount has no option {next(iter(fields))!r}")
    return mount


def _bind(
    fields: dict[str, str], text: str, destination: str, directory: Path, *, read_only: bool
) -> Mount:
    source = fields.pop("source", "")
    if not source.startswith(("/", "./", "../")) and source not in {".", ".."}:
        raise ConfigError(
            f"--mount {text}: the source must begin with / or ./, got {source!r}",
            hint="write type=bind,source=/path,target=/path",
        )
    if fields.pop("bind-propagation", "rprivate") not in {"private", "rprivate"}:
        raise ConfigError(
            f"--mount {text}: mounts are not propagated to or from a virtual machine",
            hint="leave out bind-propagation",
        )
    return Mount(
        type="bind",
        source=posixpath.normpath(posixpath.join(str(directory), source)),
        destination=destination,
        read_only=read_only,
        watch=_flag(fields, "watch", text),
    )


def _tmpfs(fields: dict[str, str], text: str, destination: str, *, read_only: bool) -> Tmpfs:
    options = ["ro"] if read_only else []
    if "tmpfs-size" in fields:
        options.append(f"size={parse_size(fields.pop('tmpfs-size'), what='tmpfs-size')}")
    if "tmpfs-mode" in fields:
        mode = fields.pop("tmpfs-mode")
        if re.fullmatch("[0-7]{1,5}", mode) is None:
            raise ConfigError(f"--mount {text}: {mode!r} is no mode", hint="for example 1777")
        options.append(f"mode={mode}")
    return Tmpfs(destination=destination, options=tuple(options))


def _fields(text: str) -> dict[str, str]:
    import csv

    if "\0" in text or "\n" in text:
        raise ConfigError(f"--mount cannot be {text!r}")
    fields: dict[str, str] = {}
    for field in next(csv.reader([text]), list[str]()):
        key, equals, value = field.partition("=")
        key = _KEYS.get(key.strip().lower(), key.strip().lower())
        if key in fields:
            raise ConfigError(f"--mount {text}: {key} is given twice")
        if not key or (not equals and key not in {"readonly", "volume-nocopy", "watch"}):
            raise ConfigError(
                f"--mount {text}: {field!r} is not KEY=VALUE",
                hint="write type=bind,source=/path,target=/path[,readonly]",
            )
        fields[key] = value if equals else "true"
    return fields


def _flag(fields: dict[str, str], name: str, text: str) -> bool:
    value = fields.pop(name, "false").lower()
    if value not in {"true", "false", "1", "0"}:
        raise ConfigError(f"--mount {text}: {name} must be true or false, got {value!r}")
    return value in {"true", "1"}
