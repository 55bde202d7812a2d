"""What a container is: one frozen value, stored as JSON in its record and read back whole."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


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
class ProcessSpec:
    """The container's first process."""

    args: tuple[str, ...]
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
    network: str = "default"
    read_only: bool = False
    tmpfs: tuple[Tmpfs, ...] = ()
    shm_bytes: int = 64 << 20
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    kernel: str | None = None
    """Absolute path of a kernel file; None for the default kernel."""
    kernel_args: tuple[str, ...] = ()
    remove: bool = False
    """Delete the container when it ends."""
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
        fields["tmpfs"] = tuple(
            Tmpfs(destination=mount["destination"], options=tuple(mount["options"]))
            for mount in fields["tmpfs"]
        )
        for name in ("cap_add", "cap_drop", "kernel_args"):
            fields[name] = tuple(fields[name])
        return cls(**fields)
