"""What a container is: one frozen value, stored as JSON in its record and read back whole."""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any, Literal, Self

from woodlot.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit, as setrlimit(2) takes it; ``2**64 - 1`` is unlimited."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """A memory filesystem at an absolute path of the container."""

    destination: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Files or a socket of the host, or a volume, at an absolute path of the container."""

    type: Literal["bind", "volume", "socket"]
    source: str
    """Of a volume: its name. Else an absolute path of the host."""
    destination: str
    read_only: bool = False
    make_source: bool = False
    """Of a bind: make a directory if nothing is there."""
    copy: bool = True
    """Of a volume: filled, when it is first used, with what the image has there."""
    anonymous: bool = False
    """A volume made for this container."""
    watch: bool = False
    """Of a bind: what changes on the host raises events in the container, if it is a directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """The container's first process."""

    args: tuple[str, ...]
    entrypoint_args: int = 0
    """How many of them are the entrypoint; the others are the command."""
    env: tuple[str, ...] = ()
    """``NAME=value``, each name once."""
    cwd: str = "/"
    user: str = ""
    """As in ``--user``; resolved in the guest against the image's files."""
    tty: bool = False
    stdin: bool = False
    capabilities: tuple[str, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    init: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """One more process in a running container; what is left empty is as for the container's own."""

    id: str
    """Unique among the container's processes."""
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    """``NAME=value``, over the container's own; ``NAME`` takes one of those away."""
    cwd: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network that the container is attached to; what is left empty is chosen."""

    network: str
    """Its name."""
    aliases: tuple[str, ...] = ()
    """More names of the container there."""
    ip: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """A port of the host that leads to one of the container."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    """Empty for every address of the host."""
    host_port: int = 0
    """0 for one that is free."""
    last_host_port: int = 0
    """The end of a range to choose from; 0 for ``host_port`` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSpec:
    """A Unix socket of the host that leads to one of the container."""

    host_path: str
    """Absolute."""
    container_path: str
    """Absolute; resolved at each connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSpec:
    """How the container resolves names; None leaves it as the host has it."""

    nameservers: tuple[str, ...] = ()
    """Asked for names beyond the network, in place of the host's resolvers."""
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    enabled: bool = True
    """Without it, resolv.conf is left as the image has it."""
    hosts: tuple[tuple[str, str], ...] = ()
    """Name and address, for /etc/hosts; the address may be `HOST_GATEWAY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Whether the container is started again when it has ended, as `woodlot.container.restart` decides."""

    name: Literal["no", "always", "unless-stopped", "on-failure"] = "no"
    max_retries: int = 0
    """Of ``on-failure``; 0 for no limit."""

    def __str__(self) -> str:
        return f"{self.name}:{self.max_retries}" if self.max_retries else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSpec:
    """How the container is asked whether it is well."""

    args: tuple[str, ...]
    """Of the process that is run in it; it is well if that ends with 0."""
    interval_s: float = 30.0
    """From the end of one probe to the next."""
    timeout_s: float = 30.0
    retries: int = 3
    """Failures in a row until it is called unhealthy."""
    start_period_s: float = 0.0
    """After its start, in which failures do not count until a probe has succeeded."""
    start_interval_s: float = 5.0
    """In place of ``interval_s``, in that period."""


HOST_GATEWAY = "host-gateway"
"""In the place of an address: the one that stands for the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container, whole: image, process and machine."""

    id: str
    name: str
    image: str
    """Canonical reference it was made from."""
    image_digest: str
    """Digest of the platform's manifest."""
    platform: str
    rootfs: str
    """Absolute path of the EROFS image."""
    process: ProcessSpec
    cpus: float
    memory_bytes: int
    disk_bytes: int
    hostname: str
    networks: tuple[NetworkSpec, ...] = ()
    """The first one with a way out has the default route; none for a container without network."""
    egress: str = ""
    """What it may reach beyond its networks, as `woodlot.network.egress`; empty for what each of them says."""
    ports: tuple[PortSpec, ...] = ()
    sockets: tuple[SocketSpec, ...] = ()
    ssh: bool = False
    """Let it use the SSH agent of whoever starts it."""
    dns: DnsSpec = field(default_factory=DnsSpec)
    read_only: bool = False
    tmpfs: tuple[Tmpfs, ...] = ()
    mounts: tuple[Mount, ...] = ()
    shm_bytes: int = 64 << 20
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    kernel: str | None = None
    """Absolute path of a kernel file; None for the default kernel."""
    kernel_args: tuple[str, ...] = ()
    remove: bool = False
    """Delete the container when it ends."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: HealthSpec | None = None
    stop_signal: str = "SIGTERM"
    created_at: float = 0.0
    """Seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """The value as JSON types; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value that `to_json` wrote.

        Raises:
            TypeError: A field is missing or unknown: the record was written by another version.
        """
        fields = dict(data)
        process = dict(fields["process"])
        process["rlimits"] = tuple(Rlimit(**limit) for limit in process["rlimits"])
        for name in ("args", "env", "capabilities"):
            process[name] = tuple(process[name])
        fields["process"] = ProcessSpec(**process)
        # Before networks had names there was one for each container.
        former = fields.pop("network", "none")
        networks = fields.get("networks", () if former == "none" else ({"network": former},))
        fields["networks"] = tuple(_network(network) for network in networks)
        fields["ports"] = tuple(PortSpec(**port) for port in fields.get("ports", ()))
        fields["sockets"] = tuple(SocketSpec(**one) for one in fields.get("sockets", ()))
        fields["dns"] = _dns(fields.get("dns", {}))
        if health := fields.get("health"):
            values: dict[str, Any] = {**health, "args": tuple(health["args"])}
            fields["health"] = HealthSpec(**values)
        fields["restart"] = RestartPolicy(**fields.get("restart", {}))
        fields["tmpfs"] = tuple(
            Tmpfs(destination=mount["destination"], options=tuple(mount["options"]))
            for mount in fields["tmpfs"]
        )
        fields["mounts"] = tuple(Mount(**mount) for mount in fields.get("mounts", ()))
        for name in ("cap_add", "cap_drop", "kernel_args"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def _network(fields: Mapping[str, Any]) -> NetworkSpec:
    values: dict[str, Any] = {**fields, "aliases": tuple(fields.get("aliases", ()))}
    return NetworkSpec(**values)


def _dns(fields: Mapping[str, Any]) -> DnsSpec:
    values = dict(fields)
    for name in ("nameservers", "search", "options"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    values["hosts"] = tuple((name, address) for name, address in values.get("hosts", ()))
    return DnsSpec(**values)
