"""What can be asked of a new container, by keywords."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from woodlot.aio.images import Scheme
    from woodlot.container.create import Request
    from woodlot.progress import Progress


class Options(TypedDict, total=False):
    """What is left out is as the image says, and then as the settings do; texts are those of ``container run``'s flags."""

    name: str | None
    """Of the container."""
    entrypoint: str | None
    """In place of the image's entrypoint and command."""
    env: Mapping[str, str]
    """Variables over the image's own."""
    user: str | None
    """``name|uid[:group|gid]`` in place of the image's."""
    cwd: str | None
    """Working directory in place of the image's."""
    network: str | Sequence[str]
    """``none`` for no network at all; ``NAME[,alias=…,ip=…,mac=…]``, or several."""
    egress: str | None
    """What it may reach beyond the network: ``all``, ``none`` or ``allow=example.org,198.51.100.0/24:443``."""
    ports: Sequence[str]
    """Ports of the host that lead to it, as ``127.0.0.1:8080:80``."""
    publish_sockets: Sequence[str]
    """Unix sockets of the host that lead to the container's, ``/host/path:/path``."""
    hostname: str | None
    hosts: Sequence[str]
    """Lines for /etc/hosts, ``name:ip``."""
    dns: Sequence[str]
    """Resolvers for names beyond the networks."""
    cpus: float | None
    """May be a fraction."""
    memory: str | None
    """As ``512m`` or ``2g``."""
    read_only: bool
    """Its root filesystem cannot be written."""
    tmpfs: Sequence[str]
    """Memory filesystems, ``/path[:options]``."""
    volumes: Sequence[str]
    """Files of the host and volumes: ``/host/path:/path[:ro]``, ``name:/path``."""
    mounts: Sequence[str]
    """The same at length: ``type=bind,source=…,target=…``."""
    shm_size: str | None
    """Of /dev/shm."""
    ulimits: Sequence[str]
    """``nofile=1024:2048``."""
    cap_add: Sequence[str]
    """Capabilities over Docker's default."""
    cap_drop: Sequence[str]
    """Capabilities to take away."""
    labels: Mapping[str, str] | Sequence[str]
    init: bool
    """Run a small init that reaps and forwards signals."""
    ssh: bool
    """Let it use your SSH agent."""
    kernel: Path | None
    """A kernel file to boot."""
    platform: str | None
    """As ``linux/arm64``; None is the host's."""
    scheme: "Scheme"
    """How the registry is spoken to, as for `Images.pull`."""
    progress: "Progress | None"
    """Told of the pull."""


_FETCHING = ("platform", "scheme", "progress")
_RENAMED = {"cwd": "workdir", "network": "networks"}


def build_request(
    args: Sequence[str],
    options: Options,
    *,
    interactive: bool,
    remove: bool,
    restart: str | None = None,
) -> "Request":
    """What the options ask for, but for what is about the pull.

    Raises:
        TypeError: There is no such option.
    """
    from woodlot.container.create import Request

    if isinstance(args, str):
        raise TypeError(f"the arguments of a process are a list, not {args!r}")
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise TypeError(f"there is no option {unknown[0]!r} of a container")
    fields: dict[str, object] = {
        _RENAMED.get(key, key): _frozen(value)
        for key, value in options.items()
        if key not in _FETCHING
    }
    for name in ("networks", "egress"):
        if isinstance(text := fields.get(name, ()), str | None):
            fields[name] = (text,) if text else ()
    return Request(
        **fields,  # type: ignore[arg-type]
        args=tuple(args),
        interactive=interactive,
        remove=remove,
        restart=restart,
    )


def _frozen(value: object) -> object:
    """As a request has it: mappings are ``key=value``, what there may be several of are tuples."""
    if isinstance(value, Mapping):
        return tuple(f"{key}={text}" for key, text in value.items())  # pyright: ignore[reportUnknownVariableType]
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
